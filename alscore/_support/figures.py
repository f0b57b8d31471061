"""Figures that are drawn without a display."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(width: float, height: float) -> "Figure":
    """An empty one, of a size in inches; an ImportError with the remedy where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # not pyplot, which looks for a display
    except ImportError as error:
        raise ImportError("plot needs matplotlib: pip install 'alscore[bench]'") from error

    return Figure(figsize=(width, height), layout="constrained")
