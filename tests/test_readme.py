r"""The README is true: every `python` block runs, and prints what the `text` block after it shows.

A block is a whole script, run by a fresh interpreter from a file of its own; the first line may name the file
(`# prices.py`). Standard error is part of the output. Compared loosely where no two runs agree: numbers after
`pid`, seconds (`1.2 s`), dates with a time, and `...` for anything: within a line, or lines if it is alone on its own.
`<!-- unordered -->` before a `text` block: its lines may come in any order.
`<!-- exit code: 1 -->` before a `text` block: the script ends so, instead of with 0.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

README = Path(__file__).parent.parent / "README.md"
LOOSE = [
    (re.compile(r"\bpid \d+"), "pid N"),
    (re.compile(r"\b\d+(\.\d+)? s\b"), "N s"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?"), "DATE"),
]
# As on a terminal: a line is written when it is complete, so lines of several processes neither mix nor wait.
LINE_BUFFERING = "import sys\nsys.stdout.reconfigure(line_buffering=True)\n"


class Example(NamedTuple):
    """A block of the README and what it should print; `output` is None if the README shows none."""

    line: int
    code: str
    output: str | None
    unordered: bool
    exit_code: int

    @property
    def file_name(self) -> str:
        named = re.match(r"# (\w+\.py)\b", self.code)
        return named.group(1) if named else "example.py"


def examples(text: str) -> list[Example]:
    """Find the `python` blocks with the `text` block that follows each."""
    blocks = list(re.finditer(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))
    found = []
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block[1] != "python":
            continue
        shown = after if after is not None and after[1] == "text" else None
        between = text[block.end() : shown.start()] if shown is not None else ""
        code = re.search(r"<!-- exit code: (\d+) -->", between)
        found.append(
            Example(
                line=text.count("\n", 0, block.start()) + 1,
                code=block[2],
                output=None if shown is None else shown[2],
                unordered="<!-- unordered -->" in between,
                exit_code=int(code[1]) if code else 0,
            )
        )
    return found


def loosened(text: str) -> list[str]:
    for pattern, stand_in in LOOSE:
        text = pattern.sub(stand_in, text)
    return [line.rstrip() for line in text.rstrip().splitlines()]


def matches(shown: list[str], printed: list[str]) -> bool:
    """Whether the printed lines are the shown ones, `...` standing for anything."""
    parts = []
    for line in shown:
        if line.strip() == "...":
            parts.append(r"(?:[^\n]*\n)*")
        else:
            parts.append(r"[^\n]*".join(re.escape(piece) for piece in line.split("...")) + r"\n")
    return re.fullmatch("".join(parts), "".join(f"{line}\n" for line in printed)) is not None


EXAMPLES = examples(README.read_text(encoding="utf-8"))


def run(*arguments: str, folder: Path) -> tuple[int, str]:
    """Run Python as a user would, outside of the tree; the exit code and all that it printed, line by line."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(LINE_BUFFERING, encoding="utf-8")
    path = os.pathsep.join([str(folder / "site"), str(README.parent)])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WOFLO_", "PYTHON", "LOGURU_"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=False,
        cwd=folder,
        env={**kept, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"},
        timeout=50,
    )
    output = done.stdout.replace(f"{folder.resolve()}{os.sep}", "").replace(f"{folder}{os.sep}", "")
    return done.returncode, output


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.file_name for example in EXAMPLES])
def test_block_prints_what_the_readme_shows(example: Example, tmp_path: Path) -> None:
    """Copying a block from the README gives the output beneath it."""
    (tmp_path / example.file_name).write_text(example.code, encoding="utf-8")
    exit_code, output = run(example.file_name, folder=tmp_path)
    assert exit_code == example.exit_code, output
    if example.output is None:
        assert not output, f"the README shows no output, the block prints:\n{output}"
        return
    shown, printed = loosened(example.output), loosened(output)
    if example.unordered:
        shown, printed = sorted(shown), sorted(printed)
    assert matches(shown, printed), f"README.md:{example.line} shows\n{example.output}\nbut it prints\n{output}"


def test_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    """`python -m woflo` works on any standard library: all but the numbers and the commonest words is as shown."""
    shown = re.search(r"^```text\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)[1]
    exit_code, output = run("-m", "woflo", folder=tmp_path)
    assert exit_code == 0, output

    def shape(text: str) -> list[str]:
        text = re.sub(r"keywords: .*", "keywords: WORDS", "\n".join(loosened(text)))
        return [re.sub(r"\s+", " ", re.sub(r"\d[\d,.]*", "N", line)) for line in text.splitlines()]

    def streams(lines: list[str]) -> list[str]:
        """What goes to standard output, then the log: nothing orders the one among the other."""
        return sorted(lines, key=lambda line: line.startswith("DATE"))

    assert matches(streams(shape(shown)), streams(shape(output))), f"it prints\n{output}"


def test_the_readme_has_its_examples() -> None:
    """The reader of the README above finds something to check."""
    assert len([example for example in EXAMPLES if example.output is not None]) >= 8


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("pid 1 after 1.25 s", "pid 27 after 3 s", True),
        ("a ... c", "a b c", True),
        ("a\n...\nd", "a\nb\nc\nd", True),
        ("a\n...\nd", "a\nb\nc", False),
        ("3 rows", "4 rows", False),
        ("a.c", "abc", False),
        ("a", "a\nb", False),
    ],
)
def test_comparison_is_loose_only_where_it_says(shown: str, printed: str, expected: bool) -> None:
    """The test above can fail."""
    assert matches(loosened(shown), loosened(printed)) is expected
