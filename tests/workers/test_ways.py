"""Ways of single labels: their own explainer, options, fitter, threshold and state, beside those of the pipeline."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from fixtures_colours import LABELS

from heatbox.contract import Evidence
from heatbox.errors import HeatboxError, LayerNotFoundError, NotFittedError, OptionError
from heatbox.pictures.images import Limits
from heatbox.pipeline import Pipeline, Way
from heatbox_plugins.box_fitters.components import Components
from heatbox_plugins.box_fitters.enclosing import Enclosing
from heatbox_workers.annotate import make_annotator
from heatbox_workers.loading import load_classifier
from heatbox_workers.ways import ReadyExplainer, explain

OWN = Way("eigen_cam", {}, "enclosing", {"threshold": 0.6})


@pytest.fixture
def classifier(colours):
    return load_classifier(colours.store, colours.card)


@pytest.fixture
def paths(colours):
    return sorted((colours.data / "images").glob("*.png"))[:6]


@pytest.fixture
def annotate(classifier, paths):
    """Annotate six pictures: regions without their ids, by label."""

    def annotate(states=None, **fields):
        pipeline = Pipeline(classifier.card.id, **{"explainer": "grad_cam", "min_probability": 0.1, **fields})
        found = list(make_annotator(pipeline, classifier, Limits(), states).annotate(paths))
        assert not [one for one in found if isinstance(one, HeatboxError)]
        return {
            label: [[(one.box, one.score) for one in each.regions if one.label == label] for each in found]
            for label in LABELS
        }

    return annotate


def ways(**labels):
    return tuple(labels.items())


def test_a_label_gets_the_boxes_of_its_way_and_others_those_of_the_pipeline(annotate):
    both = annotate(label_ways=ways(blue=OWN))
    plain, other = (
        annotate(),
        annotate(explainer="eigen_cam", fitter="enclosing", fitter_options={"threshold": 0.6}),
    )
    assert both == {"red": plain["red"], "blue": other["blue"]}
    assert plain["blue"] != other["blue"]


def test_a_region_of_a_label_with_a_way_of_its_own_names_the_explainer(classifier, paths):
    pipeline = Pipeline(classifier.card.id, min_probability=0.1, label_ways=ways(blue=OWN))
    found = make_annotator(pipeline, classifier, Limits()).annotate(paths)
    named = {(one.label, one.explainer) for each in found for one in each.regions}
    assert named == {("red", ""), ("blue", "eigen_cam")}


def test_ways_with_the_same_explainer_share_it_and_keep_their_fitters(classifier):
    pipeline = Pipeline(
        classifier.card.id, label_ways=ways(red=OWN, blue=replace(OWN, fitter_options={"threshold": 0.2}))
    )
    made = make_annotator(pipeline, classifier, Limits())
    assert made.own_explainers["red"] is made.own_explainers["blue"]
    assert made.own_fitters == {"red": Enclosing(0.6), "blue": Enclosing(0.2)}


def test_a_threshold_of_the_label_goes_before_that_of_its_way(classifier):
    pipeline = Pipeline(
        classifier.card.id, label_ways=ways(red=OWN), label_thresholds=(("red", 0.3), ("blue", 0.4))
    )
    made = make_annotator(pipeline, classifier, Limits())
    assert made.own_fitters == {"red": Enclosing(0.3), "blue": Components(0.4)}


@dataclass(frozen=True)
class Counting:
    """Remembers which targets it was asked for."""

    asked: list

    def __call__(self, classifier, _images, targets):
        self.asked.append((dict(classifier.state), targets.tolist()))
        return Evidence(heatmaps=torch.rand(len(targets), 4, 4))


def test_each_explainer_runs_once_a_batch_for_its_own_targets_with_its_own_state(classifier, images_of):
    own, other = Counting([]), Counting([])
    state = {"learnt": torch.ones(1)}
    targets = [(0, 0, "red"), (0, 1, "blue"), (1, 1, "blue"), (2, 0, "red")]
    found = explain(
        ReadyExplainer("own", own),
        {"blue": ReadyExplainer("other", other, (), state)},
        classifier,
        images_of,
        targets,
    )
    assert own.asked == [({}, [[0, 0], [2, 0]])]
    assert other.asked == [(state, [[0, 1], [1, 1]])]
    assert [one.row for one in found] == [0, 0, 1, 1]


@pytest.fixture
def images_of(classifier):
    return classifier.preprocess([np.zeros((64, 64, 3), np.uint8)] * 3)


@dataclass(frozen=True)
class Failing:
    """Fails for pictures that are mostly red."""

    def __call__(self, _classifier, images, targets):
        if bool((images.mean(dim=(2, 3))[:, 0] > images.mean(dim=(2, 3))[:, 2]).any()):
            raise RuntimeError("too red")
        return Evidence(heatmaps=torch.ones(len(targets), 4, 4))


def test_what_fails_in_one_way_costs_the_pictures_that_it_fails_for(classifier, paths):
    pipeline = Pipeline(classifier.card.id, explainer="grad_cam", min_probability=0.0)
    made = make_annotator(pipeline, classifier, Limits())
    broken = replace(made, own_explainers={"red": ReadyExplainer("failing", Failing())})
    codes = [one.code if isinstance(one, HeatboxError) else "" for one in broken.annotate(paths)]
    assert set(codes) == {"", "plugin-broken"}


def test_boxes_that_came_ready_are_not_compared_with_a_mask_and_others_are(annotate, learnt):
    state, way = learnt
    found = annotate({way.state: state}, label_ways=ways(blue=way), min_mask_iou=1.0)
    assert any(found["blue"])
    assert not any(found["red"])


@pytest.fixture
def learnt(colours, classifier):
    """What box_regression learnt about the colours, and the way that uses it."""
    from heatbox_plugins.explainers.box_regression import BoxRegression
    from heatbox_workers.examples import ExampleBatches, read_dataset
    from heatbox_workers.fitting import learn

    examples = ExampleBatches(read_dataset(colours.data, LABELS)[0], classifier, Limits())
    state = learn("box_regression", BoxRegression(views=1, epochs=3), classifier, examples)
    return state, Way("box_regression", {"views": 1, "epochs": 3}, state="0123456789ab")


def test_an_explainer_that_learns_needs_its_state(classifier, learnt):
    pipeline = Pipeline(classifier.card.id, label_ways=ways(blue=learnt[1]))
    with pytest.raises(NotFittedError, match="box_regression"):
        make_annotator(pipeline, classifier, Limits())


@pytest.mark.parametrize(
    ("way", "error"),
    [
        (Way("grad_cam", {"layer": "nowhere"}), LayerNotFoundError),
        (Way("layer_cam", {"layers": ["nowhere"]}), LayerNotFoundError),
        (Way("grad_cam", {"wrong": 1}), OptionError),
        (Way("grad_cam", {}, "components", {"threshold": 2}), OptionError),
        (Way("anomaly", state="0123456789ab"), OptionError),
    ],
)
def test_a_way_that_cannot_be_is_told_before_the_first_picture(classifier, way, error):
    pipeline = Pipeline(classifier.card.id, label_ways=ways(blue=way))
    with pytest.raises(error):
        make_annotator(pipeline, classifier, Limits(), {"0123456789ab": {"mean": torch.zeros(1)}})
