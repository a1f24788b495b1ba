"""The whole loop of `make loop`, on the smallest of its sets: boxes are better after 25 corrections than before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUDIO = ROOT / ".venv-studio" / "bin" / "label-studio"


@pytest.fixture(scope="module")
def found(test_data: Path, tmp_path_factory: pytest.TempPathFactory):
    """What the loop of the photographs of hands came to, with 25 corrections."""
    if not STUDIO.exists():
        pytest.skip("Label Studio is not installed: make studio-env")
    out = tmp_path_factory.mktemp("loop")
    words = ["--data", str(test_data), "--out", str(out), "--program", str(STUDIO), "--set", "hands"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "loop", *words, "--corrections", "25"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (out / "curve.svg").read_text().startswith("<?xml")
    assert "| hands | 25 |" in (out / "table.md").read_text()
    return json.loads((out / "hands.json").read_text())


def test_corrections_make_boxes_clearly_better(found):
    rows = {(row["corrections"], row["way"]): row for row in found["rows"]}
    begin, end = rows[0, "trained and tuned"], rows[25, "trained and tuned"]

    assert end["box_quality"] > begin["box_quality"] + 0.25
    assert end["box_quality"] > rows[25, "tuned"]["box_quality"] + 0.05
    assert end["false_boxes"] < begin["false_boxes"]


def test_a_model_that_learnt_badly_is_refused(found):
    good, bad = found["trainings"]

    assert good["activated"] is True
    assert bad["activated"] is False
    assert "not better" in bad["reason"]
