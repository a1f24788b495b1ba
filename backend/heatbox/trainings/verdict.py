"""The verdict on a challenger: whether it serves from now on, and why, in words.

A challenger takes the place of the very model that it was compared with, and of no other: where somebody has chosen
another one meanwhile, nothing has been measured against that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heatbox.trainings.figures import figures
from heatbox.trainings.tables import Training

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True)
class Verdict:
    """What is done with a challenger.

    Attributes:
        reason: why, one or two sentences.
        active: it becomes the active model.
        named: its plain name stands for it.
    """

    reason: str
    active: bool = False
    named: bool = False

    @property
    def serves(self) -> bool:
        """Whether it serves from now on."""
        return self.active or self.named


def judge(training: Training, result: Mapping[str, Any], active: str | None, named: str | None) -> Verdict:
    """Return what is done with the challenger of a training.

    Args:
        training: knows the champion and how its project names its model.
        result: of `run_training`.
        active: the active model now; None: there is none.
        named: what the project's plain name stands for now; None where it names no plain name.
    """
    challenger, champion, measured = result["model"], training.champion, figures(result)
    if not result["better"]:
        why = result.get("comparison", {}).get("reason")
        worse = why or f"{challenger} is not better than {champion or 'nothing'}{measured}."
        return Verdict(f"{worse} {challenger if why else 'It'} is kept and does not serve.")
    better = (
        f"{challenger} is better than {champion}{measured}."
        if champion
        else f"No model has served these labels before{measured}."
    )
    by_hand = f"It serves with: heatbox models activate {challenger}."
    if not training.activate:
        return Verdict(f"{better} It was not to be activated. {by_hand}")
    if "@" in training.reference:
        return Verdict(
            f"{better} The project names its model as {training.reference}: write {challenger} there."
        )
    if training.reference:
        return _in_place_of_name(training, challenger, better, active, named)
    if active in {champion or training.base, champion or None}:
        return Verdict(f"{better} It is active.", active=True)
    is_active = "was activated meanwhile" if training.champion else "is active"
    return Verdict(f"{better} But {active} {is_active}, and was not compared with it. {by_hand}")


def _in_place_of_name(
    training: Training, challenger: str, better: str, active: str | None, named: str | None
) -> Verdict:
    if challenger.partition("@")[0] != training.reference:
        return Verdict(
            f"{better} The project names its model as {training.reference}: write {challenger} there."
        )
    replaced = training.champion or training.base
    if named != replaced:
        return Verdict(
            f"{better} But {training.reference} stands for {named} meanwhile, which was not compared with it."
        )
    return Verdict(
        f"{better} The name {training.reference} stands for it.",
        active=active == training.champion,
        named=True,
    )
