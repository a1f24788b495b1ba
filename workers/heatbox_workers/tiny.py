"""TinyNet, the demo's classifier: small enough to train in a minute on two cores, shaped so that CAM is exact."""

from torch import Tensor, nn

__all__ = ["TinyNet"]


class TinyNet(nn.Module):
    """A convolutional network that ends in global average pooling and one linear layer.

    Every convolution is followed by batch normalisation and ReLU, so the maps A that are pooled are not negative, and

        y = W GAP(A) + b

    is the head for which class activation mapping is defined (https://arxiv.org/abs/1512.04150). The maps have one cell
    per 8 x 8 input pixels, and a cell looks at the neighbourhood of exactly these pixels: the strided convolutions have
    4 x 4 kernels, because each 3 x 3 of stride 2 would move the map by half of its own input's cell, 3.5 pixels in all.

    Args:
        classes: number of outputs.
        widths: channels after the strides 2, 4 and 8.
        depth: further convolutions at stride 8; each widens what a cell sees by 8 pixels on every side.
    """

    def __init__(self, classes: int, widths: tuple[int, int, int] = (16, 32, 64), depth: int = 4) -> None:
        super().__init__()
        first, second, third = widths
        self.features = nn.Sequential(
            _convolution(3, first, stride=2),
            _convolution(first, second, stride=2),
            _convolution(second, third, stride=2),
            *(_convolution(third, third, stride=1) for _ in range(depth)),
        )
        self.classifier = nn.Linear(third, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return one score per class before the sigmoid: (N, 3, H, W) -> (N, C)."""
        logits: Tensor = self.classifier(self.features(images).mean(dim=(2, 3)))
        return logits


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU: (N, inputs, h, w) -> (N, outputs, h / stride, w / stride)."""
    kernel = 3 if stride == 1 else 4
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )
