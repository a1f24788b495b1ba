"""Profiles: ways and limits of single labels under a name, and which profile a project is served with.

A profile is what `heatbox tune` found. It holds only what differs from the pipeline that the tuning began from: a label
without an entry keeps what the settings and the label config say. Storing a profile under a known name adds a newer
one; a project stays with the one that it was given. Projects are told apart by number and Label Studio.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import Column, DateTime, ForeignKey, Index, Integer, Row, Select, String, Table, Text, select

from heatbox.errors import ProfileNotFoundError
from heatbox.fitted import FittedState, list_states
from heatbox.hosts import address_key
from heatbox.ledger import Ledger, metadata
from heatbox.models import Card, ModelStore
from heatbox.pipeline import Pipeline, Way

__all__ = [
    "Profile",
    "ProfileUse",
    "list_profiles",
    "profile_of",
    "profile_uses",
    "store_profile",
    "use_profile",
    "with_profile",
]

_CHOOSE_WAYS = frozenset(
    {"explainer", "explainer_options", "fitter", "fitter_options", "normalisation", "threshold"}
)

profiles = Table(
    "profiles",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, index=True),
    Column("content", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)
profile_choices = Table(
    "profile_choices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("studio_url", String(500), nullable=False),
    Column("project", Integer, nullable=False),
    Column("profile", ForeignKey("profiles.id")),  # none: the project has no profile any more
    Column("chosen_at", DateTime(timezone=True), nullable=False),
)
Index("profile_of_a_project", profile_choices.c.studio_url, profile_choices.c.project, profile_choices.c.id)


@dataclass(frozen=True)
class Profile:
    """What suits the labels of a project.

    Attributes:
        name: that people choose it by.
        model: `name@version` that it was tuned for.
        architecture: of that model; on another one the names of layers mean nothing.
        label_ways: pairs (label, way), only of labels that another way suits better.
        label_min_probabilities: pairs (label, probability), only of labels that another one suits better.
        expected: what was measured on left-out pictures, JSON-ready (see `heatbox_workers.tune`).
        created_at: when it was stored; None: not yet.
        id: number in the ledger; None: not yet stored.
    """

    name: str
    model: str
    architecture: str = ""
    label_ways: tuple[tuple[str, Way], ...] = ()
    label_min_probabilities: tuple[tuple[str, float], ...] = ()
    expected: Mapping[str, Any] = field(default_factory=dict, hash=False)
    created_at: datetime | None = None
    id: int | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it says something about, sorted."""
        return tuple(sorted({*dict(self.label_ways), *dict(self.label_min_probabilities)}))

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, without what the ledger adds."""
        return {
            "name": self.name,
            "model": self.model,
            "architecture": self.architecture,
            "label_ways": [[label, way.as_dict()] for label, way in self.label_ways],
            "label_min_probabilities": [list(pair) for pair in self.label_min_probabilities],
            "expected": dict(self.expected),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        ways = tuple((label, Way.from_dict(way)) for label, way in value["label_ways"])
        limits = tuple((label, float(limit)) for label, limit in value["label_min_probabilities"])
        return cls(**{**value, "label_ways": ways, "label_min_probabilities": limits})


@dataclass(frozen=True)
class ProfileUse:
    """A project that is served with a profile."""

    studio_url: str
    project: int
    profile: Profile
    since: datetime


def store_profile(ledger: Ledger, profile: Profile) -> Profile:
    """Keep a profile as the newest of its name and return it with its number."""
    now = datetime.now(UTC)
    row = {"name": profile.name, "content": json.dumps(profile.as_dict(), sort_keys=True), "created_at": now}
    with ledger.writing() as connection:
        key = connection.execute(profiles.insert().values(row)).inserted_primary_key
    return replace(profile, created_at=now, id=int(key[0]) if key else None)


def list_profiles(ledger: Ledger) -> list[Profile]:
    """Return the newest profile of each name, by name."""
    with ledger.reading() as connection:
        rows = connection.execute(_profiles().order_by(profiles.c.id)).all()
    newest = {row.name: _profile(row) for row in rows}
    return [newest[name] for name in sorted(newest)]


def use_profile(ledger: Ledger, studio_url: str, project: int, name: str | None) -> Profile | None:
    """Let a project be served with the newest profile of a name from its next request on; None: with none.

    Args:
        ledger: keeps the choice.
        studio_url: address of Label Studio, as the settings name it.
        project: number in Label Studio.
        name: of the profile.

    Raises:
        ProfileNotFoundError: there is none of that name, or None was asked for and the project has none.
    """
    before = profile_of(ledger, studio_url, project)
    known = {one.name: one for one in list_profiles(ledger)}
    if name is not None and name not in known:
        there = f"There are: {', '.join(known)}." if known else "Make one: heatbox tune --project NUMBER."
        raise ProfileNotFoundError(f"There is no profile {name!r}.", there)
    if name is None and before is None:
        raise ProfileNotFoundError(f"Project {project} has no profile.", "See `heatbox profiles list`.")
    chosen = None if name is None else known[name]
    values = {"project": project, "studio_url": address_key(studio_url), "profile": chosen and chosen.id}
    with ledger.writing() as connection:
        connection.execute(profile_choices.insert().values(**values, chosen_at=datetime.now(UTC)))
    return chosen


def profile_of(ledger: Ledger, studio_url: str, project: int | None) -> Profile | None:
    """Return the profile that a project is served with; None: it has none."""
    if project is None:
        return None
    newest = (
        select(profile_choices.c.profile)
        .where(profile_choices.c.studio_url == address_key(studio_url), profile_choices.c.project == project)
        .order_by(profile_choices.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    with ledger.reading() as connection:
        row = connection.execute(_profiles().where(profiles.c.id == newest)).first()
    return None if row is None else _profile(row)


def profile_uses(ledger: Ledger) -> list[ProfileUse]:
    """Return which projects have a profile, by Label Studio and number."""
    choices = select(profile_choices).order_by(profile_choices.c.id)
    with ledger.reading() as connection:
        newest = {(row.studio_url, row.project): row for row in connection.execute(choices)}
        known = {row.id: _profile(row) for row in connection.execute(_profiles())}
    return [
        ProfileUse(url, project, known[row.profile], row.chosen_at)
        for (url, project), row in sorted(newest.items())
        if row.profile is not None
    ]


def with_profile(
    pipeline: Pipeline, profile: Profile, store: ModelStore, card: Card, by_hand: Collection[str] = ()
) -> tuple[Pipeline, tuple[str, ...]]:
    """Return the pipeline with what suits its labels, and what a person should know about that.

    Args:
        pipeline: of settings and label config; limits that it has for single labels go before the profile's.
        profile: of the project.
        store: where the explainers' states are looked up.
        card: of the pipeline's model.
        by_hand: names of settings that were given by hand or by the label config's controls. One that chooses
            explainer, fitter or threshold puts the profile's ways aside, `min_probability` its probabilities.
    """
    if pipeline.own_label:
        return pipeline, (
            f"The profile {profile.name} is not used: {pipeline.explainer} finds what is no class of the model.",
        )
    if card.architecture != profile.architecture:
        return pipeline, (
            f"The profile {profile.name} is not used: it was tuned for {profile.model}, another kind of network.",
        )
    known = {label for _, label in pipeline.label_map} or set(card.labels)
    notes = [] if card.id == profile.model else [_tuned_for_another(profile, card)]
    ways, missing = _usable_ways(profile, store, card, known)
    notes += missing
    if _CHOOSE_WAYS.intersection(by_hand):
        ways = []
    limits = {} if "min_probability" in by_hand else dict(profile.label_min_probabilities)
    own = {label: limit for label, limit in limits.items() if label in known}
    changed = replace(
        pipeline,
        label_ways=tuple(sorted(ways, key=lambda pair: pair[0])),
        label_min_probabilities=tuple(sorted({**own, **dict(pipeline.label_min_probabilities)}.items())),
    )
    return changed, tuple(notes)


def _usable_ways(
    profile: Profile, store: ModelStore, card: Card, known: Collection[str]
) -> tuple[list[tuple[str, Way]], list[str]]:
    """Return the ways with the states of this model, and a sentence for each explainer that has none."""
    usable: list[tuple[str, Way]] = []
    missing: dict[str, list[str]] = {}
    for label, way in profile.label_ways:
        if label not in known:
            continue
        state = _state(way, store, card, is_same=card.id == profile.model)
        if way.state and state is None:
            missing.setdefault(way.explainer, []).append(label)
        elif state is not None:
            usable.append((label, replace(way, explainer_options=dict(state.options), state=state.id)))
        else:
            usable.append((label, way))
    return usable, [
        f"{explainer} has not learnt about {card.id}, so that the profile {profile.name} does nothing for "
        f"{', '.join(labels)}."
        for explainer, labels in missing.items()
    ]


def _state(way: Way, store: ModelStore, card: Card, *, is_same: bool) -> FittedState | None:
    """Return the state that was measured, else the newest of this model; None: there is none, or it needs none."""
    states = list_states(store, card, way.explainer) if way.state else []
    measured = [one for one in states if is_same and one.id == way.state]
    usable = measured or states
    return usable[-1] if usable else None


def _tuned_for_another(profile: Profile, card: Card) -> str:
    return (
        f"The profile {profile.name} was tuned for {profile.model}, and {card.id} is served: what it gains there "
        "is not known. Tune again."
    )


def _profiles() -> Select[Any]:
    return select(profiles.c.id, profiles.c.name, profiles.c.content, profiles.c.created_at)


def _profile(row: Row[Any]) -> Profile:
    content = {**json.loads(row.content), "name": row.name}
    return replace(Profile.from_dict(content), created_at=row.created_at, id=row.id)
