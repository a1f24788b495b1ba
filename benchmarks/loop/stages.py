"""The stages of the loop: heatbox's own commands, each a process, against a private Label Studio, and their times."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from heatbox.labelling.config import parse_label_config
from heatbox.ledger import Ledger
from heatbox.local_parts import HOST, Session, new_session, start_label_studio
from heatbox.metrics import agreement, box_quality
from heatbox.processes import stop
from heatbox.profiles import profile_of
from heatbox.remote_store import open_store
from heatbox.serving import serve_project
from heatbox.settings import read_settings
from heatbox.studio.client import Studio
from loop.person import predicted_boxes, prediction_of
from loop.sets import TruePicture

__all__ = ["Loop", "Measured", "label_studio"]

_READY_SECONDS = 120


@contextmanager
def label_studio(program: Path, folder: Path, served: Path) -> Iterator[Session]:
    """Run a private Label Studio that serves the files below a folder."""
    session = new_session()
    part = start_label_studio(program, folder, served, session, os.environ)
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not _answers(f"http://{HOST}:{session.studio_port}/health"):
            part.require_alive()
            if time.monotonic() > deadline:
                sys.exit(f"Label Studio did not start; see {part.log}.")
            time.sleep(0.2)
        yield session
    finally:
        stop(part.process, 15)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


@dataclass(frozen=True)
class Measured:
    """How good stored predictions are.

    Attributes:
        version: of the predictions.
        box_quality: of all boxes together (`heatbox.metrics.box_quality`), matched label by label.
        label_quality: the mean over the labels of the same; a label with three pictures counts as one with fifty.
        mean_iou: over the true boxes.
        found: share of the true boxes with a predicted one of IoU at least 0.5.
        false_boxes: per picture.
    """

    version: str
    box_quality: float
    label_quality: float
    mean_iou: float
    found: float
    false_boxes: float


@dataclass
class Loop:
    """One project of the loop.

    Attributes:
        environment: of heatbox's commands.
        studio: the API of Label Studio.
        project: number.
        tasks: numbers of the tasks by picture.
        seconds: (stage, seconds) of every command, in order.
    """

    environment: dict[str, str]
    studio: Studio
    project: int = 0
    tasks: dict[Path, int] = field(default_factory=dict)
    seconds: list[tuple[str, float]] = field(default_factory=list)

    def heatbox(self, stage: str, *words: str, **more: str) -> str:
        """Run a command of heatbox and return what it prints; it ends the loop where it fails."""
        began = time.perf_counter()
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-P", "-m", "heatbox", *words],
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        self.seconds.append((stage, time.perf_counter() - began))
        if done.returncode:
            sys.exit(f"heatbox {' '.join(words)} ended with code {done.returncode}:\n{done.stdout}")
        return done.stdout

    def train(self, stage: str, *words: str, **more: str) -> dict[str, Any]:
        """Train and return what is kept of the training."""
        told: dict[str, Any] = json.loads(self.heatbox(stage, "train", "--json", *words, **more))
        return told

    def annotate(self, stage: str, tasks: Sequence[int], **more: str) -> str:
        """Let a run annotate tasks as the project is served now, and return the version."""
        chosen = ",".join(map(str, tasks))
        self.heatbox(stage, "run", "--project", str(self.project), "--filter", f"ids={chosen}", **more)
        settings = read_settings({**self.environment, **more})
        ledger = Ledger(settings.ledger_url)
        config = parse_label_config(self.studio.project(self.project).label_config)
        served = serve_project(settings, open_store(settings), ledger, config, project=self.project)
        ledger.close()
        return served.pipeline.version

    def has_profile(self) -> bool:
        """Return whether tuning gave the project a profile; where nothing was better it has none."""
        settings = read_settings(self.environment)
        ledger = Ledger(settings.ledger_url)
        found = profile_of(ledger, settings.studio_url, self.project)
        ledger.close()
        return found is not None

    def measure(self, pictures: Sequence[TruePicture], version: str) -> Measured:
        """Compare the predictions that Label Studio holds with the true boxes."""
        found = [
            predicted_boxes(prediction_of(self.studio, self.project, self.tasks[one.path], version))
            for one in pictures
        ]
        labels = sorted({box[0] for one in pictures for box in one.boxes})
        pairs = {
            label: [
                (
                    _array(corners for name, corners in boxes if name == label),
                    _array(box[1:] for box in one.boxes if box[0] == label),
                )
                for boxes, one in zip(found, pictures, strict=True)
            ]
            for label in labels
        }
        every = agreement(pair for some in pairs.values() for pair in some)
        return Measured(
            version,
            box_quality(pair for some in pairs.values() for pair in some),
            float(np.mean([box_quality(some) for some in pairs.values()])),
            every.mean_iou,
            every.found,
            (every.predictions - every.matched) / len(pictures),
        )


def _array(corners: Any) -> NDArray[np.float64]:  # noqa: ANN401 - an iterable of corners
    return np.array(list(corners), dtype=np.float64).reshape(-1, 4)


def environment(home: Path, data: Path, session: Session) -> dict[str, str]:
    """Return the environment of heatbox's commands: a home of its own, this Label Studio, these pictures."""
    kept: Mapping[str, str] = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HEATBOX_", "LABEL_STUDIO_", "REDIS_URL"))
    }
    return {
        **kept,
        "HEATBOX_HOME": str(home),
        "HEATBOX_LOCAL_ROOTS": str(data),
        "LABEL_STUDIO_URL": session.url,
        "LABEL_STUDIO_API_KEY": session.token,
    }
