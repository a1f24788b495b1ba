"""The adapter under the call forms of label-studio-ml 2.x, which no package index has.

`LIBRARY` is what its `model.py` does around a model, read from the repository and written down here in short; the real
2.x does not run in these tests. The real 1.0.9 does: tests/e2e/test_label_studio_ml.py.
"""

import importlib
import sys

import pytest
from fixtures_redis import LABELS, served

from heatbox.errors import RedisUnavailableError
from heatbox.labelling.config import make_label_config
from heatbox.queueing.redis_server import private_redis
from heatbox.settings import as_environment

CONFIG = make_label_config(LABELS)
LIBRARY = """
CACHE = {}

class LabelStudioMLBase:
    def __init__(self, project_id=None, label_config=None):
        self.project_id = project_id or ""
        if label_config is not None:
            self.set("label_config", label_config)
        if not self.get("model_version"):
            self.set("model_version", "0.0.1")
        self.setup()

    def get(self, key):
        return CACHE.get((self.project_id, key))

    def set(self, key, value):
        if not isinstance(value, str):
            raise ValueError("Value must be a string")
        CACHE[self.project_id, key] = value

    @property
    def label_config(self):
        return self.get("label_config")
"""


@pytest.fixture
def model_class(tmp_path, monkeypatch, settings):
    """The adapter over that library."""
    (tmp_path / "label_studio_ml").mkdir()
    (tmp_path / "label_studio_ml" / "__init__.py").touch()
    (tmp_path / "label_studio_ml" / "model.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in as_environment(settings).items():
        monkeypatch.setenv(name, value)
    names = ("label_studio_ml", "label_studio_ml.model", "heatbox.label_studio_ml")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(names[-1]).HeatboxModel
    for name in names:
        del sys.modules[name]


def test_a_new_object_for_each_request_names_the_version_that_the_service_names(model_class, settings):
    model = model_class("7", CONFIG)
    with served(settings) as own:
        said = own.post("/setup", json={"schema": CONFIG}).json()["model_version"]
    assert model.get("model_version") == model.heatbox_version() == said


def test_predictions_are_a_list_with_an_item_for_each_task(model_class, start_worker):
    start_worker()
    tasks = [{"id": 1, "data": {"image": "/data/local-files/?d=0.png"}}, {"id": 2, "data": {}}]
    model = model_class(project_id="7", label_config=CONFIG)
    first, second = model.predict(tasks, context=None, login="", password="")
    assert second == []
    assert first["result"]
    assert first["model_version"] == model.get("model_version")


def test_an_event_teaches_nothing(model_class):
    assert model_class("7", CONFIG).fit("ANNOTATION_CREATED", {"annotation": {}}) == {}


def test_without_a_redis_it_says_what_to_set(model_class, monkeypatch, tmp_path):
    monkeypatch.delenv("HEATBOX_REDIS_URL")
    monkeypatch.setenv("HEATBOX_HOME", str(tmp_path / "other"))
    with pytest.raises(RedisUnavailableError, match="HEATBOX_REDIS_URL"):
        model_class("7", CONFIG)


def test_a_heatbox_up_that_is_started_later_is_found(model_class, monkeypatch, tmp_path):
    monkeypatch.delenv("HEATBOX_REDIS_URL")
    monkeypatch.setenv("HEATBOX_HOME", str(tmp_path / "later"))
    with pytest.raises(RedisUnavailableError):
        model_class("7", CONFIG)
    with private_redis(tmp_path / "later"):
        assert model_class("7", CONFIG).get("model_version").startswith("heatbox-")


def test_the_redis_of_a_heatbox_up_with_the_same_home_is_found(model_class, monkeypatch):
    monkeypatch.delenv("HEATBOX_REDIS_URL")
    assert model_class("7", CONFIG).get("model_version").startswith("heatbox-")
