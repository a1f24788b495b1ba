"""Time of the box fitters and of the threshold sweep, each beside what it is compared with, in one run.

Prints milliseconds per map (median of several rounds) and the ratio to the line's reference.
"""

import time
from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

from heatbox.heatmaps import normalise, resize
from heatbox.metrics import threshold_ious
from heatbox_plugins.box_fitters.components import Components
from heatbox_plugins.box_fitters.enclosing import Enclosing
from heatbox_plugins.box_fitters.grabcut import GrabCut
from heatbox_plugins.box_fitters.max_iou import MaxIoU, max_iou_rectangle

Heatmap = NDArray[np.float32]


def heatmaps(size: int, count: int = 12) -> list[Heatmap]:
    """Return maps like those of a classifier: two hot places on 10 x 10 cells with noise, enlarged to a size."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[:10, :10]
    maps = []
    for _ in range(count):
        cells = 0.3 * random.random((10, 10))
        for cx, cy in random.uniform(1, 8, (2, 2)):
            cells += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / random.uniform(3, 9))
        maps.append(normalise(resize(cells.astype(np.float32), size, size), "max"))
    return maps


def milliseconds(step: Callable[[Heatmap], object], maps: list[Heatmap], rounds: int = 5) -> float:
    """Return the median time of a step on one map."""
    times = []
    for heatmap in maps * rounds:
        begin = time.perf_counter()
        step(heatmap)
        times.append(time.perf_counter() - begin)
    return 1000 * median(times)


def try_all(heatmap: Heatmap) -> float:
    """Return the largest IoU of all rectangles with the mask, from the integral image."""
    mask = heatmap > MaxIoU().threshold
    integral = np.pad(mask.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    (top, bottom), (left, right) = (np.triu_indices(side + 1, 1) for side in mask.shape)
    strips = integral[bottom] - integral[top]
    inside = strips[:, right] - strips[:, left]
    return float((inside / (mask.sum() + np.outer(bottom - top, right - left) - inside)).max())


def sweep(heatmap: Heatmap) -> object:
    """Run the hundred thresholds of MaxBoxAcc on one map."""
    return threshold_ious(heatmap, np.array([[10.0, 10.0, 100.0, 100.0]]))


def main() -> None:
    """Print the table."""
    brute = milliseconds(try_all, heatmaps(32), rounds=1)
    print(f"{'':34}{'ms per map':>11}  ratio")
    print(f"{'every rectangle, 32 x 32':34}{brute:>11.2f}  1.00")
    print_row("MaxIoU, 32 x 32", MaxIoU(), heatmaps(32), brute)
    for size in (224, 320, 640):
        maps = heatmaps(size)
        base = milliseconds(Enclosing(), maps)
        print_row(f"Enclosing, {size} x {size}", Enclosing(), maps, base)
        print_row(f"Components, {size} x {size}", Components(), maps, base)
        print_row(f"MaxIoU, {size} x {size}", MaxIoU(), maps, base)
        print_row(f"MaxIoU per component, {size} x {size}", MaxIoU(per_component=True), maps, base)
        picture = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
        print_row(f"GrabCut, {size} x {size}", lambda heat, seen=picture: GrabCut()(heat, seen), maps, base)
    noise = np.random.default_rng(0).random((224, 224)) < 0.01  # noqa: PLR2004 - one pixel in a hundred
    print_row("MaxIoU, 1 % noise, 224 x 224", lambda _: max_iou_rectangle(noise), heatmaps(224), brute)
    print_row("100 thresholds, 224 x 224", sweep, heatmaps(224), brute)


def print_row(name: str, step: Callable[[Heatmap], object], maps: list[Heatmap], reference: float) -> None:
    """Print one line: name, time, ratio to the reference."""
    taken = milliseconds(step, maps)
    print(f"{name:34}{taken:>11.2f}  {taken / reference:.2f}")


if __name__ == "__main__":
    main()
