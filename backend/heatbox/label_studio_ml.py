"""heatbox as a model of label-studio-ml, for those who already run their models with it.

One class for both forms of the library: 1.0.9, the newest on PyPI, and 2.x, which is on GitHub only. It gives what
`heatbox serve` gives, by the same code, and needs the same workers: see docs/how-to/label-studio-ml.md.
Protocol: https://github.com/HumanSignal/label-studio-ml-backend, `label_studio_ml/model.py` of both versions.
"""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import label_studio_ml.model as base

from heatbox.errors import HeatboxError, InternalError
from heatbox.ledger import Ledger
from heatbox.logs import place_of
from heatbox.queueing.requests import RequestQueue
from heatbox.remote_store import open_store
from heatbox.service.predict import Studio, predict
from heatbox.service.protocol import project_number
from heatbox.settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from heatbox.models import ModelStore

__all__ = ["HeatboxModel"]

log = logging.getLogger(__name__)


class HeatboxModel(base.LabelStudioMLBase):  # type: ignore[misc] # the library has no types
    """Boxes for the tasks of a project, made by heatbox's workers."""

    def setup(self) -> None:
        """Name the version (2.x calls this for each request)."""
        if hasattr(base.LabelStudioMLBase, "set"):
            self.set("model_version", self.heatbox_version())

    def heatbox_version(self) -> str:
        """Return the version that predictions for the label config carry.

        Raises:
            HeatboxError: the project cannot be served.
        """
        return asyncio.run(_version(self.label_config, self._project()))

    def predict(
        self,
        tasks: Sequence[Any],
        context: Mapping[str, Any] | None = None,
        **_: object,
    ) -> list[Any]:
        """Return one prediction per task, in order; `[]` for one that failed or is not ready in time."""
        return asyncio.run(_predictions(tasks, self.label_config, self._project(), context))

    def _project(self) -> int | None:
        return project_number(getattr(self, "project_id", None))

    def fit(self, *_: object, **__: object) -> dict[str, Any]:
        """Learn nothing: the library calls this for events."""
        return {}


async def _version(label_config: str | None, project: int | None) -> str:
    async with _studio() as studio:
        return studio.serving(label_config, project).pipeline.version


async def _predictions(
    tasks: Sequence[Any], label_config: str | None, project: int | None, context: object
) -> list[Any]:
    async with _studio() as studio:
        return await predict(studio, tasks, label_config, project, context)


@asynccontextmanager
async def _studio() -> "AsyncIterator[Studio]":
    """Yield what a request is answered with; its connections belong to the event loop of this request."""
    settings, store = _shared()
    queue = RequestQueue(settings.redis_url or _own_redis(settings))
    try:
        with closing(Ledger(settings.ledger_url)) as ledger:
            yield Studio(settings, store, ledger, queue)
    finally:
        await queue.aclose()


@lru_cache(1)
def _shared() -> "tuple[Settings, ModelStore]":
    settings = read_settings(os.environ)
    return settings, open_store(settings)


def _own_redis(settings: Settings) -> str:
    """Return the Redis of the `heatbox up` with the same home; empty while there is none, so look again each time."""
    own = settings.home / "redis" / "redis.sock"
    return f"unix://{own.absolute()}" if own.is_socket() else ""


def _repair_first_version() -> None:
    """Give label-studio-ml 1.0.9 a model for each request instead of one for all, and our version in /setup.

    There the version in /setup is "INITIAL", which no prediction of ours carries, so that Label Studio would store
    another copy with each retrieval; /predict fails before /setup, and uses the label config of whichever project
    was set up last; each event starts a process. A subclass of the model can change none of this.
    """
    from label_studio_ml import api
    from label_studio_ml.exceptions import AnswerException

    class Manager(base.LabelStudioMLManager):  # type: ignore[misc]
        @classmethod
        def fetch(
            cls, project: object = None, label_config: str | None = None, *_: object, **given: object
        ) -> Any:  # noqa: ANN401 - the library's type
            try:
                model = cls.model_class(label_config=label_config, **{**given, **cls.init_kwargs})
                model.project_id = project
                return base.ModelWrapper(model=model, model_version=model.heatbox_version())
            except HeatboxError as error:
                told = error
            except Exception as error:  # noqa: BLE001 - the edge to the library, which would answer a trace
                log.error("the project cannot be set up: %s", place_of(error))  # noqa: TRY400 - see `place_of`
                told = InternalError("The request failed.", "The log of label-studio-ml says why.")
            raise AnswerException(422, str(told), {"traceback": ""})  # the library would add one

        @classmethod
        def predict(
            cls,
            tasks: Sequence[Any],
            project: object = None,
            label_config: str | None = None,
            *_: object,
            **given: object,
        ) -> tuple[list[Any], Any]:
            try:
                found = cls.fetch(project, label_config)
                return found.model.predict(tasks, **given), found
            except Exception as error:  # noqa: BLE001 - Label Studio drops a whole batch for one error
                log.error("%d tasks were not annotated: %s", len(tasks), place_of(error))  # noqa: TRY400 - see `place_of`
                return [[] for _ in tasks], base.ModelWrapper(model=None, model_version="")

        @classmethod
        def webhook(cls, *_: object) -> dict[str, str]:
            return {"status": "ok"}

    api._manager = Manager()  # noqa: SLF001 - the one place where it is kept


if hasattr(base, "LabelStudioMLManager"):
    _repair_first_version()
