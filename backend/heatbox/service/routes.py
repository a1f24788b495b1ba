"""The routes that Label Studio calls, and what a person may look up.

`/health` and `/setup` come before every prediction and have one and three seconds; `/webhook` is called inside
an annotator's submit and has one. A task that cannot be annotated never spoils an answer of `/predict`.
"""

import asyncio
import logging
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request

from heatbox.logs import place_of
from heatbox.plugins import EXPLAINERS, plugin_names
from heatbox.service.predict import Studio, empty_answers, predict
from heatbox.service.protocol import (
    ErrorAnswer,
    PredictRequest,
    SetupAnswer,
    SetupRequest,
    project_number,
)
from heatbox.trainings.records import Trainings
from heatbox.trainings.request import TrainingRequest
from heatbox.trainings.tables import NewTraining

__all__ = ["router"]

log = logging.getLogger(__name__)
router = APIRouter(
    responses={400: {"model": ErrorAnswer, "description": "Not a request that Label Studio sends."}}
)


def _studio(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


@router.get("/health")
@router.get("/healthz")
@router.get("/", include_in_schema=False)
async def health() -> dict[str, str]:
    """Say that the service is up."""
    return {"status": "UP", "model_class": "heatbox"}


@router.post(
    "/setup", responses={422: {"model": ErrorAnswer, "description": "The project cannot be served."}}
)
async def setup(request: Request, body: SetupRequest) -> SetupAnswer:
    """Return the version of the predictions that a project gets, or say why it gets none."""
    project = project_number(body.project)
    serving = await asyncio.to_thread(_studio(request).serving, body.label_config, project)
    version = serving.pipeline.version
    versions: list[str] = request.app.state.versions
    if version not in versions:
        versions.append(version)
        for warning in serving.warnings:
            log.warning("%s: %s", version, warning)
    return SetupAnswer(model_version=version, warnings=list(serving.warnings))


@router.post("/predict")
async def predict_tasks(request: Request, body: PredictRequest) -> dict[str, list[Any]]:
    """Answer with one item per task, in order; `[]` for one that failed or is not ready in time."""
    try:
        project = project_number(body.project)
        results = await predict(_studio(request), body.tasks, body.label_config, project, body.context)
    except Exception as error:  # noqa: BLE001 - Label Studio drops a whole batch for one error; its text may quote a task
        log.error("%d tasks were not annotated: %s", len(body.tasks), place_of(error))  # noqa: TRY400 - see above
        results = empty_answers(body.tasks, body.context)
    return {"results": results}


@router.post("/webhook")
async def webhook(request: Request, event: Annotated[dict[str, Any], Body()]) -> dict[str, str]:
    """Take note of an event and answer at once: after annotations have changed, corrections are pulled."""
    request.app.state.pulls.note(event)
    if event.get("action") == "START_TRAINING":
        return await asyncio.to_thread(_start_training, _studio(request), event.get("project"))
    return {"status": "ok"}


def _start_training(studio: Studio, project: object) -> dict[str, str]:
    """Put a training of a project into the ledger, unless one is there; its order is made in the background."""
    number = project_number(project.get("id") if isinstance(project, dict) else None)
    if number is None:
        return {"status": "ignored", "message": "The event names no project."}
    if not studio.settings.studio_url or not studio.settings.studio_api_key.get_secret_value():
        told = (
            "To train, heatbox must read corrections: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY for it."
        )
        return {"status": "ignored", "message": told}
    new = NewTraining(f"project {number}", number, TrainingRequest(number).as_dict())
    training, is_new = Trainings(studio.ledger).create_for(number, new)
    return {"status": "queued" if is_new else "joined", "job": str(training)}


@router.get("/versions")
async def versions(request: Request) -> dict[str, list[str]]:
    """Return the versions that /setup has named since the service was started."""
    return {"versions": list(request.app.state.versions)}


@router.get("/v1/models")
async def models(request: Request) -> dict[str, list[dict[str, Any]]]:
    """Return the registered models."""
    studio = _studio(request)
    cards = await asyncio.to_thread(studio.store.cards)
    kept = {"name", "architecture", "input_size", "labels", "licence", "source"}
    return {"models": [{"id": card.id, **card.model_dump(mode="json", include=kept)} for card in cards]}


@router.get("/v1/explainers")
async def explainers() -> dict[str, list[dict[str, str]]]:
    """Return the registered explainers by name; none is imported, because that would load torch."""
    return {"explainers": [{"name": name} for name in plugin_names(EXPLAINERS)]}
