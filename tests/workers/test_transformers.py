"""Token maps: a vision transformer's patches as feature maps, against autograd by hand; VGG16 and ResNet50."""

import shutil

import pytest
import timm
import torch
from torch import nn
from torchvision.models import VisionTransformer, swin_t

from heatbox.errors import LayerNotFoundError
from heatbox.models import ModelStore, make_card
from heatbox.plugins import make_explainer
from heatbox_workers.classifier import TorchClassifier, noise
from heatbox_workers.features import find_feature_layer, find_gap_weights, forward_pass, rescore
from heatbox_workers.layouts import as_maps, layout_of, put_back
from heatbox_workers.loading import load_classifier, register
from heatbox_workers.networks import build_network

CPU = torch.device("cpu")
SIDE, CELLS, WIDTH = 32, 4, 16
LAST_NORM = "encoder.layers.encoder_layer_1.ln_1"
TARGETS = torch.tensor([[0, 1], [0, 3], [1, 0], [1, 4]])


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return build().eval().requires_grad_(requires_grad=False)


def small_vit():
    network = VisionTransformer(SIDE, 8, 2, 2, WIDTH, 32, num_classes=5)
    nn.init.normal_(
        network.heads.head.weight
    )  # torchvision begins with zeros: no logit would see the picture
    nn.init.normal_(network.encoder.pos_embedding)
    return network


@pytest.fixture(scope="module")
def vit():
    return seeded(small_vit)


@pytest.fixture(scope="module")
def classifier(vit):
    card = make_card(
        name="vit",
        architecture="torchvision/vit_b_16",
        labels=tuple("abcde"),
        input_size=SIDE,
        feature_layer=LAST_NORM,
        sha256="0" * 64,
    )
    return TorchClassifier(card, vit, CPU)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((2, 8, 7, 7), "MAPS"),
        ((2, 7, 7, 8), "CHANNELS_LAST"),
        ((2, 16, 8), "TOKENS"),
        ((2, 17, 8), "TOKENS"),
        ((2, 201, 8), "TOKENS"),
        ((2, 8, 1, 1), None),
        ((2, 1, 1, 8), None),
        ((2, 3, 17, 64), None),
        ((2, 3, 8), None),
        ((2, 8), None),
    ],
)
def test_a_layout_is_read_from_the_shape_and_maps_go_back_into_it(shape, layout):
    output = torch.arange(float(torch.Size(shape).numel())).view(shape)
    found = layout_of(output)
    assert (found.name if found else None) == layout
    if found:
        maps = as_maps(output, found)
        assert maps.shape[2] == maps.shape[3] > 1
        assert torch.equal(put_back(maps, output, found), output)


def test_patches_stand_row_by_row_behind_the_tokens_without_a_place():
    tokens = torch.arange(201.0).view(1, 201, 1)  # a class token, four registers, 14 x 14 patches
    maps = as_maps(tokens, layout_of(tokens))
    assert maps.shape == (1, 1, 14, 14)
    assert (maps[0, 0, 0, 0], maps[0, 0, 0, 1], maps[0, 0, 1, 0]) == (5, 6, 19)


def by_hand(vit, images, targets):
    """Return the last norm's patches and their gradients from one whole graph: the slow, plain way."""
    kept = []
    handle = vit.get_submodule(LAST_NORM).register_forward_hook(lambda _, __, output: kept.append(output))
    scores = vit(images.clone().requires_grad_())[targets[:, 0], targets[:, 1]]
    handle.remove()
    (tokens,) = kept
    gradients = [torch.autograd.grad(score, tokens, retain_graph=True)[0] for score in scores]
    rows = torch.stack([gradient[image] for gradient, image in zip(gradients, targets[:, 0], strict=True)])
    cells = [
        values[:, 1:].mT.unflatten(2, (CELLS, CELLS)) for values in (tokens.detach()[targets[:, 0]], rows)
    ]
    return (*cells, scores.detach())


def test_maps_gradients_and_logits_are_those_of_the_whole_graph(vit):
    images = noise(SIDE, CPU)
    (head,) = forward_pass(vit, LAST_NORM, images).gradients(TARGETS)
    maps, gradients, logits = by_hand(vit, images, TARGETS)
    assert torch.allclose(head.maps, maps, atol=1e-6)
    assert torch.allclose(head.gradients, gradients, atol=1e-6)
    assert torch.allclose(head.logits, logits, atol=1e-5)


def test_grad_cam_of_a_transformer_is_that_of_captum_with_its_tokens_laid_out(vit, classifier):
    from captum.attr import LayerGradCam

    class Cells(nn.Module):
        """Shows the patches of the last norm to captum as an output (N, K, h, w) on their way."""

        def forward(self, tokens):
            return tokens[:, 1:].mT.unflatten(2, (CELLS, CELLS))

    class Laid(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = Cells()
            self.vit = vit

        def forward(self, images):
            def through(_, __, tokens):
                return torch.cat([tokens[:, :1], self.cells(tokens).flatten(2).mT], dim=1)

            handle = vit.get_submodule(LAST_NORM).register_forward_hook(through)
            logits = vit(images)
            handle.remove()
            return logits

    network, images = Laid().eval(), noise(SIDE, CPU)
    found = make_explainer("grad_cam", {})(classifier, images, TARGETS).heatmaps
    for row, (image, target) in enumerate(TARGETS.tolist()):
        single = images[image : image + 1].clone().requires_grad_()
        expected = LayerGradCam(network, network.cells).attribute(single, target, relu_attributions=True)
        assert torch.allclose(found[row], expected[0, 0], atol=1e-6)
    assert float(found.std()) > 0


def test_the_layer_of_a_transformer_is_the_last_norm_whose_patches_are_heard(vit):
    assert find_feature_layer(vit, noise(SIDE, CPU)) == LAST_NORM
    assert find_gap_weights(vit, LAST_NORM, noise(SIDE, CPU)) is None
    (behind,) = forward_pass(vit, "encoder.ln", noise(SIDE, CPU)).gradients(TARGETS)
    assert not behind.gradients.any()  # why it is not the last norm of all


def timm_vit(**options):
    options = {"img_size": 64, "depth": 2, **options}
    return lambda: timm.create_model("vit_tiny_patch16_224", num_classes=3, **options)


# What the head reads -> the layer that is explained.
HEADS = {
    "class token": (timm_vit(), "blocks.1.norm1"),
    "class token and registers": (timm_vit(reg_tokens=4), "blocks.1.norm1"),
    "pooled patches": (timm_vit(global_pool="avg", class_token=False), "norm"),
    "pooled patches beside a class token": (timm_vit(global_pool="avg"), "norm"),
    "attention over patches": (timm_vit(global_pool="map", class_token=False), "norm"),
    "pooled windows, torchvision": (lambda: swin_t(num_classes=3), "permute"),
}


@pytest.mark.parametrize("name", HEADS)
def test_what_the_head_reads_decides_on_the_layer(name):
    build, layer = HEADS[name]
    network = seeded(build)
    assert find_feature_layer(network, noise(64, CPU)) == layer
    (head,) = forward_pass(network, layer, noise(64, CPU)).gradients(torch.tensor([[0, 1]]))
    assert float(head.gradients.abs().amax(dim=(1,)).min()) > 0  # every patch is heard
    assert torch.allclose(
        forward_pass(network, layer, noise(64, CPU)).logits, network(noise(64, CPU)), atol=1e-5
    )


def test_a_transformer_that_does_not_hear_its_patches_has_no_layer():
    network = seeded(lambda: VisionTransformer(SIDE, 8, 2, 2, WIDTH, 32, num_classes=5))
    with pytest.raises(LayerNotFoundError, match="never trained"):
        find_feature_layer(network, noise(SIDE, CPU))


def test_windows_are_no_map_of_the_picture():
    network = seeded(lambda: timm.create_model("swin_tiny_patch4_window7_224", num_classes=3))
    with pytest.raises(LayerNotFoundError, match="not a map"):
        forward_pass(network, "layers.0.blocks.0.attn", noise(224, CPU))


def test_rescoring_a_transformers_own_patches_gives_its_scores(vit):
    images = noise(SIDE, CPU)[:1]
    maps = forward_pass(vit, LAST_NORM, images).maps.detach()
    scores = rescore(vit, LAST_NORM, images, torch.cat([maps, maps * 0, maps]))
    assert torch.allclose(scores[[0, 2]], vit(images).expand(2, -1), atol=1e-5)
    assert not torch.allclose(scores[1], scores[0])


def test_a_network_that_cannot_add_one_picture_to_many_is_rescored_too():
    network = seeded(lambda: timm.create_model("cait_xxs24_224", num_classes=3, img_size=64, depth=2))
    images = noise(64, CPU)[:1]
    layer = find_feature_layer(network, images)
    maps = forward_pass(network, layer, images).maps.detach()
    assert torch.allclose(
        rescore(network, layer, images, maps.repeat(3, 1, 1, 1)), network(images), atol=1e-5
    )


CAMS = {
    "grad_cam": {},
    "grad_cam_pp": {},
    "hires_cam": {},
    "xgrad_cam": {},
    "layer_cam": {},
    "eigen_cam": {},
    "score_cam": {},
    "ablation_cam": {},
    "fused_cam": {},
}


@pytest.mark.parametrize("name", CAMS)
def test_the_cam_family_explains_a_transformer(name, classifier):
    before = classifier.logits(noise(SIDE, CPU))
    heatmaps = make_explainer(name, CAMS[name])(classifier, noise(SIDE, CPU), TARGETS).heatmaps
    assert heatmaps.shape[0] == len(TARGETS)
    assert heatmaps.shape[1] == heatmaps.shape[2] >= CELLS
    assert bool(heatmaps.isfinite().all())
    assert bool((heatmaps.amax((1, 2)) > heatmaps.amin((1, 2))).any())
    assert torch.equal(classifier.logits(noise(SIDE, CPU)), before)


# Networks of the projects that heatbox learned from: explainers beside grad_cam, input side, layer, cells.
VETERANS = {
    "vgg16": (("guided_backprop", "dam"), 64, "features.29", 4),
    "resnet50": (("guided_backprop", "cam"), 64, "layer4", 2),
}


@pytest.fixture(scope="module", params=VETERANS)
def veteran(request, tmp_path_factory):
    explainers, side, layer, cells = VETERANS[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = build_network(request.param, {}, 3).state_dict()
    folder = tmp_path_factory.mktemp("store")
    card = make_card(name="old", architecture=request.param, labels=("a", "b", "c"), input_size=side)
    store = ModelStore(folder)
    yield load_classifier(store, register(store, card, state)), explainers, layer, cells
    shutil.rmtree(folder)  # half a gigabyte, which pytest would keep


def test_the_networks_of_the_older_projects_are_explained(veteran):
    classifier, explainers, layer, cells = veteran
    images, targets = noise(classifier.input_size, CPU), torch.tensor([[0, 0], [0, 1], [1, 2]])
    assert classifier.feature_layer == layer
    assert classifier.feature_maps(images).shape[2:] == (cells, cells)
    for name in ("grad_cam", *explainers):
        evidence = make_explainer(name, {})(classifier, images, targets)
        found = (evidence.masks if evidence.heatmaps is None else evidence.heatmaps).float()
        assert len(found) == 3
        assert bool(found.isfinite().all())
        assert float(found.amax() - found.amin()) > 0
