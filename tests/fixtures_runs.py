"""What tests of background runs work with: a home of heatbox with its processes, a project in a real Label Studio."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fixtures_redis import LABELS, is_alive, wait_until
from sqlalchemy import func, select

from heatbox.labelling.config import make_label_config
from heatbox.ledger import Ledger
from heatbox.processes import stop
from heatbox.runs.records import Runs
from heatbox.runs.tables import Item, ItemState, Run, RunState, chunks
from heatbox.settings import Settings, as_environment

__all__ = ["JOB", "REDIS", "TRAINER", "WEB", "WORKER", "Heatbox", "Project", "Up", "region"]

WEB, WORKER, REDIS, JOB = "heatbox serve", "heatbox work", "redis-server", "heatbox_workers.job_process"
TRAINER = "heatbox work --queue train"


@dataclass
class Up:
    """A `heatbox up`."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        """All that it and its children have said."""
        return self.log.read_text(errors="replace")

    @property
    def address(self) -> str:
        """Of the web service."""
        found = re.findall(r"heatbox is up\s+(http://\S+)", self.output)
        return str(found[-1])

    def children(self, name: str) -> set[int]:
        """Return the living processes below it whose command line has this word."""
        lines = {pid: _command_line(pid) for pid in _below(self.process.pid)}
        return {
            pid for pid, line in lines.items() if name in line and (name != WORKER or TRAINER not in line)
        }

    def child(self, name: str) -> int:
        """Return the one process of this name, as soon as there is one."""
        wait_until(lambda: len(self.children(name)) == 1, f"one {name}")
        (pid,) = self.children(name)
        return pid

    def kill(self, name: str) -> int:
        """End a child as the kernel does it when memory is short, and return its number."""
        pid = self.child(name)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), f"{name} is dead")
        return pid


@dataclass
class Heatbox:
    """A home of heatbox, the commands that are run on it, and its ledger."""

    settings: Settings
    folder: Path
    variables: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """Of every process; commands learn the address of Label Studio from it too."""
        return {**os.environ, **as_environment(self.settings), **self.variables}

    @contextmanager
    def runs(self) -> Iterator[Runs]:
        """Open the ledger."""
        ledger = Ledger(self.settings.ledger_url)
        try:
            yield Runs(ledger)
        finally:
            ledger.close()

    def start(self, *arguments: Any) -> subprocess.Popen[str]:
        """Start a command whose standard error is read."""
        return subprocess.Popen(
            [sys.executable, "-m", "heatbox", *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *arguments: Any, code: int = 0) -> str:
        """Run a command to its end, check its exit code and return what it said."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == code, output + errors
        assert "Traceback" not in errors, errors
        return output

    def run(self, project: "Project", *options: Any) -> int:
        """Start a background run while a service conducts, and return its number."""
        found = re.search(r"Run (\d+) is in the ledger", self.command("run", "-p", project.id, *options))
        assert found
        return int(found[1])

    @contextmanager
    def up(self, **changes: Any) -> Iterator[Up]:
        """Have a `heatbox up` that is ready."""
        up = self.start_up(**changes)
        try:
            yield up
        finally:
            stop(up.process, 20)

    def start_up(self, **changes: Any) -> Up:
        """Start a `heatbox up` and wait until it is ready."""
        environment = {**self.environment, **as_environment(self.settings.model_copy(update=changes))}
        log = self.folder / f"up-{len(list(self.folder.glob('up-*')))}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "heatbox", "up"], env=environment, stdout=output, stderr=output
            )
        up = Up(process, log)
        wait_until(lambda: "heatbox is up" in up.output or process.poll() is not None, "it is up")
        assert process.poll() is None, up.output
        return up

    def newest(self) -> Run:
        """Return the newest run, as soon as there is one."""
        with self.runs() as runs:
            wait_until(lambda: runs.newest(1), "there is a run")
            return runs.newest(1)[0]

    def find(self, number: int) -> Run:
        """Return a run."""
        with self.runs() as runs:
            return runs.find(number)

    def items(self, number: int, *states: ItemState) -> list[Item]:
        """Return items of a run."""
        with self.runs() as runs:
            return list(runs.items(number, states or tuple(ItemState)))

    def ended(self, number: int) -> int:
        """Return how many items of a run have come to an end."""
        with self.runs() as runs:
            counts = runs.counts(number)
            return counts.total - counts.left

    def chunks(self, number: int) -> int:
        """Return how many jobs a run has made."""
        ledger = Ledger(self.settings.ledger_url)
        with ledger.reading() as connection:
            count = connection.scalar(select(func.count()).where(chunks.c.run == number))
        ledger.close()
        return count or 0

    def wait(self, number: int, *, ended: int | None = None, seconds: float = 90) -> None:
        """Wait until so many items have come to an end; None: until the run has."""
        if ended is None:
            wait_until(lambda: self.find(number).state is RunState.DONE, f"run {number} is done", seconds)
        else:
            wait_until(lambda: self.ended(number) >= ended, f"{ended} items have ended", seconds)


class Project:
    """A project with tasks, of which the first three were labelled by a person."""

    def __init__(self, api: httpx.Client, pictures: Sequence[str], labels: Sequence[str] = LABELS) -> None:
        self.api = api
        config = make_label_config(labels)
        self.id = int(self.made("/api/projects/", {"title": "Run", "label_config": config})["id"])
        content = [{"image": f"/data/local-files/?d={name}"} for name in pictures]
        self.tasks = [int(task) for task in self.add(content)]
        for task in self.tasks[:3]:
            self.made(f"/api/tasks/{task}/annotations/", {"result": [region(labels[0])]})
        self._labelled = self._annotations()

    def made(self, address: str, content: Any) -> Any:
        """Post something and return the answer."""
        answer = self.api.post(address, json=content)
        assert answer.is_success, answer.text
        return answer.json()

    def add(self, content: Sequence[Mapping[str, Any]]) -> list[int]:
        """Import tasks with this data and return their numbers."""
        answer = self.made(f"/api/projects/{self.id}/import?return_task_ids=true", list(content))
        return list(answer["task_ids"])

    def versions(self) -> dict[int, list[str]]:
        """Return the model versions of each task's predictions."""
        return {
            task["id"]: sorted(one["model_version"] for one in task["predictions"]) for task in self._listed()
        }

    def predictions(self) -> dict[int, set[int]]:
        """Return the numbers of each task's predictions, which tell an old one from one that was written again."""
        return {task["id"]: {one["id"] for one in task["predictions"]} for task in self._listed()}

    def retrieve(self, *tasks: int) -> None:
        """Let Label Studio ask the connected backend for these tasks; none: for all that have no prediction."""
        chosen = {"all": False, "included": list(tasks)} if tasks else {"all": True}
        address = f"/api/dm/actions?id=retrieve_tasks_predictions&project={self.id}"
        self.made(address, {"selectedItems": chosen})

    def boxes(self) -> dict[int, list[Any]]:
        """Return the boxes of each task's predictions, the tasks counted from the first."""
        return {
            place: [one["value"] for found in task["predictions"] for one in found["result"]]
            for place, task in enumerate(self._listed())
        }

    def assert_each_once(
        self, heatbox: Heatbox, number: int, failed: Mapping[int, str] | None = None
    ) -> None:
        """Assert that a run is settled: a prediction for each task and none for those that failed, with their codes."""
        failed = failed or {}
        run = heatbox.find(number)
        assert run.state is RunState.DONE
        wrong = heatbox.items(number, ItemState.FAILED)
        assert {item.task: item.code for item in wrong} == failed
        assert all(item.reason for item in wrong)
        assert not heatbox.items(number, ItemState.WAITING, ItemState.COMPUTED)
        mine = {task: found.count(run.pipeline.version) for task, found in self.versions().items()}
        assert mine == {task: int(task not in failed) for task in mine}
        assert {item.task for item in heatbox.items(number)} >= set(mine)
        self.assert_labels_are_untouched()

    def assert_labels_are_untouched(self) -> None:
        """Assert that what a person drew is as it was."""
        assert self._annotations() == self._labelled

    def _annotations(self) -> dict[int, Any]:
        return {
            task["id"]: [(one["id"], one["result"]) for one in task["annotations"]]
            for task in self._listed()
            if task["annotations"]
        }

    def _listed(self) -> list[dict[str, Any]]:
        params = {"project": self.id, "fields": "all", "page_size": 1000}
        answer = self.api.get("/api/tasks/", params=params)
        assert answer.is_success, answer.text
        return sorted(answer.json()["tasks"], key=lambda task: task["id"])


def region(label: str) -> dict[str, Any]:
    """Return a box as a person or another model would draw it."""
    size = {"original_width": 64, "original_height": 48}
    value = {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": [label]}
    names = {"id": "a", "type": "rectanglelabels", "from_name": "label", "to_name": "image"}
    return {**names, **size, "value": value}


def _below(pid: int) -> set[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return {one for one in found if is_alive(one)}.union(*map(_below, found))
    return set()


def _command_line(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""
