"""The guided switch against a guided ReLU written as its own autograd function, on any spelling of ReLU."""

from functools import cache

import cv2
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from heatbox.errors import UnsupportedError
from heatbox_plugins.guided import guided, guided_gradients, require_blur, smooth, why_unguided

TARGETS = torch.tensor([[0, 1], [1, 4], [0, 5]])
COUNTS = [("resnet18", 17), ("mobilenet_v2", 35), ("densenet121", 121), ("googlenet", 57)]
RELUS = {functional.relu, functional.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_}
RELU6S = {functional.relu6, functional.hardtanh, functional.hardtanh_}


class GuidedReLU(torch.autograd.Function):
    """R' = 1[0 < f < limit] 1[R > 0] R, in so many words."""

    @staticmethod
    def forward(ctx, f, limit):
        ctx.save_for_backward((f > 0) & (f < limit))
        return f.clamp(0, limit)

    @staticmethod
    def backward(ctx, gradient):
        (passed,) = ctx.saved_tensors
        return gradient * passed * (gradient > 0), None


class WrittenOut(TorchFunctionMode):
    """Every call of a ReLU becomes a call of GuidedReLU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in RELUS:
            return GuidedReLU.apply(args[0], float("inf"))
        if function in RELU6S:
            return GuidedReLU.apply(args[0], 6.0)
        return function(*args, **(kwargs or {}))


@cache
def random_network(name):
    """Return a random network of torchvision whose BatchNorm statistics fit its weights."""
    extra = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        network = torchvision.models.get_model(name, weights=None, num_classes=6, **extra).train()
        for _ in range(2):
            network(torch.randn(4, 3, 64, 64))
    return network.eval().requires_grad_(requires_grad=False)


def plain_gradients(network, images, targets):
    pixels = images.clone().requires_grad_()
    logits = network(pixels * 1)
    return torch.stack(
        [torch.autograd.grad(logits[i, c], pixels, retain_graph=True)[0][i] for i, c in targets.tolist()]
    )


def nets(rectify):
    """Return a small network that rectifies by a function."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
            self.head = nn.Linear(8, 6)

        def forward(self, x):
            return self.head(rectify(self.second(rectify(self.first(x)))).mean(dim=(2, 3)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval().requires_grad_(requires_grad=False)


SPELLINGS = {
    "module": (nn.ReLU(), torch.inf),
    "module in place": (nn.ReLU(inplace=True), torch.inf),
    "functional": (functional.relu, torch.inf),
    "method in place": (torch.Tensor.relu_, torch.inf),
    "relu6": (nn.ReLU6(), 6.0),
    "relu6 in place": (nn.ReLU6(inplace=True), 6.0),
    "clamp": (lambda f: f.clamp(min=0), torch.inf),
    "clamp on both sides": (lambda f: f.clamp(0, 6), 6.0),
    "clamp_min": (lambda f: torch.clamp_min(f, 0), torch.inf),
    "threshold": (nn.Threshold(0, 0), torch.inf),
}
OTHERS = [nn.SiLU(), nn.GELU(), nn.LeakyReLU(), nn.ELU(), nn.Hardswish(), nn.Hardtanh(-1, 1), nn.Tanh()]


@pytest.mark.parametrize(("name", "count"), COUNTS)
def test_every_relu_of_a_known_network_is_found(name, count):
    network = random_network(name)
    with guided(network(torch.zeros(1, 3, 64, 64, requires_grad=True) * 1)) as found:
        assert found == count


@pytest.mark.parametrize("name", [name for name, _ in COUNTS])
def test_guided_gradients_are_those_of_a_written_out_guided_relu(name, images, agrees):
    network = random_network(name)
    with WrittenOut():
        expected = plain_gradients(network, images, TARGETS)
    ours = guided_gradients(network, images, TARGETS)
    assert agrees(ours, expected, 0, "guided ReLU as an autograd.Function", "guided_backprop")
    assert not torch.allclose(expected, plain_gradients(network, images, TARGETS), rtol=0.1, atol=0)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_relu_is_turned_guided(spelling, images, agrees):
    rectify, limit = SPELLINGS[spelling]
    bright = images * 20  # so that ReLU6 reaches its upper bound
    expected = plain_gradients(nets(lambda f: GuidedReLU.apply(f, limit)), bright, TARGETS)
    ours = guided_gradients(nets(rectify), bright, TARGETS)
    assert agrees(ours, expected, 0, "guided ReLU as an autograd.Function", "guided_backprop")


@pytest.mark.parametrize("activation", OTHERS, ids=lambda module: type(module).__name__)
def test_a_network_without_relu_is_refused_because_guided_would_be_plain(activation, images):
    with pytest.raises(UnsupportedError, match="would equal the plain gradient"):
        guided_gradients(nets(activation), images, TARGETS)


def test_a_relu_in_place_on_a_part_of_a_tensor_is_refused_as_out_of_reach(images):
    def half(f):
        functional.relu_(f[:, :4])
        return f

    with pytest.raises(UnsupportedError, match="part of a tensor in place"):
        guided_gradients(nets(half), images, TARGETS)


def test_the_switch_turns_back_also_after_an_exception(images):
    pixels = images.clone().requires_grad_()
    logits = random_network("resnet18")(pixels)
    seen = []

    def look():
        seen.append(torch.autograd.grad(logits[0, 1], pixels, retain_graph=True)[0])

    def look_and_fail():
        look()
        raise KeyError

    look()
    with pytest.raises(KeyError), guided(logits):
        look_and_fail()
    look()
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_more_images_than_one_graph_holds_give_what_each_gives_alone(resnet):
    images = torch.randn(10, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([[9, 0], [0, 1], [9, 2], [4, 4], *([index, 3] for index in range(10))])
    together = guided_gradients(resnet.network, images, targets)
    for row, (image, target) in enumerate(targets.tolist()):
        alone = guided_gradients(resnet.network, images[image : image + 1], torch.tensor([[0, target]]))[0]
        assert (together[row] - alone).abs().max() <= 1e-4 * alone.abs().max()


def test_images_and_network_are_left_as_they_were(resnet, images):
    before = {name: value.clone() for name, value in resnet.network.state_dict().items()}
    state, copy = torch.get_rng_state(), images.clone()
    with torch.no_grad():
        gradients = guided_gradients(resnet.network, images, TARGETS)
    assert not gradients.requires_grad
    assert torch.equal(images, copy)
    assert not images.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in resnet.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in resnet.network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("network", ["resnet", "mobilenet", "squeezenet"])
def test_networks_with_relus_are_supported(classifier):
    assert why_unguided(classifier) is None


@pytest.mark.parametrize("part", [1 / 56, 0.05])
def test_smoothing_is_opencvs_gaussian(part, agrees):
    heatmaps = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0))
    side = 2 * int(3 * part * 64 + 0.5) + 1
    for map_, ours in zip(heatmaps.numpy(), smooth(heatmaps, part).numpy(), strict=True):
        expected = cv2.GaussianBlur(map_, (side, side), part * 64, borderType=cv2.BORDER_REFLECT_101)
        assert agrees(ours, expected, 1e-6, "OpenCV GaussianBlur", "guided_backprop")


def test_no_smoothing_leaves_the_maps_alone():
    heatmaps = torch.rand(2, 8, 8)
    assert torch.equal(smooth(heatmaps, 0), heatmaps)


@pytest.mark.parametrize("part", [-0.01, 0.2])
def test_an_unusable_blur_is_refused_with_its_range(part):
    with pytest.raises(ValueError, match="blur must be from 0 to"):
        require_blur(part)
