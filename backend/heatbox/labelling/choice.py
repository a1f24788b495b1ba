"""Which labels pictures without a project get: those of a label config, those that were asked for, or every class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heatbox.errors import LabelConfigError, LabelUnknownError
from heatbox.labelling.config import parse_label_config
from heatbox.labelling.mapping import map_labels
from heatbox.labelling.tags import LabelConfig, LabelTag, every_class

__all__ = ["LabelChoice", "choose_labels", "read_label_config"]


@dataclass(frozen=True)
class LabelChoice:
    """What regions fill.

    Attributes:
        config: the label config, or one that is made up.
        label_map: for the pipeline; empty: every class under its own name.
        warnings: what a person should read about it, one sentence each.
    """

    config: LabelConfig
    label_map: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def choose_labels(
    names: Sequence[str],
    labels: tuple[str, ...] = (),
    label_config: str | None = None,
    data_key: str | None = None,
) -> LabelChoice:
    """Return the label config to fill, and what stands for its labels.

    Args:
        names: what finds can be called (`heatbox.serving.label_names`).
        labels: to look for in every picture, however written; with a label config, of it.
        label_config: XML; None: there is none.
        data_key: key of the tasks that files become, where there is no label config; None: `image`.

    Raises:
        LabelError: labels and classes do not fit together.
    """
    key = data_key or "image"
    if label_config is None:
        return _asked(labels, names, key) if labels else LabelChoice(every_class(names, key))
    config = parse_label_config(label_config)
    found = map_labels(names, config.labels)
    missing = set(labels) - {label for _, label in found.pairs}
    if missing:
        mapped = ", ".join(dict.fromkeys(label for _, label in found.pairs))
        raise LabelUnknownError(
            f"The label config has no label {min(missing)!r} with a class.", f"It has: {mapped}."
        )
    return LabelChoice(config, found.pairs, (*config.notes, *found.warnings))


def read_label_config(path: Path) -> str:
    """Return the text of a label config's file.

    Raises:
        LabelConfigError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelConfigError(f"{path} cannot be read.", "Check the path.") from error


def _asked(labels: tuple[str, ...], names: Sequence[str], key: str) -> LabelChoice:
    """Return a label config of the labels that were asked for, and the classes that they mean, however written."""
    found = map_labels(names, [LabelTag(label) for label in labels])
    for label in found.unmapped_labels:
        close = ", ".join(map(repr, found.suggestions[label])) or "nothing like it"
        raise LabelUnknownError(f"The classifier knows no label {label!r}.", f"The closest are: {close}.")
    return LabelChoice(every_class(labels, key), found.pairs)
