"""How a value from outside is quoted in a message: what it is, on one line, and never long."""

from reprlib import Repr

__all__ = ["quoted"]

_MOST_CHARACTERS = 80

_REPR = Repr()  # of a deep or large value only the beginning is looked at
_REPR.maxstring = _REPR.maxother = 2 * _MOST_CHARACTERS


def quoted(value: object) -> str:
    """Return the value's repr, cut at 80 characters."""
    text = repr(value[: 2 * _MOST_CHARACTERS]) if isinstance(value, str) else _REPR.repr(value)
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "..."
