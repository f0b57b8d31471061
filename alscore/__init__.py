"""Exact, fast, reproducible alternating least squares for implicit feedback.

>>> from alscore import AlternatingLeastSquares, Recommender, datasets
>>> plays = datasets.synthetic(2_000, 1_000, seed=0)
>>> recommender = Recommender(AlternatingLeastSquares(factors=32)).fit(plays, show_progress=False)
>>> table = recommender.recommend(plays.users[0], n=5)
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives. They are imported on first use: `import alscore` costs a few milliseconds.
_HOMES = {
    "AlternatingLeastSquares": "alscore.als",
    "FormatError": "alscore.persistence",
    "Interactions": "alscore.interactions",
    "NotFittedError": "alscore.als",
    "NotPositiveDefiniteError": "alscore.solvers",
    "Recommender": "alscore.recommender",
    "UnknownLabelError": "alscore.recommender",
    "calculate_loss": "alscore.objective",
    "load": "alscore.persistence",
}
_SUBMODULES = ("datasets", "export", "solvers", "splits", "statistics", "testing", "tuning", "weighting")

__all__ = ["get_include", *_HOMES, *_SUBMODULES]

if TYPE_CHECKING:
    from alscore import datasets, export, solvers, splits, statistics, testing, tuning, weighting  # noqa: F401
    from alscore.als import AlternatingLeastSquares, NotFittedError  # noqa: F401
    from alscore.interactions import Interactions  # noqa: F401
    from alscore.objective import calculate_loss  # noqa: F401
    from alscore.persistence import FormatError, load  # noqa: F401
    from alscore.recommender import Recommender, UnknownLabelError  # noqa: F401
    from alscore.solvers import NotPositiveDefiniteError  # noqa: F401


def get_include() -> str:
    """Folder of ``alscore.h``, the contract for compiled solvers, for a C compiler's include path."""
    return str(Path(__file__).parent / "include")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"alscore.{name}")
    raise AttributeError(f"module 'alscore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
