"""Trainings in the ledger: what was asked for, how far it is, what came of it.

Every method is one transaction that names the state which it starts from, so a command and a service may do the same
step, and whoever is killed between two steps leaves a state that the next one goes on from.
"""

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select, update

from heatbox.activation import add_acceptance, add_activation, newest_active
from heatbox.errors import TrainingNotFoundError, TrainingStateError
from heatbox.ledger import Ledger
from heatbox.trainings.tables import NewTraining, Training, TrainingState, trainings
from heatbox.trainings.verdict import Verdict, judge

__all__ = ["Trainings"]

_OPEN = (TrainingState.QUEUED, TrainingState.RUNNING)
_BIG = {"order", "epoch"}
_COLUMNS = [column for column in trainings.columns if column.name not in _BIG]


class Trainings:
    """The trainings of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        ledger.make_tables(trainings)

    def create(self, new: NewTraining) -> tuple[int, bool]:
        """Write a training and return its number and whether it is new: the same wish, not yet done, is joined."""
        row = _row(new)
        names = ("request", "order", "activate")
        return self._create(row, and_(*(trainings.c[name] == row[name] for name in names)))

    def create_for(self, project: int, new: NewTraining) -> tuple[int, bool]:
        """Do the same, but join whatever training of this project is queued or running."""
        return self._create(_row(new), trainings.c.project == project)

    def find(self, number: int) -> Training:
        """Return a training.

        Raises:
            TrainingNotFoundError: there is none of this number.
        """
        found = self._select(trainings.c.id == number)
        if not found:
            raise TrainingNotFoundError(f"There is no training {number}.", "List them: heatbox trainings.")
        return found[0]

    def newest(self, most: int) -> list[Training]:
        """Return the newest trainings, the newest first."""
        return self._select(trainings.c.id > 0, most)

    def open(self) -> list[Training]:
        """Return those that have not come to an end, the oldest first."""
        return self._select(trainings.c.state.in_(_OPEN))[::-1]

    def untold(self) -> list[Training]:
        """Return those whose new version Label Studio must still be told of."""
        return self._select(trainings.c.told.is_(False))[::-1]

    def order(self, number: int) -> dict[str, Any] | None:
        """Return the order of a training as JSON-ready values; None: it was not made yet."""
        with self.ledger.reading() as connection:
            text = connection.scalar(select(trainings.c.order).where(trainings.c.id == number))
        order: dict[str, Any] | None = None if text is None else json.loads(text)
        return order

    def prepare(self, number: int, new: NewTraining) -> None:
        """Write the order that was made, unless somebody else has written one."""
        values = {"order": json.dumps(new.order, sort_keys=True), "title": new.title, "note": ""}
        where = and_(trainings.c.order.is_(None), trainings.c.state.in_(_OPEN))
        self._change(number, where, **values, reference=new.reference, base=new.base, champion=new.champion)

    def progress(self, training: Training, told: Mapping[str, Any]) -> None:
        """Note how far it is; an epoch that was never reached before takes the strikes away."""
        epoch = told.get("epoch")
        reached = epoch if isinstance(epoch, int) else 0
        values: dict[str, Any] = {
            "progress": json.dumps(dict(told)),
            "state": TrainingState.RUNNING,
            "note": "",
        }
        if training.started_at is None:
            values["started_at"] = time.time()
        mine = and_(trainings.c.state.in_(_OPEN), trainings.c.serial == training.serial)
        with self.ledger.writing() as connection:
            if _update(connection, training.id, mine, values):
                _update(
                    connection, training.id, trainings.c.epoch < reached, {"epoch": reached, "strikes": 0}
                )

    def ask_again(self, training: Training, *, struck: bool) -> bool:
        """Let the next step ask for its job under a new id; return False where somebody else did."""
        mine = and_(trainings.c.state.in_(_OPEN), trainings.c.serial == training.serial)
        return self._change(training.id, mine, serial=training.serial + 1, strikes=training.strikes + struck)

    def note(self, number: int, note: str) -> None:
        """Write down what troubles it."""
        self._change(number, trainings.c.note != note, note=note)

    def fail(self, number: int, error: Mapping[str, str]) -> bool:
        """End it with an error (`HeatboxError.as_dict`); return False where it has ended otherwise."""
        told = {"code": error["code"], "sentence": error["message"], "remedy": error["remedy"], "note": ""}
        return self._end(number, TrainingState.FAILED, **told)

    def cancel(self, number: int) -> None:
        """End it for good.

        Raises:
            TrainingNotFoundError: there is none of this number.
            TrainingStateError: it has ended.
        """
        training = self.find(number)
        if not self._end(number, TrainingState.CANCELLED, note=""):
            state = self.find(number).state
            raise TrainingStateError(
                f"Training {training.id} is {state}.", "Only one that has not ended can be cancelled."
            )

    def resume(self, number: int) -> None:
        """Let one that failed or was cancelled go on from its last checkpoint; one that is open stays as it is.

        Raises:
            TrainingNotFoundError: there is none of this number.
            TrainingStateError: it is done.
        """
        training = self.find(number)
        if training.state is TrainingState.DONE:
            raise TrainingStateError(
                f"Training {number} is done.", f"Look at it: heatbox trainings {number}."
            )
        ended = trainings.c.state.in_((TrainingState.FAILED, TrainingState.CANCELLED))
        values = {"code": None, "sentence": None, "remedy": None, "ended_at": None, "strikes": 0}
        self._change(number, ended, state=TrainingState.QUEUED, serial=training.serial + 1, **values)

    def settle(self, training: Training, result: Mapping[str, Any], named: str | None) -> Verdict | None:
        """End it with its result, and let the challenger serve where it is better; None: somebody else has.

        Args:
            training: that has a result.
            result: of `run_training`.
            named: what the project's plain name stands for now; None where it names no plain name.
        """
        with self.ledger.writing() as connection:
            verdict = judge(training, result, newest_active(connection), named)
            values = {
                "state": TrainingState.DONE,
                "ended_at": time.time(),
                "result": json.dumps(dict(result)),
                "challenger": result["model"],
                "activated": verdict.serves,
                "reason": verdict.reason,
                "told": not (verdict.serves and training.project is not None),
                "note": "",
            }
            if not _update(connection, training.id, trainings.c.state.in_(_OPEN), values):
                return None
            if verdict.active:
                add_activation(connection, result["model"])
            if verdict.named:
                add_acceptance(connection, result["model"], training.champion)
        return verdict

    def tell(self, number: int) -> None:
        """Note that Label Studio knows the new version."""
        self._change(number, trainings.c.told.is_(False), told=True, note="")

    def _create(self, row: Mapping[str, Any], same: ColumnElement[bool]) -> tuple[int, bool]:
        query = select(trainings.c.id).where(same, trainings.c.state.in_(_OPEN)).order_by(trainings.c.id)
        with self.ledger.writing() as connection:
            there = connection.scalar(query.limit(1))
            if there is not None:
                return there, False
            made = connection.execute(trainings.insert().values(**row).returning(trainings.c.id))
            return int(made.scalar_one()), True

    def _end(self, number: int, state: TrainingState, **values: Any) -> bool:  # noqa: ANN401 - columns
        return self._change(number, trainings.c.state.in_(_OPEN), state=state, ended_at=time.time(), **values)

    def _change(self, number: int, where: ColumnElement[bool], **values: Any) -> bool:  # noqa: ANN401 - columns
        with self.ledger.writing() as connection:
            return _update(connection, number, where, values)

    def _select(self, where: ColumnElement[bool], most: int | None = None) -> list[Training]:
        columns = [*_COLUMNS, trainings.c.order.is_not(None).label("has_order")]
        query = select(*columns).where(where).order_by(trainings.c.id.desc()).limit(most)
        with self.ledger.reading() as connection:
            return [_training(row._mapping) for row in connection.execute(query)]  # noqa: SLF001 - SQLAlchemy's name


def _row(new: NewTraining) -> dict[str, Any]:
    return {
        **{
            name: getattr(new, name)
            for name in ("title", "project", "reference", "base", "champion", "activate")
        },
        "state": TrainingState.QUEUED,
        "request": json.dumps(dict(new.request), sort_keys=True),
        "order": None if new.order is None else json.dumps(new.order, sort_keys=True),
        "token": secrets.token_hex(4),
        "created_at": time.time(),
    }


def _update(
    connection: Connection, number: int, where: ColumnElement[bool], values: Mapping[str, Any]
) -> bool:
    changed = connection.execute(update(trainings).where(trainings.c.id == number, where).values(**values))
    return changed.rowcount == 1


def _training(row: Mapping[Any, Any]) -> Training:
    texts = {
        name: json.loads(row[name]) for name in ("request", "progress", "result") if row[name] is not None
    }
    return Training(**{**row, **texts, "state": TrainingState(row["state"])})
