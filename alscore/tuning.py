"""The search for parameters: Optuna's, and scores of what is held out, for scikit-learn's searches too."""

import dataclasses
import math
import numbers
import os
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from alscore._data.user_items import matrix_of
from alscore._support.checks import require, require_integer
from alscore._support.figures import figure
from alscore._support.train_options import train_command
from alscore.als import AlternatingLeastSquares
from alscore.metrics.validation import Validator as Validator
from alscore.metrics.validation import parsed as parsed
from alscore.metrics.validation import ranking_scorer as ranking_scorer
from alscore.metrics.validation import validator as validator
from alscore.solvers import NotPositiveDefiniteError

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from matplotlib.figure import Figure

# NDCG@10 after 30 trials at k = 32, medians of three seeds: 0.233 on HetRec Last.fm, 0.333 on MovieLens-latest-small,
# 0.236 on synthetic plays; 0.222, 0.288, 0.236 with a range of exponents, which λ depends on, and α from 0.1 to 100.
# No trial adds factors while it trains: from 32 to 64 that gained at most 0.0016 on HetRec Last.fm in equal time, and
# lost 0.0005 on synthetic plays.
SPACE: Mapping[str, Any] = MappingProxyType(
    {
        "factors": (16, 256),
        "regularization": (1e-3, 1e3),
        "alpha": (0.01, 10.0),
        "regularization_exponent": [0.0, 0.5, 1.0],
        "unobserved_weight": (0.01, 1.0),
        "confidence": ["linear", "log"],
    }
)
"""What `tune` searches, unless told otherwise."""


def tune(
    split: Any,
    metric: str = "ndcg@10",
    n_trials: int = 30,
    *,
    space: Mapping[str, Any] = SPACE,
    model: AlternatingLeastSquares | None = None,
    storage: str | os.PathLike[str] | None = None,
    random_state: int = 0,
    show_progress: bool = True,
) -> "Tuned":
    """Search for the parameters of the model that ranks held-out interactions best.

    Each trial trains on the first part of `split`, is judged on the others after each sweep, and counts for its best
    sweep. A trial whose best is below the median of earlier ones after as many sweeps stops early. After ten random
    trials those that follow are drawn by a tree-structured Parzen estimator (Bergstra et al. 2011). ::

        found = tune(splits.leave_k_out(plays, 0.2), storage="study.db")
        found.table()
        model = found.model().fit(plays)

    Parameters
    ----------
    split : (train, test), Split or UserSplit
        What a function of `alscore.splits` returns: see `validator`.
    metric : str
        See `validator`.
    n_trials : int
        Those that `storage` has already are among them.
    space : dict
        From names of parameters of the model to what they may be: a tuple (low, high), on a logarithmic scale where low
        is above 0, or a list of choices. Default: `SPACE`, of which some can be replaced, ``{**SPACE, "alpha": [1]}``.
    model : AlternatingLeastSquares, optional
        Has the other parameters; `iterations` are the sweeps of a trial at most. Its `random_state`, an integer, is the
        one below where it is None.
    storage : path, optional
        An SQLite file, made where there is none: each trial is kept there when it is done, and another call with the
        same arguments goes on from them, with the same trials as if there had been no break. A solver object needs a
        repr that tells it from others.
    random_state : int
        Of the search, at least 0: the same gives the same trials.
    show_progress : bool
        Show a progress bar.

    Returns
    -------
    Tuned
        After Ctrl-C, of the trials that are done by then.

    Raises
    ------
    ImportError
        Optuna is not installed.
    KeyboardInterrupt
        After Ctrl-C, where no trial is done yet.
    TypeError, ValueError
        An argument is not as above; `storage` has trials of other arguments; no trial could be trained.
    """
    from tqdm import tqdm

    require_optuna()
    import optuna

    judge = validator(split, metric)
    judge.refuse(split[0])
    require_integer(n_trials, "n_trials", 1)
    require_integer(random_state, "random_state", 0)
    model = AlternatingLeastSquares() if model is None else model
    if not isinstance(model, AlternatingLeastSquares):
        raise TypeError(f"model must be an AlternatingLeastSquares, not {type(model).__name__}")
    fixed = model.get_params()
    if fixed["random_state"] is None:
        fixed["random_state"] = random_state
    require_integer(fixed["random_state"], "random_state of the model", 0)
    require(isinstance(space, Mapping) and len(space) > 0, "space", "a dict of at least one parameter", space)
    distributions = {name: _distribution(name, values) for name, values in space.items()}
    data = _extent(matrix_of(split[0]), judge.train, judge.test)
    problem = f"{metric} of {data}, {AlternatingLeastSquares(**{**fixed, 'num_threads': 0})}, {dict(space)}"
    if storage is not None and " object at 0x" in problem:  # a repr that no other process will repeat
        raise ValueError(f"storage needs a solver that can be told from others: give its class a __repr__; {problem}")

    def run(trial: "optuna.Trial") -> float:
        scores: list[float] = []

        def judged(candidate: AlternatingLeastSquares) -> float:
            scores.append(judge(candidate))
            trial.report(scores[-1], len(scores) - 1)
            if trial.should_prune():
                raise optuna.TrialPruned
            return scores[-1]

        candidate = AlternatingLeastSquares(**{**fixed, **trial.params})
        require_integer(candidate.iterations, "iterations", 1)
        candidate.fit(split[0], show_progress=False, validation=judged)
        return max(scores)

    study, states = _study(storage, problem), optuna.trial.TrialState
    n_done, unsolved = len(_done(study)), None
    with tqdm(total=n_trials, initial=n_done, unit="trial", disable=not show_progress) as progress:
        try:
            for number in range(n_done, n_trials):
                # A seed for each trial, so that a search that goes on draws what it would have drawn without a break.
                seed = int(np.random.SeedSequence((random_state, number)).generate_state(1)[0])
                study.sampler = optuna.samplers.TPESampler(seed=seed)
                trial = study.ask(distributions)
                try:
                    study.tell(trial, run(trial))
                except (optuna.TrialPruned, NotPositiveDefiniteError, FloatingPointError) as error:
                    unsolved = str(error)
                    study.tell(trial, state=states.PRUNED)
                except BaseException:
                    study.tell(trial, state=states.FAIL)
                    raise
                progress.update()
                if study.get_trials(False, [states.COMPLETE]):
                    progress.set_postfix({metric: f"{study.best_value:.4f}"})
        except KeyboardInterrupt:
            if not _done(study):
                raise
    if not study.get_trials(False, [states.COMPLETE]):
        raise ValueError(f"no trial of {n_trials} could be trained: {unsolved}")
    return Tuned(study, metric, fixed)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What `tune` found.

    Attributes
    ----------
    study : optuna.Study
        For what Optuna does with it, such as `optuna.visualization`.
    metric : str
    fixed : dict
        The parameters of the model that were not searched.
    """

    study: "optuna.Study"
    metric: str
    fixed: dict[str, Any]

    @property
    def best_value(self) -> float:
        """The score of the best trial."""
        return self.study.best_value

    @property
    def best_params(self) -> dict[str, Any]:
        """The parameters of the best trial, `iterations` up to its best sweep among them."""
        best = self.study.best_trial
        return {**best.params, "iterations": _best_sweep(best)[1]}

    def model(self) -> AlternatingLeastSquares:
        """The best trial's model, to be fitted: ``found.model().fit(plays)``.

        Returns
        -------
        AlternatingLeastSquares
        """
        return AlternatingLeastSquares(**{**self.fixed, **self.best_params})

    def command(self, path: str | os.PathLike[str], output: str | os.PathLike[str] = "model.als") -> str:
        """The command line that trains this model.

        Parameters
        ----------
        path : str or path
            The plays to train on.
        output : str or path
            Where the command writes the model.

        Returns
        -------
        str
        """
        return train_command(self.model(), path, output)

    def table(self) -> "pd.DataFrame":
        """The trials that are done, best first.

        Returns
        -------
        DataFrame
            Columns `trial`, a number from 0; the metric, after the best sweep; `pruned`, whether it was stopped early;
            `seconds`; the parameters; `iterations`, up to the best sweep.
        """
        import pandas as pd

        rows = [
            {
                "trial": trial.number,
                self.metric: score,
                "pruned": trial.state.name == "PRUNED",
                "seconds": trial.duration and trial.duration.total_seconds(),
                **trial.params,
                "iterations": iterations,
            }
            for trial in _done(self.study)
            for score, iterations in [_best_sweep(trial)]
        ]
        return pd.DataFrame(rows).sort_values(self.metric, ascending=False, kind="stable", ignore_index=True)

    def plot(self) -> "Figure":
        """Draw the scores over each parameter that was searched.

        Returns
        -------
        matplotlib Figure
            To be shown by a notebook, or saved by ``figure.savefig("tuned.png")``.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        table, distributions = self.table(), self.study.best_trial.distributions
        drawn = figure(1 + 2.5 * len(distributions), 3)
        grid = drawn.subplots(1, len(distributions), sharey=True, squeeze=False)[0]
        for axes, (name, distribution) in zip(grid, distributions.items(), strict=True):
            for label, color, rows in (
                ("pruned", "tab:gray", table[table["pruned"]]),
                ("complete", "tab:blue", table[~table["pruned"]]),
                ("best", "tab:red", table[~table["pruned"]].head(1)),
            ):
                axes.plot(rows[name], rows[self.metric], "o", color=color, label=label)
            axes.set_xlabel(name)
            if getattr(distribution, "log", False):
                axes.set_xscale("log")
        grid[0].set_ylabel(self.metric)
        grid[0].legend()
        return drawn


def require_optuna() -> None:
    """Raise an ImportError, which says how to install Optuna, if it is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ImportError("tune needs Optuna: pip install 'alscore[tune]'") from error


def _distribution(name: str, values: Any) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    parameters = AlternatingLeastSquares().get_params()
    require(name in parameters, "space", f"of parameters of the model, which are {', '.join(parameters)}", name)
    if isinstance(values, list) and values:
        return CategoricalDistribution(values)
    whole = type(parameters[name]) is int
    require(whole or type(parameters[name]) is float, f"space[{name!r}]", "a list of choices", values)
    kind = numbers.Integral if whole else numbers.Real
    valid = isinstance(values, tuple) and len(values) == 2 and all(isinstance(value, kind) for value in values)
    require(
        valid and -math.inf < values[0] < values[1] < math.inf,
        f"space[{name!r}]",
        f"a tuple (low, high) of {'integers' if whole else 'numbers'}, or a list of choices",
        values,
    )
    low, high = values
    return (IntDistribution if whole else FloatDistribution)(low, high, log=low > 0)


def _extent(*matrices: sparse.csr_array) -> str:
    """Tell data apart."""
    return " + ".join(
        f"{matrix.nnz} in {matrix.shape} "
        f"({zlib.crc32(matrix.data, zlib.crc32(matrix.indices, zlib.crc32(matrix.indptr))):08x})"
        for matrix in matrices
    )


def _study(storage: str | os.PathLike[str] | None, problem: str) -> "optuna.Study":
    """Make a study of `problem`, or open that in `storage`."""
    import optuna

    database = None
    if storage is not None:
        from sqlalchemy.pool import NullPool

        with open(storage, "ab+") as file:
            file.seek(0)
            require(file.read(16) in (b"", b"SQLite format 3\0"), "storage", "an SQLite file, or a new one", storage)
        # A pool would leave its connections to the garbage collector, which warns of them from Python 3.13 on.
        options = {"poolclass": NullPool}
        database = optuna.storages.RDBStorage(f"sqlite:///{os.fspath(storage)}", engine_kwargs=options)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would report that there is a study
    try:
        study = optuna.create_study(
            storage=database,
            pruner=optuna.pruners.MedianPruner(),
            study_name="alscore",
            direction="maximize",
            load_if_exists=True,
        )
    finally:
        optuna.logging.set_verbosity(verbosity)
    known = study.user_attrs.get("problem", problem)
    if known != problem:
        raise ValueError(f"storage: {storage} has trials of {known}, not of {problem}; give another file")
    study.set_user_attr("problem", problem)
    return study


def _done(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    """The trials that came to their end, or were pruned."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in ("COMPLETE", "PRUNED")]


def _best_sweep(trial: "optuna.trial.FrozenTrial") -> tuple[float, int]:
    """The best score of a trial, and after how many sweeps; NaN and 0 where there was none."""
    scores = trial.intermediate_values
    best = max(sorted(scores), key=scores.__getitem__, default=-1)
    return scores.get(best, math.nan), best + 1
