"""The curve of box quality against corrections, as a figure and as a table; of several trainings their means."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

__all__ = ["write_curve", "write_table"]

_COLOURS = {"tuned": "#b07500", "trained": "#1f6fb4", "trained and tuned": "#b5179e"}
_MARKS = {"tuned": "s", "trained": "^", "trained and tuned": "o"}

Result = Mapping[str, Any]


def write_curve(results: Sequence[Result], path: Path) -> None:
    """Write an SVG file with one panel for each set."""
    mpl.rcParams.update({"svg.hashsalt": "heatbox", "font.size": 10, "svg.fonttype": "path"})
    figure, panels = plt.subplots(
        1, len(results), figsize=(3.6 * len(results), 3.4), sharey=True, squeeze=False
    )
    for panel, result in zip(panels[0], results, strict=True):
        for way, colour in _COLOURS.items():
            counts = sorted({row["corrections"] for row in result["rows"]})
            quality = [_mean(result, count, way, "box_quality") for count in counts]
            panel.plot(counts, quality, color=colour, marker=_MARKS[way], label=way)
        panel.set_title(f"{result['set']} ({len(result['labels'])} labels)")
        panel.set_xlabel("corrected pictures")
        panel.set_ylim(0, 1)
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("box quality on the rest")
    panels[0][0].legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def write_table(results: Sequence[Result], path: Path) -> None:
    """Write a table in Markdown: a row for each set and number of corrections."""
    lines = [
        "| set | corrections | tuned | trained | trained and tuned | IoU | found at .5 | false boxes / picture |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        counts = sorted({row["corrections"] for row in result["rows"]})
        for count in counts:
            ways = " | ".join(f"{_mean(result, count, way, 'box_quality'):.3f}" for way in _COLOURS)
            iou, found, false = (
                _mean(result, count, "trained and tuned", name)
                for name in ("mean_iou", "found", "false_boxes")
            )
            lines.append(f"| {result['set']} | {count} | {ways} | {iou:.3f} | {found:.3f} | {false:.2f} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _mean(result: Result, count: int, way: str, name: str) -> float:
    rows = [row for row in result["rows"] if (row["corrections"], row["way"]) == (count, way)]
    return mean(float(row[name]) for row in rows)
