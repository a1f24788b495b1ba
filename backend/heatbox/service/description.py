"""What `/openapi.json` says beyond what FastAPI finds out: errors are JSON on every route, and who may ask.

FastAPI describes the errors of a page as pages and those of a stream as streams. Protocol:
https://spec.openapis.org/oas/v3.1.0
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from heatbox.service.auth import LABEL_STUDIO_PATHS, OPEN_PATHS
from heatbox.service.protocol import ErrorAnswer

__all__ = ["ERRORS", "complete_description"]

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "What is wrong, and what to do."}
}
SCHEMES = {"basic": {"type": "http", "scheme": "basic"}, "bearer": {"type": "http", "scheme": "bearer"}}


def complete_description(app: FastAPI) -> None:
    """Let an application describe itself in full."""
    found = app.openapi

    def openapi() -> dict[str, Any]:
        description = found()
        description["components"]["securitySchemes"] = SCHEMES
        for path, operation in _operations(description):
            if path not in OPEN_PATHS:
                operation["security"] = _security(path)
            for status, response in operation["responses"].items():
                if status[0] in "45" and "content" in response:
                    (content,) = response["content"].values()
                    response["content"] = {"application/json": content}
        return description

    app.openapi = openapi  # type: ignore[method-assign]  # as its documentation does it


def _operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in description["paths"].items():
        for operation in methods.values():
            yield path, operation


def _security(path: str) -> list[dict[str, list[str]]]:
    """Return what is accepted; nothing where the settings name neither password nor token."""
    bearer: list[dict[str, list[str]]] = [] if path in LABEL_STUDIO_PATHS else [{"bearer": []}]
    return [{}, {"basic": []}, *bearer]
