"""`heatbox export` without a Label Studio: what it says, and that help names every format without loading much."""

import os
import subprocess
import sys

import pytest

from heatbox.datasets.formats import ExportFormat

QUICK = """
import sys
import heatbox.cli.export
print(sorted({"numpy", "PIL", "sqlalchemy", "httpx"} & set(sys.modules)))
"""


@pytest.fixture
def heatbox(home):
    def heatbox(*arguments):
        named = {"LABEL_STUDIO_URL": "", "LABEL_STUDIO_API_KEY": "", "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, "-m", "heatbox", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, **named, "HEATBOX_HOME": str(home)},
            check=False,
        )

    return heatbox


def test_where_no_label_studio_is_named_nothing_is_written(heatbox, tmp_path):
    answer = heatbox("export", "-p", 1, "-f", "coco", "-o", tmp_path / "out")
    assert answer.returncode == 3
    assert "LABEL_STUDIO_URL" in answer.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_taken_is_told_before_anything_is_asked_for(heatbox, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    answer = heatbox("export", "-p", 1, "-f", "coco", "-o", tmp_path / "out", "--replace")
    assert answer.returncode == 3
    assert "holds something already" in answer.stderr


def test_help_names_every_format(heatbox):
    answer = heatbox("export", "--help")
    assert all(form.value in answer.stdout for form in ExportFormat)


def test_the_command_line_knows_the_formats_without_loading_what_writes_them():
    answer = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
