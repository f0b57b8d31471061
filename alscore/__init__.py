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
    "Evaluation": "alscore.evaluation",
    "FormatError": "alscore.persistence",
    "Interactions": "alscore.interactions",
    "NotFittedError": "alscore.factor_model",
    "NotPositiveDefiniteError": "alscore.solvers",
    "Recommender": "alscore.recommender",
    "UnknownLabelError": "alscore.recommender",
    "calculate_loss": "alscore.objective",
    "compare": "alscore.evaluation",
    "evaluate": "alscore.evaluation",
    "load": "alscore.persistence",
}
_SUBMODULES = (
    "baselines",
    "datasets",
    "export",
    "metrics",
    "solvers",
    "splits",
    "statistics",
    "testing",
    "tuning",
    "weighting",
)

__all__ = ["get_include", *_HOMES, *_SUBMODULES]

if TYPE_CHECKING:  # the same, in the form that type checkers take for public
    from alscore import baselines as baselines
    from alscore import datasets as datasets
    from alscore import export as export
    from alscore import metrics as metrics
    from alscore import solvers as solvers
    from alscore import splits as splits
    from alscore import statistics as statistics
    from alscore import testing as testing
    from alscore import tuning as tuning
    from alscore import weighting as weighting
    from alscore.als import AlternatingLeastSquares as AlternatingLeastSquares
    from alscore.evaluation import Evaluation as Evaluation
    from alscore.evaluation import compare as compare
    from alscore.evaluation import evaluate as evaluate
    from alscore.factor_model import NotFittedError as NotFittedError
    from alscore.interactions import Interactions as Interactions
    from alscore.objective import calculate_loss as calculate_loss
    from alscore.persistence import FormatError as FormatError
    from alscore.persistence import load as load
    from alscore.recommender import Recommender as Recommender
    from alscore.recommender import UnknownLabelError as UnknownLabelError
    from alscore.solvers import NotPositiveDefiniteError as NotPositiveDefiniteError


def get_include() -> str:
    """Folder of ``alscore.h``, the contract for compiled solvers, for a C compiler's include path.

    Returns
    -------
    str
    """
    return str(Path(__file__).parent / "include")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"alscore.{name}")
    raise AttributeError(f"module 'alscore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
