"""Eigen-CAM against the singular value decomposition."""

import numpy as np
import pytest
import torch

from heatbox_plugins.explainers.eigen_cam import EigenCAM

# From h w < K (Gram matrix over cells) to h w > K (Gram matrix over channels).
LAYERS = [("resnet", "layer4"), ("resnet", "layer1"), ("vgg", "features.9"), ("mobilenet", "features.14")]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("network", "layer"), LAYERS)
def test_eigen_cam_is_the_first_singular_component(classifier, layer, centred, images, agrees):
    ours = EigenCAM(layer, centred)(classifier, images, torch.tensor([[1, 0]])).heatmaps[0]
    cells = classifier.feature_maps(images, layer)[1].flatten(1).T.double().numpy()
    cells = cells - cells.mean(0) if centred else cells
    _, _, right = np.linalg.svd(cells, full_matrices=False)
    expected = (cells @ right[0]).reshape(ours.shape)
    expected = expected if np.abs(expected).max() == expected.max() else -expected
    assert agrees(ours, expected, 1e-5, "SVD of numpy")


def test_without_centring_maps_behind_a_relu_have_no_negative_component(resnet, images, targets):
    assert float(EigenCAM()(resnet, images, targets).heatmaps.min()) >= 0


@pytest.mark.parametrize("centred", [False, True])
def test_the_value_of_the_largest_size_is_positive(centred, vgg, images, targets):
    heatmaps = EigenCAM(centred=centred)(vgg, images, targets).heatmaps
    assert torch.equal(heatmaps.amax(dim=(1, 2)), heatmaps.abs().amax(dim=(1, 2)))


def test_every_class_of_a_picture_gets_the_same_map_and_every_picture_its_own(resnet, images):
    heatmaps = EigenCAM()(resnet, images, torch.tensor([[0, 1], [2, 1], [0, 5]])).heatmaps
    assert torch.equal(heatmaps[0], heatmaps[2])
    assert not torch.allclose(heatmaps[0], heatmaps[1])


def test_one_picture_alone_gets_the_map_that_it_gets_in_a_batch(resnet, images, targets):
    heatmaps = EigenCAM()(resnet, images, targets).heatmaps
    alone = EigenCAM()(resnet, images[1:2], torch.tensor([[0, 4]])).heatmaps
    assert torch.allclose(heatmaps[1:2], alone, rtol=1e-4)


@pytest.mark.parametrize("layer", ["auto", "features.1"])
def test_a_constant_picture_gives_finite_maps(layer, vgg):
    heatmaps = EigenCAM(layer, centred=True)(vgg, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0]])).heatmaps
    assert bool(heatmaps.isfinite().all())
