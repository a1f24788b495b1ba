"""Checks of options: what every plugin with numbers as options needs in its `__post_init__`."""

from collections.abc import Mapping

__all__ = ["require_ranges"]


def require_ranges(plugin: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise ValueError unless each option lies in its range.

    Args:
        plugin: whose attributes are looked at.
        ranges: lowest and highest value by name, both allowed.
    """
    for name, (low, high) in ranges.items():
        value = getattr(plugin, name)
        if not low <= value <= high:
            msg = f"{name} must be from {low:g} to {high:g}, got {value!r}"
            raise ValueError(msg)
