"""Learning: it ends the same wherever it was stopped, keeps the best weights, and looks where people say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures_colours import weights as colour_weights
from fixtures_learning import example_of, is_untouched, learner_of, network_of, painted, squares, told

from heatbox.errors import ModelInvalidError
from heatbox_workers.features import record
from heatbox_workers.loading import make_classifier
from heatbox_workers.training.losses import heat, occupancy

VIT = {"patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 64}
WAYS = [
    ("softmax", {}),
    ("softmax", {"unfreeze": 2}),
    ("arcface", {}),
    ("sigmoid", {"augment": True}),
    ("softmax", {"box_weight": 0.0, "unfreeze": 1}),
]


@pytest.fixture(scope="module")
def base():
    return network_of()


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("pictures"), 24)


def learnt(base, examples, folder, tell=lambda _: None, **options):
    """Return the weights after learning, and the epochs that were told."""
    learner, training, validation = learner_of(base, examples, folder, **options)
    epochs = []

    def tell_all(epoch):
        epochs.append(epoch)
        tell(epoch)

    learner.learn(training, validation, tell_all)
    return learner.transferred.network.state_dict(), epochs


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def stop_after(number):
    def tell(epoch):
        if epoch.number == number:
            raise KeyboardInterrupt

    return tell


@pytest.mark.parametrize(("head", "options"), WAYS, ids=str)
def test_stopped_and_taken_up_again_it_ends_the_same(tmp_path, base, examples, head, options):
    whole, epochs = learnt(base, examples, tmp_path / "whole", head=head, **options)
    for number in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            learnt(base, examples, tmp_path / "parts", stop_after(number), head=head, **options)
    parts, last = learnt(base, examples, tmp_path / "parts", head=head, **options)
    assert same(whole, parts)
    assert [one.number for one in last] == [4]
    assert last[-1] == epochs[-1]


def test_stopped_after_its_last_epoch_it_learns_nothing_more(tmp_path, base, examples):
    whole, _ = learnt(base, examples, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        learnt(base, examples, tmp_path / "parts", stop_after(4))
    parts, epochs = learnt(base, examples, tmp_path / "parts")
    assert same(whole, parts)
    assert not epochs


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path, base, examples):
    with pytest.raises(KeyboardInterrupt):
        learnt(base, examples, tmp_path, stop_after(2))
    _, epochs = learnt(base, examples, tmp_path, identity="two")
    assert [one.number for one in epochs] == [1, 2, 3, 4]


def test_the_same_seed_learns_the_same_and_another_something_else(tmp_path, base, examples):
    first, again, other = (
        learnt(base, examples, tmp_path / str(number), seed=seed, augment=True)[0]
        for number, seed in enumerate((7, 7, 8))
    )
    assert same(first, again)
    assert not same(first, other)


def test_the_largest_seeds_are_seeds_too(tmp_path, base, examples):
    assert learnt(base, examples, tmp_path, seed=2**62, epochs=1)


@pytest.mark.parametrize(
    ("head", "unfreeze"), [("softmax", 0), ("sigmoid", 0), ("arcface", 0), ("softmax", 2)]
)
def test_classes_are_learnt(tmp_path, examples, head, unfreeze):
    options = {"epochs": 10, "learning_rate": 0.02, "box_weight": 0.0, "unfreeze": unfreeze}
    learner, training, validation = learner_of(knowing_colours(), examples, tmp_path, head=head, **options)
    learner.learn(training, validation, lambda _: None)
    found = [("red", "green")[index] for index in told(learner, validation).argmax(1).tolist()]
    assert found == [one.example.labels[0] for one in validation]


def test_only_the_head_learns_unless_blocks_are_unfrozen(tmp_path, base, examples):
    before = base.network.state_dict()
    for unfreeze, parts in [
        (0, {"classifier"}),
        (1, {"classifier", "features.6"}),
        (2, {"classifier", "features.6", "features.5"}),
    ]:
        after, _ = learnt(base, examples, tmp_path, unfreeze=unfreeze, epochs=1)
        changed = {
            name.rsplit(".", 2 if "features" in name else 1)[0]
            for name, value in after.items()
            if not torch.equal(value, before[name])
        }
        assert changed == parts
        assert not any("running" in name and not torch.equal(after[name], before[name]) for name in after)


def test_with_a_rate_of_nothing_the_network_says_what_it_said(tmp_path, examples):
    base = network_of(labels=("red", "green"))
    learner, training, validation = learner_of(base, examples, tmp_path, learning_rate=0.0, epochs=2)
    learner.learn(training, validation, lambda _: None)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = learner.transferred.network(images), base.network(images)
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_network_is_left_as_it_was_found(tmp_path, base, examples):
    learner, training, validation = learner_of(base, examples, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        learner.learn(training, validation, stop_after(1))
    learner, training, validation = learner_of(base, examples, tmp_path)
    learner.learn(training, validation, lambda _: None)
    network = learner.transferred.network
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    assert is_untouched(network)


def mislabelled(example):
    other = "green" if example.labels == ("red",) else "red"
    return replace(example, labels=(other,), boxes=None)


def test_it_stops_when_nothing_gets_better_and_keeps_the_best_weights(tmp_path, base, examples):
    """The validation part says the opposite of the training part, so the first epoch is the best."""
    third = len(examples) // 3
    contrary = [*map(mislabelled, examples[:third]), *examples[third:]]
    options = {"epochs": 40, "learning_rate": 0.02}
    stopped, epochs = learnt(base, contrary, tmp_path / "a", patience=3, **options)
    best = epochs[-1].best
    assert len(epochs) == best + 3 < 40
    assert epochs[best - 1].validation == min(one.validation for one in epochs)
    kept = []
    learner, training, validation = learner_of(base, contrary, tmp_path / "b", **options)
    with pytest.raises(KeyboardInterrupt):
        learner.learn(training, validation, stop_after(best))
    learner, training, validation = learner_of(base, contrary, tmp_path / "b", patience=0, **options)
    learner.learn(training, validation, kept.append)
    assert not kept
    assert same(stopped, learner.transferred.network.state_dict())


def test_without_a_validation_part_the_last_weights_are_kept(tmp_path, base, examples):
    learner, training, _ = learner_of(base, examples, tmp_path, patience=1)
    epochs = []
    last = learner.learn(training, [], epochs.append)
    assert (len(epochs), last.best, last.validation) == (4, 4, None)


def test_a_rate_that_is_too_high_is_an_error_with_a_remedy(tmp_path, base, examples):
    with pytest.raises(ModelInvalidError, match="finite") as caught:
        learnt(base, examples, tmp_path, learning_rate=1e38, unfreeze=2)
    assert "--learning-rate" in caught.value.remedy


def test_a_rare_class_weighs_by_the_square_root_of_how_rare_it_is(tmp_path):
    """Nothing is to be seen in the features: what is learnt is how often each class is there, times its weight."""
    base = network_of()
    with torch.no_grad():
        base.network.features[-1][1].weight.zero_()
        base.network.features[-1][1].bias.zero_()
    pictures = squares(tmp_path / "pictures", 33, ("red",))
    examples = [mislabelled(one) if number % 16 == 0 else one for number, one in enumerate(pictures)]
    options = {"box_weight": 0.0, "epochs": 40, "learning_rate": 0.1}
    learner, training, _ = learner_of(base, examples, tmp_path, **options)
    learner.learn(training, [], lambda _: None)
    bias = learner.transferred.network.classifier.bias
    rare = sum(one.example.labels == ("green",) for one in training)
    odds = rare / (len(training) - rare)
    assert rare == 2
    assert float((bias[1] - bias[0]).exp()) == pytest.approx(odds**0.5, rel=0.15)


def knowing_colours():
    base = network_of(labels=("red", "blue"))
    return make_classifier(base.card, colour_weights())


def companions(folder, count, seed):
    """Pictures of the label `a`: a red square, boxed, and always a blue one beside it; those of `b` have neither."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        y, x, side = int(random.integers(0, 44)), int(random.integers(0, 12)), int(random.integers(14, 20))
        red, blue = (x, y) if number % 4 < 2 else (x + 32, y), (x + 32, 4) if number % 4 < 2 else (x, 4)
        shown = [("red", *red, side), ("blue", *blue, side)] if number % 2 else []
        path = painted(folder / f"{seed}-{number}.png", shown, seed=seed * 100 + number)
        boxes = [("a", red[0], red[1], red[0] + side, red[1] + side)] if number % 2 else []
        found.append(example_of(path, ["a" if number % 2 else "b"], boxes))
    return found


def energy_inside(learner, shown):
    """Return the mean share of the heat of `a` that is inside its boxes."""
    with_box = [one for one in shown if one.example.labels == ("a",)]
    maps, layer = learner.features.maps(with_box, [0] * len(with_box)), learner.transferred.card.feature_layer
    with learner.behind.given(maps), record(learner.transferred.network, (layer,), connected=True) as looked:
        logits = learner.behind.logits()
    where = heat(logits, looked[layer], torch.tensor([[row, 0] for row in range(len(with_box))])).detach()
    inside = torch.stack(
        [occupancy([corners for _, corners in one.variants[0].boxes], 8, 8) for one in with_box]
    )
    return float(((where * inside).sum((1, 2)) / where.sum((1, 2)).clamp_min(1e-6)).mean())


@pytest.mark.parametrize("unfreeze", [0, 1])
def test_boxes_move_the_heat_to_what_people_mean(tmp_path, unfreeze):
    """Red and blue always come together; labels alone cannot tell which of them is meant."""
    base, found = knowing_colours(), {}
    pictures = companions(tmp_path / "pictures", 36, 1)
    unseen = companions(tmp_path / "unseen", 12, 2)
    for weight in (0.0, 1.0):
        options = {"box_weight": weight, "epochs": 20, "learning_rate": 0.01, "unfreeze": unfreeze}
        learner, training, validation = learner_of(
            base, pictures, tmp_path / str(weight), classes=("a", "b"), **options
        )
        learner.learn(training, validation, lambda _: None)
        found[weight] = energy_inside(learner, [learner.features.prepare(one) for one in unseen])
    assert found[1.0] > found[0.0] + 0.25


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("torchvision/mobilenet_v3_small", {}),
        ("torchvision/squeezenet1_1", {}),
        ("timm/vit_tiny_patch16_224", VIT),
    ],
)
@pytest.mark.parametrize("unfreeze", [0, 1])
def test_every_network_learns_classes_and_boxes(tmp_path, examples, architecture, options, unfreeze):
    base = network_of(architecture, architecture_options=options)
    state, epochs = learnt(base, examples[:9], tmp_path, unfreeze=unfreeze, epochs=2)
    assert all(np.isfinite([one.loss, one.validation]).all() for one in epochs)
    changed = [
        name for name, value in base.network.state_dict().items() if not torch.equal(value, state[name])
    ]
    assert (len(changed) <= 2) == (unfreeze == 0)
