"""What Label Studio sends: the parts of its requests that heatbox reads; everything else is let through.

Protocol: Label Studio 1.23, `ml/api_connector.py`.
"""

from typing import Any

from pydantic import BaseModel, Field

__all__ = ["ErrorAnswer", "PredictRequest", "SetupAnswer", "SetupRequest", "project_number"]

_MOST_DIGITS = 9  # of a database's number


class SetupRequest(BaseModel):
    """POST /setup: comes after each successful /health and before each prediction."""

    label_config: str | None = Field(
        default=None, alias="schema", description="Label config (XML); without one every class is a label."
    )
    project: Any = Field(
        default=None,
        description="Number of the project, a dot, and when it was made; its scores may be calibrated.",
    )
    extra_params: Any = Field(
        default=None, description="Whatever was typed into the project's settings; not used."
    )


class SetupAnswer(BaseModel):
    """What /setup answers."""

    model_version: str = Field(description="The version that predictions for this label config carry.")
    warnings: list[str] = Field(description="For example labels that no class stands for.")


class PredictRequest(BaseModel):
    """POST /predict: tasks as Label Studio stores them."""

    tasks: list[Any] = Field(description="One object each; anything else is answered with `[]`.")
    label_config: str | None = Field(
        default=None, description="Label config (XML); without one every class is a label."
    )
    project: Any = Field(
        default=None,
        description="Number of the project, a dot, and when it was made; what is late is written there.",
    )
    params: Any = Field(
        default=None,
        description="Login and password, which are not used, and from the editor a context: what was drawn there.",
    )

    @property
    def context(self) -> object:
        """What a person drew with a smart tool, None where nobody did."""
        return self.params.get("context") if isinstance(self.params, dict) else None


def project_number(project: object) -> int | None:
    """Return the number in front of the dot, None where there is none."""
    number, _, _ = str(project).partition(".")
    return int(number) if number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS else None


class ErrorAnswer(BaseModel):
    """Every answer that is not a success."""

    code: str = Field(description="Short and stable.")
    message: str = Field(description="What is wrong.")
    remedy: str = Field(description="What to do.")
