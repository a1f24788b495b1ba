"""The command line as a person meets it: real processes, their output, their exit codes, never a traceback."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from PIL import Image

from heatbox.models import ModelStore, make_card

HEAVY = ("torch", "fastapi", "pydantic", "sqlalchemy", "numpy", "PIL", "cv2", "redis", "uvicorn", "rich")

HELP_MODULES = """
import sys
sys.argv = ["heatbox", *sys.argv[1:]]
from heatbox.cli import main
try:
    main()
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
sys.argv = ["heatbox", *sys.argv[1:]]
from heatbox.cli import main
main()
"""


def python(*arguments, cwd=None, **variables):
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    answer = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd=cwd,
        check=False,
    )
    assert "Traceback" not in answer.stderr + answer.stdout, answer.stderr
    return answer


def heatbox(*arguments, **variables):
    return python("-m", "heatbox", *arguments, **variables)


@pytest.fixture
def registered(home):
    """A model in the home's store; its weights are no weights."""
    store = ModelStore(home / "models")
    with store.incoming() as folder:
        (folder / "weights.safetensors").write_bytes(b"weights")
        fields = {"architecture": "heatbox/tiny", "labels": ["cat", "dog"], "input_size": 64}
        return store.publish(folder, make_card(name="tiny", **fields))


@pytest.fixture
def tiny_files(tmp_path):
    """A file of safetensors with random weights, and the card beside it."""
    import torch
    from safetensors.torch import save_file

    from heatbox_workers.tiny import TinyNet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(TinyNet(2).state_dict(), tmp_path / "tiny.safetensors")
    card = {"name": "tiny", "architecture": "heatbox/tiny", "labels": ["cat", "dog"], "input_size": 64}
    (tmp_path / "tiny.json").write_text(json.dumps(card))
    return tmp_path / "tiny.safetensors"


def test_the_version_is_the_distributions():
    answer = heatbox("--version")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == f"heatbox {importlib.metadata.version('heatbox')}\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_command_and_writes_no_warning(flag):
    answer = heatbox(flag)
    assert (answer.returncode, answer.stderr) == (0, "")
    listed = {
        line.split()[0] for line in answer.stdout.splitlines() if line.startswith("  ") and line.strip()
    }
    assert listed >= {"annotate", "demo", "doctor", "explainers", "models", "serve", "up", "work"}


def test_help_of_a_group_lists_its_commands_also_those_of_the_workers():
    answer = heatbox("models", "--help")
    assert answer.returncode == 0
    assert all(f"\n  {name} " in answer.stdout for name in ("list", "show", "activate", "add"))


@pytest.mark.parametrize("command", ["annotate", "doctor", "explainers", "models", "serve", "up", "work"])
def test_every_command_has_help_with_whole_sentences(command):
    answer = heatbox(command, "--help")
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"Usage: heatbox {command} ")
    assert not [line for line in answer.stdout.splitlines()[1:] if line.endswith("...")]


@pytest.mark.parametrize(
    ("arguments", "parser"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["annotate", "--help"], {"pydantic"}),  # typer reads a command's arguments with it
        (["nope"], {"pydantic"}),
    ],
)
def test_help_and_usage_errors_import_nothing_heavy(arguments, parser):
    answer = python("-c", HELP_MODULES, *arguments)
    imported = set(answer.stderr.splitlines()[-1].split())
    assert "typer" in imported
    assert sorted(imported & {*HEAVY, "heatbox_plugins"} - parser) == []


def test_without_a_command_there_is_help_and_exit_code_2():
    answer = heatbox()
    assert answer.returncode == 2
    assert "Usage: heatbox" in answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["anotate", "a.jpg"], "No such command 'anotate'. Did you mean 'annotate'?"),
        (["--nope"], "No such option"),
        (["explainers", "--nope"], "No such option"),
        (["models", "show"], "Missing argument 'NAME[@VERSION]'"),
        (["models", "add"], "Missing argument 'NETWORK|FILE'"),
        (["annotate"], "Missing argument 'PATH...'"),
        (
            ["annotate", "a.jpg", "--threshold", "2"],
            "'--threshold' / '-t': Input should be less than or equal to 0.999",
        ),
        (["annotate", "a.jpg", "--max-labels", "many"], "'--max-labels': Input should be a valid integer"),
        (["up", "--port", "65536"], "'--port': Input should be less than or equal to 65535"),
        (["up", "--root", "/nowhere"], "'/nowhere' does not exist"),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(home, arguments, told):
    answer = heatbox(*arguments)
    assert answer.returncode == 2
    assert told in answer.stderr
    assert answer.stdout == ""
    assert not home.exists()


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        (["models", "show", "nope"], {}, "error model-not-found: No model 'nope' in the store."),
        (["models", "activate", "nope"], {}, "error model-not-found: No model 'nope' in the store."),
        (["models", "list"], {"HEATBOX_PORT": "http"}, "error settings: HEATBOX_PORT cannot be 'http'"),
        (["models", "list"], {"HEATBOX_HOM": "x"}, "what to do: Did you mean HEATBOX_HOME?"),
        (["models", "list"], {"HEATBOX_DATABASE_URL": "x"}, "error ledger: The ledger cannot be opened"),
        (["models", "list"], {"HEATBOX_HOME": "/dev/null"}, "error ledger: The ledger cannot be opened"),
        (["work"], {"HEATBOX_LOG_LEVEL": "[red]"}, "HEATBOX_LOG_LEVEL cannot be '[red]'"),
        (["serve"], {"HEATBOX_PORT": "70000"}, "error settings: HEATBOX_PORT cannot be '70000'"),
    ],
)
def test_what_cannot_be_done_is_told_with_a_remedy_and_exit_code_3(home, arguments, variables, told):
    answer = heatbox(*arguments, **{"HEATBOX_HOME": home, **variables})
    assert answer.returncode == 3
    assert told in answer.stderr
    assert "\n  what to do: " in answer.stderr
    assert answer.stdout == ""


def test_a_long_error_is_not_broken_into_lines(home):
    name = "n" * 300
    assert f"No model '{name}' in the store.\n" in heatbox("models", "show", name, HEATBOX_HOME=home).stderr


def test_a_command_that_needs_torch_says_so_where_it_is_missing(home):
    answer = python("-c", WITHOUT_TORCH, "annotate", "a.jpg", HEATBOX_HOME=home)
    assert answer.returncode == 3
    assert "torch is not installed." in answer.stderr
    assert "pip install 'heatbox[torch]'" in answer.stderr


def test_a_broken_command_of_another_distribution_costs_no_other(tmp_path):
    (tmp_path / "toy.py").write_text("1 / 0")
    folder = tmp_path / "toy-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[heatbox.commands]\ntoy = toy:toy\nno.such = toy:toy\n")
    answer = heatbox("--version", PYTHONPATH=tmp_path)
    assert answer.returncode == 0
    assert "warning: the command 'toy' cannot be loaded: ZeroDivisionError" in answer.stderr
    assert "warning: the command 'no.such' cannot be loaded" in answer.stderr


def hear_interrupts():
    """Undo what a shell does to programs that it starts in the background: they ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_command_that_is_interrupted_ends_with_130(registered, home):
    card = home / "models" / "tiny" / registered.version / "model.json"
    card.unlink()
    os.mkfifo(card)  # whoever reads the card waits here, and opening the other end waits for the reader
    process = subprocess.Popen(
        [sys.executable, "-m", "heatbox", "models", "show", "tiny"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,  # noqa: PLW1509 - this process has no other threads
    )
    with card.open("wb"):
        for _ in range(6):  # one that comes just before a read waits is not seen
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
                break
        assert process.poll() is not None
        assert "Traceback" not in process.communicate()[1]
    assert process.returncode == 130


@pytest.fixture
def toys(tmp_path):
    """A folder for PYTHONPATH with two explainers: one whose import fails, one with odd options."""
    (tmp_path / "bad.py").write_text("raise ValueError('[/bold] list[int]')")
    (tmp_path / "odd.py").write_text(
        "from dataclasses import dataclass\nfrom pathlib import Path\n"
        "@dataclass(frozen=True)\nclass Odd:\n    path: Path = Path('[red]')\n    sizes: list[int] = None\n"
    )
    folder = tmp_path / "toy-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[heatbox.explainers]\nbad = bad:Bad\nodd = odd:Odd\n")
    return tmp_path


def test_explainers_are_listed_with_their_options_and_broken_ones_with_their_error(toys):
    answer = heatbox("explainers", PYTHONPATH=toys)
    assert answer.returncode == 0
    for text in ("heatbox.explainers", "heatbox.box_fitters", "layer: str = 'auto'", "[/bold] list[int]"):
        assert text in " ".join(answer.stdout.split())
    assert "sizes: list[int] = None" in answer.stdout


def test_explainers_as_json_are_all_that_is_known(toys):
    found = json.loads(heatbox("explainers", "--json", PYTHONPATH=toys).stdout)
    assert set(found) == {"heatbox.explainers", "heatbox.box_fitters"}
    plugins = {plugin["name"]: plugin for plugin in found["heatbox.explainers"]}
    assert (plugins["grad_cam"]["distribution"], plugins["grad_cam"]["error"]) == ("heatbox", None)
    assert {"name": "layer", "type": "str", "default": "auto"} in plugins["grad_cam"]["options"]
    assert plugins["bad"]["error"].endswith("ValueError: [/bold] list[int].")
    assert plugins["odd"]["options"][0]["default"] == "[red]"


def test_an_empty_store_lists_nothing_and_says_how_to_add(home):
    answer = heatbox("models", "list")
    assert answer.returncode == 0
    assert "heatbox models add mobilenet_v2" in answer.stdout
    assert json.loads(heatbox("models", "list", "--json").stdout) == []
    assert (home / "ledger.sqlite").exists()


def test_a_registered_model_is_shown_activated_and_marked(registered):
    shown = json.loads(heatbox("models", "show", "tiny").stdout)
    assert (shown["version"], shown["labels"]) == (registered.version, ["cat", "dog"])
    (before,) = json.loads(heatbox("models", "list", "--json").stdout)
    assert (before["model"], before["active"]) == (registered.id, False)
    assert heatbox("models", "activate", registered.id[:9]).stdout == f"{registered.id} is active.\n"
    assert "active" in heatbox("models", "list").stdout
    assert json.loads(heatbox("models", "list", "--json").stdout)[0]["active"] is True


def test_the_doctor_ends_with_1_where_something_is_wrong_and_shows_brackets(home):
    answer = heatbox("doctor", HEATBOX_HOME=home, HEATBOX_LOCAL_ROOTS="/no/[torch]/folder")
    assert answer.returncode == 1
    assert "/no/[torch]/folder" in answer.stdout


def test_a_model_is_added_and_annotates_and_one_bad_picture_is_exit_code_1(home, tiny_files, tmp_path):
    added = heatbox("models", "add", tiny_files, "--activate", HEATBOX_HOME=home)
    assert added.returncode == 0
    assert "It is active." in added.stdout
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "good.png")
    (tmp_path / "[bad].png").write_bytes(b"no picture")
    out = tmp_path / "out.json"
    answer = heatbox("annotate", tmp_path / "good.png", tmp_path / "[bad].png", "-o", out, HEATBOX_HOME=home)
    assert answer.returncode == 1
    assert "[bad].png" in answer.stderr
    assert "error picture-unreadable" in answer.stderr
    assert "1 of 2 pictures annotated with heatbox-fused_cam-tiny-" in answer.stdout
    assert len(json.loads(out.read_text())) == 1


def test_rejected_boxes_are_named_and_a_dataset_is_written_where_no_place_is_named(
    home, tiny_files, tmp_path
):
    heatbox("models", "add", tiny_files, "--activate", HEATBOX_HOME=home)
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "a.png")
    asked = ("--label", "cat", "--format", "yolo", "--min-crop-probability", 1)
    answer = heatbox("annotate", tmp_path / "a.png", *asked, HEATBOX_HOME=home, cwd=tmp_path)
    assert answer.returncode == 0
    assert "a.png: cat " in answer.stderr
    assert "below 1" in answer.stderr
    assert ": 0 boxes, " in answer.stdout
    assert "boxes rejected by the self-check, 1 pictures without any." in answer.stdout
    assert (tmp_path / "heatbox-yolo" / "labels" / "a.txt").read_text() == ""


def test_nothing_to_annotate_with_is_told(home, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    answer = heatbox("annotate", tmp_path / "a.png", HEATBOX_HOME=home)
    assert answer.returncode == 3
    assert "error model-not-found: No model is active." in answer.stderr
