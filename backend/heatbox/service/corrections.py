"""Events of Label Studio let corrections be pulled: an event names a project, a thread pulls it some seconds later.

An event is a hint and nothing more: its content is not read. Several within these seconds cause one pull, and one that
is lost costs nothing, since the next pull goes by the cursor. `/webhook` is called inside an annotator's submit, so it
only notes the number.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from heatbox.corrections.pulling import pull
from heatbox.corrections.records import Corrections
from heatbox.errors import HeatboxError, StudioRefusedError
from heatbox.ledger import Ledger
from heatbox.logs import place_of
from heatbox.runs.conducting import open_studio
from heatbox.settings import Settings

__all__ = ["Pulls"]

log = logging.getLogger(__name__)

_WITH_CHANGES = {"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED", "ANNOTATIONS_DELETED"}
_WITH_DELETED_TASKS = {"TASKS_DELETED"}
_MOST_WAITING = 1000  # projects; whoever may call the service may invent numbers
_MOST_NUMBER = 2**31 - 1
_LONGEST = 3600.0  # seconds between two tries


@dataclass
class _Wish:
    """That a project be pulled: when at the earliest, whether as a whole, and how often that failed."""

    due: float
    whole: bool = False
    failures: int = 0


@dataclass
class Pulls:
    """The thread that pulls; it does nothing where no Label Studio is named.

    Attributes:
        settings: name Label Studio.
        ledger: that corrections are written to.
        delay: seconds from an event to the pull.
        retry: seconds from a failure to the next try; from each further one twice as many, up to an hour.
    """

    settings: Settings
    ledger: Ledger
    delay: float = 3.0
    retry: float = 60.0
    _wishes: dict[int, _Wish] = field(default_factory=dict)
    _told: dict[int, str] = field(default_factory=dict)  # what went wrong last, by project
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stopping: bool = False
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="corrections", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End soon; a pull that is cut off is made up for by the next."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(1.0)

    def note(self, event: Mapping[str, Any]) -> bool:
        """Take note of an event, and return whether a pull comes of it."""
        action, project = event.get("action"), event.get("project")
        number = project.get("id") if isinstance(project, Mapping) else None
        if not isinstance(action, str) or action not in _WITH_CHANGES | _WITH_DELETED_TASKS:
            return False
        if type(number) is not int or not 0 < number <= _MOST_NUMBER or not self._can_pull:
            return False
        with self._changed:
            if number not in self._wishes and len(self._wishes) >= _MOST_WAITING:
                return False
            wish = self._wishes.setdefault(number, _Wish(time.monotonic() + self.delay))
            wish.whole |= action in _WITH_DELETED_TASKS
            self._changed.notify()
        return True

    @property
    def _can_pull(self) -> bool:
        return bool(self.settings.studio_url and self.settings.studio_api_key.get_secret_value())

    def _run(self) -> None:
        while (taken := self._next()) is not None:
            number, wish = taken
            try:
                self._pull(number, wish)
            except HeatboxError as error:
                self._failed(number, wish, error.sentence, again=not _is_gone(error))
            except Exception as error:  # noqa: BLE001 - an edge: a defect must not end all pulls; its text may quote a task
                self._failed(number, wish, f"a defect at {place_of(error)}")

    def _next(self) -> tuple[int, _Wish] | None:
        """Wait for the wish that is due first, and take it; None when it is over."""
        with self._changed:
            while not self._stopping:
                number = min(self._wishes, key=lambda one: self._wishes[one].due, default=None)
                left = None if number is None else self._wishes[number].due - time.monotonic()
                if number is not None and left is not None and left <= 0:
                    return number, self._wishes.pop(number)
                self._changed.wait(left)
        return None

    def _pull(self, number: int, wish: _Wish) -> None:
        with open_studio(self.settings, patient=False) as studio:
            pulled = pull(studio, Corrections(self.ledger), number, whole=wish.whole)
        self._told.pop(number, None)
        counts = f"{pulled.new} new, {pulled.changed} changed, {pulled.deleted} deleted"
        log.info("corrections of project %d were pulled: %s", number, counts)

    def _failed(self, number: int, wish: _Wish, sentence: str, *, again: bool = True) -> None:
        """Say once what is wrong, and let the pull be tried again later; an event that came meanwhile waits with it."""
        if self._told.get(number) != sentence:
            log.warning("corrections of project %d were not pulled: %s", number, sentence)
        while len(self._told) >= _MOST_WAITING:
            self._told.pop(next(iter(self._told)))
        self._told[number] = sentence
        if again:
            due = time.monotonic() + min(self.retry * 2 ** min(wish.failures, 20), _LONGEST)
            with self._changed:
                newer = self._wishes.get(number)
                whole = wish.whole or (newer is not None and newer.whole)
                self._wishes[number] = _Wish(due, whole, wish.failures + 1)


def _is_gone(error: HeatboxError) -> bool:
    """Return whether there is no such project, so that asking again would change nothing."""
    return isinstance(error, StudioRefusedError) and error.status == HTTPStatus.NOT_FOUND
