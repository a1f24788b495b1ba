"""Real photographs between a real Label Studio and a real `heatbox up` with an ImageNet classifier."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fixtures_proxy import StudioProxy, studio_proxy
from fixtures_runs import Heatbox

from heatbox.models import ModelStore, make_card
from heatbox.settings import Settings

__all__ = ["ELEPHANT", "PhotoProject", "Way", "config", "elephants", "photo_store", "way"]

ELEPHANT = "African elephant,Indian elephant,tusker"
"""The classes of ImageNet that are elephants, for `predicted_values`."""

_LABEL = f'<Label value="elephant" predicted_values="{ELEPHANT}"/>'


def config(*controls: str, image: str = 'value="$image"') -> str:
    """Return a label config with rectangles for elephants and these controls beside them."""
    rectangles = f'<RectangleLabels name="box" toName="image" smart="true">{_LABEL}</RectangleLabels>'
    return f'<View><Image name="image" {image}/>{"".join(controls) or rectangles}</View>'


def control(tag: str, name: str, attributes: str = "") -> str:
    """Return a control for elephants."""
    label = _LABEL.replace("<Label", "<Choice") if tag == "Choices" else _LABEL
    return f'<{tag} name="{name}" toName="image" {attributes}>{label}</{tag}>'


@pytest.fixture(scope="session")
def elephants(test_data: Path) -> list[Path]:
    """Ten photographs of elephants."""
    return sorted((test_data / "elephants" / "images").glob("*.jpg"))


@pytest.fixture(scope="session")
def photo_store(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with a MobileNet v2 of ImageNet, `photo`."""
    from heatbox_workers.loading import read_state, register

    folder = tmp_path_factory.mktemp("photo-store")
    names = json.loads((test_data / "weights" / "imagenet_classes.json").read_text())
    sidecar = json.loads((test_data / "weights" / "mobilenet_v2_onnxzoo.json").read_text())
    card = make_card(
        name="photo",
        architecture=sidecar["arch"],
        labels=[f"{name} #{index}" if names.count(name) > 1 else name for index, name in enumerate(names)],
        input_size=320,
        mean=sidecar["mean"],
        std=sidecar["std"],
        padding=sidecar["padding"],
        box_threshold=0.34,
    )
    register(ModelStore(folder), card, read_state(test_data / "weights" / "mobilenet_v2_onnxzoo.pt"))
    return folder


@dataclass(frozen=True)
class Way:
    """From Label Studio to heatbox: the API of the one, the address of the other through a proxy that counts."""

    api: httpx.Client
    proxy: StudioProxy
    heatbox: Heatbox
    address: str

    def project(self, label_config: str, title: str = "photographs") -> "PhotoProject":
        """Make a project and connect it."""
        return PhotoProject(self, label_config, title)

    def posted(self, address: str, content: Any = None, **more: Any) -> Any:
        """Post something and return the answer."""
        answer = self.api.post(address, json=content, **more)
        assert answer.is_success, answer.text
        return answer.json()


class PhotoProject:
    """A project that is connected to heatbox."""

    def __init__(self, way: Way, label_config: str, title: str) -> None:
        self.way = way
        self.id = int(way.posted("/api/projects/", {"title": title, "label_config": label_config})["id"])
        row = {"project": self.id, "url": way.proxy.url, "title": "heatbox", "is_interactive": True}
        self.backend = int(way.posted("/api/ml", row)["id"])
        self.version = str(way.api.get(f"/api/ml/{self.backend}").json()["model_version"])

    def upload(self, *pictures: Path) -> list[int]:
        """Upload files and return the numbers of their tasks."""
        files = {path.name: (path.name, path.read_bytes(), "image/jpeg") for path in pictures}
        answer = self.way.api.post(f"/api/projects/{self.id}/import?return_task_ids=true", files=files)
        assert answer.is_success, answer.text
        return list(answer.json()["task_ids"])

    def add(self, *tasks: Mapping[str, Any]) -> list[int]:
        """Import tasks with this data and return their numbers."""
        address = f"/api/projects/{self.id}/import?return_task_ids=true"
        return list(self.way.posted(address, list(tasks))["task_ids"])

    def retrieve(self) -> None:
        """Let Label Studio ask for all tasks without a prediction of this version."""
        address = f"/api/dm/actions?id=retrieve_tasks_predictions&project={self.id}"
        self.way.posted(address, {"selectedItems": {"all": True}})

    def predictions(self, task: int) -> list[Mapping[str, Any]]:
        """Return the stored predictions of a task."""
        return list(self.way.api.get("/api/predictions/", params={"task": task, "project": self.id}).json())

    def regions(self, task: int, kind: str = "") -> Sequence[Mapping[str, Any]]:
        """Return the regions of a task's one prediction, perhaps of one kind."""
        (one,) = self.predictions(task)
        return [region for region in one["result"] if kind in {"", region["type"]}]

    def interact(self, task: int, region: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Draw something with a smart tool and return the regions that are suggested."""
        address = f"/api/ml/{self.backend}/interactive-annotating"
        answer = self.way.posted(address, {"task": task, "context": {"result": [dict(region)]}})
        assert "errors" not in answer, answer
        return list(answer["data"]["result"])


@pytest.fixture(scope="module")
def way(
    tmp_path_factory: pytest.TempPathFactory, studio_server: Any, photo_store: Path, test_data: Path
) -> Iterator[Way]:
    """A `heatbox up` that knows the shared Label Studio, with a proxy before it."""
    settings = Settings(
        home=tmp_path_factory.mktemp("photographs") / "home",
        store=photo_store,
        model="photo",
        threads=1,
        port=0,
        local_roots=(test_data,),
        public_url="http://heatbox.example",
    )
    variables = {"LABEL_STUDIO_URL": studio_server.url, "LABEL_STUDIO_API_KEY": studio_server.token}
    heatbox = Heatbox(settings, settings.home.parent, variables)
    with (
        heatbox.up() as up,
        studio_proxy(up.address) as proxy,
        httpx.Client(base_url=studio_server.url, headers=studio_server.headers, timeout=120) as api,
    ):
        yield Way(api, proxy, heatbox, up.address)
