"""Augmentation: seeded variations of a batch of normalised pictures that leave the image labels true.

Each picture is turned, scaled and shifted by an affine map and gets other light and colours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Augmentation"]


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the variations; each is drawn anew for every picture.

    Attributes:
        turn: largest angle in radians, both ways.
        zoom: largest enlargement; the largest reduction is its inverse.
        shift: largest move, in halves of the picture's side.
        mirror: probability of a mirrored picture; 0 where objects carry print.
        contrast: largest relative change of contrast.
        colour: largest change of brightness in standard deviations; a third of it per channel.
    """

    turn: float = 0.2
    zoom: float = 1.25
    shift: float = 0.1
    mirror: float = 0.0
    contrast: float = 0.25
    colour: float = 0.4

    def __call__(self, pictures: Tensor, random: torch.Generator) -> Tensor:
        """Vary a batch: (n, 3, H, W) normalised float32 -> the same shape."""
        return self._recolour(self._move(pictures, random), random)

    def _move(self, pictures: Tensor, random: torch.Generator) -> Tensor:
        """Turn, scale, shift and mirror; what comes in from outside is the picture's reflection."""
        count = len(pictures)
        angle = _uniform(random, self.turn, count)
        scale = torch.exp(_uniform(random, float(torch.tensor(self.zoom).log()), count))
        mirrored = 1 - 2 * (torch.rand(count, generator=random) < self.mirror).float()
        shift = _uniform(random, self.shift, count, 2)
        cosine, sine = angle.cos() * scale, angle.sin() * scale
        across = torch.stack([cosine * mirrored, -sine, shift[:, 0]], dim=1)
        down = torch.stack([sine * mirrored, cosine, shift[:, 1]], dim=1)
        grid = functional.affine_grid(
            torch.stack([across, down], dim=1).to(pictures), list(pictures.shape), align_corners=False
        )
        return functional.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)

    def _recolour(self, pictures: Tensor, random: torch.Generator) -> Tensor:
        """Change contrast, brightness and the balance of the channels."""
        count = len(pictures)
        contrast = 1 + _uniform(random, self.contrast, count, 1, 1, 1)
        tint = _uniform(random, self.colour, count, 1, 1, 1) + _uniform(
            random, self.colour / 3, count, 3, 1, 1
        )
        return pictures * contrast.to(pictures) + tint.to(pictures)


def _uniform(random: torch.Generator, reach: float, *shape: int) -> Tensor:
    """Return numbers between -reach and reach."""
    return (2 * torch.rand(shape, generator=random) - 1) * reach
