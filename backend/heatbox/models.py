"""The model store: folders of weights with a card, one immutable folder per version.

    <store>/<name>/<version>/model.json            the card
    <store>/<name>/<version>/weights.safetensors   the weights
    <store>/<name>/<version>/state/...             see heatbox.fitted

A version is the content id of everything that changes what comes out; a folder is written to a temporary
place and renamed, so a reader never sees half a model. Reading needs no torch. A store that machines share by a URL
is heatbox.remote_store's.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from heatbox.errors import ModelNotFoundError, OutputError
from heatbox.model_card import Card, make_card, read_card, read_own_card

__all__ = [
    "CARD",
    "STATES",
    "WEIGHTS",
    "Card",
    "ModelStore",
    "file_sha256",
    "make_card",
    "read_card",
    "read_own_card",
    "unwritable",
]

CARD, WEIGHTS, STATES = "model.json", "weights.safetensors", "state"
_ABANDONED_SECONDS = 86_400


class ModelStore:
    """A folder of models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def place(self) -> str:
        """Where the models are, for people."""
        return str(self.folder)

    def require_reachable(self) -> None:
        """Raise where models that are not on this machine cannot be asked for; a folder has none."""

    def cards(self) -> list[Card]:
        """Return every registered version, sorted by name and then by time of registration."""
        return [read_own_card(path) for path in self._card_paths()]

    def find(self, reference: str) -> Card:
        """Return the card of `name` (newest version) or `name@version` (a prefix of it will do).

        Raises:
            ModelNotFoundError: no such model, with the nearest names.
        """
        name, _, version = reference.partition("@")
        paths = self._card_paths()
        found = [path for path in paths if path.parts[-3] == name and path.parts[-2].startswith(version)]
        if found:
            return read_own_card(found[-1])
        names = sorted({path.parts[-3] for path in paths})
        if name in names:
            versions = ", ".join(path.parts[-2] for path in paths if path.parts[-3] == name)
            raise ModelNotFoundError(
                f"No version {version!r} of {name!r} in the store.", f"It has: {versions}."
            )
        close = get_close_matches(name, names, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Registered are: {', '.join(names) or 'none'}."
        raise ModelNotFoundError(
            f"No model {reference!r} in the store.", f"{hint} Add one with `heatbox models add`."
        )

    def path(self, card: Card) -> Path:
        """Return the folder of a version."""
        return self.folder / card.name / card.version

    def weights_path(self, card: Card) -> Path:
        """Return the weights file of a version."""
        return self.path(card) / WEIGHTS

    def has_weights(self, card: Card) -> bool:
        """Return whether the weights file of a version is there."""
        return self.weights_path(card).is_file()

    def state_paths(self, card: Card, wanted: str = "") -> list[Path]:  # noqa: ARG002 - for stores that ask elsewhere
        """Return the files of what explainers have learnt about a version, in no order.

        Args:
            card: of the version.
            wanted: name of the file that is looked for, where it is one; else all are.
        """
        return list((self.path(card) / STATES).glob("[!.]*.*.safetensors"))

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """Yield a temporary folder inside the store; it is removed unless `publish` moved it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear_abandoned()
            folder = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self.folder))
        except OSError as error:
            raise unwritable(error.strerror) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _clear_abandoned(self) -> None:
        """Remove temporary folders that a killed process left behind a day ago or longer."""
        for folder in self.folder.glob(".incoming-*"):
            if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, card: Card) -> Card:
        """Move a folder that holds `weights.safetensors` into the store under its card.

        The same content twice is one version: the first folder stays as it is.

        Raises:
            OutputError: the store cannot be written.
        """
        checked = card.model_copy(update={"sha256": file_sha256(folder / WEIGHTS)})
        target = self.path(checked)
        try:
            (folder / CARD).write_text(checked.model_dump_json(indent=1) + "\n", encoding="utf-8")
            _make_durable(folder)
            self.share_version(folder, checked)
            target.parent.mkdir(exist_ok=True)
            if not target.exists():
                folder.rename(target)
        except OSError as error:
            if not target.exists():  # else another process published the same at the same moment
                raise unwritable(error.strerror) from error
        return read_own_card(target / CARD)

    def share_version(self, folder: Path, card: Card) -> None:
        """Bring a version to where other machines see it, before it is moved here; nothing to do for a folder."""

    def share_state(self, path: Path, card: Card, name: str) -> None:
        """Bring a file of state to where other machines see it, before it is moved here under its name."""

    def _card_paths(self) -> list[Path]:
        found = [(path.parts[-3], _modified(path), path) for path in self.folder.glob(f"[!.]*/[!.]*/{CARD}")]
        return [path for _, _, path in sorted(found)]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_durable(folder: Path) -> None:
    """Bring a folder's card and weights onto the disk, and let other users read them."""
    folder.chmod(0o755)
    for name in (CARD, WEIGHTS):
        with (folder / name).open("rb") as written:
            os.fsync(written.fileno())


def _modified(path: Path) -> int:
    """Return the time of the last change in nanoseconds; 0 for a file that has just been deleted."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def unwritable(reason: object) -> OutputError:
    """Return the error of a model store that cannot be written."""
    return OutputError(
        f"The model store cannot be written: {reason}.",
        "Free some space, or set HEATBOX_STORE to a folder of yours (HEATBOX_HOME where it is a URL).",
    )
