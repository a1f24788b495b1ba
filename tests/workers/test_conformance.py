"""The conformance kit: good explainers keep every rule, and each planted fault is told by the rule that it breaks."""

import random
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from fixtures_explainers import FAULTS, HANDLES, Keeps, after, fault, heat_of, maps, of_the_best_class
from torch import nn

from heatbox.contract import Evidence
from heatbox.plugins import EXPLAINERS, describe_plugins, make_explainer
from heatbox_workers.conformance import RULES, as_text, check_explainer, default_benches
from heatbox_workers.conformance.memory import kept_per_call

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "write-an-explainer.md"
BUILT_IN = [plugin.name for plugin in describe_plugins(EXPLAINERS) if plugin.distribution == "heatbox"]
QUICK = {
    "dam": {"neurons": 4, "keep": 2},
    "augmented_grad_cam": {"copies": 4, "iterations": 20},
    "box_regression": {"epochs": 40, "views": 1},
    "rise": {"masks": 96},
}


def broken(explainer):
    return {finding.rule: finding for finding in check_explainer(explainer) if not finding.passed}


@pytest.fixture(autouse=True)
def no_hook_on_every_module():
    yield
    while HANDLES:
        HANDLES.pop().remove()


@pytest.mark.parametrize(("explainer", "rule", "words"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_told_by_the_rule_that_it_breaks(explainer, rule, words):
    found = broken(explainer)
    assert list(found) == [rule]
    assert words in found[rule].message
    assert found[rule].remedy


def test_the_same_heat_everywhere_shows_nothing():
    found = broken(maps(lambda heat, *_: heat.amax((1, 2), keepdim=True).expand_as(heat)))
    assert list(found) == ["targets", "planted", "weights"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_keeps_the_contract(name):
    findings = check_explainer(make_explainer(name, QUICK.get(name, {})))
    assert as_text(findings) == ""
    assert [finding.rule for finding in findings] == [rule.id for rule in RULES]


@dataclass(frozen=True)
class Masks:
    """The hottest tenth of the picture."""

    def __call__(self, classifier, images, targets):
        heat = nn.functional.interpolate(heat_of(classifier, images, targets)[None], size=images.shape[2:])[0]
        return Evidence(masks=(heat > heat.flatten(1).quantile(0.9, dim=1)[:, None, None]))


@dataclass(frozen=True)
class Boxes:
    """One box around what is hotter than half of the maximum, none where nothing is hot."""

    def __call__(self, classifier, images, targets):
        heat = heat_of(classifier, images, targets)
        boxes = [self.box(row, images.shape[-1] / heat.shape[-1]) for row in heat]
        return Evidence(boxes=boxes, scores=[torch.ones(len(box)) for box in boxes])

    def box(self, heat, scale):
        rows, columns = (heat > heat.max() / 2).nonzero(as_tuple=True)
        if not len(rows):
            return torch.zeros(0, 4)
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return torch.stack(corners)[None].float() * scale


@pytest.mark.parametrize("explainer", [Masks(), Boxes()], ids=repr)
def test_masks_and_boxes_are_judged_by_the_same_rules(explainer):
    assert as_text(check_explainer(explainer)) == ""


def test_a_box_in_the_wrong_place_is_no_box_of_the_object():
    class Beside(Boxes):
        def box(self, heat, scale):
            return super().box(heat.flip(0, 1), scale)

    found = broken(dataclass(frozen=True)(Beside)())
    assert list(found) == ["planted"]


def test_an_explainer_that_knows_no_class_says_so_and_is_not_asked_for_two_maps():
    blind = fault(of_the_best_class, class_agnostic=True)
    findings = check_explainer(blind)
    assert as_text(findings) == ""
    (targets,) = (finding for finding in findings if finding.rule == "targets")
    assert targets.message.endswith("not asked, it says that it knows no class.")


def test_a_network_that_is_refused_is_left_out():
    def supports(_, classifier):
        return None if classifier.gap_weights() is not None else "no average pooling"

    def call(_, classifier, images, targets):
        return Evidence(
            heatmaps=heat_of(classifier, images, targets) if classifier.gap_weights() is not None else None
        )

    assert as_text(check_explainer(fault(call, supports=supports))) == ""


def test_networks_of_ones_own_can_be_asked_about():
    (gap, *_) = default_benches()
    nowhere = replace(gap, name="mine", places=((0, 0, 4, 4),))
    (finding,) = (finding for finding in check_explainer(Keeps("nothing"), [nowhere]) if not finding.passed)
    assert finding.rule == "planted"
    assert "on the network `mine`" in finding.message


def test_the_generators_and_the_gradient_mode_come_back_whatever_was_done_to_them():
    states = torch.get_rng_state(), random.getstate()
    check_explainer(after(lambda *_: (torch.manual_seed(1), random.random(), torch.set_grad_enabled(False))))  # noqa: S311
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_a_cache_that_fills_once_is_no_growth():
    cache = []
    assert kept_per_call(lambda: cache.append(torch.zeros(100)) if len(cache) < 8 else None) is None


@dataclass(frozen=True)
class Reads:
    """Reads in a call what its `fit` learnt, and needs it."""

    def fit(self, _classifier, examples):
        seen = [batch for batch in examples]  # noqa: C416 - examples are gone through twice
        assert len(seen) == len(list(examples))
        return {"classes": torch.cat([batch.targets[:, 1] for batch in seen]).unique()}

    def __call__(self, classifier, images, targets):
        assert classifier.state["classes"].tolist() == [0, 1, 2]
        return Evidence(heatmaps=heat_of(classifier, images, targets))


def test_what_an_explainer_learnt_is_handed_to_every_other_rule():
    findings = check_explainer(Reads())
    assert as_text(findings) == ""
    assert [finding.rule for finding in findings] == [rule.id for rule in RULES]


def test_one_with_a_label_of_its_own_learns_from_pictures_without_objects():
    rows = []

    class Normal(Reads):
        label = "strange"

        def fit(self, _classifier, examples):
            rows.extend(len(batch.targets) for batch in examples)
            return {"classes": torch.arange(3)}

    assert as_text(check_explainer(dataclass(frozen=True)(Normal)())) == ""
    assert set(rows) == {0}


def test_the_rules_need_only_rules_before_them_and_have_unique_names():
    names = [rule.id for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(set(rule.needs) <= set(names[:index]) for index, rule in enumerate(RULES))


def test_each_rule_has_its_row_in_the_how_to():
    page = HOW_TO.read_text(encoding="utf-8")
    assert not [rule.id for rule in RULES if f"| `{rule.id}` | {rule.expected} |" not in page]


def test_pytest_loads_the_plugin_without_torch():
    code = (
        "import sys, heatbox_workers.pytest_plugin; print({'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_the_fixture_fails_a_test_with_what_came_and_how_to_mend_it(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "from heatbox.contract import Evidence\n"
        "def test_good(explainer_conformance): explainer_conformance('grad_cam', layer='auto')\n"
        "def test_bad(explainer_conformance): explainer_conformance(lambda *call: 3)\n"
    )
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path]
    ran = subprocess.run(pytest_run, capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed" in ran.stdout, ran.stdout + ran.stderr
    assert "evidence: expected: Evidence with one entry per target" in ran.stdout
    assert "how to mend it: Index pictures by targets[:, 0]" in ran.stdout
    assert "Traceback" not in ran.stdout
