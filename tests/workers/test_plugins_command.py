"""`heatbox plugins new` and `test` as a person meets them: real processes, what they print, their exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from heatbox.errors import OptionError, OutputError
from heatbox_workers.plugin_package import PluginPackage, plugin_package, write_package

THIRD = """
from dataclasses import dataclass
from heatbox.contract import Evidence

@dataclass(frozen=True)
class third:
    def __call__(self, classifier, images, targets):
        return Evidence(heatmaps=classifier.head_gradients(images, targets).maps)
"""


def heatbox(*arguments, cwd):
    environment = {**os.environ, "HEATBOX_HOME": str(cwd / "home"), "PYTHONPATH": python_path(cwd)}
    command = [sys.executable, "-m", "heatbox", *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    assert "Traceback" not in answer.stdout + answer.stderr
    return answer


def python_path(folder):
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def install(folder, **modules):
    """Put distributions on the path whose module, explainer and class have the same name."""
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
        described = folder / f"third_{name}-1.0.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: third-{name}\nVersion: 1.0\n")
        (described / "entry_points.txt").write_text(f"[heatbox.explainers]\n{name} = {name}:{name}\n")


def test_new_writes_a_package_and_says_what_to_do_next(tmp_path):
    answer = heatbox("plugins", "new", "edge_cam", cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "heatbox-edge-cam").iterdir()) == [
        "README.md",
        "heatbox_edge_cam.py",
        "pyproject.toml",
        "test_heatbox_edge_cam.py",
    ]
    assert "python -m pip install -e heatbox-edge-cam\n  heatbox plugins test edge_cam\n" in answer.stdout


def test_a_new_package_is_formatted_and_keeps_common_rules_of_style(tmp_path):
    written = write_package(plugin_package("edge_cam"), tmp_path / "mine")
    modules = [path for path in written if path.suffix == ".py"]
    (tmp_path / "ruff.toml").write_text(
        'line-length = 110\nlint.select = ["E", "F", "I", "B", "UP", "RUF"]\n'
    )
    ruff = Path(sys.executable).with_name("ruff")
    for arguments in (["format", "--check"], ["check"]):
        ran = subprocess.run(
            [ruff, *arguments, "--no-cache", *modules], cwd=tmp_path, capture_output=True, check=False
        )
        assert ran.returncode == 0, ran.stdout


def test_a_folder_that_exists_is_left_alone(tmp_path):
    with pytest.raises(OutputError, match=r"exists already\. Name another folder") as caught:
        write_package(plugin_package("edge_cam"), tmp_path)
    assert str(tmp_path) in caught.value.sentence
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_package(plugin_package("edge_cam"), tmp_path / "file" / "below")


@pytest.mark.parametrize(
    "name", ["", "Edge", "edge-cam", "2cam", "_cam", "cam_", "a__b", "lambda", "ä", "a" * 41, "../up"]
)
def test_a_name_that_cannot_be_imported_and_typed_is_refused(name):
    with pytest.raises(OptionError, match="cannot name an explainer") as caught:
        plugin_package(name)
    assert repr(name) in caught.value.sentence


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(OptionError, match="An explainer 'grad_cam' is already installed"):
        plugin_package("grad_cam")


def test_the_names_of_a_package_follow_from_the_explainers():
    package = PluginPackage("edge_cam2")
    assert (package.distribution, package.module, package.class_name) == (
        "heatbox-edge-cam2",
        "heatbox_edge_cam2",
        "EdgeCam2",
    )


def test_test_prints_a_row_per_rule_and_ends_with_0_when_all_are_kept(tmp_path):
    answer = heatbox("plugins", "test", "grad_cam", "--option", "layer=features", cwd=tmp_path)
    assert answer.returncode == 0
    assert "GradCAM(layer='features')" in answer.stdout
    assert answer.stdout.count("│ kept ") == 18
    assert "18 of 18 rules are kept." in answer.stdout


def test_test_tells_what_came_and_ends_with_1_when_a_rule_is_broken(tmp_path):
    install(tmp_path, third=THIRD)
    answer = heatbox("plugins", "test", "third", cwd=tmp_path)
    assert answer.returncode == 1
    (row,) = (line for line in answer.stdout.splitlines() if line.startswith("│ broken"))
    assert row.split()[3] == "evidence"
    assert "heatmaps should be 5x*x*" in answer.stdout
    assert "How to mend it: " in answer.stdout
    assert "│ not asked │ finite     │ needs evidence" in answer.stdout
    assert "9 of 18 rules are kept." in answer.stdout


def test_findings_can_be_read_by_a_program(tmp_path):
    install(tmp_path, third=THIRD)
    answer = heatbox("plugins", "test", "third", "--json", cwd=tmp_path)
    assert answer.returncode == 1
    (broken,) = (finding for finding in json.loads(answer.stdout) if not finding["passed"])
    assert broken["rule"] == "evidence"
    assert broken.keys() == {"rule", "passed", "message", "remedy"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nope"], "error plugin-not-found: No plugin 'nope'"),
        (
            ["shattered"],
            "error plugin-broken: shattered (third-shattered) cannot be imported: ZeroDivisionError",
        ),
    ],
)
def test_what_cannot_be_tested_is_told_with_a_remedy(tmp_path, arguments, told):
    install(tmp_path, shattered="1 / 0")
    answer = heatbox("plugins", "test", *arguments, cwd=tmp_path)
    assert answer.returncode == 3
    assert told in answer.stderr
