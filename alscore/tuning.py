"""Search for parameters: with Optuna, and scorers on held-out data for scikit-learn's searches."""

import dataclasses
import math
import numbers
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from alscore._data.user_items import matrix_of
from alscore._support.checks import require, require_integer
from alscore._support.figures import figure
from alscore._support.train_options import train_command
from alscore.als import AlternatingLeastSquares
from alscore.metrics.validation import Validator as Validator
from alscore.metrics.validation import _score as _score  # pickles that version 0.1.0 wrote name it here
from alscore.metrics.validation import parsed as parsed
from alscore.metrics.validation import ranking_scorer as ranking_scorer
from alscore.metrics.validation import validator as validator
from alscore.solvers import NotPositiveDefiniteError

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

# NDCG@10 after 30 trials at k = 32, medians of three seeds: 0.233 on HetRec Last.fm, 0.333 on MovieLens-latest-small,
# 0.236 on synthetic plays. A range of exponents (the best λ depends on the exponent) and α from 0.1 to 100 gave 0.222,
# 0.288, 0.236. Trials keep their number of factors: adding factors during training, from 32 to 64, gained at most
# 0.0016 on HetRec Last.fm in equal time, and lost 0.0005 on synthetic plays.
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
"""The default search space of `tune`."""


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
    """Search for the parameters of the model that ranks held-out items best.

    Each trial trains a model on the first part of `split`. The model is scored on the other parts after each sweep, and
    the best sweep counts. A trial stops early if its best score is below the median of the best scores of earlier
    trials after the same number of sweeps. The first ten trials are random. A tree-structured Parzen estimator draws
    the others (Bergstra et al. 2011). ::

        tuned = tune(splits.leave_k_out(plays, 0.2), storage="study.db")
        tuned.table()
        model = tuned.model().fit(plays)

    Parameters
    ----------
    split : (train, test), Split or UserSplit
        Result of a function of `alscore.splits`: see `validator`.
    metric : str
        See `validator`.
    n_trials : int
        Number of trials, at least 1. Trials that `storage` already has are included.
    space : dict
        Values of each parameter to search, by name: a tuple (low, high), on a logarithmic scale if low is above 0, or
        a list of choices. Default: `SPACE`. Replace some of its entries by ``{**SPACE, "alpha": [1]}``.
    model : AlternatingLeastSquares, optional
        Has the parameters that are not searched. Its `iterations` are the largest number of sweeps of a trial. Its
        `random_state` must be an integer or None; None means `random_state` of the search.
    storage : path, optional
        SQLite file, created if it does not exist. Each trial is written when it ends. A later call with the same
        arguments continues from there, and has the same trials as one call without a break. A solver object needs a
        repr that distinguishes it from other solvers.
    random_state : int
        Seed of the search, >= 0. The same seed gives the same trials.
    show_progress : bool
        Show a progress bar.

    Returns
    -------
    Tuned
        After Ctrl-C: the trials that have ended.

    Raises
    ------
    ImportError
        Optuna is not installed.
    KeyboardInterrupt
        Ctrl-C was pressed before a trial ended.
    TypeError, ValueError
        An argument is not valid, `storage` has trials of other arguments, or no trial could be trained.
    """
    require_optuna()
    search = _Search.of(split, metric, space, model, random_state)
    require_integer(n_trials, "n_trials", 1)
    problem = search.problem()
    if storage is not None and (plain := re.search(r'[^\s=(\[]+ object (?:"[^"]*" )?at 0x\w+>?', problem)):
        # This repr has an address, so it never repeats.
        raise ValueError(
            f"storage: the solver {plain[0]} has no repr of its own; give its class a __repr__, or leave out storage"
        )
    study = _study(storage, problem)
    reason = _run_trials(search, study, n_trials, show_progress)
    if not _ended(study, ["COMPLETE"]):
        if reason is None:  # no trial ended in this call
            raise ValueError(f"no trial of {n_trials} has a score: all trials in storage were stopped; raise n_trials")
        raise ValueError(f"no trial of {n_trials} could be trained: {reason}")
    return Tuned(study, metric, search.fixed)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The result of `tune`.

    Attributes
    ----------
    study : optuna.Study
        The trials, for Optuna's own functions, such as `optuna.visualization`.
    metric : str
        Metric and cut-off that were searched for.
    fixed : dict
        The parameters of the model before the search. The best trial replaces those that were searched.
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
        """The parameters of the best trial. `iterations` is the number of its best sweep."""
        best = self.study.best_trial
        return {**best.params, "iterations": _best_sweep(best)[1]}

    def model(self) -> AlternatingLeastSquares:
        """Return the model of the best trial, not fitted: use it as ``tuned.model().fit(plays)``.

        Returns
        -------
        AlternatingLeastSquares
        """
        return AlternatingLeastSquares(**{**self.fixed, **self.best_params})

    def command(self, path: str | os.PathLike[str], output: str | os.PathLike[str] = "model.als") -> str:
        """Return the command line that trains the model of the best trial.

        Parameters
        ----------
        path : str or path
            File of the plays to train on.
        output : str or path
            File to which the command writes the model.

        Returns
        -------
        str

        Raises
        ------
        ValueError
            A parameter has a value that the command line cannot take, such as a solver object.
        """
        return train_command(self.model(), path, output)

    def table(self) -> pd.DataFrame:
        """Return the trials that have ended, best first.

        Returns
        -------
        DataFrame
            A row for each trial. Columns: `trial` (a number from 0), the metric after the best sweep, `pruned` (whether
            the trial stopped early), `seconds`, the parameters, and `iterations` (the number of the best sweep).
        """
        rows = [
            {
                "trial": trial.number,
                self.metric: score,
                "pruned": trial.state.name == "PRUNED",
                "seconds": trial.duration and trial.duration.total_seconds(),
                **trial.params,
                "iterations": iterations,
            }
            for trial in _ended(self.study)
            for score, iterations in [_best_sweep(trial)]
        ]
        return pd.DataFrame(rows).sort_values(self.metric, ascending=False, kind="stable", ignore_index=True)

    def plot(self) -> "Figure":
        """Draw the scores of the trials over each parameter that was searched.

        Returns
        -------
        matplotlib Figure
            A notebook shows it; ``figure.savefig("tuned.png")`` saves it.

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
    """Raise an ImportError that says how to install Optuna if it is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ImportError("tune needs Optuna: pip install 'alscore[tune]'") from error


@dataclasses.dataclass(frozen=True, eq=False)
class _Search:
    """The verified arguments of `tune` that decide what its trials are.

    Attributes
    ----------
    train : sparse matrix or Interactions
        The part to train on.
    scorer : Validator
        Scores a model on the other parts.
    fixed : dict
        Parameters of the model; those of `space` replace them.
    """

    train: Any
    scorer: Validator
    metric: str
    space: Mapping[str, Any]
    fixed: dict[str, Any]
    random_state: int

    @classmethod
    def of(
        cls, split: Any, metric: str, space: Any, model: AlternatingLeastSquares | None, random_state: int
    ) -> "_Search":
        scorer = validator(split, metric)
        scorer.refuse(split[0])
        require_integer(random_state, "random_state", 0)
        model = AlternatingLeastSquares() if model is None else model
        if not isinstance(model, AlternatingLeastSquares):
            raise TypeError(f"model must be an AlternatingLeastSquares, not {type(model).__name__}")
        fixed = model.get_params()
        if fixed["random_state"] is None:
            fixed["random_state"] = random_state
        require_integer(fixed["random_state"], "random_state of the model", 0)
        require(isinstance(space, Mapping) and len(space) > 0, "space", "a dict of at least one parameter", space)
        for name, values in space.items():
            _distribution(name, values)
        return cls(split[0], scorer, metric, space, fixed, random_state)

    def problem(self) -> str:
        """Return a text that is the same for the same search. The number of threads is not part of it."""
        data = _checksums(matrix_of(self.train), self.scorer.train, self.scorer.test)
        model = AlternatingLeastSquares(**{**self.fixed, "num_threads": 0})
        return f"{self.metric} of {data}, {model}, {dict(self.space)}"

    def ask(self, study: "optuna.Study", number: int) -> "optuna.Trial":
        """Draw the parameters of trial `number`."""
        import optuna

        # Each trial has its own seed, so a search that continues from a file draws the same as one without a break.
        seed = int(np.random.SeedSequence((self.random_state, number)).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        return study.ask({name: _distribution(name, values) for name, values in self.space.items()})

    def best_score(self, trial: "optuna.Trial") -> float:
        """Train the model of a trial. Return its best score, or raise optuna.TrialPruned."""
        import optuna

        scores: list[float] = []

        def score_sweep(model: AlternatingLeastSquares) -> float:
            scores.append(self.scorer(model))
            trial.report(scores[-1], len(scores) - 1)
            if trial.should_prune():
                raise optuna.TrialPruned
            return scores[-1]

        model = AlternatingLeastSquares(**{**self.fixed, **trial.params})
        require_integer(model.iterations, "iterations", 1)
        model.fit(self.train, show_progress=False, validation=score_sweep)
        return max(scores)


def _run_trials(search: _Search, study: "optuna.Study", n_trials: int, show_progress: bool) -> str | None:
    """Run trials until `n_trials` have ended or Ctrl-C. Return why the last trial without a result failed, if any."""
    import optuna

    states = optuna.trial.TrialState
    n_ended, reason = len(_ended(study)), None
    with tqdm(total=n_trials, initial=n_ended, unit="trial", disable=not show_progress) as progress:
        try:
            for number in range(n_ended, n_trials):
                trial = search.ask(study, number)
                try:
                    study.tell(trial, search.best_score(trial))
                except (optuna.TrialPruned, NotPositiveDefiniteError, FloatingPointError) as error:
                    reason = str(error)
                    study.tell(trial, state=states.PRUNED)
                except BaseException:
                    study.tell(trial, state=states.FAIL)
                    raise
                progress.update()
                if _ended(study, ["COMPLETE"]):
                    progress.set_postfix({search.metric: f"{study.best_value:.4f}"})
        except KeyboardInterrupt:
            if not _ended(study):
                raise
    return reason


def _distribution(name: str, values: Any) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    parameters = AlternatingLeastSquares().get_params()
    if name not in parameters:
        raise ValueError(
            f"space has {name!r}, which is not a parameter of the model; parameters: {', '.join(parameters)}"
        )
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


def _checksums(*matrices: sparse.csr_array) -> str:
    """Return a text that differs for different matrices: their sizes and CRC-32."""
    return " + ".join(
        f"{matrix.nnz} in {matrix.shape} "
        f"({zlib.crc32(matrix.data, zlib.crc32(matrix.indices, zlib.crc32(matrix.indptr))):08x})"
        for matrix in matrices
    )


def _study(storage: str | os.PathLike[str] | None, problem: str) -> "optuna.Study":
    """Create a study of `problem`, or open the one in `storage`."""
    import optuna

    database = None
    if storage is not None:
        from sqlalchemy.pool import NullPool

        with open(storage, "ab+") as file:
            file.seek(0)
            require(file.read(16) in (b"", b"SQLite format 3\0"), "storage", "an SQLite file, or a new one", storage)
        # A pool would not close its connections, and from Python 3.13 on the garbage collector warns of them.
        options = {"poolclass": NullPool}
        database = optuna.storages.RDBStorage(f"sqlite:///{os.fspath(storage)}", engine_kwargs=options)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # otherwise it logs that the study exists
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
    stored = study.user_attrs.get("problem", problem)
    if stored != problem:
        raise ValueError(
            f"storage: {storage} belongs to another search: {_difference(stored, problem)}; give another file"
        )
    study.set_user_attr("problem", problem)
    return study


def _difference(stored: str, problem: str) -> str:
    """Describe how two texts of `_Search.problem` differ."""
    form = re.compile(r"(?P<metric>\S+) of (?P<data>.+?), \w+\((?P<model>.*)\), {(?P<space>.*)}", re.DOTALL)
    before, now = form.fullmatch(stored), form.fullmatch(problem)
    if not (before and now):
        return f"stored {stored}"
    differences = []
    for part in form.groupindex:
        if before[part] == now[part]:
            continue
        if part == "data":
            differences.append("it has other data")
            continue
        was, is_now = (re.split(r", (?=\w+=|'\w+': )", match[part]) for match in (before, now))
        lost = ", ".join(each for each in was if each not in is_now) or "-"
        new = ", ".join(each for each in is_now if each not in was) or "-"
        how = "has another order" if lost == new else f"differs (stored: {lost}; now: {new})"
        differences.append(f"its {part} {how}")
    return ", ".join(differences)


def _ended(study: "optuna.Study", states: Sequence[str] = ("COMPLETE", "PRUNED")) -> list["optuna.trial.FrozenTrial"]:
    """Return the trials in these states. By default: the trials that completed or were pruned."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in states]


def _best_sweep(trial: "optuna.trial.FrozenTrial") -> tuple[float, int]:
    """Return the best score of a trial and the number of sweeps it took; NaN and 0 if there is no score."""
    scores = trial.intermediate_values
    best = max(sorted(scores), key=scores.__getitem__, default=-1)
    return scores.get(best, math.nan), best + 1
