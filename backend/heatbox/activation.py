"""Which model serves: the active one with the way back, and the version that a plain name stands for.

Activations are a list that only grows; a step back adds one too, with a note that it is one. A model that a training
has made (`Card.trained_from`) is a challenger until it was accepted: by activating it, or, where a project names its
model, in the place of that one. A plain name never stands for a challenger (docs/adr/0013-challengers-do-not-serve.md).
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Column, Connection, DateTime, ForeignKey, Integer, String, Table, select, update

from heatbox.errors import ModelNotFoundError
from heatbox.ledger import Ledger, activations, metadata
from heatbox.models import Card, ModelStore

__all__ = [
    "Activation",
    "accepted_models",
    "add_acceptance",
    "add_activation",
    "find_model",
    "history",
    "newest_active",
    "roll_back",
    "roll_back_name",
]

rollbacks = Table(
    "rollbacks",
    metadata,
    Column("activation", ForeignKey("activations.id"), primary_key=True),
)

acceptances = Table(
    "acceptances",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(200), nullable=False),
    Column("instead_of", String(200), nullable=False),
    Column("accepted_at", DateTime(timezone=True), nullable=False),
    Column("withdrawn_at", DateTime(timezone=True)),
)


@dataclass(frozen=True)
class Activation:
    """A model that was made active, and when."""

    model: str
    since: datetime


def history(ledger: Ledger) -> tuple[Activation, ...]:
    """Return what leads back from the active model, which is the last; models that were rolled back are not in it."""
    with ledger.reading() as connection:
        return tuple(_way_back(connection))


def newest_active(connection: Connection) -> str | None:
    """Return the active model as this transaction sees it; None before the first activation."""
    way = _way_back(connection)
    return way[-1].model if way else None


def add_activation(connection: Connection, model: str) -> None:
    """Make a model the active one."""
    connection.execute(activations.insert().values(model=model, activated_at=datetime.now(UTC)))


def add_acceptance(connection: Connection, model: str, instead_of: str) -> None:
    """Let a challenger be what its plain name stands for, without making it active."""
    row = {"model": model, "instead_of": instead_of, "accepted_at": datetime.now(UTC)}
    connection.execute(acceptances.insert().values(**row))


def accepted_models(ledger: Ledger) -> frozenset[str]:
    """Return the models that somebody or a measured comparison has accepted, without those that were rolled back."""
    standing = select(acceptances.c.model).where(acceptances.c.withdrawn_at.is_(None))
    with ledger.reading() as connection:
        named = connection.scalars(standing).all()
        return frozenset({*(one.model for one in _way_back(connection)), *named})


def roll_back(store: ModelStore, ledger: Ledger) -> tuple[str, str]:
    """Activate the model that was active before; return the one that was active and the one that is.

    What was active does not serve by its name either where a training had given it that name.

    Raises:
        ModelNotFoundError: none was active before, or it is not in the store any more; nothing is changed.
    """
    with ledger.writing() as connection:
        return _step_back(store, connection)


def roll_back_name(store: ModelStore, ledger: Ledger, name: str) -> tuple[str, str]:
    """Withdraw the newest challenger that was accepted for this name; return it and what it had replaced.

    Where it is the active model too, the one before becomes the active one.

    Raises:
        ModelNotFoundError: there is none, or what would serve then is not in the store; nothing is changed.
    """
    standing = (
        select(acceptances)
        .where(
            acceptances.c.withdrawn_at.is_(None), acceptances.c.model.startswith(f"{name}@", autoescape=True)
        )
        .order_by(acceptances.c.id.desc())
    )
    with ledger.writing() as connection:
        row = connection.execute(standing).first()
        if row is None:
            raise ModelNotFoundError(
                f"No training has given the name {name!r} another version.",
                "`heatbox models rollback` without a name goes back to the model that was active before.",
            )
        if row.instead_of:
            _require(store, row.instead_of)
        if newest_active(connection) == row.model:
            _step_back(store, connection)
        _withdraw(connection, row.model)
        return str(row.model), str(row.instead_of)


def _step_back(store: ModelStore, connection: Connection) -> tuple[str, str]:
    way = _way_back(connection)
    if len(way) < 2:  # noqa: PLR2004 - the active one and the one before
        now = way[-1].model if way else "none"
        raise ModelNotFoundError(
            f"No other model was active before (now: {now}).",
            "Choose one: heatbox models activate NAME@VERSION.",
        )
    left, before = way[-1].model, way[-2].model
    _require(store, before)
    row = {"model": before, "activated_at": datetime.now(UTC)}
    made = connection.execute(activations.insert().values(**row).returning(activations.c.id)).scalar_one()
    connection.execute(rollbacks.insert().values(activation=made))
    if all(one.model != left for one in way[:-1]):
        _withdraw(connection, left)
    return left, before


def _withdraw(connection: Connection, model: str) -> None:
    standing = update(acceptances).where(acceptances.c.model == model, acceptances.c.withdrawn_at.is_(None))
    connection.execute(standing.values(withdrawn_at=datetime.now(UTC)))


def _require(store: ModelStore, model: str) -> None:
    """Raise where a model that would serve again is gone."""
    try:
        store.find(model)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"{model}, which was used before, is not in the store any more.",
            "Choose one that is there: heatbox models list, heatbox models activate NAME@VERSION.",
        ) from error


def find_model(store: ModelStore, ledger: Ledger, reference: str) -> Card:
    """Return the card of `name@version`, or of what a plain name stands for: its newest version that is no challenger.

    Raises:
        ModelNotFoundError: there is no such model, or only challengers have the name.
    """
    newest = store.find(reference)
    if "@" in reference or not newest.trained_from:
        return newest
    accepted = accepted_models(ledger)
    for card in reversed([card for card in store.cards() if card.name == reference]):
        if not card.trained_from or card.id in accepted:
            return card
    raise ModelNotFoundError(
        f"No version of {reference!r} was accepted: each was made by a training and is not active.",
        f"Activate one: heatbox models activate {newest.id}.",
    )


def _way_back(connection: Connection) -> list[Activation]:
    """Return the activations that no step back has undone; the same model twice in a row is one."""
    steps = activations.outerjoin(rollbacks, rollbacks.c.activation == activations.c.id)
    rows = select(activations.c.model, activations.c.activated_at, rollbacks.c.activation).select_from(steps)
    way: list[Activation] = []
    for model, since, is_back in connection.execute(rows.order_by(activations.c.id)):
        if is_back is not None:
            way.pop()
            way[-1] = Activation(model, since)
        elif not way or way[-1].model != model:
            way.append(Activation(model, since))
    return way
