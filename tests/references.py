"""Print how far every built-in explainer is from what it was checked against, as a Markdown table.

    python tests/references.py

Runs the tests of the explainers that ask the fixture `agrees`. A difference is the largest absolute one, as part of the
reference's largest absolute value, over all comparisons with this reference at this tolerance. The exit code is 1 when
a test fails, or when a registered explainer of heatbox has no comparison.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEADER = "| explainer | compared with | largest difference | tolerance |"
LIBRARIES = ("torch", "captum", "torchcam", "numpy")

Comparison = tuple[str, str, float, float]  # explainer, compared with, difference, tolerance


class Recorder:
    """Let only the tests that compare run, and keep what they record."""

    def __init__(self) -> None:
        self.comparisons: list[Comparison] = []

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        others = [item for item in items if "agrees" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            recorded = [
                json.loads(str(value)) for name, value in report.user_properties if name == "reference"
            ]
            self.comparisons += [tuple(comparison) for comparison in recorded]


def built_in() -> set[str]:
    """Return the names of the explainers that heatbox itself registers."""
    found = entry_points(group="heatbox.explainers")
    return {entry.name for entry in found if entry.dist is not None and entry.dist.name == "heatbox"}


def largest(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Return the largest difference of each explainer, reference and tolerance, sorted."""
    found: dict[tuple[str, str, float], float] = {}
    for explainer, against, difference, tolerance in comparisons:
        key = (explainer, against, tolerance)
        found[key] = max(found.get(key, 0.0), difference)
    return [(*key[:2], difference, key[2]) for key, difference in sorted(found.items())]


def as_table(comparisons: Iterable[Comparison]) -> Iterator[str]:
    """Return the lines of the table."""
    yield from (HEADER, "|---|---|---|---|")
    for explainer, against, difference, tolerance in largest(comparisons):
        yield f"| `{explainer}` | {against} | {_number(difference, 1)} | {_number(tolerance, 0)} |"


def main(arguments: Sequence[str]) -> int:
    """Run the tests, print the table and return the exit code."""
    recorder = Recorder()
    options = ["-q", "--no-header", "-p", "no:cacheprovider", *arguments]
    code = pytest.main([*options, str(ROOT / "tests" / "plugins")], plugins=[recorder])
    without = sorted(built_in() - {comparison[0] for comparison in recorder.comparisons})
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    sys.stdout.write("\n".join(["", *as_table(recorder.comparisons), "", versions, ""]))
    if without:
        sys.stdout.write(f"no comparison: {', '.join(without)}\n")
    return int(code != pytest.ExitCode.OK or bool(without))


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}e}" if value else "0"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
