"""Label Studio learns of a new version: the project shows its predictions, and the backend's title is the version.

Only what heatbox has connected is touched: a title and a shown version that have the form of ours.
"""

from collections.abc import Callable
from typing import Any

from heatbox.labelling.config import parse_label_config
from heatbox.ledger import Ledger
from heatbox.remote_store import open_store
from heatbox.serving import serve_project
from heatbox.settings import Settings
from heatbox.studio.client import Studio, is_own
from heatbox.trainings.tables import Training

__all__ = ["show_version"]

_KEPT = ("auth_method", "basic_auth_user", "is_interactive")


def show_version(
    settings: Settings, ledger: Ledger, training: Training, open_studio: Callable[[], Studio]
) -> str:
    """Let a training's project show the version that it is served with now; return what a person should read.

    Raises:
        HeatboxError: Label Studio gives no good answer, or the project cannot be served.
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
                kept = {name: row.get(name) for name in _KEPT}
                content = {"url": row["url"], "project": project.id, "title": version, **kept}
                studio.http.patch(f"/api/ml/{row['id']}", content)
        if is_own(project.model_version) and project.model_version != version:
            studio.http.patch(f"/api/projects/{project.id}/", {"model_version": version})
    return "" if is_own(project.model_version) else "Connect the project: heatbox studio connect."
