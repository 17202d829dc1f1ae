"""Raw rows in, a fitted line out."""

import functools

import cleaning
import models
import records
from cleaning import clean as tidy

from woflo import task

KINDS = {"line": models.Line, "smooth": models.Smooth}
SCALES = [0.5, 1.0, 2.0]
VERSION = 3
_spare_limit = 12


def scorer(power, offset=0.125):
    """A function that rates a fit."""
    scale = 10**power

    def score(slope, level):
        return round((slope + offset) * scale - level, 2)

    return score


rate = scorer(2)
gentle = functools.partial(scorer(1, offset=0.5), level=1)
order = lambda pair: (-pair[1], pair[0])


@functools.lru_cache(maxsize=8)
def factor(depth):
    total = 1
    for step in range(1, depth + 1):
        total *= step
    return total


@task
def outliers(values, limit=25.0):
    """Places of what lies far from the middle."""
    middle = models.Model.mean(values)
    return {place for place, value in enumerate(values) if abs(value - middle) > limit}


def train(rows, depth=2, *, kind="smooth", scale=1):
    """Fit a model to what is good in the rows."""
    from settings import NAMES, Window

    (found, bad), count = tidy(rows) if rows else (([], 0), 0)
    far = outliers.local(found)
    kept = [value for place, value in enumerate(found) if place not in far or len(found) < 3]
    model = KINDS[kind](depth, scale=SCALES[scale])
    fit = model.fit(kept)
    ranked = sorted(enumerate(kept), key=order)[:VERSION]
    odd = any(value < 0 for value in kept) and bad == 0
    try:
        first = cleaning.number(rows[0].split(",")[1])
    except (IndexError, cleaning.BadRow) as error:
        first = type(error).__name__
    return {
        "fit": fit,
        "kind": model.describe(),
        "score": rate(fit[0], fit[1]),
        "gentle": gentle(fit[0]),
        "ranked": ranked,
        "odd": odd,
        "first": first,
        "factor": factor(depth),
        "notes": model.notes,
        "report": records.report(*fit[:2], model.notes),
        "rest": (bad, count, NAMES[-1], Window(5).half, sorted(far)),
    }


def _spare_main(arguments):
    """Not what is cached."""
    rows = open(arguments[0]).readlines() if arguments else []
    if len(rows) > _spare_limit:
        rows = rows[:_spare_limit]
    print(train(rows, depth=1))
    return 0


if __name__ == "__main__":
    _spare_main([])
