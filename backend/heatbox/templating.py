"""How pages are made from the templates of this package: escaped, and an unknown name in one is an error."""

from collections.abc import Callable
from typing import Any

import jinja2

__all__ = ["make_templates"]


def make_templates(**filters: Callable[..., Any]) -> jinja2.Environment:
    """Return the templates, with filters by the names that they use."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("heatbox"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= filters
    return environment
