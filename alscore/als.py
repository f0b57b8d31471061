"""AlternatingLeastSquares: the parameters of a model, and how it is fitted."""

import copy
import functools
import math
import numbers
import os
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Self

import numpy as np
from tqdm import tqdm

from alscore import solvers
from alscore._data import container
from alscore._data.user_items import matrix_of
from alscore._support.arrays import Floats
from alscore._support.checks import require_integer
from alscore._support.interrupts import deferred_interrupt
from alscore._support.threads import one_blas_thread
from alscore.metrics.estimator import Estimator
from alscore.retrieval.factors import Factors, frozen
from alscore.retrieval.factors import NotFittedError as NotFittedError
from alscore.retrieval.fold_in_model import FoldInModel
from alscore.solvers.half_sweeps import Side
from alscore.solvers.objective import Objective
from alscore.solvers.training import Training, initial_factors

Callback = Callable[[int, float, float], Any]


class AlternatingLeastSquares(Estimator, FoldInModel):
    """Matrix factorisation of implicit feedback by alternating least squares (Hu, Koren, Volinsky 2008).

    An entry r > 0 says that the user chose the item. An entry r < 0 says that the user rejected it. The confidence c of
    an entry grows with ``abs(r)``. An explicit 0 is the same as no entry. User factors x_u and item factors y_i
    minimise ::

        sum_ui c_ui (p_ui - x_u . y_i)**2  +  sum_u λ_u |x_u|**2  +  sum_i λ_i |y_i|**2

    with the preference p = 1 where r > 0 and p = 0 elsewhere.

    Parameters
    ----------
    factors : int
        Length k of every factor vector, at least 1.
    regularization : float
        λ, at least 0. Directions of the fixed side whose eigenvalue is only rounding, for example where there are more
        factors than items, get a small ridge: 16 eps of the largest eigenvalue in float32, 1e-12 of it in float64. The
        ridge keeps rows near 0 in these directions, also with λ = 0.
    alpha : float
        Scale of the confidence, above 0.
    iterations : int
        Number of sweeps at most. A sweep solves all users, then all items.
    solver : str or object
        One of:

        - "cholesky": exact.
        - "cg": a few steps of conjugate gradient.
        - "auto": exact, except for long rows of many factors, which get conjugate gradient.
        - "nonnegative": exact among factors >= 0.
        - the name of an installed plug-in, or an object: see `alscore.solvers`.
    dtype : numpy dtype
        float32 or float64: the dtype of the factors and of the arithmetic on rows. Gram matrices, eigenvectors and the
        loss are always computed in float64.
    confidence : {"linear", "log", "raw"}
        The confidence of an entry. "linear": c = 1 + α abs(r). "log": c = 1 + α log(1 + abs(r) / ε). "raw":
        c = α abs(r), for values that are confidences already.
    unobserved_weight : float
        α0, the confidence where there is no entry, at least 0.
    regularization_exponent : float
        ν in λ_u = λ (n_u + α0 n_items)**ν for a user with n_u entries; items likewise (Rendle et al. 2021). With ν = 0
        all rows have λ.
    regularization_count : {"all", "entries"}
        What the size of a row counts. "all": n_u + α0 n_items, as above. "entries": n_u, as in λ_u = λ n_u**ν (Zhou et
        al. 2008). With "entries" and ν = 1 the objective is that of Spark's MLlib.
    tol : float, optional
        Stop after a sweep that lowers the objective by less than this fraction. At least 0 and below 1.
    calculate_training_loss : bool
        Compute the objective after each sweep and show it in the progress bar. `tol` and a callback compute it too.
    num_threads : int
        Number of threads. 0 takes all CPUs that this process may use. The result has the same bits for any number.
    random_state : None, int, numpy Generator or RandomState
        Seed or generator of the initial item factors.
    epsilon : float
        ε of the "log" confidence, in the unit of the values, above 0.
    warm_start : bool
        Whether another `fit` continues from the present factors, as `partial_fit` does.

    Attributes
    ----------
    user_factors : array (n_users, factors)
    item_factors : array (n_items, factors)
        None before `fit`. Read-only. The basis is canonical: ``item_factors.T @ item_factors`` is diagonal with
        descending numbers, and in each column of `item_factors` the number of largest magnitude is positive. Solvers
        that ask for the original basis keep it. Factors from elsewhere can be assigned, in any basis. They are copied,
        unless the array is read-only already.
    training_loss : list of float
        The objective after each sweep of the last `fit` or `partial_fit`, if it was computed.
    validation_scores : list of float
        The validation score after each sweep of the last `fit`, if it had a `validation`.

    Examples
    --------
    >>> from alscore import AlternatingLeastSquares, datasets
    >>> user_items = datasets.synthetic(500, 300, seed=0).matrix
    >>> model = AlternatingLeastSquares(factors=16, random_state=0).fit(user_items, show_progress=False)
    >>> ids, scores = model.recommend([7, 8], user_items[[7, 8]], N=5)
    >>> ids.shape, scores.dtype
    ((2, 5), dtype('float32'))
    """

    def __init__(
        self,
        factors: int = 100,
        regularization: float = 0.01,
        alpha: float = 1.0,
        iterations: int = 15,
        solver: Any = "auto",
        dtype: Any = np.float32,
        confidence: str = "linear",
        unobserved_weight: float = 1.0,
        regularization_exponent: float = 0.0,
        tol: float | None = None,
        calculate_training_loss: bool = False,
        num_threads: int = 0,
        random_state: Any = None,
        epsilon: float = 1.0,
        warm_start: bool = False,
        regularization_count: str = "all",
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.alpha = alpha
        self.iterations = iterations
        self.solver = solver
        self.dtype = dtype
        self.confidence = confidence
        self.unobserved_weight = unobserved_weight
        self.regularization_exponent = regularization_exponent
        self.tol = tol
        self.calculate_training_loss = calculate_training_loss
        self.num_threads = num_threads
        self.random_state = random_state
        self.epsilon = epsilon
        self.warm_start = warm_start
        self.regularization_count = regularization_count
        self.training_loss: list[float] = []
        self.validation_scores: list[float] = []

    def _checked(self, iterations: Any, show_progress: Any) -> tuple[Objective, np.dtype, Any]:
        if np.ndim(show_progress) > 0:  # scikit-learn passes y in this place
            raise TypeError("show_progress must be True or False, not an array: fit takes no y")
        require_integer(self.factors, "factors", 1)
        require_integer(iterations, "iterations", 0)
        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            dtype = np.dtype(object)
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, not {self.dtype!r}")
        if self.tol is not None and not (isinstance(self.tol, numbers.Real) and 0 <= self.tol < 1):
            raise ValueError(f"tol must be None, or at least 0 and below 1, not {self.tol!r}")
        return self._objective(), dtype, solvers.resolve(self.solver)

    def _initial_factors(self, n_items: int, dtype: np.dtype, solver: Any) -> Floats:
        return initial_factors(n_items, self.factors, dtype, self.random_state, solvers.is_nonnegative(solver))

    def fit(
        self,
        user_items: Any,
        show_progress: bool = True,
        callback: Callback | None = None,
        *,
        validation: Any = None,
    ) -> Self:
        """Factorise the interactions, from random initial factors unless `warm_start` is set.

        Parameters
        ----------
        user_items : sparse matrix, shape (n_users, n_items), or Interactions
            Any scipy format. Repeated entries are summed. The matrix is not modified.
        show_progress : bool
            Show a progress bar.
        callback : function, optional
            Called as ``callback(iteration, seconds, loss)`` after each sweep, with the number of the sweep from 0, its
            duration, and the objective after it.
        validation : (train, test), Split, UserSplit or function, optional
            Held-out data, or a function ``model -> float`` (higher is better). The model is scored after every sweep,
            and the model of the best sweep is kept. Ties: the earliest sweep. Held-out data are scored by NDCG@10; for
            other metrics pass `alscore.tuning.validator`. `user_items` must not contain held-out entries. With a
            UserSplit it must not contain the users of the validation. ::

                split = splits.leave_k_out(plays, 0.2)
                model.fit(split.train, validation=split)

        Returns
        -------
        self

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, at the end of the running half-sweep. The model keeps the factors of that moment, or of the
            best sweep. The same holds for an exception in `callback` or `validation`.
        ValueError, TypeError
            A parameter, the matrix or `validation` is not valid, or they do not belong together. The model keeps the
            factors from before.
        alscore.solvers.NotPositiveDefiniteError, FloatingPointError
            A row cannot be solved. The model keeps the factors from before.
        """
        score = None if validation is None else _score_by(validation, user_items)
        if self.warm_start and self._both != (None, None):
            training = self._continued(user_items, self.iterations, show_progress, callback)
        else:
            objective, dtype, solver = self._checked(self.iterations, show_progress)
            matrix = matrix_of(user_items, dtype=dtype)
            users = Side.of("user", objective, matrix, self.factors, self.num_threads)
            initial = self._initial_factors(matrix.shape[1], dtype, solver)
            training = Training.afresh(users, initial, solver, self._wants_loss(callback))
        return self._train(training, self.iterations, show_progress, callback, score)

    def partial_fit(
        self,
        user_items: Any,
        iterations: int = 1,
        show_progress: bool = True,
        callback: Callback | None = None,
    ) -> Self:
        """Continue training from the present factors, on all entries as they are now.

        New users are solved exactly on the item factors, then new items on the factors of all users. The sweeps over
        all rows follow. At the end the users are solved once more. This half-sweep is worth its time: it brings the
        model nearer to a new fit.

        Parameters
        ----------
        user_items : sparse matrix, shape (n_users, n_items), or Interactions
            Old entries and new ones. The users and items of the model come first, in their order. New users and items
            follow them.
        iterations : int
            Number of sweeps at most. With 0 only new users and items get factors.
        show_progress, callback
            Same as for `fit`.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            The model has no factors.
        ValueError
            `user_items` has fewer rows or columns than the model has users and items, or the parameters `factors` and
            `dtype` are not those of the present factors.
        KeyboardInterrupt, ValueError, TypeError, ArithmeticError
            Same errors as `fit`.
        """
        training = self._continued(user_items, iterations, show_progress, callback)
        return self._train(training, iterations, show_progress, callback, users_last=iterations != 0)

    def _wants_loss(self, callback: Callback | None) -> bool:
        return self.calculate_training_loss or self.tol is not None or callback is not None

    def _continued(self, user_items: Any, iterations: int, show_progress: bool, callback: Callback | None) -> Training:
        """Return the training that continues from the factors of this model."""
        known_users, known_items = self._fitted()
        objective, dtype, solver = self._checked(iterations, show_progress)
        n_users, (n_items, k) = len(known_users.array), known_items.array.shape
        if (k, known_items.array.dtype) != (self.factors, dtype):
            raise ValueError(
                f"cannot continue: the model has factors={k}, {known_items.array.dtype}; the parameters say "
                f"factors={self.factors}, {dtype}. Set them alike, or call fit with warm_start=False"
            )
        matrix = matrix_of(user_items, dtype=dtype)
        if matrix.shape[0] < n_users or matrix.shape[1] < n_items:
            raise ValueError(
                f"user_items has shape {matrix.shape}, less than the {(n_users, n_items)} of the model: pass the "
                "entries of all users and items, those of the model first and in their order"
            )
        return Training.continued(
            Side.of("user", objective, matrix, k, self.num_threads),
            (known_users.array, known_items.array),
            solver,
            functools.partial(known_items.fold_in, self.num_threads),
            functools.partial(self._initial_factors, dtype=dtype, solver=solver) if iterations else None,
            self._wants_loss(callback),
        )

    def _train(
        self,
        training: Training,
        iterations: int,
        show_progress: bool,
        callback: Callback | None,
        score: Callable[[Any], float] | None = None,
        users_last: bool = False,
    ) -> Self:
        """Run up to `iterations` sweeps. With `users_last`, solve the users once more at the end.

        With `score`, keep the factors of the best sweep. An exception of `score` or `callback`, or Ctrl-C, ends the
        training. It is raised after the factors are stored.
        """
        best: tuple[Factors, Factors] | None = None
        scores: list[float] = []
        stopped_by: BaseException | None = None
        with (
            one_blas_thread(),
            deferred_interrupt() as interrupted,
            tqdm(total=iterations, disable=not show_progress, unit="sweep") as progress,
        ):
            for iteration in range(iterations):
                began = time.perf_counter()
                if not training.sweep(interrupted):
                    break
                seconds = time.perf_counter() - began
                try:
                    if score is not None:
                        candidate = copy.copy(self)
                        candidate._both = _as_factors(*training.so_far())
                        scores.append(score(candidate))
                        if scores[-1] > max(scores[:-1], default=-math.inf):
                            best = candidate._both
                    _show(progress, training.losses, scores)
                    if callback is not None:
                        callback(iteration, seconds, training.losses[-1])
                except BaseException as error:
                    stopped_by = error
                    break
                if training.converged(self.tol) or interrupted():
                    break
            if users_last and stopped_by is None and not interrupted():
                training.solve_users()
            self._both = best or _as_factors(*training.finished())
            self.training_loss, self.validation_scores = training.losses, scores
            if interrupted():
                stopped_by = KeyboardInterrupt()
        if stopped_by is not None:
            raise stopped_by
        return self

    def save(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Write parameters and factors to one file, without pickle, for `alscore.load`.

        Parameters
        ----------
        file : str, path or binary file object
            Same as for `alscore.persistence.save`.
        """
        self._write(file)

    def _write(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        container.write(file, *self._parts(), {})

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO) -> Self:
        """Read the model that `save` wrote.

        Parameters
        ----------
        file : str, path or seekable binary file object

        Returns
        -------
        AlternatingLeastSquares

        Raises
        ------
        FormatError, OSError
            Same as for `alscore.load`.
        TypeError
            The file holds something else.
        """
        return container.read(
            file,
            {cls.__name__: cls._restored},
            lambda kind: TypeError(f"{file} holds a {kind}, not a {cls.__name__}: open it with alscore.load"),
        )

    def _parts(self) -> tuple[str, dict[str, Any], dict[str, Floats]]:
        """Return what a file holds: the kind, the parameters for JSON, and the factors by member."""
        factors = {}
        if self._both != (None, None):
            factors = dict(zip(container.FACTORS, (side.array for side in self._fitted()), strict=True))
        return "AlternatingLeastSquares", _params_to_json(self.get_params()), factors

    @classmethod
    def _restored(cls, parts: container.Parts) -> Self:
        model = cls(**_params_from_json(parts.params))
        if container.FACTORS[0] in parts:
            model.user_factors, model.item_factors = (
                parts.array(name, 2, np.float32, np.float64) for name in container.FACTORS
            )
            model._fitted()
        return model


def _params_to_json(params: dict[str, Any]) -> dict[str, Any]:
    seed = params["random_state"]
    return params | {
        "dtype": np.dtype(params["dtype"]).name,
        "solver": solvers.to_json(params["solver"]),
        "random_state": seed if isinstance(seed, int | np.integer) else None,
    }


def _params_from_json(params: dict[str, Any]) -> dict[str, Any]:
    return params | {"dtype": np.dtype(params["dtype"]).type, "solver": solvers.from_json(params["solver"])}


def _as_factors(X: Floats, Y: Floats) -> tuple[Factors, Factors]:
    return Factors(frozen(X), "user_factors"), Factors(frozen(Y), "item_factors")


def _show(progress: Any, losses: list[float], scores: list[float]) -> None:
    """Advance the progress bar by a sweep, with the last loss and the last validation score."""
    shown = {"loss": f"{losses[-1]:.6g}"} if losses else {}
    if scores:
        shown["validation"] = f"{scores[-1]:.4f}"
    progress.set_postfix(shown, refresh=False)
    progress.update()


def _score_by(validation: Any, user_items: Any) -> Callable[[Any], float]:
    """Return `validation` as a function from a model to a finite number."""
    from alscore.metrics.validation import Validator, validator  # here: it imports pandas

    if not callable(validation):
        validation = validator(validation)
    if isinstance(validation, Validator):
        validation.refuse(user_items)

    def score_model(model: Any) -> float:
        score = validation(model)
        if not (isinstance(score, numbers.Real) and math.isfinite(score)):
            raise ValueError(f"validation must return a finite number, not {score!r}")
        return float(score)

    return score_model
