"""The tutorial for explainers, run as its reader would in an environment of its own; third parties that are broken.

The environment sees the project's packages through a .pth file: what the tutorial installs goes into it and is gone at
the end. The page's Python blocks are written where the page says; its commands are run from top to bottom in one shell.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from readme_commands import as_script, read_blocks

from heatbox.models import ModelStore, make_card
from heatbox_workers.loading import register
from heatbox_workers.tiny import TinyNet

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "write-an-explainer.md"
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

BROKEN = {
    "unimportable": "import no_such_module",
    "wrong_signature": "def __call__(self, classifier): return Evidence(heatmaps=torch.zeros(1, 2, 2))",
    "wrong_shape": "def __call__(self, *call): return Evidence(heatmaps=torch.zeros(7))",
}


@dataclass(frozen=True)
class Place:
    """A folder with a home, a model `demo` and its pictures, and the variables of a shell that works there."""

    folder: Path
    variables: dict[str, str]

    def heatbox(self, *arguments):
        command = [sys.executable, "-m", "heatbox", *arguments]
        answer = subprocess.run(
            command, cwd=self.folder, env=self.variables, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in answer.stdout + answer.stderr
        return answer


@pytest.fixture
def place(tmp_path):
    store = ModelStore(tmp_path / "home" / "models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = TinyNet(2).state_dict()
    fields = {"architecture": "heatbox/tiny", "labels": ("cat", "dog"), "input_size": 64}
    register(store, make_card(name="demo", **fields), state)
    pictures = tmp_path / "demo-out" / "pictures"
    pictures.mkdir(parents=True)
    Image.radial_gradient("L").convert("RGB").save(pictures / "one.png")
    return Place(tmp_path, {**os.environ, "HEATBOX_HOME": str(tmp_path / "home")})


def make_environment(folder):
    """Make an environment with pip that sees what is installed beside us, and has a `heatbox` of its own."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    ours = sysconfig.get_path("purelib")
    (packages / "beside.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    program = folder / "bin" / "heatbox"
    program.write_text(f"#!{python}\nfrom heatbox.cli import main\nmain()\n")
    program.chmod(0o755)


def test_the_tutorial_makes_an_explainer_that_annotates(place):
    make_environment(place.folder / "env")
    page = FILE.sub(r"```sh\ncat > \1 <<'END'\n\2END\n```", PAGE.read_text(encoding="utf-8"))
    work = place.folder / "work"
    work.mkdir()
    (work / "demo-out").symlink_to(place.folder / "demo-out")
    offline = {"PIP_NO_BUILD_ISOLATION": "0"} if importlib.util.find_spec("hatchling") else {}
    path = os.pathsep.join([str(place.folder / "env" / "bin"), os.environ["PATH"]])
    shell = subprocess.run(
        ["bash", "-c", as_script(read_blocks(page), 0)],  # noqa: S607 - the reader's bash
        cwd=work,
        env={**place.variables, **offline, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    assert (work / "boxes.html").stat().st_size > 1000
    tasks = json.loads((work / "heatbox.json").read_text())
    assert tasks[0]["predictions"][0]["model_version"].startswith("heatbox-contrast-demo-")


def install(folder, name, body):
    if "__call__" in body:
        body = (
            "import torch\nfrom dataclasses import dataclass\nfrom heatbox.contract import Evidence\n"
            f"@dataclass(frozen=True)\nclass Third:\n    {body}\n"
        )
    (folder / f"{name}.py").write_text(body)
    described = folder / f"{name}-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[heatbox.explainers]\n{name} = {name}:Third\n")


@pytest.fixture
def among_broken(place):
    """The same place with every kind of broken third party installed."""
    folder = place.folder / "third"
    folder.mkdir()
    for name, body in BROKEN.items():
        install(folder, name, body)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return Place(place.folder, {**place.variables, "PYTHONPATH": path})


def test_broken_third_parties_are_listed_and_harm_nobody(among_broken):
    listed = json.loads(among_broken.heatbox("explainers", "--json").stdout)["heatbox.explainers"]
    errors = {plugin["name"]: plugin["error"] for plugin in listed}
    assert "No module named 'no_such_module'" in errors["unimportable"]
    assert errors["grad_cam"] is None
    answer = among_broken.heatbox("annotate", "demo-out/pictures", "--model", "demo", "-o", "good.json")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "unimportable",
            "error plugin-broken: unimportable (unimportable) cannot be imported: ModuleNotFoundError",
        ),
        ("wrong_signature", "error plugin-broken: wrong_signature failed: TypeError"),
        ("wrong_shape", "error evidence-invalid: heatmaps should be"),
    ],
)
def test_whoever_asks_a_broken_third_party_is_told(among_broken, name, told):
    answer = among_broken.heatbox("annotate", "demo-out/pictures", "--model", "demo", "--explainer", name)
    assert answer.returncode != 0
    assert told in answer.stderr
