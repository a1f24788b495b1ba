"""The doctor's checks, on an empty home and on one where much is wrong; a check that fails costs no other."""

import importlib.metadata

import pytest

from heatbox.checks import run_checks
from heatbox.ledger import Ledger
from heatbox.models import ModelStore, make_card
from heatbox.settings import Settings
from heatbox.supervisor import listen

NAMES = [
    "versions",
    "torch",
    "ledger",
    "model store",
    "active model",
    "redis",
    "queues",
    "runs",
    "label studio",
    "plugins",
    "service",
    "local roots",
]


def checked(settings):
    return {check.name: check for check in run_checks(settings)}


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """The checks of a home that is not there yet."""
    return checked(Settings(home=tmp_path_factory.mktemp("doctor") / "home"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The checks of a home with an active model without weights, a Redis that is not there, and a wrong root."""
    home = tmp_path_factory.mktemp("doctor")
    store = ModelStore(home / "models")
    with store.incoming() as folder:
        (folder / "weights.safetensors").write_bytes(b"weights")
        fields = {"architecture": "heatbox/tiny", "labels": ["cat"], "input_size": 64}
        card = store.publish(folder, make_card(name="tiny", **fields))
    store.weights_path(card).unlink()
    settings = Settings(
        home=home,
        local_roots=(home / "nowhere",),
        redis_url=unreachable_redis(),
        explainer_options=("layr=features",),
        studio_url="http://studio.example",
    )
    Ledger(settings.ledger_url).activate("gone@0123")
    return checked(settings)


def unreachable_redis():
    """Return the URL of a port that was free a moment ago."""
    with listen("127.0.0.1", 0) as listener:
        return f"redis://:secret@127.0.0.1:{listener.getsockname()[1]}"


def test_every_check_has_its_name_whatever_it_finds(empty, broken):
    assert list(empty) == list(broken) == NAMES


def test_an_empty_home_has_warnings_but_no_error(empty):
    assert {name: check.state for name, check in empty.items()} == {
        **dict.fromkeys(NAMES, "ok"),
        "active model": "warning",
        "local roots": "warning",
    }


def test_what_is_not_ok_comes_with_a_remedy(empty, broken):
    for check in (*empty.values(), *broken.values()):
        assert check.found
        assert bool(check.remedy) == (check.state != "ok")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("versions", f"heatbox {importlib.metadata.version('heatbox')}"),
        ("torch", f"torch {importlib.metadata.version('torch')}"),
        ("ledger", "sqlite ledger opens"),
        ("model store", "0 models"),
        ("redis", "`heatbox up` starts"),
        ("queues", "no Redis runs here now"),
        ("runs", "0 running, 0 paused; no service conducts them"),
        ("label studio", "none is named"),
        ("plugins", "grad_cam"),
        ("service", "explains and fits with fused_cam components"),
    ],
)
def test_what_is_ok_is_told_too(empty, name, found):
    assert found in empty[name].found


@pytest.mark.parametrize(
    ("name", "found", "remedy"),
    [
        ("model store", "no weights for tiny@", "add these models again"),
        ("active model", "No model 'gone@0123' in the store.", "heatbox models add"),
        ("redis", "no answer: ConnectionError", "HEATBOX_REDIS_URL"),
        ("service", "fused_cam has no option 'layr'.", "Did you mean 'layer'?"),
        ("queues", "Redis does not answer", "heatbox up"),
        ("label studio", "LABEL_STUDIO_API_KEY is not set", "LABEL_STUDIO_API_KEY"),
        ("local roots", "not folders: ", "HEATBOX_LOCAL_ROOTS"),
    ],
)
def test_what_is_wrong_is_an_error_of_its_own(broken, name, found, remedy):
    assert broken[name].state == "error"
    assert found in broken[name].found
    assert remedy in broken[name].remedy
    assert [broken[other].state for other in ("versions", "torch", "ledger", "plugins")] == ["ok"] * 4


def test_no_password_is_told(broken):
    assert "secret" not in str(broken.values())


def test_a_home_that_cannot_be_used_costs_the_other_checks_nothing(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    found = checked(Settings(home=tmp_path / "file", redis_url="nonsense"))
    wrong = {"ledger", "model store", "active model", "redis", "queues", "runs"}
    assert {name for name, check in found.items() if check.state == "error"} == wrong
    assert "HEATBOX_REDIS_URL" in found["redis"].remedy
