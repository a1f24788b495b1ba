"""The curve of box quality against corrections, as a figure and as a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
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
            rows = [row for row in result["rows"] if row["way"] == way]
            counts = [row["corrections"] for row in rows]
            quality = [row["box_quality"] for row in rows]
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
            rows = {row["way"]: row for row in result["rows"] if row["corrections"] == count}
            best = rows["trained and tuned"]
            ways = " | ".join(f"{rows[way]['box_quality']:.3f}" for way in _COLOURS)
            rest = f"{best['mean_iou']:.3f} | {best['found']:.3f} | {best['false_boxes']:.2f}"
            lines.append(f"| {result['set']} | {count} | {ways} | {rest} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
