"""Views: a picture, or the part of it that somebody asks about, and the way of what is found there to the whole."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from heatbox.annotation import Annotation, Region, region_id
from heatbox.boxes import Box
from heatbox.masks import Mask
from heatbox.pictures.images import Picture
from heatbox.pictures.wanted import Wanted

__all__ = ["View", "needed_side", "view_of"]

_LONGEST = 2048  # cells of a mask that is put back into the whole picture
_CONTEXT = 1.0  # of a drawn rectangle's side is shown on each side of it: no thing fills a training picture


@dataclass(frozen=True, eq=False)
class View:
    """What the classifier is shown of a picture.

    Attributes:
        picture: the picture, or a part of it as a picture of its own.
        wanted: who asks, and what is known.
        left: of the part in the whole, in pixels.
        top: of the part in the whole, in pixels.
        width: of the whole, in pixels.
        height: of the whole, in pixels.
        window: x1, y1, x2, y2 of what may be found, in parts of the part's width and height; None: all of it.
    """

    picture: Picture
    wanted: Wanted
    left: float
    top: float
    width: int
    height: int
    window: tuple[float, float, float, float] | None = None

    def placed(self, annotation: Annotation, version: str) -> Annotation:
        """Return what was found in the part, in the whole picture; of a point only what belongs to it."""
        if self.wanted.within is not None:
            moved = [self._moved(region, rank, version) for rank, region in enumerate(annotation.regions)]
            kept = tuple(region for region in moved if region is not None)
            annotation = replace(
                annotation, width=self.width, height=self.height, regions=kept, rejected=(), evidence=()
            )
        if self.wanted.point is not None:
            x, y = (
                share * side / 100
                for share, side in zip(self.wanted.point, (self.width, self.height), strict=True)
            )
            annotation = replace(annotation, regions=_nearest(annotation.regions, x, y))
        return annotation

    def _moved(self, region: Region, rank: int, version: str) -> Region | None:
        x1, y1, x2, y2 = region.box.as_xyxy()
        left, top, right, bottom = self._limits()
        x1, x2 = max(x1 + self.left, left), min(x2 + self.left, right)
        y1, y2 = max(y1 + self.top, top), min(y2 + self.top, bottom)
        if x1 >= x2 or y1 >= y2:
            return None
        box = Box(x1, y1, x2, y2)
        mask = None if region.mask is None else Mask.of(self._put_back(region.mask.array()))
        return replace(region, id=region_id(version, region.label, rank, box), box=box, mask=mask)

    def _limits(self) -> tuple[float, float, float, float]:
        """Return the rectangle that was drawn, in pixels of the whole picture."""
        x, y, width, height = self.wanted.within or (0.0, 0.0, 100.0, 100.0)
        across, down = self.width / 100, self.height / 100
        return x * across, y * down, (x + width) * across, (y + height) * down

    def _put_back(self, part: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a mask over the whole picture, at the part's resolution where that is not too fine."""
        scale = min(part.shape[1] / self.picture.width, _LONGEST / max(self.width, self.height))
        whole = np.zeros((max(round(self.height * scale), 1), max(round(self.width * scale), 1)), np.bool_)
        left, top = round(self.left * scale), round(self.top * scale)
        size = max(round(self.picture.width * scale), 1), max(round(self.picture.height * scale), 1)
        pixels = cv2.resize(part.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(np.bool_)
        place = whole[top : top + size[1], left : left + size[0]]
        place[:] = pixels[: place.shape[0], : place.shape[1]]
        return whole


def needed_side(wanted: Wanted, input_size: int) -> int:
    """Return how long the shorter side of the whole picture must be, so that the part has the network's resolution."""
    if wanted.within is None:
        return input_size
    shown = min(100.0, min(wanted.within[2:]) * (1 + 2 * _CONTEXT))
    return int(input_size * 100 / max(shown, 1.0))


def view_of(picture: Picture, wanted: Wanted) -> View:
    """Return what is shown of a picture: all of it, or a drawn rectangle with what is around it."""
    if wanted.within is None:
        return View(picture, wanted, 0.0, 0.0, picture.width, picture.height)
    rows, columns = picture.pixels.shape[:2]
    x, y, width, height = (share / 100 for share in wanted.within)
    x1, x2 = _cells(x - width * _CONTEXT, x + width * (1 + _CONTEXT), columns)
    y1, y2 = _cells(y - height * _CONTEXT, y + height * (1 + _CONTEXT), rows)
    across, down = picture.width / columns, picture.height / rows
    part = Picture(
        picture.pixels[y1:y2, x1:x2].copy(), max(int((x2 - x1) * across), 1), max(int((y2 - y1) * down), 1)
    )
    window = (
        (x * columns - x1) / (x2 - x1),
        (y * rows - y1) / (y2 - y1),
        ((x + width) * columns - x1) / (x2 - x1),
        ((y + height) * rows - y1) / (y2 - y1),
    )
    return View(part, wanted, x1 * across, y1 * down, picture.width, picture.height, window)


def _cells(near: float, far: float, count: int) -> tuple[int, int]:
    """Return the first and the last cell but one of a stretch in [0, 1], at least one cell."""
    first = min(max(int(near * count), 0), count - 1)
    return first, max(min(round(far * count), count), first + 1)


def _nearest(regions: tuple[Region, ...], x: float, y: float) -> tuple[Region, ...]:
    """Return the regions that contain a point in pixels, or else the one that is nearest to it."""

    def distance(region: Region) -> float:
        x1, y1, x2, y2 = region.box.as_xyxy()
        return max(x1 - x, x - x2, 0.0) ** 2 + max(y1 - y, y - y2, 0.0) ** 2

    containing = tuple(region for region in regions if distance(region) == 0)
    return containing or tuple(sorted(regions, key=distance)[:1])
