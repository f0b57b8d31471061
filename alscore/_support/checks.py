"""What messages about arguments say."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from alscore._support.arrays import Ints


def require(holds: bool, name: str, allowed: str, value: Any) -> None:
    """Raise a ValueError about the argument `name` unless it is as `allowed` says."""
    if not holds:
        raise ValueError(f"{name} must be {allowed}, not {value!r}")


def require_integer(value: Any, name: str, least: int) -> None:
    """Raise a ValueError about the argument `name` unless it is an integer of at least `least`."""
    valid = hasattr(value, "__index__") and not isinstance(value, bool) and value >= least
    require(valid, name, f"an integer of at least {least}", value)


def first_few(positions: "Ints | pd.Series") -> str:
    """Spell out the first few of `positions`."""
    return ", ".join(map(str, positions[:5])) + (", …" if len(positions) > 5 else "")
