"""Where a picture that is no file of this machine is asked for, and under which key it is kept.

Label Studio hands out uploads, local files and what its cloud storages hold; its token goes to these addresses of its
exact origin and sub-path, and to nothing else there, so that no task can make heatbox use the API. Those that open a
cloud address are made here alone, for the task that names it. A key is the address without what changes from one
signature to the next: the query parameters of presigned addresses of S3 (versions 2 and 4), Google Cloud Storage,
CloudFront and Azure.
"""

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, unquote_plus

import httpx

from heatbox.errors import AddressRefusedError
from heatbox.pictures.addresses import is_cloud
from heatbox.pictures.images import PICTURE_SUFFIXES
from heatbox.pictures.network import port_of

__all__ = ["Place", "StudioRoot", "find_place", "is_of_studio", "next_url", "stable"]

_OPENED = re.compile(r"/(tasks|projects)/\d+/(resolve|presign)/")  # a cloud address, for one task or project
_OF_STUDIO = re.compile(rf"/data/(upload/|local-files/?(\?|$))|/storage-data/uploaded/|{_OPENED.pattern}")
_SIGNATURES = (  # parameters by which a presigned address is known, and those that only sign
    ({"x-amz-signature"}, re.compile(r"x-amz-.*|token")),
    ({"x-goog-signature"}, re.compile(r"x-goog-.*|token")),
    (
        {"signature", "awsaccesskeyid"},
        re.compile(r"signature|awsaccesskeyid|expires|x-amz-security-token|token"),
    ),
    ({"signature", "googleaccessid"}, re.compile(r"signature|googleaccessid|expires|token")),
    ({"signature", "key-pair-id"}, re.compile(r"signature|key-pair-id|expires|policy|token")),
    (
        {"sig", "sv"},
        re.compile(r"s[eiprtv]|sig|spr|srt?|ss|sip|skoid|sktid|sk[tesv]|saoid|suoid|scid|sdd|token"),
    ),
)
_LONGEST_NAME = 100
_STUDIO_REMEDY = "Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY where the workers run."


@dataclass(frozen=True)
class Place:
    """Where a picture is asked for.

    Attributes:
        url: the first address that is asked.
        key: names the picture, whatever signature is in the address.
        asked: the whole question; only who asks the same may have the answer without a new request.
        name: for the file; says nothing that is secret.
    """

    url: httpx.URL
    key: str
    asked: str
    name: str


@dataclass(frozen=True)
class StudioRoot:
    """The address below which Label Studio is installed."""

    url: httpx.URL

    @property
    def host(self) -> str:
        """Its host with the port, for the guard."""
        host = self.url.raw_host.decode("ascii")
        return f"[{host}]:{port_of(self.url)}" if ":" in host else f"{host}:{port_of(self.url)}"

    def at(self, address: str) -> httpx.URL:
        """Return the URL of an address that begins with a slash, with the sub-path or without."""
        below = self._below(address)
        root = str(self.url).rstrip("/")
        return _parsed(root + (address if below is None else below))

    def has_pictures_at(self, url: httpx.URL) -> bool:
        """Return whether this is an address of a picture of this very Label Studio."""
        below = self._below(url.raw_path.decode("ascii"))
        steps_up = ".." in unquote(url.path).split("/")
        return _origin(url) == _origin(self.url) and below is not None and not steps_up and _is_picture(below)

    def opens(self, url: httpx.URL) -> bool:
        """Return whether this very Label Studio would open a cloud address there."""
        below = self._below(url.raw_path.decode("ascii"))
        return _origin(url) == _origin(self.url) and below is not None and bool(_OPENED.match(below))

    def _below(self, address: str) -> str | None:
        """Return an address without the sub-path, None where it is not below it."""
        path = self.url.raw_path.decode("ascii").rstrip("/")
        return address[len(path) :] if address.startswith(path + "/") else None

    def is_relative(self, address: str) -> bool:
        """Return whether an address without a host is one of its pictures."""
        return _is_picture(address) or _is_picture(self._below(address) or "")


def is_of_studio(address: str, root: StudioRoot | None) -> bool:
    """Return whether Label Studio would be asked for a relative address, if there is one."""
    return root.is_relative(address) if root else _is_picture(address)


def find_place(address: str, task: int | None, root: StudioRoot | None) -> Place:
    """Return where the picture of a task is asked for.

    Args:
        address: as the task has it; no local file.
        task: number of the task; Label Studio looks in the storages of its project.
        root: of Label Studio, where one is known with its token.

    Raises:
        AddressRefusedError: the address is none, or needs Label Studio or the task and there is none.
    """
    if is_cloud(address):
        return _cloud(address, task, root)
    if address.startswith("/"):
        if root is None:
            raise AddressRefusedError(
                "The picture is inside Label Studio, which is not known.", _STUDIO_REMEDY
            )
        return _at(_not_opened(root.at(address), root))
    url = _parsed(address)
    if url.scheme not in {"http", "https"}:
        raise AddressRefusedError(
            f"The picture is at a {url.scheme[:20] or 'strange'} address, which is not read.",
            "Use http, https, s3, gs, azure-blob, an upload, a local file or data:image.",
        )
    return _at(_not_opened(url, root))


def next_url(url: httpx.URL, location: str) -> httpx.URL:
    """Return where a redirect leads to.

    Raises:
        AddressRefusedError: not to http or https, or from https to http.
    """
    try:
        target = url.join(location)
    except (httpx.InvalidURL, UnicodeError):
        target = httpx.URL()
    if target.scheme not in {"http", "https"} or (url.scheme, target.scheme) == ("https", "http"):
        raise AddressRefusedError(
            f"The host {url.host[:100]!r} redirects to an address that is not allowed, such as one without TLS.",
            "Name the address to which it leads in the end.",
        )
    return _checked(target)


def stable(url: httpx.URL) -> str:
    """Return the address without what only signs it."""
    parts = url.query.decode("ascii").split("&")
    names = {unquote_plus(part.partition("=")[0]).lower() for part in parts}
    for marks, signing in _SIGNATURES:
        if marks <= names:
            parts = [
                one for one in parts if not signing.fullmatch(unquote_plus(one.partition("=")[0]).lower())
            ]
            return str(url.copy_with(query="&".join(parts).encode() or None))
    return str(url)


def _cloud(address: str, task: int | None, root: StudioRoot | None) -> Place:
    scheme = address.partition(":")[0].lower()
    if root is None:
        raise AddressRefusedError(
            f"The picture is at {scheme}:, which only Label Studio opens.", _STUDIO_REMEDY
        )
    if task is None:
        raise AddressRefusedError(
            f"The picture is at {scheme}:, and no task of Label Studio names it.",
            "Import it as a task of a project whose storage holds it.",
        )
    encoded = urlsafe_b64encode(address.encode("utf-8", "replace")).decode()
    url = root.at(f"/tasks/{task}/resolve/?fileuri={quote(encoded)}")
    return Place(url, f"{root.url} {address}", f"{task} {address}", _name(address.partition("?")[0]))


def _not_opened(url: httpx.URL, root: StudioRoot | None) -> httpx.URL:
    """Refuse an address by which Label Studio opens a cloud address for one task: it may be another's."""
    if root is not None and root.opens(url):
        raise AddressRefusedError(
            "The address is one by which Label Studio opens a cloud address for one of its tasks.",
            "Let the task name the cloud address itself (s3://, gs://, azure-blob://).",
        )
    return url


def _at(url: httpx.URL) -> Place:
    query = dict(url.params)
    named = query.get("d") or query.get("filepath") or url.path
    return Place(url, stable(url), str(url), _name(named))


def _parsed(address: str) -> httpx.URL:
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise AddressRefusedError(
            "The address is none that can be asked.", "Correct the address in the task."
        ) from error
    return _checked(url)


def _checked(url: httpx.URL) -> httpx.URL:
    """Return the URL without its fragment and without a port that is the usual one."""
    if url.userinfo:
        raise AddressRefusedError(
            "The address has a user or a password in it.",
            "Use an address without them, such as a presigned one.",
        )
    if url.scheme in {"http", "https"} and not (_host(url) and 0 < port_of(url) < 2**16):
        raise AddressRefusedError("The address has no usable host in it.", "Correct the address in the task.")
    usual = {"http": 80, "https": 443}.get(url.scheme)
    return url.copy_with(fragment=None, port=None if url.port == usual else url.port)


def _host(url: httpx.URL) -> str:
    """Return the host for people, empty where it cannot be shown: a name that only looks like IDNA."""
    try:
        return url.host
    except UnicodeError:
        return ""


def _is_picture(address: str) -> bool:
    return bool(_OF_STUDIO.match(address))


def _origin(url: httpx.URL) -> tuple[str, bytes, int]:
    return url.scheme, url.raw_host, port_of(url)


def _name(path: str) -> str:
    """Return a name for the file: the picture's own where it looks like one, else one that says nothing."""
    name = PurePosixPath(unquote(path)).name
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        return "picture"
    fits = name.isprintable() and len(name.encode("utf-8", "replace")) <= _LONGEST_NAME
    return name if fits else f"picture{suffix}"
