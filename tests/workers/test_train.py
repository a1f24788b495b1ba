"""Training: learns from image labels, is seeded, leaves the global generator and the network's shape alone."""

import pytest
import torch
from torch import nn

from heatbox.errors import ModelInvalidError
from heatbox_workers.tiny import TinyNet
from heatbox_workers.train import Recipe, Step, one_cycle, standardised_head, train_classifier

QUICK = Recipe(epochs=8, batch_size=16, learning_rate=1e-2, augmentation=None)


def squares(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of 32 pixels with a red square (class 0), a green one (class 1), both or none, somewhere on noise."""
    random = torch.Generator().manual_seed(seed)
    pictures = 0.3 * torch.randn(count, 3, 32, 32, generator=random)
    labels = (torch.rand(count, 2, generator=random) < 0.5).float()
    for row, column in labels.nonzero().tolist():
        y, x = torch.randint(0, 24, (2,), generator=random).tolist()
        pictures[row, column, y : y + 8, x : x + 8] += 3
    return pictures, labels


def untrained() -> TinyNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyNet(2, widths=(8, 8, 16), depth=1)


def ignore(_step: Step) -> None: ...


def test_classes_are_learned_from_image_labels():
    network = untrained()
    loss = train_classifier(network, *squares(128, seed=0), QUICK, ignore)
    unseen, labels = squares(64, seed=1)
    with torch.no_grad():
        assert ((network(unseen) > 0) == (labels > 0)).float().mean() > 0.9
    assert loss < 0.3


def test_the_trained_map_is_highest_on_the_object():
    network = untrained()
    train_classifier(network, *squares(128, seed=0), QUICK, ignore)
    picture = torch.zeros(1, 3, 32, 32)
    picture[0, 1, 16:24, 8:16] = 3
    with torch.no_grad():
        heatmap = torch.einsum("k,khw->hw", network.classifier.weight[1], network.features(picture)[0])
    assert divmod(int(heatmap.argmax()), 4) in {(2, 1), (2, 2), (1, 1), (3, 1)}


def test_the_same_seed_gives_the_same_weights():
    first, second = untrained(), untrained()
    for network in (first, second):
        train_classifier(network, *squares(32, seed=0), Recipe(epochs=2, seed=3), ignore)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_another_seed_gives_other_weights():
    first, second = untrained(), untrained()
    for seed, network in enumerate((first, second)):
        train_classifier(network, *squares(32, seed=0), Recipe(epochs=2, seed=seed), ignore)
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


def test_the_global_generator_stays_where_it_was():
    before = torch.random.get_rng_state()
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    after_building = torch.random.get_rng_state()
    train_classifier(network, *squares(16, seed=0), Recipe(epochs=1), ignore)
    assert torch.equal(torch.random.get_rng_state(), after_building)
    assert not torch.equal(before, after_building)


@pytest.mark.parametrize(("done", "share"), [(0, 0.02), (0.125, 0.51), (0.25, 1), (0.625, 0.51), (1, 0.02)])
def test_the_learning_rate_rises_for_a_quarter_and_then_falls(done, share):
    assert one_cycle(done) == pytest.approx(share)


def test_every_step_is_told():
    steps: list[Step] = []
    train_classifier(untrained(), *squares(40, seed=0), Recipe(epochs=2, batch_size=16), steps.append)
    assert [(step.number, step.total, step.epoch) for step in steps] == [
        (1, 4, 1),
        (2, 4, 1),
        (3, 4, 2),
        (4, 4, 2),
    ]


def test_a_trained_network_has_the_parts_of_an_untrained_one():
    network = untrained()
    train_classifier(network, *squares(16, seed=0), Recipe(epochs=1), ignore)
    assert network.state_dict().keys() == untrained().state_dict().keys()
    assert not network.training


def test_folding_keeps_the_function_that_was_trained():
    network, (pictures, _) = untrained(), squares(16, seed=0)
    with torch.no_grad():
        with standardised_head(network):
            network.train()(pictures)
            expected = network.eval()(pictures)
        assert torch.allclose(network(pictures), expected, atol=1e-5)


def test_the_head_is_put_back_after_an_exception():
    network = untrained()
    with pytest.raises(KeyError), standardised_head(network):
        raise KeyError
    assert isinstance(network.classifier, nn.Linear)


def test_a_network_without_linear_layer_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ModelInvalidError, match="last linear layer"):
        train_classifier(network, *squares(16, seed=0), QUICK, ignore)


def test_a_loss_that_is_not_finite_stops_the_training():
    pictures, labels = squares(16, seed=0)
    with pytest.raises(ModelInvalidError, match="finite"):
        train_classifier(untrained(), pictures * float("nan"), labels, QUICK, ignore)
