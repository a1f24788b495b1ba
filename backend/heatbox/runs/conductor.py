"""The conductor moves runs on: it reads tasks, feeds chunks to a lane, writes predictions and confirms each.

There is one at a time for a ledger (see `heatbox.ledger_lock`), and it alone writes predictions. All that it knows is
in the ledger and in Label Studio, so whoever takes over from a killed one goes on in the middle. Work may be done
twice; its effect is not: before a prediction is written, and after every answer that leaves a doubt, Label Studio is
asked which tasks hold one of this version.
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heatbox.annotation import Annotation
from heatbox.errors import (
    HeatboxError,
    LedgerError,
    RedisUnavailableError,
    StudioAmbiguousError,
    TasksFileError,
    WorkerDiedError,
)
from heatbox.labelling.predictions import evidence_url, prediction
from heatbox.queueing.job_process import JobResult
from heatbox.runs.lanes import Lane, Lost
from heatbox.runs.output import write_results
from heatbox.runs.project_tasks import DOUBT_SECONDS, ProjectTasks
from heatbox.runs.records import Runs
from heatbox.runs.tables import Chunk, Computed, Failed, Run, RunState

__all__ = ["Conductor"]

log = logging.getLogger(__name__)

_CHUNK_SECONDS = 3.0
_MOST_PICTURES = 256  # of one chunk
_FIRST_PICTURES = 1  # of a chunk, before anything was measured: each may take minutes
# Reasons for the failure of a whole chunk that may pass by themselves; how often it is tried again, and how soon.
_PASSING = {"store-unavailable", "worker-died", "picture-memory", "picture-timeout"}
_TRIES, _REST_SECONDS = 3, 2.0
_LAST_STRIKE = 2  # alone and once more; then the picture is given up
_PATIENCE = (1.0, 2.0, 5.0, 10.0)  # seconds between tries at what does not answer

Entry = Mapping[str, Any]


@dataclass
class _Patience:
    """When something that failed is tried again: later each time."""

    failures: int = 0
    until: float = 0.0

    def is_over(self) -> bool:
        return time.monotonic() >= self.until

    def wait(self, at_least: float = 0.0) -> None:
        seconds = _PATIENCE[min(self.failures, len(_PATIENCE) - 1)]
        self.failures += 1
        self.until = time.monotonic() + max(seconds, at_least)


@dataclass
class Conductor:
    """What moves the runs of a ledger.

    Attributes:
        runs: of the ledger.
        lane: that carries chunks to workers.
        tasks: of projects in Label Studio.
        only: the one run to move; None: all.
        people_url: where people reach the service, for links to the evidence; empty: no links.
    """

    runs: Runs
    lane: Lane
    tasks: ProjectTasks
    only: int | None = None
    people_url: str = ""
    _seconds: dict[str, float] = field(default_factory=dict)  # per picture, by version
    _patience: dict[int, _Patience] = field(default_factory=dict)  # with Label Studio, by run
    _withdrawn: set[str] = field(default_factory=set)
    _notes: dict[int, str] = field(default_factory=dict)
    _redis_trouble: str = ""
    _failures: Counter[int] = field(default_factory=Counter)  # of whole chunks in a row, by run
    _rests: dict[int, tuple[float, str]] = field(
        default_factory=dict
    )  # a run gets no chunk until then, and why
    _partial: dict[int, dict[str, Entry]] = field(default_factory=dict)  # pictures of unfinished items

    def step(self) -> bool:
        """Do what there is to do now and return whether there was something.

        Raises:
            LedgerError: the ledger does not answer; what was done is in it.
        """
        running = self._running()
        chunks = [chunk for chunk in self.runs.open_chunks() if self.only in {None, chunk.run}]
        moved = False
        try:
            moved = self._collect(chunks)
            self._withdraw(chunks, {run.id for run in running})
            moved |= self._top_up(self._running())
            self._tell_redis("")
        except RedisUnavailableError as error:  # reading and writing go on
            self._tell_redis(str(error))
        for run in running:
            moved |= self._move(run)
        return moved

    def _running(self) -> list[Run]:
        return [run for run in self.runs.with_state(RunState.RUNNING) if self.only in {None, run.id}]

    def _tell_redis(self, trouble: str) -> None:
        """Log a change: Redis is looked at several times a second."""
        if trouble != self._redis_trouble:
            log.warning("%s", trouble or "Redis answers again")
        self._redis_trouble = trouble

    def rest(self, seconds: float) -> None:
        """Take back what is under way and write down what comes of it within so many seconds."""
        deadline = time.monotonic() + seconds
        while chunks := [chunk for chunk in self.runs.open_chunks() if self.only in {None, chunk.run}]:
            self._withdraw(chunks, set())
            self.lane.wait(0.1)
            self._collect(chunks)
            if time.monotonic() > deadline:
                return

    def close(self) -> None:
        """Let go of Label Studio and the lane."""
        self.tasks.close()
        self.lane.close()

    # chunks

    def _collect(self, chunks: Sequence[Chunk]) -> bool:
        """Write down what became of chunks that have ended."""
        outcomes = self.lane.outcomes([chunk.job for chunk in chunks])
        for chunk in chunks:
            outcome = outcomes.get(chunk.job)
            if isinstance(outcome, JobResult):
                self._settle_whatever_it_is(chunk, outcome)
                self.lane.forget(chunk.job)
            elif outcome is not None:
                self._take_back(chunk, outcome)
                self.lane.withdraw([chunk.job])  # a worker that was only silent ends soon
            if outcome is not None:
                self._withdrawn.discard(chunk.job)
        return bool(outcomes)

    def _take_back(self, chunk: Chunk, lost: Lost) -> None:
        """Let the items of a lost chunk wait again; one that was lost alone with its worker too often is given up."""
        if chunk.job not in self._withdrawn:
            log.warning("chunk %d of run %d is done again: %s", chunk.id, chunk.run, lost.reason)
        if not lost.with_worker:
            self.runs.settle(chunk, [])
            return
        ids = [item.id for item in chunk.items]
        error = WorkerDiedError(
            "The worker was lost each time that it worked on the picture.",
            "Look at the picture and the worker's log.",
        )
        given_up = [
            Failed.because(item.id, error)
            for item in chunk.items
            if item.alone and item.strikes >= _LAST_STRIKE
        ]
        again = [item.id for item in chunk.items if item.strikes]
        self.runs.settle(chunk, given_up, suspects=again, struck=ids)

    def _settle_whatever_it_is(self, chunk: Chunk, result: JobResult) -> None:
        try:
            self._settle(chunk, result)
        except LedgerError:
            raise
        except Exception:  # an edge: the answer of one worker must not stop all runs
            log.exception("the outcome of chunk %d of run %d cannot be used", chunk.id, chunk.run)
            self.runs.settle(chunk, [])
            self.runs.trouble(chunk.run, "A worker's answer cannot be used; the log says why.", pause=True)

    def _settle(self, chunk: Chunk, result: JobResult) -> None:
        run = self.runs.find(chunk.run)
        reason = result.failure or (None if result.suspects else result.reason)
        if reason is not None:  # no picture is to blame
            self.runs.settle(chunk, [])
            self._tell_failure(run, reason)
            return
        self._failures.pop(run.id, None)
        done = sum(entry is not None and "annotation" in entry for entry in result.entries)
        if done:
            self._seconds[run.pipeline.version] = result.seconds / done
        entries = {**self._known(chunk), **dict(zip(result.addresses, result.entries, strict=True))}
        suspected = {result.addresses[index] for index in result.suspects}
        suspects = [item for item in chunk.items if suspected.intersection(item.addresses)]
        one = suspects[0] if len(suspects) == 1 else None  # then it is known which
        seconds = result.seconds / done if done else 0.0
        outcomes = _outcomes(chunk, entries, run, seconds, self.people_url)
        if one is not None and one.alone and one.strikes + 1 >= _LAST_STRIKE and result.reason is not None:
            outcomes.append(
                Failed(one.id, result.reason["code"], "{message} {remedy}".format_map(result.reason))
            )
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                log.warning("run %d: %s: %s", run.id, outcome.code, outcome.reason, extra={"run": run.id})
        self._keep(chunk, entries)
        self.runs.settle(
            chunk, outcomes, suspects=[item.id for item in suspects], struck=[] if one is None else [one.id]
        )

    def _known(self, chunk: Chunk) -> dict[str, Entry | None]:
        """Return the pictures of unfinished items that were done before; each is annotated once."""
        found: dict[str, Entry | None] = {}
        for item in chunk.items:
            found |= self._partial.pop(item.id, {})
        return found

    def _keep(self, chunk: Chunk, entries: Mapping[str, Entry | None]) -> None:
        """Keep what is done of items with several pictures: with somebody waiting, a job may do one at a time."""
        for item in chunk.items:
            known = {
                address: entry for address in item.addresses if (entry := entries.get(address)) is not None
            }
            if known and len(known) < len(set(item.addresses)):
                self._partial[item.id] = known

    def _tell_failure(self, run: Run, reason: Mapping[str, str]) -> None:
        """Let a run rest where its chunks fail as a whole; what may pass by itself is tried again a few times first."""
        self._failures[run.id] += 1
        count, note = self._failures[run.id], "{code}: {message} {remedy}".format_map(reason)
        pause = count > _TRIES or reason["code"] not in _PASSING
        log.error("run %d %s: %s", run.id, "is paused" if pause else "waits", note, extra={"run": run.id})
        self.runs.trouble(run.id, note, pause=pause)
        self._rests[run.id] = time.monotonic() + _REST_SECONDS * count, note
        if pause:
            del self._failures[run.id], self._rests[run.id]

    def _withdraw(self, chunks: Sequence[Chunk], running: set[int]) -> None:
        """Take back chunks of runs that were paused or cancelled."""
        jobs = [
            chunk.job for chunk in chunks if chunk.run not in running and chunk.job not in self._withdrawn
        ]
        if jobs:
            self.lane.withdraw(jobs)
            self._withdrawn.update(jobs)

    def _top_up(self, running: Sequence[Run]) -> bool:
        """Submit chunks while there is room: late answers first, then the run with the fewest chunks under way."""
        under_way = Counter(chunk.run for chunk in self.runs.open_chunks())
        room = (self.lane.capacity() if running else 0) - under_way.total()
        hungry = {run.id: run for run in running if not self._rest_reason(run)}
        submitted = False
        while room > 0 and hungry:
            run = min(hungry.values(), key=lambda run: (not run.late, under_way[run.id], run.id))
            chunk = self.runs.take(run.id, self._chunk_size(run))
            if chunk is None:
                del hungry[run.id]
                continue
            known = {address for item in chunk.items for address in self._partial.get(item.id, {})}
            missing = [address for address in chunk.addresses if address not in known]
            self.lane.submit(chunk.job, run.pipeline, missing)
            under_way[run.id] += 1
            room -= 1
            submitted = True
        return submitted

    def _chunk_size(self, run: Run) -> int:
        version = run.pipeline.version
        if version not in self._seconds:
            measured = self.runs.counts(run.id).seconds_per_picture
            if measured is None:
                return _FIRST_PICTURES
            self._seconds[version] = measured
        return min(max(round(_CHUNK_SECONDS / max(self._seconds[version], 1e-3)), 1), _MOST_PICTURES)

    # one run

    def _move(self, run: Run) -> bool:
        """Read on, write what is computed, end the run where nothing is left."""
        patience = self._patience.setdefault(run.id, _Patience())
        if not patience.is_over():
            return False
        try:
            moved = self.tasks.write(run) | self.tasks.read(run)
            if not moved:
                self._finish(run)
        except LedgerError:
            raise
        except HeatboxError as error:
            patience.wait(DOUBT_SECONDS if isinstance(error, StudioAmbiguousError) else 0.0)
            self._note(run, str(error))
            return False
        patience.failures = 0
        self._note(run, self._rest_reason(run) or self._redis_trouble)
        return moved

    def _rest_reason(self, run: Run) -> str:
        """Return why a run gets no chunks just now; empty: it does."""
        until, reason = self._rests.get(run.id, (0.0, ""))
        return reason if time.monotonic() < until else ""

    def _note(self, run: Run, note: str) -> None:
        if note and self._notes.get(run.id) != note:
            log.warning("run %d waits: %s", run.id, note, extra={"run": run.id})
        if self._notes.get(run.id, run.note) != note:
            self.runs.trouble(run.id, note)
        self._notes[run.id] = note

    def _finish(self, run: Run) -> None:
        """End a run of which nothing is open; its file is there before it counts as done."""
        total, left = self.runs.progress(run.id)
        if left or not run.read_all:
            self.tasks.forget_look(run)
            return
        if not self.tasks.look_again(run):
            return
        if run.out is not None:
            write_results(self.runs, run.id, Path(run.out))
        if self.runs.finish(run.id):
            log.info("run %d is done: %d items", run.id, total, extra={"run": run.id})


def _outcomes(
    chunk: Chunk, entries: Mapping[str, Entry | None], run: Run, seconds: float, people_url: str
) -> list[Computed | Failed]:
    """Return what became of the items whose pictures were all tried; of several, one bad picture costs only itself."""
    outcomes: list[Computed | Failed] = []
    config, version = run.config, run.pipeline.version
    for item in chunk.items:
        mine = [entries.get(address) for address in item.addresses]
        if not mine:
            outcomes.append(Failed(item.id, TasksFileError.code, "It has no picture."))
            continue
        if any(entry is None for entry in mine):
            continue
        errors = [entry["error"] for entry in mine if entry is not None and "error" in entry]
        if len(errors) == len(mine):
            outcomes.append(Failed(item.id, errors[0]["code"], "{message} {remedy}".format_map(errors[0])))
            continue
        for error in errors:  # as in an answer of /predict, the other pictures keep their regions
            log.warning("run %d: %s: %s: %s", run.id, item.name, error["code"], error["message"])
        found = [
            Annotation.from_dict(entry["annotation"]) if entry is not None and "annotation" in entry else None
            for entry in mine
        ]
        content = prediction(found, config, version, evidence_url(people_url, run.project, item.task))
        outcomes.append(Computed(item.id, content, seconds * len(mine)))
    return outcomes
