"""A pytest plugin for the authors of explainers: the fixture `explainer_conformance`.

pytest loads it at its start wherever heatbox is installed, so it imports nothing but pytest until a test asks.
"""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from heatbox.contract import Explainer

__all__ = ["explainer_conformance"]


@pytest.fixture(scope="session")
def explainer_conformance() -> "Callable[..., None]":
    """Return a function that fails the test unless an explainer keeps heatbox's plugin contract.

    `explainer_conformance(MyExplainer())`, or by its registered name with options:
    `explainer_conformance("my_explainer", sharpness=2.0)`.
    """
    return _require_conformance


def _require_conformance(explainer: "Explainer | str", /, **options: Any) -> None:  # noqa: ANN401 - the explainer's own
    """Fail with every broken rule, what came and how to mend it."""
    from heatbox.plugins import make_explainer
    from heatbox_workers.conformance import as_text, check_explainer

    made = make_explainer(explainer, options) if isinstance(explainer, str) else explainer
    report = as_text(check_explainer(made))
    if report:
        pytest.fail(f"{made!r} breaks the plugin contract\n{report}", pytrace=False)
