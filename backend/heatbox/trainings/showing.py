"""Label Studio learns of a new version: the project shows its predictions, and the backend's title is the version.

Only what heatbox has connected is touched: a title and a shown version that have the form of ours.
"""

from collections.abc import Callable, Mapping
from typing import Any

from heatbox.errors import StudioError, StudioRefusedError
from heatbox.labelling.config import parse_label_config
from heatbox.ledger import Ledger
from heatbox.remote_store import open_store
from heatbox.serving import serve_project
from heatbox.settings import Settings
from heatbox.studio.client import Studio, is_own
from heatbox.trainings.tables import Training

__all__ = ["show_version"]

_KEPT = ("auth_method", "basic_auth_user", "is_interactive")
_NOT_REACHED = "health check failed"  # Label Studio's words where it asks the backend before it takes a title


def show_version(
    settings: Settings, ledger: Ledger, training: Training, open_studio: Callable[[], Studio]
) -> str:
    """Let a training's project show the version that it is served with now; return what a person should read.

    Raises:
        StudioError: Label Studio gives no good answer, or cannot reach heatbox; it may later.
        HeatboxError: it refuses, or the project cannot be served.
    """
    if training.project is None:
        return ""
    with open_studio() as studio:
        project = studio.project(training.project)
        config = parse_label_config(project.label_config)
        store = open_store(settings)
        version = serve_project(settings, store, ledger, config, project=project.id).pipeline.version
        rows: Any = studio.http.get("/api/ml", {"project": project.id})
        for row in rows:
            if is_own(str(row.get("title", ""))) and row["title"] != version:
                _rename(studio, project.id, row, version)
        if is_own(project.model_version) and project.model_version != version:
            studio.http.patch(f"/api/projects/{project.id}/", {"model_version": version})
    connect = f"Connect the project: heatbox studio connect --project {project.id}"
    return "" if is_own(project.model_version) else connect


def _rename(studio: Studio, project: int, row: Mapping[str, Any], version: str) -> None:
    """Make the version the title of a backend."""
    kept = {name: row.get(name) for name in _KEPT}
    content = {"url": row["url"], "project": project, "title": version, **kept}
    try:
        studio.http.patch(f"/api/ml/{row['id']}", content)
    except StudioRefusedError as error:
        if _NOT_REACHED not in str(error):
            raise
        raise StudioError(
            f"Label Studio cannot reach heatbox at {row['url']}, and so takes no new version.",
            "Start heatbox up.",
        ) from error
