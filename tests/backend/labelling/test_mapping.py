"""The label map: which rule wins, what is ambiguous, and that nothing disappears silently."""

import pytest

from heatbox.errors import LabelAmbiguousError, LabelUnknownError
from heatbox.labelling.mapping import map_labels, meanings
from heatbox.labelling.tags import LabelTag


def tags(*labels):
    return tuple(tag if isinstance(tag, LabelTag) else LabelTag(tag) for tag in labels)


def predicted(value, *names):
    return LabelTag(value, predicted_values=names)


@pytest.mark.parametrize(
    ("classes", "label", "mapped"),
    [
        (["cat"], "cat", ["cat"]),
        (["CAT"], "cat", ["CAT"]),
        (["strasse"], "Straße", ["strasse"]),
        (["id_card"], "ID card", ["id_card"]),
        (["id-card", "bank-card"], "  Id  Card!", ["id-card"]),
        (["Café"], "cafe", ["Café"]),
        (["e\u0301cole"], "école", ["e\u0301cole"]),
        (["tench, Tinca tinca", "goldfish"], "tench", ["tench, Tinca tinca"]),
        (["tench, Tinca tinca"], "tinca_tinca", ["tench, Tinca tinca"]),
        (["tench, Tinca tinca"], "tench, Tinca tinca", ["tench, Tinca tinca"]),
        (["crane, bird", "crane, machine"], "crane", ["crane, bird", "crane, machine"]),
        (["C++", "C"], "C!", ["C"]),
        (["cat", "Cat", "ca-t"], "Cat", ["Cat"]),
        (["CAT", "ca-t"], "cat", ["CAT"]),
        (["cat", "dog"], predicted("animal", "cat", "dog"), ["cat", "dog"]),
        (["cat", "tiger cat, tabby"], predicted("cat", "Tabby"), ["tiger cat, tabby"]),
        (["Pelle"], LabelTag("Schaufel", alias="pelle"), ["Pelle"]),
        (["Schaufel"], LabelTag("Schaufel", alias="pelle"), ["Schaufel"]),
    ],
)
def test_a_label_takes_the_classes_of_the_first_rule_that_finds_any(classes, label, mapped):
    result = map_labels(classes, tags(label))
    name = label if isinstance(label, str) else label.name
    assert result.pairs == tuple((found, name) for found in sorted(mapped))
    assert result.unmapped_classes == len(classes) - len(mapped)


@pytest.mark.parametrize(
    ("labels", "pairs"),
    [
        ((predicted("animal", "cat"), "cat", "dog"), [("cat", "animal"), ("dog", "dog")]),
        (("Cat", "cat"), [("cat", "cat")]),
        (("do-g", "DOG", "cat"), [("cat", "cat"), ("dog", "DOG")]),
    ],
)
def test_an_earlier_rule_beats_a_later_one(labels, pairs):
    result = map_labels(["cat", "dog"], tags(*labels))
    assert result.pairs == tuple(pairs)
    assert len(result.unmapped_labels) == len(labels) - len(pairs)


@pytest.mark.parametrize(
    "labels",
    [("Cat", "CAT"), ("ca t", "ca-t"), (predicted("a", "cat"), predicted("b", "CAT"))],
)
def test_two_labels_with_one_class_by_the_same_rule_are_an_error(labels):
    with pytest.raises(LabelAmbiguousError, match="both claim the class"):
        map_labels(["cat", "ca_t"], tags(*labels))


def test_the_order_of_labels_and_classes_changes_no_pair():
    first = map_labels(["cat", "dog", "cow"], tags("dog", "cat"))
    assert first.pairs == map_labels(["cow", "dog", "cat"], tags("cat", "dog")).pairs


def test_a_class_that_occurs_twice_is_counted_once():
    result = map_labels(["crane", "maillot", "crane"], tags("crane"))
    assert (result.pairs, result.unmapped_classes) == ((("crane", "crane"),), 1)


def test_a_label_without_a_class_is_named_with_the_closest_classes():
    result = map_labels(["tabby cat", "beagle"], tags("beagle", "tabby", "zebra"))
    assert result.unmapped_labels == ("tabby", "zebra")
    assert result.suggestions == {"tabby": ("tabby cat",), "zebra": ()}
    assert result.warnings == (
        "Label 'tabby' has no class and gets no box; closest: 'tabby cat'.",
        "Label 'zebra' has no class and gets no box; no class has a similar name.",
    )


def test_a_predicted_value_that_is_no_class_is_named_with_the_closest_classes():
    result = map_labels(["beagle", "boxer"], tags(predicted("dog", "beagle", "boxr")))
    assert result.pairs == (("beagle", "dog"),)
    assert result.warnings == (
        "Label 'dog' names 'boxr' in predicted_values, which is no class; closest: 'boxer'.",
    )


def test_a_label_with_predicted_values_is_never_looked_up_by_its_own_name():
    result = map_labels(["dog", "cat"], tags("cat", predicted("dog", "beagle")))
    assert result.pairs == (("cat", "cat"),)
    assert result.unmapped_labels == ("dog",)


def test_a_label_that_stands_for_several_classes_by_its_name_is_pointed_out():
    (warning,) = map_labels(["crane, bird", "crane, machine"], tags("crane")).warnings
    assert warning.startswith("Label 'crane' stands for 'crane, bird', 'crane, machine'")


def test_a_full_match_has_no_warning():
    assert map_labels(["cat", "dog"], tags("cat", predicted("Hund", "dog"))).warnings == ()


def test_no_label_with_a_class_is_an_error_with_the_closest_classes():
    with pytest.raises(LabelUnknownError, match=r"no class for 'car', 'carr'.*closest: 'cart'"):
        map_labels(["cart", "dog"], tags("car", "carr"))


def test_punctuation_alone_matches_nothing():
    with pytest.raises(LabelUnknownError):
        map_labels(["---", "cat"], tags("!!!"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Cat", "Cat"),
        ("cat", "cat"),
        ("CAT", "Cat"),
        ("c-a-t", None),
        ("feline", "Cat"),
        ("hound", "dog"),
        ("Hund!", "dog"),
        ("beagle", "dog"),
        ("zebra", None),
        ("!", None),
        ("", None),
    ],
)
def test_a_text_means_the_label_that_it_names_most_exactly(text, meant):
    dog = LabelTag("Hund", alias="dog", predicted_values=("beagle", "feline"), other_names=("hound",))
    labels = tags(LabelTag("Cat", other_names=("feline",)), "cat", dog)
    assert meanings(labels)(text) == meant
