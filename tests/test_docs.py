"""The documentation says what the code has: plugins, settings, commands, errors, routes; links and commands resolve."""

import dataclasses
import importlib.metadata
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import references
import typer.main

from heatbox import cli, contract
from heatbox.errors import HeatboxError
from heatbox.models import Card
from heatbox.plugins import BOX_FITTERS, EXPLAINERS, PluginDescription, describe_plugins
from heatbox.runs.view import RunView
from heatbox.service import evidence, metrics, routes, run_pages, runs
from heatbox.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
GROUPS = {"corrections", "models", "plugins", "profiles", "studio"}
PAGES = sorted(
    [*DOCS.rglob("*.md"), *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG"))]
)
SHELL = re.compile(r"^ *```(?:sh|console)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
HEATBOX = re.compile(r"^ *(?:[A-Z_]+=\S+ )*(heatbox .*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def read(page: str) -> str:
    return (REFERENCE / page).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """Return the text under the heading that holds the name in code marks, without further headings of its level."""
    found = re.search(rf"^## `{re.escape(heading)}`$(.*?)(?=^## |\Z)", read(page), re.MULTILINE | re.DOTALL)
    assert found, f"docs/reference/{page} has no heading ## `{heading}`"
    return found[1]


def documented(text: str, heading: str) -> set[str]:
    """Return what stands in code marks in the first column of the tables whose first heading this is."""
    tables = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n?)*)", text, re.MULTILINE)
    first = [row.split(" | ")[0] for table in tables for row in table.splitlines()]
    return {name for cell in first for name in re.findall(r"`([^`]+)`", cell)}


def error_classes(root: type[HeatboxError] = HeatboxError) -> Iterator[type[HeatboxError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == root.__module__:
            yield from error_classes(child)


def built_in(group: str) -> list[PluginDescription]:
    return [plugin for plugin in describe_plugins(group) if plugin.distribution == "heatbox"]


def commands(command, path="heatbox"):
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, child in command.commands.items():
        yield from commands(child, f"{path} {name}")


@pytest.fixture(scope="module")
def command_line():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["heatbox", "--version"])
        with pytest.raises(SystemExit):
            cli.main()
    return dict(commands(typer.main.get_command(cli.app)))


def option_names(command):
    names = {
        name for one in command.params for name in (*one.opts, *one.secondary_opts) if name.startswith("-")
    }
    return names | {"--help"}


@pytest.mark.parametrize(("group", "page"), [(EXPLAINERS, "explainers.md"), (BOX_FITTERS, "box-fitters.md")])
def test_each_plugin_has_its_heading_with_options_and_defaults(group, page):
    for plugin in built_in(group):
        text = section(page, plugin.name)
        for option in plugin.options:
            assert re.search(
                rf"^\| `{option.name}` \| .* \| `{re.escape(str(option.default))}` \|", text, re.MULTILINE
            ), option


@pytest.mark.parametrize(("group", "page"), [(EXPLAINERS, "explainers.md"), (BOX_FITTERS, "box-fitters.md")])
def test_no_plugin_or_option_is_documented_that_does_not_exist(group, page):
    plugins = {plugin.name: plugin for plugin in built_in(group)}
    assert set(re.findall(r"^## `(.+)`$", read(page), re.MULTILINE)) <= set(plugins)
    for name, plugin in plugins.items():
        unknown = documented(section(page, name), "option") - {option.name for option in plugin.options}
        assert not unknown, f"{name}: {unknown}"


@pytest.mark.parametrize(
    ("page", "heading", "names"),
    [
        ("settings.md", "variable", {f"HEATBOX_{name.upper()}" for name in Settings.model_fields}),
        ("model-card.md", "field", set(Card.model_fields)),
        ("errors.md", "code", {error.code for error in error_classes()}),
    ],
    ids=["settings", "card", "errors"],
)
def test_no_row_is_documented_that_does_not_exist(page, heading, names):
    rows = documented(read(page), heading)
    assert rows
    assert not rows - names


def test_no_command_or_option_is_documented_that_does_not_exist(command_line):
    assert set(re.findall(r"^## `(heatbox .+)`$", read("command-line.md"), re.MULTILINE)) <= set(command_line)
    for name, command in command_line.items():
        rows = documented(section("command-line.md", name), "option")
        assert not rows - option_names(command), f"{name}: {rows - option_names(command)}"


def test_a_table_of_options_is_read_by_its_first_heading():
    text = "| option | meaning |\n|---|---|\n| `--model`, `-m` | as `--other` |\n\n| format |\n|---|\n| `voc` |\n"
    assert documented(text, "option") == {"--model", "-m"}
    assert documented(text, "format") == {"voc"}


@pytest.mark.parametrize("name", sorted(references.built_in()))
def test_each_explainer_has_a_row_that_says_what_it_was_compared_with(name):
    text = (DOCS / "explanation" / "references.md").read_text(encoding="utf-8")
    assert references.HEADER in text
    assert name in documented(text, "explainer")


def test_every_reference_in_the_table_is_named_by_a_test():
    page = (DOCS / "explanation" / "references.md").read_text(encoding="utf-8")
    tests = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "plugins").glob("test_*.py")
    )
    named = re.findall(r"^\| `\w+` \| (.+?) \| .*e-", page, re.MULTILINE)
    assert named
    assert not [against for against in named if f'"{against}"' not in tests]


def test_the_table_of_references_has_the_largest_difference_of_each():
    found = [
        ("cam", "b", 1e-7, 1e-5),
        ("cam", "b", 3.14e-6, 1e-5),
        ("cam", "b", 2e-6, 0.1),
        ("cam", "a", 0, 0),
    ]
    assert list(references.as_table(found))[2:] == [
        "| `cam` | a | 0 | 0 |",
        "| `cam` | b | 3.1e-06 | 1e-05 |",
        "| `cam` | b | 2.0e-06 | 1e-01 |",
    ]


def test_each_setting_has_its_row_with_its_description():
    text = read("settings.md")
    for name, field in Settings.model_fields.items():
        assert re.search(
            rf"^\| `HEATBOX_{name.upper()}` \| .* \| {re.escape(field.description or '')} \|$",
            text,
            re.MULTILINE,
        ), name


def test_each_field_of_a_run_has_its_row_with_its_description():
    text = section("http-api.md", "GET /v1/runs/{number}")
    assert documented(text, "field") == set(RunView.model_fields)
    assert not [field.description for field in RunView.model_fields.values() if field.description not in text]


def test_each_field_of_a_card_has_its_row_with_its_description():
    text = read("model-card.md")
    for name, field in Card.model_fields.items():
        assert re.search(
            rf"^\| `{name}` \| .* \| {re.escape(field.description or '')} \|$", text, re.MULTILINE
        ), name


def test_each_error_code_has_its_row_with_its_sentence():
    text = read("errors.md")
    for error in error_classes():
        sentence = (error.__doc__ or "").splitlines()[0]
        assert f"| `{error.code}` | {sentence} | " in text


def test_error_codes_are_unique():
    codes = [error.code for error in error_classes()]
    assert len(set(codes)) == len(codes)


def test_each_command_has_its_heading_with_every_option(command_line):
    for name, command in command_line.items():
        text = section("command-line.md", name)
        shown = {
            option.opts[0]
            for option in command.params
            if option.opts[0].startswith("--") and not option.hidden
        }
        missing = {name for name in shown - {"--help"} if f"`{name}`" not in text}
        assert not missing, f"{name}: {missing}"


def test_every_registered_command_is_part_of_the_command_line(command_line):
    registered = importlib.metadata.entry_points(group="heatbox.commands").names
    assert {f"heatbox {name.replace('.', ' ')}" for name in registered} <= set(command_line)


def test_each_route_has_its_heading():
    routers = (routes.router, evidence.router, runs.router, run_pages.router, metrics.router)
    shown = [route for router in routers for route in router.routes if route.include_in_schema]
    for method, path in sorted((method, route.path) for route in shown for method in route.methods):
        assert section("http-api.md", f"{method} {path}").strip()


@pytest.mark.parametrize("name", contract.__all__)
def test_each_name_of_the_contract_has_its_heading_with_its_members(name):
    value, text = getattr(contract, name), section("python-contract.md", name)
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    members = {field.name for field in fields} or {member for member in vars(value) if member[0] != "_"}
    assert not [member for member in members if f"`{member}" not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_internal_link_resolves(page):
    targets = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
    internal = [target for target in targets if target and "://" not in target]
    assert not [target for target in internal if not (page.parent / target).exists()]


def test_the_readme_shows_a_small_picture():
    picture = DOCS / "images" / "demo.jpg"
    assert f"]({picture.relative_to(ROOT)})" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert 0 < picture.stat().st_size < 300_000


def test_pages_that_the_code_names_exist():
    sources = [path for name in ("backend", "plugins", "workers") for path in (ROOT / name).rglob("*.py")]
    named = {
        page for path in sources for page in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8"))
    }
    assert named
    assert not [page for page in named if not (ROOT / page).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_pages_exist_with_their_options(page, command_line):
    for line in HEATBOX.findall("".join(SHELL.findall(page.read_text(encoding="utf-8")))):
        words = shlex.split(line)
        name = " ".join(words[:3] if words[1] in GROUPS else words[:2])
        used = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert name in command_line, line
        assert used <= option_names(command_line[name]), line


def test_make_targets_in_the_pages_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        named = set(
            re.findall(r"(?:`|^)make ([a-z-]+)(?:`|$)", page.read_text(encoding="utf-8"), re.MULTILINE)
        )
        assert named <= targets, page


def test_the_changelog_has_an_entry_for_this_version():
    heading = f"## [{importlib.metadata.version('heatbox')}]"
    assert heading in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted((DOCS / "adr").glob("*.md")), ids=lambda page: page.stem)
def test_a_decision_is_short_and_has_its_number_in_its_title(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# {page.name[:4]}: ")
    assert 20 <= len(lines) <= 50
