"""The model store on a place that machines share, named by a URL and mirrored into a local folder.

    <url>/<name>/<version>/model.json, weights.safetensors, state/<explainer>.<id>.safetensors

Every file is named by its content, directly (states) or by its card (weights), so what was fetched once is never
asked for again, and what arrives is checked before it gets its name. The mirror holds all cards, and weights and
states from their first use on. Files are uploaded with the card last: it never names weights that are not there.
Times of registration are the place's own, so that "the newest" is the same on every machine.
"""

import logging
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from heatbox.errors import ModelInvalidError, ModelNotFoundError, StoreUnavailableError
from heatbox.models import (
    CARD,
    STATES,
    WEIGHTS,
    Card,
    ModelStore,
    file_sha256,
    read_card,
    read_own_card,
    unwritable,
)
from heatbox.remote_files import Listing, RemoteFiles, without_credentials
from heatbox.settings import Settings

__all__ = ["RemoteStore", "open_store"]

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 2.0  # Label Studio waits 3 s; what is here can be used meanwhile

_CARDS = re.compile(rf"[A-Za-z0-9][\w.-]*/[0-9a-f]{{12}}/{re.escape(CARD)}", re.ASCII)
_STATE = re.compile(r"\w[\w.-]*\.[0-9a-f]{12}\.safetensors", re.ASCII)


def open_store(settings: Settings) -> ModelStore:
    """Return the model store that the settings name."""
    if isinstance(settings.store, str):
        return RemoteStore(settings.store, settings.store_path)
    return ModelStore(settings.store_path)


class RemoteStore(ModelStore):
    """The models on a shared place.

    Args:
        url: of the place, as fsspec knows it.
        folder: of this machine, that keeps what was fetched; several processes may use it.
    """

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(folder)
        self._url = url
        self._remote = RemoteFiles(url)
        self._listing = Listing(self._remote.names)
        self._mirrored: dict[
            str, frozenset[str]
        ] = {}  # what was looked through for cards or a version's states

    @property
    def place(self) -> str:
        """Where the models are, for people."""
        return without_credentials(self._url)

    def require_reachable(self) -> None:
        """Raise where the place does not answer.

        Raises:
            StoreUnavailableError: says why.
        """
        self._listing.names(fresh=True)
        self._listing.require()

    def find(self, reference: str) -> Card:
        """Return a card as `ModelStore.find` does; a whole name@version that is here costs no request.

        Raises:
            ModelNotFoundError: the place has no such model.
            StoreUnavailableError: it is not here, and the place does not answer.
        """
        name, _, version = reference.partition("@")
        for path in super()._card_paths():
            if path.parts[-3:-1] == (name, version):
                return read_own_card(path)
        try:
            return super().find(reference)
        except ModelNotFoundError:
            self.require_reachable()  # it may have been registered since the last look
            return super().find(reference)

    def weights_path(self, card: Card) -> Path:
        """Return the weights file of a version, fetched where it is not here yet.

        Raises:
            ModelInvalidError: what arrived is not what was registered.
            StoreUnavailableError: the place does not answer.
            OutputError: this machine's folder cannot be written.
        """
        path = super().weights_path(card)
        if not path.exists():
            self._fetch(_key(card, WEIGHTS), lambda file: file_sha256(file) == card.sha256)
        return path

    def has_weights(self, card: Card) -> bool:
        """Return whether the weights file of a version is there; nothing is fetched."""
        return super().weights_path(card).is_file() or _key(card, WEIGHTS) in (self._listing.names() or ())

    def state_paths(self, card: Card, wanted: str = "") -> list[Path]:
        """Return the files of state as `ModelStore.state_paths` does; the one that is wanted costs no request if here.

        Raises:
            StoreUnavailableError: the one that is wanted is not here, and the place does not answer.
            OutputError: this machine's folder cannot be written.
        """
        here = super().state_paths(card)
        if any(path.name == wanted for path in here):
            return here
        names = self._listing.names(None if wanted else _PATIENCE_SECONDS, fresh=bool(wanted))
        if wanted:
            self._listing.require()
        if names is None:
            return here
        prefix = _key(card, f"{STATES}/")
        found = {name for name in names if name.startswith(prefix) and _STATE.fullmatch(name, len(prefix))}
        self._mirror(prefix, names, found)
        return [path for path in super().state_paths(card) if prefix + path.name in found]

    def share_version(self, folder: Path, card: Card) -> None:
        """Upload a version, its card last; one that is there already stays as it is.

        Raises:
            StoreUnavailableError: the place cannot be read or written.
        """
        if _key(card, CARD) not in self._remote.names():
            for name in (WEIGHTS, CARD):
                self._remote.put(folder / name, _key(card, name))
        self._date(folder / CARD, _key(card, CARD))
        self._listing.forget()

    def share_state(self, path: Path, card: Card, name: str) -> None:
        """Upload a file of state, as the newest also where it was there before.

        Raises:
            StoreUnavailableError: the place cannot be written.
        """
        key = _key(card, f"{STATES}/{name}")
        self._remote.put(path, key)
        self._date(path, key)
        self._listing.forget()

    def _card_paths(self) -> list[Path]:
        """Return the cards that the place has, all mirrored; those that are here where it does not answer."""
        here = super()._card_paths()
        names = self._listing.names(_PATIENCE_SECONDS if here else None)
        if names is None:
            if not here:
                self._listing.require()
            return here
        found = {name for name in names if _CARDS.fullmatch(name)}
        self._mirror(CARD, names, found)
        return [path for path in super()._card_paths() if path.relative_to(self.folder).as_posix() in found]

    def _mirror(self, part: str, names: frozenset[str], wanted: set[str]) -> None:
        """Fetch small files that are not here, once for each listing; leave out what cannot be had now."""
        if self._mirrored.get(part) is names:
            return
        for name in sorted(wanted):
            try:
                if not (self.folder / name).exists():
                    self._fetch(name, partial(_is_genuine, name))
                elif part != CARD:  # learnt again with the same outcome: it is the newest again
                    self._date(self.folder / name, name)
            except (ModelInvalidError, StoreUnavailableError) as error:
                log.warning("%s It is passed over.", error.sentence)
        self._mirrored[part] = names

    def _fetch(self, name: str, is_genuine: Callable[[Path], bool]) -> None:
        """Bring a file here whole and checked, or not at all."""
        target = self.folder / name
        with self.incoming() as folder:
            file = folder / target.name
            self._remote.get(name, file)
            if not is_genuine(file):
                raise ModelInvalidError(
                    f"{name} in the shared model store is damaged, or was cut off on its way.",
                    "Try again; if that does not help, delete it there, and add the model or fit the explainer again.",
                )
            self._date(file, name)
            _move(file, target)

    def _date(self, file: Path, name: str) -> None:
        """Give a file the time at which the place got it."""
        modified = self._remote.modified(name)
        if modified is not None:
            os.utime(file, ns=(modified, modified))


def _key(card: Card, name: str) -> str:
    return f"{card.name}/{card.version}/{name}"


def _is_genuine(name: str, file: Path) -> bool:
    """Return whether a card or a state is what its name says."""
    if file.name != CARD:
        return file_sha256(file).startswith(file.name.rsplit(".", 2)[1])
    try:
        return read_card(file).id == "@".join(name.split("/")[:2])
    except ModelInvalidError:
        return False


def _move(file: Path, target: Path) -> None:
    """Move a file that is on the disk to its place, readable for all."""
    try:
        file.chmod(0o644)
        with file.open("rb") as written:
            os.fsync(written.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
    except OSError as error:
        raise unwritable(error.strerror) from error
