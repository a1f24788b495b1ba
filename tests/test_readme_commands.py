"""The runner of README commands: what it runs, skips, checks and prints."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("page", "code", "printed"),
    [
        ("```sh\nmake help\n```\n", 0, "make demo"),
        ("```sh\nfalse\necho later\n```\n", 1, "failed with exit code 1"),
        ("<!-- not run: no network -->\n```sh\nfalse\n```\n", 0, "not run (no network): false"),
        ("```console\n$ echo one\ntwo\n```\n", 0, "one"),
        ("```sh\nmake test\n```\n", 0, "ran: make test"),
        ("```sh\nmake check-nothing\n```\n", 2, "No rule to make target"),
        ("<!-- expect: four -->\n```sh\necho fourteen\n```\n", 0, "every command ran"),
        ("<!-- expect: four -->\n```sh\necho five\n```\n", 1, "the output has no 'four'"),
        ("```sh\nname=kept\n```\ntext\n```sh\necho $name\n```\n", 0, "kept\nran"),
        (
            "```sh\nif command -v heatbox; then exit 7; fi\n. .venv/bin/activate\nheatbox --version\n```\n",
            0,
            "heatbox 0",
        ),
    ],
)
def test_the_commands_of_a_page_are_run_as_by_a_reader(page, code, printed, tmp_path):
    file = tmp_path / "page.md"
    file.write_text(page, encoding="utf-8")
    runner = [sys.executable, ROOT / "tests" / "readme_commands.py", file]
    ran = subprocess.run(runner, capture_output=True, text=True, check=False)
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert printed in ran.stdout + ran.stderr
