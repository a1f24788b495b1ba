"""Fixtures for every test: where the real photographs are, a home of its own, one thread for torch."""

import os
from pathlib import Path

# Read by OpenMP when torch loads it: several test processes on two cores must not wait for each other spinning.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import pytest
from hypothesis import settings

pytest_plugins = [
    "fixtures_cut",
    "fixtures_hostile",
    "fixtures_poison",
    "fixtures_redis",
    "fixtures_postgres",
    "fixtures_tls_redis",
    "fixtures_runs",
    "fixtures_photographs",
    "fixtures_colours",
]

ROOT = Path(__file__).resolve().parents[1]

# Shared machines are slow now and then; a property is about values, not about milliseconds.
settings.register_profile("heatbox", deadline=None)
settings.load_profile("heatbox")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real photographs and weights; tests that need it are skipped, visibly, where it is missing."""
    folder = Path(os.environ.get("HEATBOX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "weights").is_dir():
        pytest.skip(f"no test data at {folder} (set HEATBOX_TEST_DATA)")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A heatbox home of this test alone, also for the processes that it starts."""
    folder = tmp_path / "home"
    monkeypatch.setenv("HEATBOX_HOME", str(folder))
    return folder
