"""Connecting Label Studio to heatbox: the backend row, the project's model version, the webhook, and what may be wrong.

What Label Studio 1.23.2 does by itself when a backend is added is not enough: its title must be the version of the
predictions, the project must show that version, and the webhook is missing where the host has no dot, where Label
Studio may not call a private address, and useless where heatbox asks for a password. Everything here may be done
again: what is right already is left alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heatbox.errors import StudioAmbiguousError, StudioRefusedError
from heatbox.studio.backend import Backend
from heatbox.studio.client import Project, Studio
from heatbox.studio.http import StudioHTTP

__all__ = ["Connection", "connect", "disconnect"]

_FORBIDDEN, _BAD = 403, 400
_CONNECTED = "CO"
_SWITCHES = (
    "Start Label Studio with the two variables that `heatbox studio switches ADDRESS` prints, which open this one"
    " address; or, where nobody else uses it, with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false, which"
    " open every address of your network. Then connect again: nothing is made twice."
)
_DOTTED = (
    "Give heatbox a name with a dot (in docker compose a network alias such as heatbox.local; from a container to its"
    " host host.docker.internal), and connect with --backend http://THAT-NAME:PORT."
)


@dataclass(frozen=True)
class Connection:
    """What a project's connection is now.

    Attributes:
        row: number of the backend row in Label Studio.
        title: of that row.
        state: as Label Studio tells it, Connected where all is well.
        webhook: its address, empty where there is none.
        changes: what was done, one sentence each; empty when everything was right.
        problems: what keeps it from working wholly, with what to do.
    """

    row: int
    title: str
    state: str
    webhook: str
    changes: tuple[str, ...]
    problems: tuple[str, ...]


def connect(studio: Studio, project: Project, backend: Backend, version: str) -> Connection:
    """Make or repair everything that connects a project to heatbox.

    Args:
        studio: as a user who may change the project.
        project: as Label Studio has it now.
        backend: heatbox as Label Studio reaches it.
        version: that heatbox's /setup names for the project.

    Raises:
        StudioRefusedError: Label Studio refuses, with the reason and what to do.
        StudioError: it gives no good answer.
    """
    work = _Work(studio.http, project, backend, version)
    number = work.connect_row()
    work.show_version()
    webhook = work.connect_webhook()
    row = work.row(number)
    work.judge(row)
    return Connection(
        number,
        str(row.get("title")),
        str(row.get("readable_state")),
        webhook,
        tuple(work.changes),
        tuple(work.problems),
    )


def disconnect(studio: Studio, project: int, url: str) -> tuple[str, ...]:
    """Remove the backend rows of this address and the webhooks that Label Studio would leave; return what was done.

    Raises:
        StudioRefusedError: Label Studio refuses.
        StudioError: it gives no good answer.
    """
    http, changes = studio.http, []
    for row in _rows(http, project):
        if _same(row, url):
            http.delete(f"/api/ml/{row['id']}")
            changes.append(f"Backend {row['id']} is removed.")
    for hook in _webhooks(http, project):
        if _same(hook, f"{url}/webhook"):
            http.delete(f"/api/webhooks/{hook['id']}/")
            changes.append(f"Webhook {hook['id']} is removed.")
    return tuple(changes)


@dataclass
class _Work:
    """One connecting: what it works on, and what came of it so far."""

    http: StudioHTTP
    project: Project
    backend: Backend
    version: str
    changes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def connect_row(self) -> int:
        """Make the row, or repair the oldest of this address and remove the others; return its number."""
        rows = self._mine()
        if not rows:
            rows = [self._made()]
        first, *others = rows
        for other in others:
            self.http.delete(f"/api/ml/{other['id']}")
            self.changes.append(f"Backend {other['id']}, a second one with this address, is removed.")
        if not self._is_right(first):
            self._written("PATCH", f"/api/ml/{first['id']}")
            self.changes.append(f"Backend {first['id']} is repaired.")
        return int(first["id"])

    def show_version(self) -> None:
        """Let the project show the version's predictions."""
        path = f"/api/projects/{self.project.id}/"
        if self.http.get(path, {"include": "model_version"}).get("model_version") != self.version:
            self.http.patch(path, {"model_version": self.version})
            self.changes.append("The project shows this version's predictions.")

    def connect_webhook(self) -> str:
        """Make or repair the webhook; return its address, or nothing where Label Studio refuses it."""
        mine = [one for one in _webhooks(self.http, self.project.id) if _same(one, self.backend.webhook)]
        for other in mine[1:]:
            self.http.delete(f"/api/webhooks/{other['id']}/")
            self.changes.append(f"Webhook {other['id']}, a second one with this address, is removed.")
        if not mine:
            return self._new_webhook()
        wanted = {"is_active": True, "headers": _headers(mine[0].get("headers") or {}, self.backend)}
        if any(mine[0].get(name) != value for name, value in wanted.items()):
            self.http.patch(f"/api/webhooks/{mine[0]['id']}/", {"url": mine[0]["url"], **wanted})
            self.changes.append(f"Webhook {mine[0]['id']} is repaired.")
        return str(mine[0]["url"])

    def row(self, number: int) -> dict[str, Any]:
        """Return the row as it is now, and tell of other backends in the project."""
        rows = _rows(self.http, self.project.id)
        others = [str(row["url"]) for row in rows if row["id"] != number]
        if others:
            self.problems.append(
                f"The project has other backends, {', '.join(others)}: Label Studio asks only one, the first."
                " Remove them in the project's settings, under Model, or with"
                " `heatbox studio disconnect --project NUMBER --backend URL`."
            )
        return next((row for row in rows if row["id"] == number), {})

    def judge(self, row: Mapping[str, Any]) -> None:
        """Tell what is wrong with the row as Label Studio sees it."""
        told, url = row.get("model_version"), self.backend.url
        if row.get("state") != _CONNECTED:
            reason = f" {row['error_message']}" if row.get("error_message") else ""
            self.problems.append(
                f"Label Studio says {row.get('readable_state')} of {url}.{reason} It must get an answer of"
                " /health from there within one second, and of /setup within three."
            )
        elif told != self.version:
            self.problems.append(
                f"What Label Studio reaches at {url} names the version {told}, not {self.version}: is it another"
                " heatbox, or one with other settings?"
            )

    def _mine(self) -> list[dict[str, Any]]:
        return [row for row in _rows(self.http, self.project.id) if _same(row, self.backend.url)]

    def _is_right(self, row: Mapping[str, Any]) -> bool:
        wanted = self.backend.row(self.project.id, self.version)
        has_password = bool(row.get("basic_auth_pass_is_set")) or not self.backend.user
        same = all(
            (row.get(name) or "") == (wanted[name] or "") for name in wanted if name != "basic_auth_pass"
        )
        return same and has_password and row.get("state") == _CONNECTED

    def _made(self) -> dict[str, Any]:
        """Make the row; Label Studio may keep it although it answers with an error."""
        try:
            row = self._written("POST", "/api/ml")
        except (StudioRefusedError, StudioAmbiguousError):
            rows = self._mine()
            if not rows:
                raise
            row = rows[0]
        self.changes.append(f"Backend {row['id']} is made.")
        return dict(row)

    def _written(self, method: str, path: str) -> Any:  # noqa: ANN401 - JSON
        content = self.backend.row(self.project.id, self.version)
        try:
            return self.http.patch(path, content) if method == "PATCH" else self.http.post(path, content)
        except StudioRefusedError as error:
            raise _explained(error, self.backend) from error

    def _new_webhook(self) -> str:
        content = {
            "project": self.project.id,
            "url": self.backend.webhook,
            "send_payload": True,
            "send_for_all_actions": True,
            "headers": self.backend.headers,
        }
        try:
            made = self.http.post("/api/webhooks/", content)
        except StudioRefusedError as error:
            self.problems.append(_no_webhook(error, self.backend.webhook))
            return ""
        self.changes.append(f"Webhook {made['id']} is made.")
        return self.backend.webhook


def _headers(present: Mapping[str, str], backend: Backend) -> dict[str, str]:
    """Return a webhook's headers with heatbox's own as it is now; a user and password that it has no more are gone."""
    kept = {name: value for name, value in present.items() if not _is_login(name, value)}
    return {**kept, **backend.headers}


def _is_login(name: str, value: str) -> bool:
    return name.lower() == "authorization" and value.lower().startswith("basic ")


def _explained(error: StudioRefusedError, backend: Backend) -> StudioRefusedError:
    """Return the refusal of a backend row in words that say what to do."""
    sentence, told = error.sentence, error.sentence.casefold()
    if error.status == _FORBIDDEN and "network address" in told:
        return StudioRefusedError(f"Label Studio may not call {backend.url}: {sentence}", _SWITCHES)
    if error.status != _BAD:
        return error
    if "authentication" in told:
        remedy = "Set HEATBOX_BASIC_AUTH_USER and HEATBOX_BASIC_AUTH_PASSWORD as they are set for heatbox."
        return StudioRefusedError(f"heatbox refused Label Studio at {backend.url}: {sentence}", remedy)
    if "can't connect" in told or "resolve" in told:
        remedy = (
            "From here it answers. Does Label Studio run in a container or on another machine? Start heatbox on an"
            " address that it reaches (--host), and name that with --backend."
        )
        return StudioRefusedError(f"Label Studio cannot reach {backend.url}: {sentence}", remedy)
    return error


def _no_webhook(error: StudioRefusedError, url: str) -> str:
    if error.status == _BAD:
        return f"Label Studio makes no webhook for {url}, because the host has no dot. {_DOTTED}"
    if error.status == _FORBIDDEN and "network address" in error.sentence.casefold():
        return f"Label Studio makes no webhook for {url}, because it may not call this address. {_SWITCHES}"
    return f"Label Studio makes no webhook for {url}: {error.sentence} {error.remedy}"


def _rows(http: StudioHTTP, project: int) -> list[dict[str, Any]]:
    """Return the project's backends, the oldest first; Label Studio asks each for its state meanwhile."""
    return _listed(http, "/api/ml", project)


def _webhooks(http: StudioHTTP, project: int) -> list[dict[str, Any]]:
    return _listed(http, "/api/webhooks/", project)


def _listed(http: StudioHTTP, path: str, project: int) -> list[dict[str, Any]]:
    answer = http.get(path, {"project": project})
    if not isinstance(answer, list) or not all(isinstance(one, dict) and "id" in one for one in answer):
        raise http.not_understood(path)
    return sorted(answer, key=lambda one: int(one["id"]))


def _same(row: Mapping[str, Any], url: str) -> bool:
    return str(row.get("url", "")).rstrip("/") == url
