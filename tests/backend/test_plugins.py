"""The registry, with real distributions on the path: good ones, broken ones, duplicates, and options from text."""

import importlib
import itertools
import textwrap

import pytest

from heatbox.errors import OptionError, PluginBrokenError, PluginNotFoundError
from heatbox.plugins import (
    BOX_FITTERS,
    EXPLAINERS,
    Option,
    describe_plugins,
    make_box_fitter,
    make_explainer,
    parse_options,
)

GOOD = """
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Toy:
        '''The toy explainer.

        More about it.
        '''

        threshold: float = 0.5
        steps: int = 3
        layer: str = "auto"
        signed: bool = False
        sizes: tuple[int, ...] = (1, 2)
        kind: "str | None" = None

        def __call__(self, classifier, images, targets):
            raise NotImplementedError
"""

_numbers = itertools.count()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution as a package manager would: a module, and a dist-info folder that names its plugin."""

    def installed(name, source, *, plugin="toy", target="Toy", group=EXPLAINERS):
        module = f"toy_{next(_numbers)}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[{group}]\n{plugin} = {module}:{target}\n")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()

    return installed


def described(name, group=EXPLAINERS):
    (found,) = (plugin for plugin in describe_plugins(group) if plugin.name == name)
    return found


def test_a_third_partys_plugin_is_listed_and_made_like_a_built_in(install):
    install("heatbox-toy", GOOD)
    found = described("toy")
    assert (found.distribution, found.version, found.error) == ("heatbox-toy", "1.0", None)
    assert found.summary == "The toy explainer."
    assert type(make_explainer("toy", {})).__name__ == "Toy"


def test_options_are_listed_with_type_and_default(install):
    install("heatbox-toy", GOOD)
    assert described("toy").options == (
        Option("threshold", "float", 0.5),
        Option("steps", "int", 3),
        Option("layer", "str", "auto"),
        Option("signed", "bool", False),  # noqa: FBT003 - the option's default
        Option("sizes", "tuple[int, ...]", (1, 2)),
        Option("kind", "str | None", None),
    )


def test_built_ins_are_listed_by_name_and_usable():
    explainers, fitters = describe_plugins(EXPLAINERS), describe_plugins(BOX_FITTERS)
    assert {"cam", "grad_cam"} <= {plugin.name for plugin in explainers}
    assert {"components", "enclosing", "max_iou"} <= {plugin.name for plugin in fitters}
    assert [plugin.error for plugin in explainers + fitters if plugin.error] == []
    assert all(plugin.summary for plugin in explainers + fitters)


@pytest.mark.parametrize(
    ("source", "target", "error"),
    [
        ("import no_such_module", "Toy", r"ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "Toy", r"ZeroDivisionError: division by zero"),
        ("def (", "Toy", r"SyntaxError"),
        ("raise SystemExit(1)", "Toy", r"SystemExit: 1"),
        ("", "Toy", r"AttributeError: .* has no attribute 'Toy'"),
        ("class Toy: pass", "Toy", r"toy is not a dataclass"),
        ("def Toy(): pass", "Toy", r"toy is not a dataclass"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_listed_with_its_error_and_harms_nobody(
    install, source, target, error
):
    install("heatbox-broken", source, target=target)
    found = described("toy")
    assert found.distribution == "heatbox-broken"
    with pytest.raises(PluginBrokenError, match=error) as caught:
        make_explainer("toy", {})
    assert found.error == caught.value.sentence
    assert described("grad_cam").error is None
    assert make_explainer("grad_cam", {}) is not None


def test_a_name_that_two_distributions_claim_is_nobodys(install):
    install("first-toy", GOOD)
    install("second-toy", GOOD)
    found = [plugin for plugin in describe_plugins(EXPLAINERS) if plugin.name == "toy"]
    assert [plugin.distribution for plugin in found] == ["first-toy", "second-toy"]
    assert all("registered more than once (first-toy, second-toy)" in plugin.error for plugin in found)
    with pytest.raises(PluginBrokenError, match="Uninstall all but one"):
        make_explainer("toy", {})


def test_a_third_party_that_takes_a_built_ins_name_is_told(install):
    install("heatbox-toy", GOOD, plugin="cam")
    with pytest.raises(
        PluginBrokenError, match=r"'cam' is registered more than once \(heatbox, heatbox-toy\)"
    ):
        make_explainer("cam", {})


def test_a_plugin_is_imported_only_when_it_is_used(install, tmp_path):
    trace = tmp_path / "imported"
    install("heatbox-toy", f"open({str(trace)!r}, 'w').close()\n" + textwrap.dedent(GOOD))
    make_explainer("cam", {})
    with pytest.raises(PluginNotFoundError):
        make_explainer("toyy", {})
    assert not trace.exists()
    make_explainer("toy", {})
    assert trace.exists()


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("threshold=0.4", "threshold", 0.4),
        ("threshold=1", "threshold", 1.0),
        ("steps = 7", "steps", 7),
        ("layer=features.17", "layer", "features.17"),
        ("layer=a=b", "layer", "a=b"),
        ("layer=", "layer", ""),
        ("signed=true", "signed", True),
        ("signed=no", "signed", False),
        ("kind=none", "kind", "none"),
    ],
)
def test_an_option_written_as_text_gets_its_fields_type(install, text, option, value):
    install("heatbox-toy", GOOD)
    made = getattr(make_explainer("toy", parse_options([text])), option)
    assert (type(made), made) == (type(value), value)


@pytest.mark.parametrize("text", ["threshold", "=0.4", ""])
def test_what_is_no_pair_is_no_option(text):
    with pytest.raises(OptionError, match="Write NAME=VALUE"):
        parse_options([text])


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("treshold", "Did you mean 'threshold'?"),
        ("zzz", "Its options are: threshold, min_area, min_score, max_boxes, trim."),
    ],
)
def test_an_unknown_option_comes_with_a_suggestion(option, remedy):
    with pytest.raises(OptionError) as caught:
        make_box_fitter("components", {option: 1})
    assert caught.value.sentence == f"components has no option {option!r}."
    assert caught.value.remedy == remedy


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threshold": "1.5"}, "components: threshold must be at least 0 and below 1, got 1.5."),
        ({"max_boxes": 0}, "components: max_boxes must be at least 1, got 0."),
        ({"threshold": "hot"}, "components: threshold cannot be 'hot': Input should be a valid number"),
        ({"max_boxes": "2.5"}, "components: max_boxes cannot be '2.5': Input should be a valid integer"),
    ],
)
def test_an_unusable_value_is_told_with_its_reason(options, sentence):
    with pytest.raises(OptionError) as caught:
        make_box_fitter("components", options)
    assert caught.value.sentence.startswith(sentence)


def test_an_option_without_a_default_must_be_given(install):
    install("heatbox-toy", GOOD.replace("threshold: float = 0.5", "threshold: float"))
    with pytest.raises(OptionError, match=r"threshold cannot be .*: Field required"):
        make_explainer("toy", {})
    assert make_explainer("toy", {"threshold": "0.1"}).threshold == 0.1


@pytest.mark.parametrize(
    ("field", "error"),
    [
        ("thing: 'NotThere' = None", "toy cannot be made: "),
        ("thing: Thing = None", "toy cannot be made: PydanticSchemaGenerationError"),
        ("thing: int = 0\n\n    def __post_init__(self): self.nothing", "toy cannot be made: AttributeError"),
    ],
)
def test_a_plugin_that_cannot_be_made_is_broken(install, field, error):
    source = "from dataclasses import dataclass\nclass Thing: pass\n@dataclass(frozen=True)\nclass Toy:\n    "
    install("heatbox-toy", source + field)
    with pytest.raises(PluginBrokenError, match=error):
        make_explainer("toy", {})


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (make_explainer, "grad_cm", r"No plugin 'grad_cm' among the explainers. Did you mean 'grad_cam'\?"),
        (make_box_fitter, "zzz", r"No plugin 'zzz' among the box fitters. Registered are: .*components"),
        (make_box_fitter, "grad_cam", r"No plugin 'grad_cam' among the box fitters."),
    ],
)
def test_an_unknown_name_comes_with_a_suggestion(make, name, message):
    with pytest.raises(PluginNotFoundError, match=message):
        make(name, {})


def test_an_option_of_several_values_is_split_at_commas():
    explainer = make_explainer("layer_cam", {"layers": "auto,features.13"})
    assert explainer.layers == ("auto", "features.13")
