"""Contenders in training, each given the same objective in its own terms, and the process that each runs in.

Every contender minimises the sum over all users u and items i of ``c_ui (p_ui - x_u . y_i)**2`` plus ``λ |x_u|**2`` and
``λ |y_i|**2``, with c = 1 + α r and p = 1 for the entries r of `plays`, c = 1 and p = 0 elsewhere. It starts from the
given item factors and user factors of 0, and updates users first. Float32, all threads, BLAS as it wants it, 3 steps of
conjugate gradient. A new contender is one function and its entries in CONTENDERS.

As a script, ``contenders.py FOLDER NAME`` is the process of one contender. It runs under any interpreter (Python 3.8 or
later) that has numpy, scipy and the contender's package: nothing of alscore is imported unless ours runs. FOLDER holds
settings.json, plays.npz (CSR, float32) and start.npy, the first item factors. Each line on stdout is a JSON document:
first "package", "version" and "python"; then after each of settings["times"] sweeps "seconds" and "peak_bytes", the
most memory above what was resident when the input had been loaded, or null where the system cannot tell. Where
settings["keep"] is true the factors lie in FOLDER/NAME.X.npy and FOLDER/NAME.Y.npy when the line appears, and the next
sweep waits for a line on stdin. Where settings["warm_up"] is true a sweep is thrown away before the first.
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

CG_STEPS = 3
_CMFREC = "3.5.1.post14"  # the version whose compiled module `_cmfrec` calls


def _alscore(solver: str, plays: Any, start: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    from alscore import solvers
    from alscore._data.canonical import canonical_csr
    from alscore._support.threads import one_blas_thread
    from alscore.solvers.half_sweeps import Side, alternate, zero_factors
    from alscore.solvers.objective import Objective

    resolved, objective = solvers.resolve(solver), Objective(settings["regularization"], settings["alpha"])
    canonical = canonical_csr(plays)

    def measurements() -> Iterator[Any]:
        users = Side.of("user", objective, canonical, start.shape[1], settings["threads"])
        items = users.transposed("item")
        X, Y = (zero_factors(n, start.shape[1], start.dtype) for n in plays.shape)
        Y[:] = start
        half_sweeps: Iterator[bool]

        def sweep(number: int) -> None:
            nonlocal half_sweeps
            if number == 0:
                half_sweeps = alternate(resolved, users, items, X, Y, random_start=True)
            next(half_sweeps)
            next(half_sweeps)

        with one_blas_thread():
            yield from _timed(sweep, X, Y, settings)

    return measurements()


def _implicit(use_cg: bool, plays: Any, start: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    """Its `fit` goes on from factors that are there, so that a sweep is a `fit` of one iteration.

    The time is the one that it reports: it leaves out the transposition, which each `fit` repeats.
    """
    import threadpoolctl
    from implicit.cpu.als import AlternatingLeastSquares

    confidences = _weights(plays, settings)
    confidences.data += 1
    with threadpoolctl.threadpool_limits(1, "blas"):  # it is several times slower otherwise, and warns of it
        model = AlternatingLeastSquares(
            factors=start.shape[1], regularization=settings["regularization"], alpha=1.0, dtype=np.float32,
            use_cg=use_cg, iterations=1, num_threads=settings["threads"],
        )  # fmt: skip
        model.cg_steps = CG_STEPS
        X, Y = model.user_factors, model.item_factors = _first_factors(plays, start)

        def sweep(_: int) -> float:
            seconds: list[float] = []
            model.fit(confidences, show_progress=False, callback=lambda _, elapsed, __: seconds.append(elapsed))
            return seconds[0]

        yield from _timed(sweep, X, Y, settings)


def _irspack(solver: str, plays: Any, start: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    """Its compiled trainer, without the recommender around it, which would choose the start.

    The loss "original" has c = alpha0 + value where observed and alpha0 elsewhere. With nu = 0 its regularization is
    not scaled by the number of entries. The script of quality asks for others of both. iALS++ keeps the block of 64
    factors that is irspack's default.
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
    trainer.user, trainer.item = _first_factors(plays, start)
    # these two are views of what the trainer works on
    yield from _timed(lambda _: trainer.step(steps), trainer.user, trainer.item, settings)


def _cmfrec(use_cg: bool, plays: Any, start: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    """The half-sweep in its compiled module, called by its C name.

    Its Python interface takes no start, and no callback between sweeps. Its fit calls this function for each half with
    these arguments, items before users. Its conjugate gradient minimises something else: the residual that it starts
    each row from has the sum of α r y - (1 + α r) (x . y) y over the row's entries, where the gradient of the objective
    has (1 + α r) y - α r (x . y) y. No choice of values makes the two the same.
    """
    found = importlib.metadata.version("cmfrec")
    if found != _CMFREC:  # it would get arguments of another function's
        raise ImportError(
            f"cmfrec {found} is installed, but only {_CMFREC} can be called: pip install cmfrec=={_CMFREC}"
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
    X, Y = _first_factors(plays, start)
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
    """Its trainer, epoch by epoch, with the matrix and the start put where it would prepare its own."""
    from lenskit import parallel
    from lenskit.als import ImplicitMFScorer
    from lenskit.als._implicit import ImplicitMFTrainer
    from lenskit.training import TrainingOptions

    class Trainer(ImplicitMFTrainer):  # type: ignore[misc]
        def prepare_matrix(self, data: Any) -> Any:
            return sparse.coo_array(_weights(plays, settings))

        def initialize_params(self, data: Any) -> None:
            self.scorer.user_embeddings, self.scorer.item_embeddings = _first_factors(plays, start)

    parallel.initialize(threads=settings["threads"], backend_threads=settings["threads"])
    scorer = ImplicitMFScorer(embedding_size=start.shape[1], regularization=settings["regularization"])
    trainer = Trainer(scorer, types.SimpleNamespace(users=None, items=None), TrainingOptions())
    yield from _timed(lambda _: trainer.train_epoch(), scorer.user_embeddings, scorer.item_embeddings, settings)


def _buffalo(optimizer: str, plays: Any, start: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    """Its compiled ALS, without the database file that it reads its data from in batches; no loss on the way."""
    if start.shape[1] >= 128 and optimizer != "ialspp":
        raise ValueError("from 128 factors on buffalo runs iALS++ whatever it is asked for: use buffalo-ialspp")
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
    X, Y = _first_factors(plays, start)
    model.initialize_model(X, Y)
    sides = [  # it wants the end of each row, without the 0 before
        (len(out), rows.indptr[1:].astype(np.int64), rows.indices.astype(np.int32, copy=False), rows.data)
        for rows, out in ((plays, X), (plays.T.tocsr(), Y))
    ]

    def sweep(_: int) -> None:
        for axis, (n_rows, ends, indices, values) in enumerate(sides):
            model.precompute(axis)
            model.partial_update(0, n_rows, ends, indices, values, axis)

    yield from _timed(sweep, X, Y, settings)


def _timed(sweep: Callable[[int], float | None], X: Floats, Y: Floats, settings: dict[str, Any]) -> Iterator[Any]:
    """``sweep(number)``, from 0 on; the seconds are those that it returns, if any."""
    if settings["warm_up"]:
        start = Y.copy()
        sweep(0)
        X[:], Y[:] = 0, start
    for number in range(settings["times"]):
        began = time.perf_counter()
        reported = sweep(number)
        yield reported or time.perf_counter() - began, {"X": X, "Y": Y}


def _first_factors(plays: Any, start: Floats) -> tuple[Floats, Floats]:
    return np.zeros((plays.shape[0], start.shape[1]), np.float32), start.astype(np.float32)


def _weights(plays: Any, settings: dict[str, Any]) -> Any:
    """α r, the confidence above that of what is not observed."""
    return sparse.csr_matrix((np.float32(settings["alpha"]) * plays.data, plays.indices, plays.indptr), plays.shape)


class Contender(NamedTuple):
    """``run(variant, plays, start, settings)`` returns an iterator that gives (seconds, {"X": user factors, "Y": item
    factors}) after each sweep; the factors are the ones worked on. The memory of what the iterator does counts, not of
    what `run` does before. `module` does the work. `exact` is a sweep that solves every row, and `note` what its
    figures are to be read with.
    """

    module: str
    run: Callable[..., Iterator[Any]]
    variant: Any
    exact: bool = False
    note: str = ""

    @property
    def package(self) -> str:
        """What must be importable."""
        return self.module.partition(".")[0]


_FORGETS = "forgets the random start before it first solves the items; the peers' conjugate gradients go on from it"
_NO_FMA = "irspack's wheel is built for AVX, without AVX2 and FMA"
_OTHER_OBJECTIVE = (
    "its conjugate gradient weighs the target of an entry α r, not 1 + α r, and its prediction 1 + α r, not α r: it "
    "comes to another minimum"
)

CONTENDERS = {
    "alscore-cholesky": Contender("alscore.als", _alscore, "cholesky", exact=True),
    "alscore-cg": Contender("alscore.als", _alscore, "cg", note=_FORGETS),
    "alscore-auto": Contender("alscore.als", _alscore, "auto", note=_FORGETS),
    "implicit-cholesky": Contender("implicit.cpu.als", _implicit, False, exact=True),
    "implicit-cg": Contender("implicit.cpu.als", _implicit, True),
    "irspack-cholesky": Contender("irspack.recommenders._ials_core", _irspack, "CHOLESKY", exact=True, note=_NO_FMA),
    "irspack-cg": Contender("irspack.recommenders._ials_core", _irspack, "CG", note=_NO_FMA),
    "irspack-ialspp": Contender("irspack.recommenders._ials_core", _irspack, "IALSPP", note=_NO_FMA),
    "cmfrec-cholesky": Contender("cmfrec.wrapper_float", _cmfrec, False, exact=True),
    "cmfrec-cg": Contender("cmfrec.wrapper_float", _cmfrec, True, note=_OTHER_OBJECTIVE),
    "lenskit": Contender("lenskit.als", _lenskit, None, exact=True),
    "buffalo-cholesky": Contender("buffalo.algo._als", _buffalo, "llt", exact=True),
    "buffalo-cg": Contender("buffalo.algo._als", _buffalo, "manual_cg"),
    "buffalo-ialspp": Contender("buffalo.algo._als", _buffalo, "ialspp"),
}


def speak(folder: str, name: str, module: str, prepare: Callable[[dict[str, Any]], Iterator[Any]]) -> None:
    """Be the process of one contender, as the docstring of this module says.

    ``prepare(settings)`` returns an iterator that gives seconds, and by the endings of their files' names the arrays to
    keep. `module` is imported before memory is measured.
    """
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what packages print must not get among the documents

    def say(**document: Any) -> None:
        print(json.dumps(document), file=channel, flush=True)

    package = module.partition(".")[0]
    importlib.import_module(module)
    ours = package == "alscore"  # which need not be installed
    version = sys.modules[package].__version__ if ours else importlib.metadata.version(package)
    say(package=package, version=version, python=platform.python_version())
    settings = json.loads(Path(folder, "settings.json").read_text())
    measurements = prepare(settings)
    before = _peak() if _forget_peak() else None
    for seconds, arrays in measurements:
        at_most = None if before is None else _peak() - before
        if settings["keep"]:
            for ending, array in arrays.items():
                np.save(Path(folder, f"{name}.{ending}.npy"), array)
        say(seconds=seconds, peak_bytes=at_most)
        if settings["keep"]:
            sys.stdin.readline()


def _forget_peak() -> bool:
    """Let the peak of resident memory be what is resident now, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak() -> int:
    """The peak of resident memory, in bytes."""
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
