"""The cut: what is behind it gives what the whole network gives, in any network; where that is not so, it is none."""

import pytest
import torch
from fixtures_learning import is_untouched, network_of

from heatbox.errors import LayerNotFoundError
from heatbox_workers.training.cut import Behind, find_cut, output_of
from heatbox_workers.training.transfer import transfer

VIT = {"patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 64}
# for no block, one and two blocks: the layer behind which the network learns
CUTS = [
    ("heatbox/tiny", {}, ("features", "features.5", "features.4")),
    ("torchvision/resnet18", {}, ("layer4", "layer4.0", "layer3.1")),
    ("torchvision/mobilenet_v3_small", {}, ("features", "features.11", "features.10")),
    ("torchvision/squeezenet1_1", {}, ("features.12", "features.11", "features.10")),
    ("torchvision/densenet121", {}, ("features", "features.transition3", "features.denseblock3")),
    ("timm/convnextv2_atto", {}, ("norm_pre", "stages.2.blocks.5", "stages.2.blocks.4")),
    ("timm/vit_tiny_patch16_224", VIT, ("blocks.1", "blocks.1", "blocks.0")),
]


def made(architecture="heatbox/tiny", options=None, head="softmax"):
    base = network_of(architecture, ("a", "b", "c"), architecture_options=options or {})
    return base, transfer(base, "new", ("c", "x"), {}, head, 0)


@pytest.mark.parametrize(("architecture", "options", "layers"), CUTS, ids=[one[0] for one in CUTS])
def test_behind_the_cut_is_what_the_whole_network_says(architecture, options, layers):
    base, transferred = made(architecture, options)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    for unfreeze, layer in enumerate(layers):
        behind = find_cut(transferred, unfreeze)
        assert behind.layer == layer
        with torch.no_grad(), behind.given(output_of(base.network, layer, images)):
            found = behind.logits()
        with torch.no_grad():
            assert torch.allclose(found, transferred.network(images), atol=1e-5)


def test_the_norm_inside_a_transformer_s_block_is_no_cut():
    _, transferred = made("timm/vit_tiny_patch16_224", VIT)
    with pytest.raises(LayerNotFoundError, match="reads more than its output"):
        Behind(transferred, "blocks.2.norm1")


def test_a_branch_of_a_network_is_no_cut():
    _, transferred = made("torchvision/resnet18")
    with pytest.raises(LayerNotFoundError, match="reads more than its output"):
        Behind(transferred, "layer4.1.conv1")


def test_too_many_blocks_are_an_error_that_says_how_many_there_are():
    _, transferred = made()
    with pytest.raises(LayerNotFoundError, match="has 7 blocks") as caught:
        find_cut(transferred, 7)
    assert "at most 6" in caught.value.remedy
    assert find_cut(transferred, 6).layer == "features.0"


def test_no_hook_stays_on_the_network():
    base, transferred = made()
    behind = find_cut(transferred, 1)
    images = torch.zeros(1, 3, 64, 64)
    maps = output_of(base.network, behind.layer, images)
    with pytest.raises(KeyError), behind.given(maps):
        raise KeyError
    assert is_untouched(base.network)
    assert is_untouched(transferred.network)


def test_what_is_behind_the_layer_does_not_run_for_its_output():
    base, _ = made()
    ran = []
    handle = base.network.classifier.register_forward_hook(lambda *_: ran.append(1))
    output_of(base.network, "features.2", torch.zeros(1, 3, 64, 64))
    handle.remove()
    assert not ran


@pytest.mark.parametrize(
    ("architecture", "unfreeze"), [("heatbox/tiny", 0), ("heatbox/tiny", 3), ("torchvision/resnet18", 1)]
)
def test_what_is_in_front_of_the_cut_does_not_run_again(architecture, unfreeze):
    base, transferred = made(architecture)
    behind = find_cut(transferred, unfreeze)
    maps = output_of(base.network, behind.layer, torch.zeros(2, 3, 64, 64))
    first = next(one for one in transferred.network.modules() if isinstance(one, torch.nn.Conv2d))
    ran = []
    handle = first.register_forward_hook(lambda _, inputs, output: ran.append(output is not inputs[0]))
    with torch.no_grad(), behind.given(maps):
        behind.logits()
    handle.remove()
    assert not any(ran)


def test_where_the_front_cannot_be_skipped_it_runs_on_one_picture():
    """A transformer's class token is put before the patches."""
    base, transferred = made("timm/vit_tiny_patch16_224", VIT)
    behind, seen = find_cut(transferred, 1), []
    handle = transferred.network.register_forward_pre_hook(lambda _, images: seen.append(len(images[0])))
    with torch.no_grad(), behind.given(output_of(base.network, behind.layer, torch.zeros(5, 3, 64, 64))):
        assert behind.logits().shape == (5, 2)
    handle.remove()
    assert seen == [1]
