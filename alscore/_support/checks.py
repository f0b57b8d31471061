"""What messages about arguments say."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from alscore._support.arrays import Ints


def require(holds: bool, name: str, allowed: str, value: Any) -> None:
    """Raise a ValueError about the argument `name` unless it is as `allowed` says."""
    if not holds:
        raise ValueError(f"{name} must be {allowed}, not {value!r}")


def require_integer(value: Any, name: str, least: int, most: int | None = None) -> None:
    """Raise a ValueError about the argument `name` unless it is an integer of at least `least` and at most `most`."""
    valid = hasattr(value, "__index__") and not isinstance(value, bool) and value >= least
    valid = valid and (most is None or value <= most)
    allowed = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most:,}"
    require(valid, name, allowed, value)


def first_few(positions: "Ints | pd.Series") -> str:
    """Spell out the first few of `positions`."""
    return ", ".join(map(str, positions[:5])) + (", …" if len(positions) > 5 else "")
