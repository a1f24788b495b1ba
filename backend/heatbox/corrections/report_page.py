"""The report as one self-contained HTML file: tables, and the worst pictures with what was predicted and what is right.

It asks for nothing from outside. Labels and addresses come from others, and everything is escaped.
"""

import base64
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatbox.corrections.report import BINS, Report, WorstPicture
from heatbox.drawing import as_jpeg, fit, label_colour, text_colour
from heatbox.errors import HeatboxError, OutputError
from heatbox.pictures.images import Limits, read_picture
from heatbox.studio.regions import BoxRegion
from heatbox.templating import make_templates

__all__ = ["LABEL_COLUMNS", "Titles", "write_report_page"]

LABEL_COLUMNS = (
    "label",
    "explainer",
    "predicted",
    "accepted",
    "moved",
    "resized",
    "relabelled",
    "deleted",
    "missed",
    "mean IoU",
)

_SIDE = 560  # pixels of a picture's longer side

Fetch = Callable[[str, int | None], Path]


@dataclass(frozen=True)
class Titles:
    """What stands above a report, and the project of which Label Studio it is of."""

    title: str
    studio_url: str
    project: int

    def link(self, task: int) -> str:
        """Return the address of a task in Label Studio; whatever is no web address leads nowhere."""
        url = self.studio_url.rstrip("/")
        is_web = url.startswith(("http://", "https://"))
        return f"{url}/projects/{self.project}/data?task={task}" if is_web else "#"


def write_report_page(path: Path, report: Report, titles: Titles, fetch: Fetch, limits: Limits) -> int:
    """Write the page in one step, and return how many of its pictures could not be shown.

    Args:
        path: the HTML file; an older one is replaced.
        report: to be shown.
        titles: what stands above it, and where its links lead.
        fetch: returns a local file for an address and the number of its task.
        limits: of pictures.

    Raises:
        OutputError: the file cannot be written.
    """
    worst = [{**_card(one, fetch, limits), "link": titles.link(one.task)} for one in report.worst]
    template = make_templates(cell=_cell).get_template("corrections.html.j2")
    _write(path, template.render(_context(report), title=titles.title, worst=worst))
    return sum(not one["source"] for one in worst)


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".heatbox-{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(text, "utf-8", "backslashreplace")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"The page {path} cannot be written: {reason}.",
            "Free some space, or choose another file in a folder that you may write to.",
        ) from error


def _context(report: Report) -> dict[str, Any]:
    most = max(report.ious, default=0)
    times = (
        ("a prediction", report.with_prediction),
        ("an empty picture", report.without_prediction),
    )
    error = report.reliability.error
    return {
        "counts": (
            ("tasks", report.tasks),
            ("annotations", report.annotations),
            ("compared", report.compared),
            ("skipped", report.skipped),
            ("deleted", report.deleted),
        ),
        "label_columns": LABEL_COLUMNS,
        "label_rows": [tuple(vars(row).values()) for row in report.labels],
        "bars": [_bar(number, count, most) for number, count in enumerate(report.ious)],
        "score_rows": [
            (f"{one.low:.1f} to {one.high:.1f}", one.boxes, one.score, one.kept)
            for one in report.reliability.bins
        ],
        "score_note": "" if error is None else f"Expected calibration error: {error:.3f}",
        "time_rows": [(name, some.annotations, some.seconds) for name, some in times],
        "problem_rows": sorted(report.problems.items()),
    }


def _bar(number: int, count: int, most: int) -> dict[str, Any]:
    low, high = f"{number / BINS:.1f}", f"{(number + 1) / BINS:.1f}"
    percent = 100 * count / most if most else 0
    return {
        "low": low,
        "high": high,
        "count": count,
        "percent": percent,
        "told": f"{low} to {high}: {count}",
    }


def _card(one: WorstPicture, fetch: Fetch, limits: Limits) -> dict[str, Any]:
    """Return what the template shows of a picture; one that cannot be fetched costs itself only."""
    drawn = [*_drawn(one.boxes, "corrected"), *_drawn(one.predicted, "predicted")]
    card = {
        "task": one.task,
        "item": one.item,
        "quality": one.quality,
        "boxes": drawn,
        "chips": list(_chips(one)),
        "told": f"{len(one.predicted)} predicted and {len(one.boxes)} corrected boxes",
    }
    try:
        picture = read_picture(fetch(one.address, one.task), limits, at_least=_SIDE)
    except HeatboxError as error:  # an edge: the sentence takes the picture's place
        return {**card, "source": "", "ratio": 1.0, "error": error.sentence}
    content = base64.b64encode(as_jpeg(fit(picture.pixels, _SIDE))).decode()
    ratio = picture.width / picture.height
    return {**card, "source": f"data:image/jpeg;base64,{content}", "ratio": ratio, "error": ""}


def _drawn(boxes: tuple[BoxRegion, ...], kind: str) -> Iterator[dict[str, Any]]:
    for one in boxes:
        x1, y1, x2, y2 = one.corners
        place = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
        rounded = {side: f"{value:.5f}" for side, value in place.items()}
        yield {"kind": kind, "label": one.label, "colour": _hex(label_colour(one.label)), **rounded}


def _chips(one: WorstPicture) -> Iterator[dict[str, Any]]:
    predicted, now = (Counter(box.label for box in some) for some in (one.predicted, one.boxes))
    for label in sorted(predicted | now):
        colour = label_colour(label)
        ink = _hex(text_colour(colour))
        counts = {"predicted": predicted[label], "now": now[label]}
        yield {"label": label, "colour": _hex(colour), "ink": ink, **counts}


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
