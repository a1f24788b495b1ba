"""Attention rollout against numpy by hand, a closed form, and what it must leave as it found it."""

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision.models import VisionTransformer, resnet18, swin_t

from heatbox.errors import UnsupportedError
from heatbox.models import make_card
from heatbox_plugins.attention import attention_layers, watched
from heatbox_plugins.explainers.attention_rollout import AttentionRollout
from heatbox_workers.classifier import TorchClassifier, noise
from heatbox_workers.conformance import RULES, as_text, check_explainer, default_benches

CPU = torch.device("cpu")
SIDE = 32


def torch_vit():
    network = VisionTransformer(SIDE, 8, 2, 2, 16, 32, num_classes=5)
    nn.init.normal_(network.heads.head.weight)  # torchvision begins with zeros: nothing would be read
    for layer in attention_layers(network):
        nn.init.normal_(layer.in_proj_weight)  # sharp attention, so that a wrong product is seen
    return network


def timm_vit(**options):
    options = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, **options}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=5, **options)
    for layer in attention_layers(network):
        nn.init.normal_(layer.qkv.weight)
    return network


def classifier_of(build, side=SIDE):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        network = build().eval().requires_grad_(requires_grad=False)
    card = make_card(
        name="vit", architecture="timm/vit", labels=tuple("abcde"), input_size=side, sha256="0" * 64
    )
    return TorchClassifier(card, network, CPU)


def softmax(scores):
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def attention_by_hand(network, images):
    """Return the attention of each layer (N, heads, T, T) from the inputs of its layers and its weights, in numpy."""
    layers, inputs = attention_layers(network), []
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: inputs.append((*args, *kwargs.values())[0]), with_kwargs=True
        )
        for layer in layers
    ]
    network(images)
    for handle in handles:
        handle.remove()
    found = []
    for layer, tokens in zip(layers, inputs, strict=True):
        is_torch = isinstance(layer, nn.MultiheadAttention)
        weight, bias = (
            (layer.in_proj_weight, layer.in_proj_bias) if is_torch else (layer.qkv.weight, layer.qkv.bias)
        )
        read = tokens.double().numpy() @ weight.double().numpy().T + bias.double().numpy()
        heads = read.reshape(*read.shape[:2], 3, 2, 8).transpose(2, 0, 3, 1, 4)  # q k v, N, heads, T, d
        found.append(softmax(heads[0] @ heads[1].swapaxes(2, 3) / np.sqrt(8)))
    return found


def rollout_by_hand(network, images, fuse=np.mean):
    product = None
    for attention in attention_by_hand(network, images):
        mixed = 0.5 * fuse(attention, axis=1) + 0.5 * np.eye(attention.shape[-1])
        mixed /= mixed.sum(-1, keepdims=True)
        product = mixed if product is None else mixed @ product
    return product


# What the head reads -> network, rows of the rollout that are averaged, tokens without a place.
READERS = {
    "torchvision, class token": (torch_vit, [0], 1),
    "timm, class token": (timm_vit, [0], 1),
    "timm, class token and registers": (lambda: timm_vit(reg_tokens=4), [0], 5),
    "timm, pooled patches": (lambda: timm_vit(global_pool="avg", class_token=False), range(16), 0),
    "timm, pooled patches beside a class token": (lambda: timm_vit(global_pool="avg"), range(1, 17), 1),
}


@pytest.mark.parametrize("name", READERS)
def test_it_is_the_product_of_attention_and_identity_in_the_rows_that_the_head_reads(name, agrees):
    build, rows, prefix = READERS[name]
    classifier, images = classifier_of(build), noise(SIDE, CPU, 3)
    expected = rollout_by_hand(classifier.network, images)[:, list(rows), prefix:].mean(1).reshape(3, 4, 4)
    found = AttentionRollout()(classifier, images, torch.tensor([[0, 1], [1, 1], [2, 0]])).heatmaps
    assert agrees(found, expected, 4e-6, "attention and its product in numpy")
    assert expected.std() > 1e-3


@pytest.mark.parametrize(("heads", "fuse"), [("max", np.max), ("min", np.min)])
def test_heads_can_be_fused_by_their_largest_or_smallest_attention(heads, fuse, agrees):
    classifier, images = classifier_of(torch_vit), noise(SIDE, CPU)
    expected = rollout_by_hand(classifier.network, images, fuse)[:, 0, 1:].reshape(2, 4, 4)
    found = AttentionRollout(heads=heads)(classifier, images, torch.tensor([[0, 0], [1, 0]])).heatmaps
    assert agrees(found, expected, 1e-6, "attention and its product in numpy")


def test_even_attention_gives_every_patch_the_same_share(agrees):
    classifier = classifier_of(torch_vit)
    for layer in attention_layers(classifier.network):
        layer.in_proj_weight.zero_()  # A = 1 / T everywhere: R = I / 2^L + (1 - 1 / 2^L) / T
    (found,) = AttentionRollout()(classifier, noise(SIDE, CPU, 1), torch.tensor([[0, 0]])).heatmaps
    expected = torch.full((4, 4), (1 - 1 / 2**2) / 17)
    assert agrees(found, expected, 1e-6, "closed form of even attention")


def test_the_map_knows_no_class_and_pictures_do_not_see_each_other():
    classifier, images = classifier_of(timm_vit), noise(SIDE, CPU, 20)
    targets = torch.tensor([[19, 0], [3, 1], [3, 4], [0, 2]])
    found = AttentionRollout()(classifier, images, targets).heatmaps
    assert AttentionRollout.class_agnostic
    assert torch.equal(found[1], found[2])
    for row, image in enumerate(targets[:, 0].tolist()):
        (alone,) = AttentionRollout()(classifier, images[image : image + 1], torch.tensor([[0, 0]])).heatmaps
        assert torch.allclose(found[row], alone, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "side", "words"),
    [
        (lambda: resnet18(num_classes=5), 64, "no attention that can be read"),
        (lambda: swin_t(num_classes=5), 64, "no attention that can be read"),
        (
            lambda: timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, depths=(1, 1, 1, 1)),
            224,
            "windows",
        ),
        (lambda: timm.create_model("xcit_nano_12_p16_224", num_classes=5, depth=1), 64, "channels"),
        (lambda: timm.create_model("pvt_v2_b0", num_classes=5), 64, "pooled keys"),
    ],
    ids=["resnet", "swin of torchvision", "swin of timm", "channels", "pooled keys"],
)
def test_networks_without_global_attention_are_refused_in_words(build, side, words):
    classifier = classifier_of(build, side)
    before = state(classifier.network)
    said = AttentionRollout().supports(classifier)
    assert words in said
    assert "and this is none: " in said
    assert "grad_cam" in said
    with pytest.raises(UnsupportedError, match=words):
        AttentionRollout()(classifier, noise(side, CPU), torch.tensor([[0, 0]]))
    assert state(classifier.network) == before


def state(network):
    """Return what watching could leave changed: hooks, and which kernel timm's layers use."""
    return [
        (len(module._forward_hooks), len(module._forward_pre_hooks), getattr(module, "fused_attn", None))  # noqa: SLF001
        for module in network.modules()
    ]


@pytest.mark.parametrize("build", [torch_vit, timm_vit])
def test_the_network_is_left_as_it_was_also_when_it_raises(build):
    classifier, images = classifier_of(build), noise(SIDE, CPU)
    assert AttentionRollout().supports(classifier) is None
    logits, before = classifier.logits(images), state(classifier.network)
    AttentionRollout()(classifier, images, torch.tensor([[0, 0]]))
    with pytest.raises((RuntimeError, AssertionError)):
        AttentionRollout()(classifier, torch.zeros(1, 3, 7, 7), torch.tensor([[0, 0]]))
    last = attention_layers(classifier.network)[-1].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        AttentionRollout()(classifier, images, torch.tensor([[0, 0]]))
    last.remove()
    assert state(classifier.network) == before
    assert torch.equal(classifier.logits(images), logits)


@pytest.mark.parametrize("asked", [{}, {"need_weights": False}, {"average_attn_weights": False}])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_watched_layer_answers_what_it_was_asked_for(asked, batch_first):
    layer = nn.MultiheadAttention(16, 2, batch_first=batch_first).eval().requires_grad_(requires_grad=False)
    tokens, told = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0)), []
    plain = layer(tokens, tokens, tokens, None, **asked)

    def tell(_, attention, output):
        told.append((attention.shape, output.shape))
        return output

    with watched([layer], tell):
        seen = layer(tokens, tokens, tokens, None, **asked)
    pictures, length = (3, 5) if batch_first else (5, 3)
    assert told == [((pictures, 2, length, length), (pictures, length, 16))]
    assert torch.allclose(seen[0], plain[0], atol=1e-6)
    assert (seen[1] is None) == (plain[1] is None)
    assert plain[1] is None or torch.allclose(seen[1], plain[1], atol=1e-6)


def test_an_unknown_fusion_is_told():
    with pytest.raises(ValueError, match="heads must be mean, max or min, got 'median'"):
        AttentionRollout(heads="median")


@pytest.mark.parametrize("heads", ["mean", "max", "min"])
def test_it_keeps_the_contract(heads):
    findings = check_explainer(AttentionRollout(heads), default_benches())
    assert as_text(findings) == ""
    assert [finding.rule for finding in findings] == [rule.id for rule in RULES]
