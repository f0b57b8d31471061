"""Checks of arguments, and the lists of positions in messages. This module imports no numpy: it is light."""

from typing import Any


def require(holds: bool, name: str, allowed: str, value: Any) -> None:
    """Raise a ValueError, "`name` must be `allowed`, not `value`", unless `holds`."""
    if not holds:
        raise ValueError(f"{name} must be {allowed}, not {value!r}")


def require_integer(value: Any, name: str, least: int, most: int | None = None, note: str = "") -> None:
    """Raise a ValueError about the argument `name` unless it is an integer of at least `least` and at most `most`.

    `note` is added to the description of the allowed numbers.
    """
    valid = hasattr(value, "__index__") and not isinstance(value, bool) and value >= least
    valid = valid and (most is None or value <= most)
    allowed = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most:,}"
    require(valid, name, allowed + note, value)


def first_few(numbers: Any) -> str:
    """Return the first five of a sequence or an array of numbers as text: "0, 3, 4, 7, 9, …"."""
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
