"""Drawing: the five steps from a picture to its boxes as small RGB arrays.

The steps are those of weak localisation with Grad-CAM (https://arxiv.org/abs/1610.02391, section 3.2): the
picture, the heatmap interpolated to its size, the binary mask, the contour of the mask, and the boxes. True boxes,
where known, are dashed.
"""

import colorsys
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from heatbox.annotation import Annotation, Region, TargetEvidence
from heatbox.boxes import Box
from heatbox.heatmaps import resize

__all__ = [
    "Finding",
    "Panels",
    "as_jpeg",
    "as_png",
    "findings",
    "fit",
    "label_colour",
    "panels",
    "text_colour",
]

RGB = tuple[int, int, int]
Pixels = NDArray[np.uint8]

HALO: RGB = (16, 18, 24)
TRUTH: RGB = (255, 255, 255)
DASH = 6.0
SUBPIXEL_BITS = 4
SRGB_KNEE = 0.04045


@dataclass(frozen=True)
class Finding:
    """All there is to draw for one label of one picture.

    Attributes:
        label: label of the project.
        class_name: class of the classifier; empty where only the true boxes name the label.
        evidence: heatmap and mask, None where they were not kept.
        regions: predicted boxes of this label and class, best first.
        truth: true boxes of this label; empty where not known.
    """

    label: str
    class_name: str
    evidence: TargetEvidence | None
    regions: tuple[Region, ...]
    truth: tuple[Box, ...]

    def overlap(self, region: Region) -> float | None:
        """Return the best IoU of a region with a true box, None where no truth is known."""
        return max((region.box.iou(box) for box in self.truth), default=None)


@dataclass(frozen=True)
class Panels:
    """The five steps, each (h, w, 3) uint8 RGB of the same size; None where no evidence was kept."""

    picture: Pixels
    heatmap: Pixels | None
    mask: Pixels | None
    contour: Pixels | None
    box: Pixels


def findings(annotation: Annotation, truth: Sequence[tuple[str, Box]] = ()) -> tuple[Finding, ...]:
    """Return one finding per label and class: explained ones, boxes alone, labels that only the truth has."""
    evidence = {(item.label, item.class_name): item for item in annotation.evidence}
    keys = dict.fromkeys([*evidence, *((region.label, region.class_name) for region in annotation.regions)])
    known = {label for label, _ in keys}
    keys |= dict.fromkeys((label, "") for label, _ in truth if label not in known)
    return tuple(
        Finding(
            label,
            class_name,
            evidence.get((label, class_name)),
            tuple(
                item for item in annotation.regions if (item.label, item.class_name) == (label, class_name)
            ),
            tuple(box for name, box in truth if name == label),
        )
        for label, class_name in keys
    )


def fit(pixels: Pixels, side: int) -> Pixels:
    """Scale a picture so that its longer side has `side` pixels: (H, W, 3) -> (h, w, 3)."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=how), dtype=np.uint8)


def panels(picture: Pixels, annotation: Annotation, finding: Finding) -> Panels:
    """Draw the five steps of one label.

    Args:
        picture: (h, w, 3) uint8 RGB, the upright picture at any size.
        annotation: gives the size in pixels that the boxes refer to.
        finding: what was found of the label.
    """
    height, width = picture.shape[:2]
    box = _draw_boxes(picture, finding, width / annotation.width, height / annotation.height)
    if finding.evidence is None:
        return Panels(picture, None, None, None, box)
    heatmap = resize(finding.evidence.heatmap.astype(np.float32), height, width)
    mask = resize(finding.evidence.mask.astype(np.float32), height, width) >= 0.5  # noqa: PLR2004 - the middle
    contour = _draw_contour(picture, mask, label_colour(finding.label))
    binary = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * np.uint8(255)
    return Panels(picture, _draw_heatmap(picture, heatmap), binary, contour, box)


def label_colour(label: str) -> RGB:
    """Return a bright colour that depends on the label alone, so that it is the same on every page."""
    hue = int.from_bytes(hashlib.sha256(label.encode(errors="replace")).digest()[:2]) / 2**16
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.6, 0.9))
    return red, green, blue


def text_colour(background: RGB) -> RGB:
    """Return black or white, whichever reads better on the background.

    Source:
        WCAG 2.2, relative luminance and contrast ratio; the better of the two is always above 4.5.
    """
    parts = np.divide(background, 255)
    linear = np.where(parts <= SRGB_KNEE, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return (0, 0, 0) if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else (255, 255, 255)


def as_jpeg(pixels: Pixels, quality: int = 80) -> bytes:
    """Encode (h, w, 3) RGB as JPEG; colour keeps its full resolution so that thin lines stay clean."""
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1, *sampling]
    return cv2.imencode(".jpg", pixels[..., ::-1], options)[1].tobytes()


def as_png(mask: Pixels) -> bytes:
    """Encode the red channel of a black-and-white panel (h, w, 3) as PNG with one bit a pixel."""
    return cv2.imencode(".png", np.ascontiguousarray(mask[..., 0]), [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()


def _draw_heatmap(picture: Pixels, heatmap: NDArray[np.float32]) -> Pixels:
    """Lay Turbo colours over the picture, the stronger the evidence the denser."""
    levels = np.rint(heatmap.clip(0, 1) * 255).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1]
    density = 0.45 + 0.25 * heatmap.clip(0, 1)[..., None]
    return np.asarray(np.rint(picture * (1 - density) + colours * density), dtype=np.uint8)


def _draw_contour(picture: Pixels, mask: NDArray[np.bool_], colour: RGB) -> Pixels:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    shaded = np.where(mask[..., None], picture, picture * 0.55).astype(np.uint8)
    return _stroke(
        shaded, [np.asarray(outline[:, 0, :], dtype=np.float64) for outline in outlines], colour, closed=True
    )


def _draw_boxes(picture: Pixels, finding: Finding, scale_x: float, scale_y: float) -> Pixels:
    """Draw regions solid, the best on top, and true boxes dashed above them."""
    size = picture.shape[1], picture.shape[0]
    canvas = picture.copy()
    for region in reversed(finding.regions):
        corners = _corners(region.box, scale_x, scale_y, size)
        canvas = _stroke(canvas, [corners], label_colour(finding.label), closed=True)
    dashes = [dash for box in finding.truth for dash in _dashes(_corners(box, scale_x, scale_y, size))]
    return _stroke(canvas, dashes, TRUTH, closed=False)


def _corners(box: Box, scale_x: float, scale_y: float, size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the corners (4, 2) in pixel centres of the panel, far enough inside it that the line shows."""
    x1, y1, x2, y2 = np.array(box.as_xyxy()) * (scale_x, scale_y, scale_x, scale_y) - 0.5
    corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], dtype=np.float64)
    return np.minimum(np.maximum(corners, 1), np.array(size, dtype=np.float64) - 2)


def _dashes(corners: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = float(np.hypot(*(end - start)))
        for near in np.arange(0, length, 2 * DASH):
            yield start + (end - start) / max(length, 1e-9) * np.array([[near], [min(near + DASH, length)]])


def _stroke(picture: Pixels, lines: Sequence[NDArray[np.float64]], colour: RGB, *, closed: bool) -> Pixels:
    """Draw lines (n, 2) with a dark halo, which keeps them visible on any background."""
    canvas = picture.copy()
    points = [np.rint(line * 2**SUBPIXEL_BITS).astype(np.int32) for line in lines]
    for thickness, ink in ((4, HALO), (2, colour)):
        cv2.polylines(canvas, points, closed, ink, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    return canvas
