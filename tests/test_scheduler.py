"""The decider of what may start, alone: any steps on any graph, against a model that counts nothing down.

The model knows what each node needs and how each has ended, and finds everything else anew each time. Numbers in the names
are ARCHITECTURE's invariants: 2, a node starts at most once; 3, each ends in exactly one result, as blocked after a failed
requirement; 4, deciders are pure.
"""

from __future__ import annotations

import copy
import random
from graphlib import TopologicalSorter
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from woflo._cycles import find_cycle
from woflo._scheduler import Cyclic, Scheduler
from woflo.errors import InternalError

IDLE, RUNNING, SUCCEEDED, FAILED, DROPPED = "waiting", "running", "succeeded", "failed", "dropped"
ENDED = {SUCCEEDED, FAILED, DROPPED}


class Model:
    """What the steps so far mean."""

    def __init__(self):
        self.needs = []
        self.state = []
        self.started = []  # how often `ready` has handed it out
        self.spliced = []  # how often it turned out to stand for another
        self.doomed = set()  # handed out to be told that it has failed
        self.bad = set()  # something that it needed had failed, and is forgotten
        self.ranks = None
        self.turn = {}  # ready node -> the step at which it became so
        self.step = 0

    def fit(self, *, good):
        """Idle nodes whose needs have all ended, well (to be started) or not (blocked)."""
        return {
            number
            for number, state in enumerate(self.state)
            if state == IDLE
            and all(self.state[need] in ENDED for need in self.needs[number])
            and (number not in self.bad and all(self.state[need] == SUCCEEDED for need in self.needs[number])) == good
        }

    def after_step(self):
        self.step += 1
        ready = self.fit(good=True)
        self.turn = {number: self.turn.get(number, self.step) for number in ready}

    def all_needing(self, numbers):
        """These and all unfinished nodes that need them, directly or not."""
        found = set(numbers)
        while True:
            more = {
                number
                for number, state in enumerate(self.state)
                if number not in found and state not in ENDED and found & set(self.needs[number])
            }
            if not more:
                return found
            found |= more

    def forget(self, old):
        """Only these are left, and are numbered anew."""
        new = {number: at for at, number in enumerate(old)}
        lost = {number for number in range(len(self.state)) if number not in new and self.state[number] != SUCCEEDED}
        bad = self.bad | {number for number in old if lost & set(self.needs[number])}
        self.needs = [[new[need] for need in self.needs[number] if need in new] for number in old]
        self.bad = {new[number] for number in bad if number in new}
        self.doomed = {new[number] for number in self.doomed}
        self.turn = {new[number]: turn for number, turn in self.turn.items()}
        for name in ("state", "started", "spliced", "ranks"):
            known = getattr(self, name)
            setattr(self, name, known and [known[number] for number in old])

    def rank(self, seconds):
        """The longest path that follows each unfinished node, itself included."""
        ranks = {}

        def of(number):
            if number not in ranks:
                users = {
                    one for one, row in enumerate(self.needs) if number in row and self.state[one] not in ENDED
                } - {number}
                ranks[number] = seconds[number] + max((of(one) for one in users), default=0)
            return ranks[number]

        self.ranks = [of(number) for number in range(len(self.needs))]


def inside(scheduler):
    """All that a scheduler remembers."""
    return {name: copy.deepcopy(getattr(scheduler, name)) for name in Scheduler.__slots__}


class AnySteps(RuleBasedStateMachine):
    """Whatever is told and asked, in any order, the scheduler agrees with the model, and with its twin."""

    def __init__(self):
        super().__init__()
        self.scheduler, self.twin = Scheduler(), Scheduler()
        self.model = Model()
        self.ordered_only = True

    def both(self, method, *given, **named):
        """The same step on both; their answers are the same, and what they were given is as it was."""
        before = copy.deepcopy(given)
        answer = getattr(self.scheduler, method)(*given, **named)
        assert getattr(self.twin, method)(*copy.deepcopy(given), **named) == answer
        assert given == before
        return answer

    def refused(self, error, method, *given):
        """Both refuse the step, and nothing has changed."""
        before = inside(self.scheduler)
        for one in (self.scheduler, self.twin):
            with pytest.raises(error) as caught:
                getattr(one, method)(*given)
        assert inside(self.scheduler) == before
        return caught.value

    def running(self, *, doomed):
        model = self.model
        return [n for n, state in enumerate(model.state) if state == RUNNING and (n in model.doomed) == doomed]

    # ------------------------------------------------------------------ extend

    @initialize(data=st.data())
    def begin(self, data):
        self.extend(data)

    @rule(data=st.data())
    def extend(self, data):
        """New nodes that need any before them, and each other."""
        model = self.model
        first = len(model.needs)
        if first > 40:
            return
        count = data.draw(st.integers(0, 6))
        ordered = data.draw(st.booleans())
        order = data.draw(st.permutations(range(count)))  # in which their needs can be ordered
        rows = [[] for _ in range(count)]
        for at, one in enumerate(order):
            known = [*range(first), *(first + other for other in (range(one) if ordered else order[:at]))]
            if known:
                rows[one] = data.draw(st.lists(st.sampled_from(known), max_size=4))
        if ordered and data.draw(st.booleans()):
            for scheduler in (self.scheduler, self.twin):
                scheduler.extend((row for row in rows), ordered=True)
        else:
            self.both("extend", rows)
        model.needs += rows
        model.state += [IDLE] * count
        model.started += [0] * count
        model.spliced += [0] * count
        if model.ranks is not None:
            model.ranks += [0] * count
        model.after_step()

    @rule(data=st.data())
    def extend_in_a_circle(self, data):
        """Rows that need each other are refused as a whole, and what can't be ordered is named."""
        first = len(self.model.needs)
        length = data.draw(st.integers(1, 4))
        extra = data.draw(st.lists(st.lists(st.integers(0, first + length - 1), max_size=3), max_size=3))
        rows = [[first + (at + 1) % length] for at in range(length)] + extra
        error = self.refused(Cyclic, "extend", rows)
        assert {first + at for at in range(length)} <= set(error.needs)
        assert all(rows[number - first] == row for number, row in error.needs.items())
        assert find_cycle(error.needs)

    @rule(number=st.integers(1, 3))
    def extend_with_a_stranger(self, number):
        """A number that no node has is refused, and nothing is added."""
        first = len(self.model.needs)
        self.refused(IndexError, "extend", [[], [first + 1 + number]])
        self.refused(IndexError, "extend", [[], [-1]])

    # ------------------------------------------------------------------ ready, blocked, done

    @rule(limit=st.none() | st.integers(0, 4))
    def ready(self, limit):
        """What may start is handed out, first come first served or by rank, at most so many; each once (2)."""
        model = self.model
        fit = model.fit(good=True)
        taken = self.both("ready", limit)
        assert len(taken) == (len(fit) if limit is None else min(limit, len(fit)))
        assert len(set(taken)) == len(taken)
        assert set(taken) <= fit
        left = fit - set(taken)
        if model.ranks is None:
            turns = [model.turn[number] for number in taken]
            assert turns == sorted(turns)
            assert not turns or all(model.turn[number] >= turns[-1] for number in left)
        elif limit is not None:
            keys = [(-model.ranks[number], number) for number in taken]
            assert keys == sorted(keys)
            assert not keys or all((-model.ranks[number], number) > keys[-1] for number in left)
        for number in taken:
            model.state[number] = RUNNING
            model.started[number] += 1
            assert model.started[number] == model.spliced[number] + 1

    @rule()
    def blocked(self):
        """What has a failed requirement is handed out by `blocked`, all at once, and never by `ready` (3)."""
        model = self.model
        fit = model.fit(good=False)
        assert self.scheduler.has_blocked or not fit
        taken = self.both("blocked")
        assert len(taken) == len(set(taken))
        assert set(taken) == fit
        assert not self.scheduler.has_blocked
        for number in taken:
            model.state[number] = RUNNING
            model.doomed.add(number)

    @rule(data=st.data(), failed=st.booleans())
    def done(self, data, failed):
        """A node that was handed out ends, well or not; what was blocked has failed."""
        running = self.running(doomed=False)
        if running:
            self.end(data.draw(st.sampled_from(running)), failed)

    @rule(data=st.data())
    def done_as_blocked(self, data):
        """What was handed out only to be ended, ends."""
        doomed = self.running(doomed=True)
        if doomed:
            self.end(data.draw(st.sampled_from(doomed)), failed=True)

    def end(self, number, failed):
        self.both("done", number, failed=failed)
        self.model.state[number] = FAILED if failed else SUCCEEDED
        self.model.doomed.discard(number)
        self.model.after_step()

    @rule(data=st.data())
    def done_out_of_turn(self, data):
        """A node that wasn't handed out, or has ended, can't end (3); of one that was dropped it is no news."""
        state = self.model.state
        fit = self.model.fit(good=True) | self.model.fit(good=False)
        others = [number for number, one in enumerate(state) if one in {SUCCEEDED, FAILED} or number in fit]
        if others:
            number = data.draw(st.sampled_from(others))
            self.refused(InternalError, "done", number)
            self.refused(InternalError, "splice", number, 0)
        for number in [number for number, one in enumerate(state) if one == DROPPED][:3]:
            before = inside(self.scheduler)
            self.both("done", number)
            self.both("splice", number, 0)
            assert inside(self.scheduler) == before

    @rule(data=st.data(), failed=st.booleans())
    def done_while_it_waits(self, data, failed):
        """A node that still waits may be ended by somebody: it is then handed out by nobody (2)."""
        model = self.model
        fit = model.fit(good=True) | model.fit(good=False)
        waiting = [number for number, state in enumerate(model.state) if state == IDLE and number not in fit]
        if waiting:
            self.refused(InternalError, "splice", waiting[0], 0)
            number = data.draw(st.sampled_from(waiting))
            model.started[number] = model.spliced[number] + 1
            self.end(number, failed)

    # ------------------------------------------------------------------ splice, drop, release, rank

    @rule(data=st.data())
    def splice(self, data):
        """A node that runs stands for another one from now on; not for one that needs it."""
        model = self.model
        running = self.running(doomed=False)
        if not running:
            return
        number = data.draw(st.sampled_from(running))
        need = data.draw(st.integers(0, len(model.needs) - 1))
        if model.state[need] not in ENDED and need in model.all_needing([number]):
            error = self.refused(Cyclic, "splice", number, need)
            cycle = find_cycle(error.needs)
            assert len(cycle) == len(error.needs) == self.way_back(number, need)
            assert error.needs[number] == [need]
            links = [(one, other) for one, other in pairwise([*cycle, cycle[0]]) if one != number]
            assert all(other in model.needs[one] for one, other in links)
            return
        self.both("splice", number, need)
        model.needs[number] = [need]
        model.bad.discard(number)
        model.state[number] = IDLE
        model.spliced[number] += 1
        model.after_step()

    def way_back(self, number, need):
        """How many nodes a shortest way from `need` to `number` has, along what each needs."""
        steps, edge = 1, {need}
        while number not in edge:
            steps += 1
            edge = {other for one in edge if self.model.state[one] not in ENDED for other in self.model.needs[one]}
        return steps

    @rule(data=st.data())
    def drop(self, data):
        """What nobody wants ends as dropped, with all that needs it; what runs of it is told."""
        model = self.model
        if not model.needs:
            return
        some = data.draw(st.sets(st.integers(0, len(model.needs) - 1), max_size=3))
        unfinished = {number for number in some if model.state[number] not in ENDED}
        gone = model.all_needing(unfinished)
        if gone != unfinished:
            self.refused(InternalError, "drop", sorted(unfinished))
        told = self.both("drop", sorted(gone | some))
        assert told == sorted(number for number in gone if model.state[number] == RUNNING)
        for number in gone:
            model.state[number] = DROPPED
            model.doomed.discard(number)
        model.after_step()

    @rule()
    @precondition(lambda self: len(self.model.needs) > 20)
    def release(self):
        """Everything that waits is handed out, to be ended without having been started."""
        model = self.model
        fit = model.fit(good=True) | model.fit(good=False)
        taken = self.both("release")
        assert taken == [number for number, state in enumerate(model.state) if state == IDLE and number not in fit]
        for number in taken:
            model.state[number] = RUNNING
            model.doomed.add(number)
        model.after_step()

    @rule(data=st.data())
    def compact(self, data):
        """What has ended is forgotten, but for some, and the rest goes on under new numbers."""
        state = self.model.state
        keep = data.draw(st.lists(st.integers(0, len(state) - 1))) if state else []
        old = self.both("compact", keep) if keep else self.both("compact")
        assert old == [number for number in range(len(state)) if state[number] not in ENDED or number in keep]
        self.model.forget(old)

    @rule(data=st.data())
    def rank(self, data):
        """From now on the longest remaining path goes first."""
        count = len(self.model.needs)
        seconds = data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
        self.both("rank", seconds)
        self.model.rank(seconds)

    # ------------------------------------------------------------------ what holds always

    @invariant()
    def everything_agrees(self):
        """Invariants 2, 3 and 4, and the scheduler's own."""
        scheduler, model = self.scheduler, self.model
        scheduler.validate()
        assert inside(scheduler) == inside(self.twin)
        numbers = range(len(model.state))
        assert len(scheduler) == len(model.state)
        assert [scheduler.status(number) for number in numbers] == model.state
        assert [scheduler.has_ended(number) for number in numbers] == [state in ENDED for state in model.state]
        assert [scheduler.is_dropped(number) for number in numbers] == [state == DROPPED for state in model.state]
        unfinished = [number for number in numbers if model.state[number] not in ENDED]
        assert scheduler.unfinished() == unfinished
        assert (scheduler.left, scheduler.running) == (len(unfinished), model.state.count(RUNNING))
        assert scheduler.is_active() == bool(unfinished)
        assert all(
            model.started[number] <= model.spliced[number] + 1 and (model.started[number] or state != SUCCEEDED)
            for number, state in enumerate(model.state)
        )
        assert scheduler.waits or not model.fit(good=True)

    def teardown(self):
        """From wherever the steps have led, going on ends everything."""
        scheduler = self.scheduler
        for _ in range(len(self.model.state) + 1):
            for number in self.running(doomed=False):
                self.end(number, failed=False)
            for number in self.running(doomed=True):
                self.end(number, failed=True)
            self.ready(None)
            self.blocked()
            scheduler.validate()
        assert not scheduler.is_active()


TestAnySteps = AnySteps.TestCase
TestAnySteps.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestAnyStepsAtLength(AnySteps.TestCase):
    """The same, thousands of times."""

    settings = settings(max_examples=3000, stateful_step_count=80, deadline=None)


# ------------------------------------------------------------------ thousands of random graphs


def random_rows(rnd, count, *, ordered):
    """What each of `count` nodes needs; in an order that isn't the numbers', unless it is to be."""
    order = list(range(count))
    if not ordered:
        rnd.shuffle(order)
    rows = [[] for _ in range(count)]
    most = rnd.choice([1, 2, 5])
    for at, number in enumerate(order):
        rows[number] = [order[rnd.randrange(at)] for _ in range(rnd.randrange(most + 1))] if at else []
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_invariants_2_and_3_on_random_graphs(seed):
    """Carried out in any order, with failures, each node starts at most once and ends once; a failure reaches all above."""
    rnd = random.Random(seed)
    for _ in range(750):
        count = rnd.randrange(1, 40)
        ordered = rnd.random() < 0.5
        rows = random_rows(rnd, count, ordered=ordered)
        odds = rnd.choice([0, 0, 0.05, 0.3])
        scheduler = Scheduler()
        cut = rnd.randrange(count + 1) if ordered else count  # the rest is added while the first are at work
        scheduler.extend(rows[:cut], ordered=ordered)
        if rnd.random() < 0.3:
            scheduler.rank([rnd.random() for _ in range(cut)])
        started, ended, running = [], {}, []
        while scheduler.is_active() or cut < count:
            if cut < count and (not running or rnd.random() < 0.1):
                more = rnd.randrange(1, count - cut + 1)
                scheduler.extend(rows[cut : cut + more])
                cut += more
            got = scheduler.ready(rnd.choice([None, 1, 2]))
            started += got
            running += got
            for number in scheduler.blocked():
                assert any(ended[need] for need in rows[number])
                scheduler.done(number, failed=True)
                assert ended.setdefault(number, "blocked") == "blocked"
            if running:
                number = running.pop(rnd.randrange(len(running)))
                assert all(ended[need] == "" for need in rows[number])
                assert number not in ended
                ended[number] = "failed" if rnd.random() < odds else ""
                scheduler.done(number, failed=bool(ended[number]))
            scheduler.validate()
        assert len(started) == len(set(started))
        assert sorted(ended) == list(range(count))
        assert all((ended[number] == "blocked") == any(ended[need] for need in row) for number, row in enumerate(rows))
        assert set(started) == {number for number, how in ended.items() if how != "blocked"}


def test_graphlib_agrees():
    """Where nothing fails, each wave is graphlib's."""
    rnd = random.Random(5)
    for _ in range(1000):
        rows = random_rows(rnd, rnd.randrange(1, 40), ordered=False)
        scheduler, oracle = Scheduler(), TopologicalSorter(dict(enumerate(rows)))
        scheduler.extend(rows)
        oracle.prepare()
        while oracle.is_active():
            wave = scheduler.ready()
            assert sorted(wave) == sorted(oracle.get_ready())
            rnd.shuffle(wave)
            for number in wave:
                scheduler.done(number)
            oracle.done(*wave)
        assert not scheduler.is_active()


def test_in_order_or_not_is_the_same():
    """Rows known to be in order may come one by one; the scheduler is then what it is after a list."""
    rnd = random.Random(6)
    for _ in range(300):
        rows = random_rows(rnd, rnd.randrange(1, 30), ordered=True)
        one, other = Scheduler(), Scheduler()
        one.extend(iter(rows), ordered=True)
        other.extend(rows)
        assert inside(one) == inside(other)


# ------------------------------------------------------------------ one by one


def test_an_empty_scheduler():
    """Nothing to do is done."""
    scheduler = Scheduler()
    scheduler.extend([])
    scheduler.validate()
    assert not scheduler.is_active()
    assert scheduler.ready() == scheduler.blocked() == scheduler.release() == scheduler.unfinished() == []


def test_ranked_before_there_is_anything():
    """An order by rank that was asked of an empty scheduler holds for what is added."""
    scheduler = Scheduler()
    scheduler.rank([])
    scheduler.extend([[], [], [1]])
    scheduler.rank([1, 1, 1])
    assert scheduler.ready(1) == [1]


def test_what_is_dropped_lengthens_no_path():
    """A path that nobody wants any more doesn't put a node first."""
    scheduler = Scheduler()
    scheduler.extend([[], [], [0]])
    scheduler.drop([2])
    scheduler.rank([1, 2, 9])
    assert scheduler.ready(1) == [1]


def test_what_is_spliced_lengthens_the_path():
    """A later node that an earlier one stands for heads the path of that one's users."""
    scheduler = Scheduler()
    scheduler.extend([[], [], [0], []])
    assert scheduler.ready(1) == [0]
    scheduler.splice(0, 3)
    scheduler.rank([0, 5, 9, 1])
    assert scheduler.ready(1) == [3]


def test_a_need_twice():
    """A node that needs another twice waits for it once."""
    scheduler = Scheduler()
    scheduler.extend([[], [0, 0]])
    assert scheduler.ready() == [0]
    scheduler.done(0)
    scheduler.validate()
    assert scheduler.ready() == [1]


@pytest.mark.parametrize("shape", ["chain", "fan in", "fan out", "chain backwards"])
def test_large_shapes(shape):
    """100,000 nodes, deep or wide, are carried out without recursion, by rank too."""
    count = 100_000
    rows = {
        "chain": [[number - 1] if number else [] for number in range(count)],
        "chain backwards": [[number + 1] if number + 1 < count else [] for number in range(count)],
        "fan in": [[] for _ in range(count - 1)] + [[*range(count - 1)]],
        "fan out": [[]] + [[0]] * (count - 1),
    }[shape]
    scheduler = Scheduler()
    scheduler.extend(rows)
    scheduler.rank([1.0] * count)
    seen = 0
    while scheduler.is_active():
        for number in scheduler.ready():
            seen += 1
            scheduler.done(number)
    assert seen == count


def broken(change):
    scheduler = Scheduler()
    scheduler.extend([[], [0], [1], [0]])
    change(scheduler)
    return scheduler


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s._waiting.__setitem__(1, 0),
        lambda s: s._waiting.__setitem__(2, 3),
        lambda s: s._queue.append(1),
        lambda s: s._queue.clear(),
        lambda s: s._queue.append(0),
        lambda s: s._state.__setitem__(0, 4),
        lambda s: s._state.__setitem__(1, 1),
        lambda s: s._state.__setitem__(1, 2),
        lambda s: s._bad.__setitem__(0, 1),
        lambda s: s.children.__setitem__(0, None),
        lambda s: setattr(s, "left", 2),
        lambda s: setattr(s, "running", 1),
    ],
)
def test_validate_sees_what_is_broken(change):
    """`validate` would complain: the tests above mean something."""
    broken(lambda _: None).validate()
    with pytest.raises(InternalError):
        broken(change).validate()
