"""Matplotlib figures that need no display."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib is optional
    from matplotlib.figure import Figure


def figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches. Raise an ImportError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # not pyplot, which looks for a display
    except ImportError as error:
        raise ImportError("plot needs matplotlib: pip install 'alscore[bench]'") from error

    return Figure(figsize=(width, height), layout="constrained")
