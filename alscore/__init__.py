"""Exact, fast, reproducible alternating least squares for implicit feedback.

>>> from alscore import AlternatingLeastSquares, Recommender, datasets
>>> plays = datasets.synthetic(2_000, 1_000, seed=0)
>>> recommender = Recommender(AlternatingLeastSquares(factors=32)).fit(plays, show_progress=False)
>>> table = recommender.recommend(plays.users[0], n=5)
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alscore._support import moved
from alscore._support.version import __version__ as __version__

moved.install()

# The module of each public name. Names are imported on first use: `import alscore` takes a few milliseconds.
_HOMES = {
    "AlternatingLeastSquares": "alscore.als",
    "Evaluation": "alscore.metrics.evaluation",
    "FormatError": "alscore._data.container",
    "Interactions": "alscore.interactions",
    "NotFittedError": "alscore.retrieval.factors",
    "NotPositiveDefiniteError": "alscore.solvers",
    "Recommender": "alscore.recommender",
    "UnknownLabelError": "alscore._data.labels",
    "calculate_loss": "alscore.solvers.loss",
    "compare": "alscore.metrics.evaluation",
    "evaluate": "alscore.metrics.evaluation",
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

if TYPE_CHECKING:  # the same names, in the form that type checkers treat as public
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
    from alscore._data.container import FormatError as FormatError
    from alscore._data.labels import UnknownLabelError as UnknownLabelError
    from alscore.als import AlternatingLeastSquares as AlternatingLeastSquares
    from alscore.interactions import Interactions as Interactions
    from alscore.metrics.evaluation import Evaluation as Evaluation
    from alscore.metrics.evaluation import compare as compare
    from alscore.metrics.evaluation import evaluate as evaluate
    from alscore.persistence import load as load
    from alscore.recommender import Recommender as Recommender
    from alscore.retrieval.factors import NotFittedError as NotFittedError
    from alscore.solvers import NotPositiveDefiniteError as NotPositiveDefiniteError
    from alscore.solvers.loss import calculate_loss as calculate_loss


def get_include() -> str:
    """Return the folder of ``alscore.h``, the contract of compiled solvers, for the include path of a C compiler.

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
