"""Background runs in the ledger: what is asked for, what became of each item, what a worker holds.

Every method is one transaction, so whoever is killed between two of them leaves a state that the next one goes on from.
One conductor at a time moves items (`heatbox.runs.conductor`); all may create, look, pause, resume, cancel, retry.
"""

import json
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from heatbox.errors import RunNotFoundError, RunStateError
from heatbox.ledger import Ledger
from heatbox.runs.rows import (
    OPEN,
    ROWS,
    computed_row,
    failed_row,
    inserted_key,
    item_from,
    item_row,
    known_predictions,
    run_from,
    slices,
    write_over,
)
from heatbox.runs.tables import (
    Chunk,
    Computed,
    Counts,
    Failed,
    Item,
    ItemState,
    NewItem,
    NewRun,
    Run,
    RunState,
    chunks,
    items,
    runs,
)

__all__ = ["Runs"]

_NO_PICTURE = "[]"  # an item that nobody can try: its task names no picture
_RATE_SECONDS = 60.0
_ENDED = (ItemState.COMPUTED, ItemState.DONE, ItemState.FAILED)


class Runs:
    """The runs of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # what everybody may do

    def create(self, new: NewRun, content: Iterable[NewItem] = ()) -> int:
        """Write a run, with its items where they are known already, and return its number.

        A picture that was annotated before with the same version keeps that prediction.

        Raises:
            LedgerError: nothing was written.
        """
        with self._ledger.writing() as connection:
            number = self._insert(connection, new)
            remaining = iter(content)
            while some := list(islice(remaining, ROWS)):
                known = (
                    {}
                    if new.project is not None
                    else known_predictions(connection, new.pipeline.version, some)
                )
                connection.execute(insert(items), [item_row(number, one, known) for one in some])
        return number

    def count_known(self, version: str, content: Iterable[NewItem]) -> int:
        """Return how many of these pictures an earlier run annotated with this version."""
        remaining = iter(content)
        count = 0
        with self._ledger.reading() as connection:
            while some := list(islice(remaining, ROWS)):
                known = known_predictions(connection, version, some)
                count += sum(one.fingerprint in known for one in some)
        return count

    def find(self, number: int) -> Run:
        """Return a run.

        Raises:
            RunNotFoundError: there is none of this number.
        """
        with self._ledger.reading() as connection:
            row = connection.execute(select(runs).where(runs.c.id == number)).one_or_none()
        if row is None:
            raise RunNotFoundError(f"There is no run {number}.", "`heatbox runs` lists them.")
        return run_from(row)

    def newest(self, most: int = 50) -> list[Run]:
        """Return the newest runs, the newest first."""
        with self._ledger.reading() as connection:
            return [
                run_from(row)
                for row in connection.execute(select(runs).order_by(runs.c.id.desc()).limit(most))
            ]

    def counts(self, number: int) -> Counts:
        """Return how far a run is."""
        where = items.c.run == number
        since = time.time() - _RATE_SECONDS
        with self._ledger.reading() as connection:
            states = connection.execute(
                select(
                    items.c.state,
                    func.count(),
                    func.sum(items.c.boxes),
                    func.sum(items.c.seconds),
                    func.count(items.c.seconds),
                )
                .where(where)
                .group_by(items.c.state)
            ).all()
            codes = connection.execute(
                select(items.c.code, func.count())
                .where(where, items.c.state == ItemState.FAILED)
                .group_by(items.c.code)
                .order_by(func.count().desc(), items.c.code)
            ).all()
            recent, first = connection.execute(
                select(func.count(), func.min(items.c.changed_at)).where(
                    where, items.c.state.in_(_ENDED), items.c.changed_at > since
                )
            ).one()
        timed = sum(row[4] for row in states)
        seconds = sum(row[3] or 0.0 for row in states) / timed if timed else None
        span = max(time.time() - (first or 0.0), 1.0)
        return Counts(
            {ItemState(row[0]): row[1] for row in states},
            {code or "unknown": count for code, count in codes},
            sum(row[2] or 0 for row in states),
            seconds,
            recent / span if recent else 0.0,
            timed,
        )

    def items(
        self, number: int, states: Collection[ItemState] = tuple(ItemState), after: int = 0
    ) -> Iterator[Item]:
        """Yield a run's items in these states, in the order in which they came."""
        while True:
            with self._ledger.reading() as connection:
                page = connection.execute(
                    select(items)
                    .where(items.c.run == number, items.c.id > after, items.c.state.in_(states))
                    .order_by(items.c.id)
                    .limit(ROWS)
                ).all()
            yield from map(item_from, page)
            if len(page) < ROWS:
                return
            after = page[-1].id

    def pause(self, number: int) -> None:
        """Let a run rest: nothing more of it is computed or written until it is resumed."""
        self._move(number, {RunState.RUNNING}, RunState.PAUSED, "paused")

    def resume(self, number: int) -> None:
        """Let a paused run go on."""
        self._move(number, {RunState.PAUSED, RunState.RUNNING}, RunState.RUNNING, "resumed")

    def cancel(self, number: int) -> None:
        """End a run for good; what it has written stays."""
        self._move(number, {RunState.RUNNING, RunState.PAUSED}, RunState.CANCELLED, "cancelled")

    def retry(self, number: int) -> int:
        """Try a run's failed items again and return how many there are.

        Raises:
            RunNotFoundError: there is none of this number.
            RunStateError: the run was cancelled.
        """
        self.find(number)
        with self._ledger.writing() as connection:
            fresh = {"state": ItemState.WAITING, "code": None, "reason": None, "strikes": 0, "alone": False}
            tried = connection.execute(
                update(items)
                .where(
                    items.c.run == number, items.c.state == ItemState.FAILED, items.c.addresses != _NO_PICTURE
                )
                .values(**fresh, changed_at=time.time())
            )
            if tried.rowcount:
                allowed = {RunState.RUNNING, RunState.PAUSED, RunState.DONE}
                self._change(connection, number, allowed, RunState.RUNNING, "retried")
        return tried.rowcount

    # what the web service does

    def add_late(self, new: NewRun, tasks: Sequence[NewItem]) -> int:
        """Add tasks to the run of late answers for this project and version, which is made or opened again.

        A task that is in it and has come to an end is taken up again: Label Studio would not ask if it had the answer.
        """
        tasks = list({one.task: one for one in tasks}.values())
        numbers = [one.task for one in tasks]
        with self._ledger.writing() as connection:
            found = connection.scalar(
                select(runs.c.id).where(
                    runs.c.late,
                    runs.c.project == new.project,
                    runs.c.version == new.pipeline.version,
                    runs.c.label_config == new.label_config,
                    runs.c.state != RunState.CANCELLED,
                )
            )
            number = self._insert(connection, new) if found is None else found
            connection.execute(
                update(runs)
                .where(runs.c.id == number, runs.c.state == RunState.DONE)
                .values(state=RunState.RUNNING, ended_at=None)
            )
            mine = (items.c.run == number, items.c.task.in_(numbers))
            there = set(connection.scalars(select(items.c.task).where(*mine)))
            connection.execute(
                update(items)
                .where(*mine, items.c.state.not_in(OPEN))
                .values(state=ItemState.WAITING, code=None, reason=None, changed_at=time.time())
            )
            fresh = [item_row(number, one, {}) for one in tasks if one.task not in there]
            if fresh:
                connection.execute(insert(items), fresh)
        return number

    def postpone(self, project: int, version: str, tasks: Sequence[int], seconds: float) -> int:
        """Write these tasks no earlier than in so many seconds: somebody else is about to, and return how many."""
        same = select(runs.c.id).where(
            runs.c.project == project, runs.c.version == version, runs.c.state != RunState.CANCELLED
        )
        with self._ledger.writing() as connection:
            moved = connection.execute(
                update(items)
                .where(items.c.task.in_(tasks), items.c.state.in_(OPEN), items.c.run.in_(same))
                .values(due_at=time.time() + seconds)
            )
        return moved.rowcount

    # what the conductor does

    def with_state(self, state: RunState) -> list[Run]:
        """Return the runs in a state, the oldest first."""
        with self._ledger.reading() as connection:
            rows = connection.execute(select(runs).where(runs.c.state == state).order_by(runs.c.id))
            return [run_from(row) for row in rows]

    def progress(self, number: int) -> tuple[int, int]:
        """Return how many items a run has, and how many of them have not come to an end; quicker than `counts`."""
        states = select(items.c.state, func.count()).where(items.c.run == number).group_by(items.c.state)
        with self._ledger.reading() as connection:
            found = {row[0]: row[1] for row in connection.execute(states)}
        return sum(found.values()), sum(found.get(state, 0) for state in OPEN)

    def add_read(self, number: int, new: Sequence[NewItem], cursor: int, *, read_all: bool) -> None:
        """Write a page of tasks with the place to go on from."""
        with self._ledger.writing() as connection:
            if new:
                connection.execute(insert(items), [item_row(number, one, {}) for one in new])
            connection.execute(
                update(runs).where(runs.c.id == number).values(cursor=cursor, read_all=read_all)
            )

    def take(self, number: int, size: int) -> Chunk | None:
        """Put the next waiting items of a run into a chunk, with at most so many pictures; a suspect is taken alone."""
        waiting = (
            items.c.run == number,
            items.c.state == ItemState.WAITING,
            items.c.chunk.is_(None),
            items.c.due_at <= time.time(),
        )
        with self._ledger.writing() as connection:
            found = connection.execute(
                select(items).where(*waiting, ~items.c.alone).order_by(items.c.id).limit(size)
            ).all()
            pictures = accumulate(len(json.loads(row.addresses)) for row in found)
            rows = [row for row, count in zip(found, pictures, strict=True) if count <= size] or found[:1]
            if not rows:
                suspects = select(items).where(*waiting, items.c.alone).order_by(items.c.id).limit(1)
                rows = list(connection.execute(suspects))
            if not rows:
                return None
            job = f"run{number}-{secrets.token_hex(8)}"
            made = connection.execute(insert(chunks).values(run=number, job=job, open=True))
            chunk = inserted_key(made)
            connection.execute(
                update(items).where(items.c.id.in_([row.id for row in rows])).values(chunk=chunk)
            )
        return Chunk(chunk, number, job, tuple(map(item_from, rows)))

    def open_chunks(self) -> list[Chunk]:
        """Return what workers were given and have not given back."""
        with self._ledger.reading() as connection:
            found = connection.execute(select(chunks).where(chunks.c.open).order_by(chunks.c.id)).all()
            held = connection.execute(
                select(items).where(items.c.chunk.in_([row.id for row in found])).order_by(items.c.id)
            ).all()
        return [
            Chunk(row.id, row.run, row.job, tuple(item_from(one) for one in held if one.chunk == row.id))
            for row in found
        ]

    def settle(
        self,
        chunk: Chunk,
        outcomes: Sequence[Computed | Failed],
        *,
        suspects: Collection[int] = (),
        struck: Collection[int] = (),
    ) -> None:
        """End a chunk: write what became of its items and let the others wait again.

        Args:
            chunk: an open one.
            outcomes: of its items; the others go back.
            suspects: items that are tried alone from now on.
            struck: items that have ended a process, or were lost with one, once more.
        """
        now = time.time()
        project = select(runs.c.project).where(runs.c.id == chunk.run)
        with self._ledger.writing() as connection:
            mine = items.c.chunk == chunk.id
            connection.execute(update(items).where(mine).values(chunk=None))
            connection.execute(update(chunks).where(chunks.c.id == chunk.id).values(open=False))
            next_state = ItemState.DONE if connection.scalar(project) is None else ItemState.COMPUTED
            write_over(
                connection,
                [computed_row(one, next_state, now) for one in outcomes if isinstance(one, Computed)],
            )
            write_over(connection, [failed_row(one, now) for one in outcomes if isinstance(one, Failed)])
            if suspects:
                connection.execute(update(items).where(items.c.id.in_(suspects)).values(alone=True))
            if struck:
                connection.execute(
                    update(items).where(items.c.id.in_(struck)).values(strikes=items.c.strikes + 1)
                )

    def pushable(self, number: int, most: int) -> list[Item]:
        """Return computed items whose prediction is due to be written."""
        with self._ledger.reading() as connection:
            rows = connection.execute(
                select(items)
                .where(
                    items.c.run == number, items.c.state == ItemState.COMPUTED, items.c.due_at <= time.time()
                )
                .order_by(items.c.id)
                .limit(most)
            )
            return [item_from(row) for row in rows]

    def hold(self, numbers: Sequence[int], seconds: float) -> None:
        """Let the predictions of these items not be due for so many seconds: they are on their way."""
        until = time.time() + seconds
        with self._ledger.writing() as connection:
            for some in slices(numbers):
                connection.execute(
                    update(items).where(items.c.id.in_(some), items.c.due_at < until).values(due_at=until)
                )

    def confirm(self, stored: Sequence[int], failed: Sequence[Failed] = ()) -> None:
        """Tick off items whose prediction Label Studio holds, and those that it will never hold."""
        now = time.time()
        with self._ledger.writing() as connection:
            for some in slices(stored):
                connection.execute(
                    update(items)
                    .where(items.c.id.in_(some))
                    .values(state=ItemState.DONE, prediction=None, changed_at=now)
                )
            write_over(connection, [failed_row(one, now) for one in failed])

    def trouble(self, number: int, note: str, *, pause: bool = False) -> None:
        """Note what a run suffers from, empty: nothing; a run that cannot go on without a person is paused."""
        values: dict[str, Any] = {"note": note, **({"state": RunState.PAUSED} if pause else {})}
        running = runs.c.state == RunState.RUNNING
        with self._ledger.writing() as connection:
            connection.execute(update(runs).where(runs.c.id == number, running).values(**values))

    def finish(self, number: int) -> bool:
        """Mark a run done if it is read to its end and nothing of it is open; return whether it is."""
        left = select(items.c.id).where(items.c.run == number, items.c.state.in_(OPEN)).exists()
        with self._ledger.writing() as connection:
            done = connection.execute(
                update(runs)
                .where(runs.c.id == number, runs.c.state == RunState.RUNNING, runs.c.read_all, ~left)
                .values(state=RunState.DONE, ended_at=time.time(), note="")
            )
        return bool(done.rowcount)

    def _insert(self, connection: Connection, new: NewRun) -> int:
        made = connection.execute(
            insert(runs).values(
                state=RunState.RUNNING,
                title=new.title,
                version=new.pipeline.version,
                pipeline=json.dumps(new.pipeline.as_dict()),
                label_config=new.label_config,
                project=new.project,
                filter=json.dumps(dict(new.filter)),
                most=new.most,
                read_all=new.project is None or new.late,
                late=new.late,
                replace=new.replace,
                out=new.out,
                created_at=time.time(),
            )
        )
        return inserted_key(made)

    def _move(self, number: int, allowed: set[RunState], wanted: RunState, verb: str) -> None:
        with self._ledger.writing() as connection:
            self._change(connection, number, allowed, wanted, verb)

    def _change(
        self, connection: Connection, number: int, allowed: set[RunState], wanted: RunState, verb: str
    ) -> None:
        ended = time.time() if wanted is RunState.CANCELLED else None
        changed = connection.execute(
            update(runs)
            .where(runs.c.id == number, runs.c.state.in_(allowed))
            .values(state=wanted, ended_at=ended, note="")
        )
        if not changed.rowcount:
            state = self.find(number).state
            raise RunStateError(
                f"Run {number} is {state}, so it cannot be {verb}.", "`heatbox runs` shows all."
            )
