"""How much faster a 12-megapixel JPEG is read at the size that a network needs than in full.

Run by `make bench`. The figure is a ratio of two medians on the same machine, so that it means the same elsewhere.
"""

import io
import statistics
import time

import numpy as np
from PIL import Image

from heatbox.pictures.images import Limits, read_picture_bytes

WIDTH, HEIGHT = 4000, 3000
INPUT_SIDE = 224
ROUNDS = 7


def photograph() -> bytes:
    """Return a JPEG of 12 megapixels with edges and some noise, as from a camera, the same in every run."""
    dice = np.random.default_rng(0)
    coarse = Image.fromarray(dice.integers(0, 256, (HEIGHT // 50, WIDTH // 50, 3), np.uint8))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.int16)
    pixels = (smooth + dice.integers(-6, 7, (HEIGHT, WIDTH, 1), np.int16)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def median_seconds(content: bytes, at_least: int | None) -> float:
    """Return the median time of one reading in seconds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        read_picture_bytes(content, Limits(), at_least=at_least)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print both times and their ratio."""
    content = photograph()
    full, reduced = median_seconds(content, None), median_seconds(content, INPUT_SIDE)
    print(f"decode: {WIDTH} x {HEIGHT} JPEG of {len(content) / 2**20:.1f} MiB")
    print(f"decode: in full {1000 * full:.0f} ms, at least {INPUT_SIDE} pixels {1000 * reduced:.0f} ms")
    print(f"decode: reduced is {full / reduced:.1f} times as fast")


if __name__ == "__main__":
    main()
