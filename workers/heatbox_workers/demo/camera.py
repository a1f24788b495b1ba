"""The camera: what light, lens, sensor and JPEG do to a scene. Pictures are RGB, (H, W, 3)."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["photograph"]


def photograph(light: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take a picture of a scene, with random light, blur, noise and JPEG: (H, W, 3) float32 in [0, 255] -> uint8."""
    lit = _illuminated(light, rng)
    sharp = 0.0025 * rng.random() * light.shape[0]
    blurred = cv2.GaussianBlur(lit, (0, 0), sharp) if sharp > 0.3 else lit  # noqa: PLR2004 - less is invisible
    grain = rng.standard_normal(light.shape, dtype=np.float32) * np.float32(rng.uniform(0.5, 6))
    raw = np.clip(blurred + grain, 0, 255).astype(np.uint8)
    return _compressed(raw, quality=int(rng.integers(55, 96)))


def _illuminated(light: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Change brightness, colour temperature, contrast, and let the light fall off to one side."""
    height, width = light.shape[:2]
    angle = rng.uniform(0, 2 * math.pi)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    fall = 1 + rng.uniform(0, 0.25) * (x * math.cos(angle) + y * math.sin(angle))
    warmth = rng.uniform(-0.09, 0.09)
    gain = rng.uniform(0.78, 1.15) * np.array([1 + warmth, 1 + rng.uniform(-0.03, 0.03), 1 - warmth])
    exposed = light / 255 * (fall[..., None] * gain).astype(np.float32)
    return np.asarray(np.clip(exposed, 0, 1) ** rng.uniform(0.85, 1.15) * 255, dtype=np.float32)


def _compressed(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return the picture after one round of JPEG."""
    _, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])
