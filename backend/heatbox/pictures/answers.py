"""What a host answered, looked at before anything of it is kept: status, length, encoding, and the first bytes.

Content-Type decides nothing: hosts send pictures as text and pages as pictures. The picture's own header is looked at
later, by `images.read_picture`.
"""

from collections.abc import Iterator, Mapping

from heatbox.errors import PictureError, PictureFetchError, PictureTooLargeError
from heatbox.pictures.network import Answer

__all__ = ["check_length", "content", "refusal", "validators"]

_HEAD = 512  # bytes that tell a page from a picture
_LONGEST = 1000  # characters of a validator
_OK, _UNAUTHORIZED, _FORBIDDEN, _TOO_MANY, _SERVER_ERROR = 200, 401, 403, 429, 500
_LOGIN = "Is it a login page? Open the address in a browser without a login; take one that needs none."
_TOKEN = "Set HEATBOX_STUDIO_API_KEY to a valid token of a user who may see the task."  # noqa: S105 - no token


def refusal(status: int, host: str, *, with_token: bool) -> PictureError:
    """Return the error for an answer without a picture.

    Args:
        status: of HTTP.
        host: that answered.
        with_token: whether it was Label Studio, with its token.
    """
    if status in {_UNAUTHORIZED, _FORBIDDEN}:
        remedy = _TOKEN if with_token else "Give an address that needs no login, or let Label Studio open it."
    elif status == _TOO_MANY or status >= _SERVER_ERROR:
        remedy = "Try again later."
    elif with_token:
        remedy = (
            "See whether Label Studio shows it: the task, its storage, and the rights of the token's user."
        )
    else:
        remedy = "Check the address in the task."
    return PictureFetchError(f"The host {host[:100]!r} answered HTTP {status}, not a picture.", remedy)


def content(answer: Answer, host: str, max_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of a picture, after a look at the first.

    Raises:
        PictureTooLargeError: there are more bytes than allowed.
        PictureFetchError: it is a page or text, compressed, or nothing.
    """
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity"}:
        raise PictureFetchError(
            f"The host {host[:100]!r} sends the picture compressed, although it was asked not to.",
            "Let the host send pictures as they are.",
        )
    length = answer.headers.get("content-length", "")
    check_length(int(length) if length.isdecimal() else 0, max_bytes)
    head, size = b"", 0
    for chunk in answer.body:
        size += len(chunk)
        check_length(size, max_bytes)
        if len(head) < _HEAD:
            head += chunk
            if len(head) < _HEAD:
                continue
            chunk = head  # noqa: PLW2901 - what was held back goes first
            _check_head(head, host)
        yield chunk
    if len(head) < _HEAD:
        _check_head(head, host)
        yield head


def check_length(size: int, max_bytes: int) -> None:
    """Refuse more bytes than the limit."""
    if size > max_bytes:
        raise PictureTooLargeError(
            f"The picture has more bytes than the limit of {max_bytes:,}.",
            "Reduce the picture, or raise HEATBOX_MAX_BYTES.",
        )


def validators(answer: Answer) -> Mapping[str, str]:
    """Return what the host says about the version; nothing where a cut answer could not be told from a whole one."""
    is_whole = (
        "content-length" in answer.headers or "chunked" in answer.headers.get("transfer-encoding", "").lower()
    )
    named = {name: answer.headers.get(name, "") for name in ("etag", "last-modified")}
    return {
        name: value
        for name, value in named.items()
        if is_whole and value.isascii() and value.isprintable() and 0 < len(value) < _LONGEST
    }


def _check_head(head: bytes, host: str) -> None:
    """Refuse what begins like a page or like text for programs."""
    start = head[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        raise PictureFetchError(
            f"The host {host[:100]!r} answered nothing.", "Check the address in the task."
        )
    is_page = start.startswith(b"<") and any(
        mark in start for mark in (b"<!doctype html", b"<html", b"<head", b"<body")
    )
    if is_page:
        raise PictureFetchError(
            f"The host {host[:100]!r} answered an HTML page instead of a picture.", _LOGIN
        )
    is_drawing = b"<svg" in start
    kind = {b"<": "XML", b"{": "JSON", b"[": "JSON"}.get(start[:1])
    if kind and not is_drawing:
        raise PictureFetchError(
            f"The host {host[:100]!r} answered {kind} instead of a picture.",
            "It may say what is wrong: open the address in a browser without a login.",
        )
