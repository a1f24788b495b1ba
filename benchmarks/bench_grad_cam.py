"""What Grad-CAM and Fused CAM cost on top of a forward pass, beside two well-known libraries; ratios of one run.

Run it with `make bench`. The rounds are interleaved, so that a slow moment of the machine hits all alike.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the workers run; see docs/explanation

import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from captum.attr import LayerGradCam
from torchcam import methods

from heatbox.models import make_card
from heatbox_plugins.explainers.cam import CAM
from heatbox_plugins.explainers.fused_cam import FusedCAM
from heatbox_plugins.explainers.grad_cam import GradCAM
from heatbox_workers.classifier import TorchClassifier

BATCH, SIDE, ROUNDS, CLASSES = 8, 224, 7, 5


def make(name: str, layer: str) -> TorchClassifier:
    """Return a random torchvision network; its numbers do not matter for its speed."""
    network = torchvision.models.get_model(name, weights=None).eval().requires_grad_(requires_grad=False)
    labels = tuple(map(str, range(1000)))
    card = make_card(name=name, architecture=name, labels=labels, input_size=SIDE, feature_layer=layer)
    return TorchClassifier(card, network, torch.device("cpu"))


def candidates(classifier: TorchClassifier, layer: str) -> dict[str, Callable[[], object]]:
    """Return what is timed, the plain forward pass first."""
    images = torch.randn(BATCH, 3, SIDE, SIDE)
    one = torch.stack([torch.arange(BATCH), torch.arange(BATCH)], 1)
    many = torch.cartesian_prod(torch.arange(BATCH), torch.arange(CLASSES))
    module = classifier.network.get_submodule(layer)
    captum = LayerGradCam(classifier.network, module)
    fused = FusedCAM()
    watched = fused.watches(classifier)
    gap = classifier.gap_weights() is not None

    def with_torchcam() -> None:
        with methods.GradCAM(classifier.network, target_layer=layer) as extractor, torch.enable_grad():
            scores = classifier.network(images.clone().requires_grad_())
            extractor(one[:, 1].tolist(), scores, normalized=False)

    def with_captum() -> None:
        with torch.enable_grad():
            captum.attribute(images.clone().requires_grad_(), one[:, 1], relu_attributions=True)

    timed: dict[str, Callable[[], object]] = {
        "forward": lambda: classifier.logits(images),
        "heatbox grad_cam": lambda: GradCAM()(classifier, images, one),
        f"heatbox grad_cam, {CLASSES} classes": lambda: GradCAM()(classifier, images, many),
        "heatbox fused_cam": lambda: fused(classifier, images, one),
        "choosing classes, then grad_cam": lambda: GradCAM()(classifier.seen(images), images, one),
        "choosing classes, then fused_cam": lambda: fused(classifier.seen(images, watched), images, one),
    }
    if gap:
        timed["heatbox cam"] = lambda: CAM()(classifier, images, one)
    return {**timed, "captum": with_captum, "torchcam": with_torchcam}


def main() -> None:
    """Print seconds per picture and the ratio to the forward pass, medians over interleaved rounds."""
    print(f"batch {BATCH}, {SIDE} pixels, {torch.get_num_threads()} threads, median of {ROUNDS} rounds")
    for name, layer in (("mobilenet_v2", "features"), ("resnet50", "layer4")):
        timed = candidates(make(name, layer), layer)
        seconds: dict[str, list[float]] = {what: [] for what in timed}
        for _ in range(ROUNDS + 1):
            for what, run in timed.items():
                start = time.perf_counter()
                run()
                seconds[what].append(time.perf_counter() - start)
        forward = statistics.median(seconds["forward"][1:])
        for what, values in seconds.items():
            median = statistics.median(values[1:])
            print(
                f"{name:13} {what:33} {1000 * median / BATCH:7.2f} ms/picture  {median / forward:5.2f} x forward"
            )


if __name__ == "__main__":
    main()
