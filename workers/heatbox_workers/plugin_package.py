"""Writing the package of a new explainer from the templates beside this module: it works and passes the kit at once."""

import keyword
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from heatbox.errors import OptionError, OutputError
from heatbox.plugins import EXPLAINERS, plugin_names

__all__ = ["PluginPackage", "plugin_package", "write_package"]

_TEMPLATES = Path(__file__).parent / "templates" / "plugin"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST = 40


@dataclass(frozen=True)
class PluginPackage:
    """The names in a new package.

    Attributes:
        name: what people type: `heatbox annotate --explainer NAME`.
    """

    name: str

    @property
    def distribution(self) -> str:
        """What is installed."""
        return f"heatbox-{self.name.replace('_', '-')}"

    @property
    def module(self) -> str:
        """What is imported."""
        return f"heatbox_{self.name}"

    @property
    def class_name(self) -> str:
        """The explainer."""
        return "".join(part.capitalize() for part in self.name.split("_"))


def plugin_package(name: str) -> PluginPackage:
    """Return the names of a new explainer's package.

    Raises:
        OptionError: the name cannot be one, or is taken.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or keyword.iskeyword(name):
        raise OptionError(
            f"{name!r} cannot name an explainer.",
            f"Take at most {_LONGEST} small letters, digits and single underscores, a letter first: edge_cam.",
        )
    if name in plugin_names(EXPLAINERS):
        raise OptionError(
            f"An explainer {name!r} is already installed.",
            "Take a name that `heatbox explainers` does not list.",
        )
    return PluginPackage(name)


def write_package(package: PluginPackage, folder: Path) -> list[Path]:
    """Write the package's files into a new folder and return them.

    Raises:
        OutputError: the folder exists, or cannot be written.
    """
    templates = Environment(  # noqa: S701 - it writes Python and TOML, not HTML, and the one name in it is checked
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True
    )
    try:
        folder.mkdir(parents=True)
        return [
            _write(folder / _file_name(name, package), templates.get_template(name).render(package=package))
            for name in templates.list_templates()
        ]
    except FileExistsError as error:
        raise OutputError(
            f"{folder} exists already.", "Name another folder with --folder, or remove that one."
        ) from error
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror}.", "Name a folder of yours with --folder."
        ) from error


def _file_name(template: str, package: PluginPackage) -> str:
    return template.removesuffix(".j2").replace("MODULE", package.module)


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
