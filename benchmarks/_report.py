"""Write outcomes down: a Markdown table per row, one summary table, and JSON."""

from statistics import median
from typing import Any

from benchmarks._harness import Outcome
from benchmarks._rows import Goal, Row

TIMES = "\N{MULTIPLICATION SIGN}"
NOTHING = "\N{EN DASH}"  # in the place of a figure


def details(outcome: Outcome) -> str:
    """Return one row's table: a line per contestant."""
    row = outcome.row
    steps = row.one_interpreter
    head = ["contestant", f"median {row.unit}", "min … max"]
    head += [f"{TIMES} {row.reference}"] if row.reference else []
    head += ["adds"] if steps else []
    head += ["reach", "", "note"]
    table = [head]
    before = ""
    for name, figures in outcome.figures.items():
        if figures.skipped:
            table.append([name, NOTHING, "", *[""] * (len(head) - 4), f"skipped: {figures.skipped}"])
            continue
        values = figures.values
        cells = [name, number(median(values)), f"{number(min(values))} … {number(max(values))}"]
        if row.reference:
            ratios = outcome.versus(name, row.reference)
            cells.append(f"{median(ratios):.3g}" if ratios else "")
        if steps:
            added = outcome.versus(name, before, "more") if before else []
            cells.append(f"{median(added):+.0f}" if added else "")
        goals = [goal for goal in row.goals if goal.who == name]
        cells.append("; ".join(wording(goal, row.unit) for goal in goals))
        cells.append("; ".join(verdict(outcome, goal) for goal in goals))
        table.append([*cells, figures.note])
        before = name
    if not any(cells[-1] for cells in table[1:]):
        table = [cells[:-1] for cells in table]
    return f"### {row.key}: {row.title} ({row.unit})\n\n{markdown(table)}\n"


def summary(outcomes: list[Outcome]) -> str:
    """Return a table with a line per goal: limit and peers, woflo, the ratio, the goal, reached or not."""
    table = [["row", "work", "limit and peers", "woflo", "ratio", "reach", "reached"]]
    for outcome in outcomes:
        row = outcome.row
        others = "" if is_ours_alone(row) else "; ".join(
            f"{name} {number(median(figures.values))}"
            for name, figures in outcome.figures.items()
            if figures.values and not is_ours(name)
        )  # fmt: skip
        for goal in row.goals or [Goal(next(name for name in outcome.figures if is_ours(name)), 0, of=row.reference)]:
            values = outcome.figures[goal.who].values
            table.append(
                [
                    row.key,
                    f"{row.title}: {goal.who}" if is_ours_alone(row) and goal.who != "woflo" else row.title,
                    others,
                    f"{number(median(values))} {row.unit}" if values else NOTHING,
                    attained(outcome, goal),
                    wording(goal, row.unit) if row.goals else "",
                    verdict(outcome, goal) if row.goals else "",
                ]
            )
    return markdown(table) + "\n"


def is_ours(name: str) -> bool:
    """Tell whether a contestant is this woflo, in whichever form."""
    return name.startswith("woflo") and not name.startswith("woflo 0.8")


def is_ours_alone(row: Row) -> bool:
    """Tell whether the row compares parts of woflo, not woflo with others."""
    return row.one_interpreter or not any(is_ours(contestant.name) for contestant in row.contestants)


def as_json(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Return everything measured, for the file."""
    return [
        {
            "row": outcome.row.key,
            "title": outcome.row.title,
            "unit": outcome.row.unit,
            "reference": outcome.row.reference,
            "contestants": {
                name: {"skipped": figures.skipped}
                if figures.skipped
                else {"median": median(figures.values), "values": figures.values, "note": figures.note}
                for name, figures in outcome.figures.items()
            },
            "goals": [
                {
                    "goal": wording(goal, outcome.row.unit),
                    "who": goal.who,
                    "attained": outcome.attained(goal),
                    "reached": verdict(outcome, goal),
                }
                for goal in outcome.row.goals
            ],
        }
        for outcome in outcomes
    ]


def wording(goal: Goal, unit: str) -> str:
    if goal.how == "times":
        return f"≤ {goal.limit:g} {TIMES} {goal.of}"
    if goal.how == "more":
        return f"≤ {goal.of} + {goal.limit:g} {unit}"
    return f"≤ {goal.limit:g} {unit}"


def attained(outcome: Outcome, goal: Goal) -> str:
    value = outcome.attained(goal)
    if value is None or goal.how == "absolute":
        return ""
    return f"{value:.2f} {TIMES} {goal.of}" if goal.how == "times" else f"{goal.of} {value:+.1f} {outcome.row.unit}"


def verdict(outcome: Outcome, goal: Goal) -> str:
    value = outcome.attained(goal)
    if value is None:
        return NOTHING
    return "yes" if value <= goal.limit else "**no**"


def number(value: float) -> str:
    """Return three significant digits, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def markdown(table: list[list[str]]) -> str:
    widths = [max(len(cells[column]) for cells in table) for column in range(len(table[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
        for cells in table
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
