"""Contenders in training, each given the same objective in its own terms, and the process in which each one runs.

Every contender minimises the sum over all users u and items i of ``c_ui (p_ui - x_u . y_i)**2`` plus ``λ |x_u|**2`` and
``λ |y_i|**2``. For the entries r of `plays`, c = 1 + α r and p = 1; elsewhere c = 1 and p = 0. Training starts from the
given item factors and from user factors of 0, and solves users first. All contenders use float32, the same number of
threads, the BLAS settings that suit them, and 3 steps of conjugate gradient. To add a contender, write one function and
its entries in CONTENDERS.

As a script, ``contenders.py FOLDER NAME`` is the process of one contender. It runs under any interpreter (Python 3.8 or
later) that has numpy, scipy and the contender's package. It imports alscore only for contenders of ours.

FOLDER holds settings.json, plays.npz (CSR, float32) and start.npy, the initial item factors. Each line on stdout is a
JSON document. The first has "package", "version" and "python". One more follows after each of settings["times"] sweeps,
with "seconds" and "peak_bytes", the peak of resident memory above its size when the input had been loaded (null if the
system does not tell it).

If settings["keep"] is true, the factors lie in FOLDER/NAME.X.npy and FOLDER/NAME.Y.npy when the line appears, and the
next sweep waits for a line on stdin. If settings["warm_up"] is true, the process first makes a sweep that it does not
report.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from alscore._support.arrays import Floats

CG_STEPS = 3  # steps of conjugate gradient for each row, of every contender
_CMFREC_VERSION = "3.5.1.post14"  # `_cmfrec` calls a C function of this version's compiled module


def _alscore(solver: str, plays: Any, start: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    from alscore import solvers
    from alscore._data.canonical import canonical_csr
    from alscore._support.threads import one_blas_thread
    from alscore.solvers.half_sweeps import Side, zero_factors
    from alscore.solvers.objective import Objective
    from alscore.solvers.training import Training

    resolved, objective = solvers.resolve(solver), Objective(settings["regularization"], settings["alpha"])
    canonical = canonical_csr(plays)

    def measurements() -> Iterator[Any]:
        users = Side.of("user", objective, canonical, start.shape[1], settings["threads"])
        initial = zero_factors(len(start), start.shape[1], start.dtype)
        initial[:] = start
        training = Training.afresh(users, initial, resolved)

        def sweep(number: int) -> None:
            if number == 0:  # `_timed` restores the initial factors after the sweep that warms up
                training.restart()
            training.sweep()

        with one_blas_thread():
            yield from _timed(sweep, training.X, training.Y, settings)

    return measurements()


def _implicit(use_cg: bool, plays: Any, start: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    """A sweep is a `fit` of one iteration, because `fit` continues from factors that the model has.

    The seconds are those that implicit reports. They exclude the transposition, which each `fit` repeats.
    """
    import threadpoolctl
    from implicit.cpu.als import AlternatingLeastSquares

    confidences = _weights(plays, settings)
    confidences.data += 1
    with threadpoolctl.threadpool_limits(1, "blas"):  # several times slower otherwise; implicit warns of it
        model = AlternatingLeastSquares(
            factors=start.shape[1], regularization=settings["regularization"], alpha=1.0, dtype=np.float32,
            use_cg=use_cg, iterations=1, num_threads=settings["threads"],
        )  # fmt: skip
        model.cg_steps = CG_STEPS
        X, Y = model.user_factors, model.item_factors = _initial_factors(plays, start)

        def sweep(_: int) -> float:
            seconds: list[float] = []
            model.fit(confidences, show_progress=False, callback=lambda _, elapsed, __: seconds.append(elapsed))
            return seconds[0]

        yield from _timed(sweep, X, Y, settings)


def _irspack(solver: str, plays: Any, start: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    """The compiled trainer, without the recommender around it: the recommender would choose the initial factors.

    The loss "original" has c = alpha0 + value for entries and c = alpha0 elsewhere. With nu = 0 the regularization is
    not scaled by the number of entries. quality.py sets other values of alpha0 and nu. iALS++ keeps irspack's default
    block of 64 factors.
    """
    from irspack.recommenders import _ials_core as core

    model = (
        core.IALSModelConfigBuilder()
        .set_K(start.shape[1]).set_init_stdev(0.0).set_loss_type(core.LossType.ORIGINAL)
        .set_alpha0(settings.get("unobserved_weight", 1.0)).set_reg(settings["regularization"])
        .set_nu(settings.get("regularization_exponent", 0.0))
        .build()
    )  # fmt: skip
    steps = (
        core.IALSSolverConfigBuilder()
        .set_solver_type(getattr(core.SolverType, solver)).set_max_cg_steps(CG_STEPS)
        .set_ialspp_iteration(1).set_ialspp_subspace_dimension(64).set_n_threads(settings["threads"])
        .build()
    )  # fmt: skip
    trainer = core.IALSTrainer(model, _weights(plays, settings))
    trainer.user, trainer.item = _initial_factors(plays, start)
    # trainer.user and trainer.item are views of the arrays that the trainer works on
    yield from _timed(lambda _: trainer.step(steps), trainer.user, trainer.item, settings)


def _cmfrec(use_cg: bool, plays: Any, start: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    """The half-sweep of the compiled module, called by its C name.

    cmfrec's Python interface takes no initial factors and no callback between sweeps. Its `fit` calls this function for
    each half-sweep with these arguments, items before users.

    Its conjugate gradient minimises another function. The residual that it starts a row with has the sum of
    α r y - (1 + α r) (x . y) y over the row's entries, where the gradient of the objective has
    (1 + α r) y - α r (x . y) y. No choice of values makes the two equal.
    """
    installed = importlib.metadata.version("cmfrec")
    if installed != _CMFREC_VERSION:  # the C function may take other arguments there
        raise ImportError(
            f"cmfrec {installed} is installed, but only {_CMFREC_VERSION} can be called: "
            f"pip install cmfrec=={_CMFREC_VERSION}"
        )
    from cmfrec import wrapper_float

    k, threads = start.shape[1], settings["threads"]
    floats, ints, sizes = (np.ctypeslib.ndpointer(t, flags="C_CONTIGUOUS") for t in (np.float32, np.int32, np.uintp))
    integer, size, real, flag = ctypes.c_int, ctypes.c_size_t, ctypes.c_float, ctypes.c_bool
    optimize = ctypes.CDLL(wrapper_float.__file__).optimizeA_implicit
    optimize.restype = None
    optimize.argtypes = [
        floats, size, floats, size, integer, integer, integer, sizes, ints, floats, real, real, integer, flag,
        flag, flag, integer, flag, integer, floats, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p),
    ]  # fmt: skip
    gram, scratch = np.empty((k, k), np.float32), np.empty((threads, k * (k + 3)), np.float32)
    scratch_of_threads = (ctypes.c_void_p * threads)(*(row.ctypes.data for row in scratch))
    users = _weights(plays, settings)
    X, Y = _initial_factors(plays, start)
    sides = [
        (rows.indptr.astype(np.uintp), rows.indices.astype(np.int32, copy=False), rows.data, out, fixed)
        for rows, out, fixed in ((users, X, Y), (users.T.tocsr(), Y, X))
    ]

    def sweep(_: int) -> None:
        for indptr, indices, weights, out, fixed in sides:
            optimize(
                out, k, fixed, k, len(out), len(fixed), k, indptr, indices, weights, settings["regularization"], 0.0,
                threads, True, use_cg, False, CG_STEPS, False, 0, gram, None, scratch_of_threads,
            )  # fmt: skip

    yield from _timed(sweep, X, Y, settings)


def _lenskit(_: None, plays: Any, start: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    """The trainer, epoch by epoch, with our matrix and initial factors in place of those that it would make."""
    from lenskit import parallel
    from lenskit.als import ImplicitMFScorer
    from lenskit.als._implicit import ImplicitMFTrainer
    from lenskit.training import TrainingOptions

    class Trainer(ImplicitMFTrainer):  # type: ignore[misc]
        def prepare_matrix(self, data: Any) -> Any:
            return sparse.coo_array(_weights(plays, settings))

        def initialize_params(self, data: Any) -> None:
            self.scorer.user_embeddings, self.scorer.item_embeddings = _initial_factors(plays, start)

    parallel.initialize(threads=settings["threads"], backend_threads=settings["threads"])
    scorer = ImplicitMFScorer(embedding_size=start.shape[1], regularization=settings["regularization"])
    trainer = Trainer(scorer, types.SimpleNamespace(users=None, items=None), TrainingOptions())
    yield from _timed(lambda _: trainer.train_epoch(), scorer.user_embeddings, scorer.item_embeddings, settings)


def _buffalo(optimizer: str, plays: Any, start: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    """The compiled ALS, without the database file that buffalo reads its data from, and without the loss."""
    if start.shape[1] >= 128 and optimizer != "ialspp":
        raise ValueError("with 128 factors or more buffalo always runs iALS++: use buffalo-ialspp")
    from buffalo.algo._als import CyALS
    from buffalo.algo.options import ALSOption

    options = {
        **ALSOption().get_default_option(),
        "d": start.shape[1], "num_workers": settings["threads"], "optimizer": optimizer, "num_cg_max_iters": CG_STEPS,
        "reg_u": settings["regularization"], "reg_i": settings["regularization"], "alpha": settings["alpha"],
        "compute_loss_on_training": False, "evaluation_on_learning": False,
    }  # fmt: skip
    model = CyALS()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(options, file)
        file.flush()
        model.init(file.name.encode())
    X, Y = _initial_factors(plays, start)
    model.initialize_model(X, Y)
    sides = [  # buffalo takes the end of each row: indptr without the leading 0
        (len(out), rows.indptr[1:].astype(np.int64), rows.indices.astype(np.int32, copy=False), rows.data)
        for rows, out in ((plays, X), (plays.T.tocsr(), Y))
    ]

    def sweep(_: int) -> None:
        for axis, (n_rows, ends, indices, values) in enumerate(sides):
            model.precompute(axis)
            model.partial_update(0, n_rows, ends, indices, values, axis)

    yield from _timed(sweep, X, Y, settings)


def _timed(sweep: Callable[[int], float | None], X: Floats, Y: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    """Call ``sweep(number)``, from 0 on. Seconds are those that it returns, or else those of the call."""
    if settings["warm_up"]:
        start = Y.copy()
        sweep(0)
        X[:], Y[:] = 0, start
    for number in range(settings["times"]):
        began = time.perf_counter()
        reported = sweep(number)
        yield reported or time.perf_counter() - began, {"X": X, "Y": Y}


def _initial_factors(plays: Any, start: Floats) -> tuple[Floats, Floats]:
    return np.zeros((plays.shape[0], start.shape[1]), np.float32), start.astype(np.float32)


def _weights(plays: Any, settings: dict[str, Any]) -> Any:
    """α r for each entry: its confidence minus 1, the confidence of pairs that are not entries."""
    return sparse.csr_matrix((np.float32(settings["alpha"]) * plays.data, plays.indices, plays.indptr), plays.shape)


class TrainingContender(NamedTuple):
    """A way to train.

    ``run(variant, plays, start, settings)`` returns an iterator that gives (seconds, {"X": user factors, "Y": item
    factors}) after each sweep; the factors may be the arrays that training works on. Memory is measured while the
    iterator runs, not while `run` prepares it. `module` is the module that does the work. `exact` is true if a sweep
    solves every row exactly. `note` says how to read the contender's figures.
    """

    module: str
    run: Callable[..., Iterator[Any]]
    variant: Any
    exact: bool = False
    note: str = ""

    @property
    def package(self) -> str:
        """The package that must be installed."""
        return self.module.partition(".")[0]


_FORGETS = "forgets the random start before it first solves the items; the peers' conjugate gradients continue from it"
_NO_FMA = "irspack's wheel is built for AVX, without AVX2 and FMA"
_OTHER_OBJECTIVE = (
    "its conjugate gradient weights the target of an entry by α r instead of 1 + α r, and the prediction by 1 + α r "
    "instead of α r, and so reaches another minimum"
)

CONTENDERS = {
    "alscore-cholesky": TrainingContender("alscore.als", _alscore, "cholesky", exact=True),
    "alscore-cg": TrainingContender("alscore.als", _alscore, "cg", note=_FORGETS),
    "alscore-auto": TrainingContender("alscore.als", _alscore, "auto", note=_FORGETS),
    "implicit-cholesky": TrainingContender("implicit.cpu.als", _implicit, False, exact=True),
    "implicit-cg": TrainingContender("implicit.cpu.als", _implicit, True),
    "irspack-cholesky": TrainingContender(
        "irspack.recommenders._ials_core", _irspack, "CHOLESKY", exact=True, note=_NO_FMA
    ),
    "irspack-cg": TrainingContender("irspack.recommenders._ials_core", _irspack, "CG", note=_NO_FMA),
    "irspack-ialspp": TrainingContender("irspack.recommenders._ials_core", _irspack, "IALSPP", note=_NO_FMA),
    "cmfrec-cholesky": TrainingContender("cmfrec.wrapper_float", _cmfrec, False, exact=True),
    "cmfrec-cg": TrainingContender("cmfrec.wrapper_float", _cmfrec, True, note=_OTHER_OBJECTIVE),
    "lenskit": TrainingContender("lenskit.als", _lenskit, None, exact=True),
    "buffalo-cholesky": TrainingContender("buffalo.algo._als", _buffalo, "llt", exact=True),
    "buffalo-cg": TrainingContender("buffalo.algo._als", _buffalo, "manual_cg"),
    "buffalo-ialspp": TrainingContender("buffalo.algo._als", _buffalo, "ialspp"),
}


def speak(folder: str, name: str, module: str, prepare: Callable[[dict[str, Any]], Iterator[Any]]) -> None:
    """Run as the process of one contender; the docstring of this module describes what it reads and writes.

    ``prepare(settings)`` returns an iterator that gives seconds and a dict of the arrays to keep: the key K stands for
    the file NAME.K.npy. `module` is imported before memory is measured.
    """
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what packages print must not appear among the documents

    def say(**document: Any) -> None:
        print(json.dumps(document), file=channel, flush=True)

    package = module.partition(".")[0]
    importlib.import_module(module)
    ours = package == "alscore"  # alscore need not be installed as a distribution
    version = sys.modules[package].__version__ if ours else importlib.metadata.version(package)
    say(package=package, version=version, python=platform.python_version())
    settings = json.loads(Path(folder, "settings.json").read_text())
    measurements = prepare(settings)
    before = _peak() if _forget_peak() else None
    for seconds, arrays in measurements:
        peak_bytes = None if before is None else _peak() - before
        if settings["keep"]:
            for ending, array in arrays.items():
                np.save(Path(folder, f"{name}.{ending}.npy"), array)
        say(seconds=seconds, peak_bytes=peak_bytes)
        if settings["keep"]:
            sys.stdin.readline()


def _forget_peak() -> bool:
    """Reset the peak of resident memory to the present size. Return False if the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak() -> int:
    """Return the peak of resident memory in bytes."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def main(folder: str, name: str) -> None:
    """Run one contender."""
    contender = CONTENDERS[name]

    def prepare(settings: dict[str, Any]) -> Iterator[Any]:
        plays, start = sparse.load_npz(Path(folder, "plays.npz")), np.load(Path(folder, "start.npy"))
        return contender.run(contender.variant, plays, start, settings)

    speak(folder, name, contender.module, prepare)


if __name__ == "__main__":
    main(*sys.argv[1:])
