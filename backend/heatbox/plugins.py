"""The plugin registry: explainers and box fitters by entry-point name.

Names are read from package metadata without importing anything. A plugin is imported when it is used or described;
one that fails to import is listed with its error and harms nobody. Built-ins are registered exactly like third parties.
"""

import dataclasses
import importlib.metadata
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from heatbox.contract import BoxFitter, Explainer, PictureFitter
from heatbox.errors import HeatboxError, OptionError, PluginBrokenError, PluginNotFoundError

__all__ = [
    "BOX_FITTERS",
    "EXPLAINERS",
    "Option",
    "PluginDescription",
    "describe_plugins",
    "make_box_fitter",
    "make_explainer",
    "parse_options",
    "plugin_names",
]

EXPLAINERS = "heatbox.explainers"
BOX_FITTERS = "heatbox.box_fitters"


@dataclass(frozen=True)
class Option:
    """One option of a plugin: a field of its dataclass."""

    name: str
    type: str
    default: Any


@dataclass(frozen=True)
class PluginDescription:
    """A registered plugin as `heatbox explainers` lists it.

    Attributes:
        name: of its entry point.
        distribution: that it comes from, with its `version`.
        summary: first line of its docstring.
        options: fields of its dataclass.
        learns: it must be fitted for each model before it is used.
        error: why it cannot be used, or None.
    """

    name: str
    distribution: str
    version: str
    summary: str = ""
    options: tuple[Option, ...] = ()
    learns: bool = False
    error: str | None = None


def plugin_names(group: str) -> list[str]:
    """Return the names of a group, sorted, importing nothing."""
    return [entry.name for entry in _entries(group)]


def describe_plugins(group: str) -> list[PluginDescription]:
    """Return every plugin of a group, sorted by name, importing each; failures become descriptions."""
    return [_describe(entry) for entry in _entries(group)]


def make_explainer(name: str, options: Mapping[str, Any]) -> Explainer:
    """Return the explainer of this name with checked options.

    Raises:
        PluginNotFoundError: nothing has this name.
        PluginBrokenError: the plugin fails to import or is not a dataclass.
        OptionError: an option is unknown or has an unusable value.
    """
    return cast("Explainer", _make(EXPLAINERS, name, options))


def make_box_fitter(name: str, options: Mapping[str, Any]) -> BoxFitter | PictureFitter:
    """Return the box fitter of this name with checked options; raises as `make_explainer` does."""
    return cast("BoxFitter | PictureFitter", _make(BOX_FITTERS, name, options))


def parse_options(pairs: Iterable[str]) -> dict[str, str]:
    """Read `NAME=VALUE` texts of a command line; values stay text until the plugin's types are known."""
    options = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not (name and separator):
            raise OptionError(
                f"{pair!r} is not an option.", "Write NAME=VALUE, for example layer=features.17."
            )
        options[name.strip()] = value.strip()
    return options


def _entries(group: str) -> Sequence[importlib.metadata.EntryPoint]:
    return _entries_on(group, tuple(sys.path))


@lru_cache(16)  # looking through all that is installed takes milliseconds, and every request asks
def _entries_on(group: str, _path: tuple[str, ...]) -> Sequence[importlib.metadata.EntryPoint]:
    """Return a group's entry points, sorted by name; what is installed later is seen by the next process."""
    return tuple(sorted(importlib.metadata.entry_points(group=group), key=lambda entry: entry.name))


def _make(group: str, name: str, options: Mapping[str, Any]) -> object:
    plugin = _load(_find(group, name))
    known = {field.name: str(field.type) for field in dataclasses.fields(plugin) if field.init}
    for option in options:
        if option not in known:
            raise OptionError(
                f"{name} has no option {option!r}.", _suggest(option, list(known), "Its options are: ")
            )
    given = {
        option: value.split(",") if isinstance(value, str) and known[option].startswith("tuple") else value
        for option, value in options.items()
    }
    try:
        return TypeAdapter[object](plugin).validate_python(given)
    except ValidationError as error:
        raise _option_error(name, error) from error
    except HeatboxError:
        raise
    except Exception as error:  # its annotations and its __post_init__ are foreign code
        raise PluginBrokenError(
            f"{name} cannot be made: {type(error).__name__}: {error}.", "Tell the plugin's authors."
        ) from error


def _option_error(name: str, error: ValidationError) -> OptionError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    sentence = f"{name}: {where} cannot be {first['input']!r}: {reason}." if where else f"{name}: {reason}."
    return OptionError(sentence, "See `heatbox explainers`.")


def _find(group: str, name: str) -> importlib.metadata.EntryPoint:
    entries = list(_entries(group))
    found = [entry for entry in entries if entry.name == name]
    if not found:
        kind = group.rpartition(".")[2].replace("_", " ")
        raise PluginNotFoundError(
            f"No plugin {name!r} among the {kind}.",
            _suggest(name, [entry.name for entry in entries], "Registered are: "),
        )
    if len(found) > 1:
        owners = ", ".join(sorted(_owner(entry)[0] for entry in found))
        raise PluginBrokenError(
            f"{name!r} is registered more than once ({owners}).", "Uninstall all but one."
        )
    return found[0]


def _load(entry: importlib.metadata.EntryPoint) -> type[Any]:
    try:
        plugin = entry.load()
    except (Exception, SystemExit) as error:  # any failure of foreign code is that plugin's error, not ours
        raise PluginBrokenError(
            f"{entry.name} ({_owner(entry)[0]}) cannot be imported: {type(error).__name__}: {error}.",
            "Reinstall or update the distribution that it comes from.",
        ) from error
    if not (isinstance(plugin, type) and dataclasses.is_dataclass(plugin)):
        raise PluginBrokenError(
            f"{entry.name} is not a dataclass.", "Decorate it with @dataclass(frozen=True)."
        )
    return plugin


def _describe(entry: importlib.metadata.EntryPoint) -> PluginDescription:
    owner, version = _owner(entry)
    try:
        plugin = _load(_find(entry.group, entry.name))
    except (PluginBrokenError, PluginNotFoundError) as error:
        return PluginDescription(entry.name, owner, version, error=error.sentence)
    options = tuple(
        Option(field.name, _type_name(field.type), _default(field))
        for field in dataclasses.fields(plugin)
        if field.init
    )
    summary = next(iter((plugin.__doc__ or "").strip().splitlines()), "")
    return PluginDescription(entry.name, owner, version, summary, options, learns=hasattr(plugin, "fit"))


def _type_name(annotation: object) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def _default(field: "dataclasses.Field[Any]") -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _owner(entry: importlib.metadata.EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("?", "?")


def _suggest(name: str, known: list[str], otherwise: str) -> str:
    close = get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else otherwise + (", ".join(known) or "none") + "."
