"""The options of ``alscore train`` that set a model's parameters, and the command line that trains a given model."""

import numbers
import os
import shlex
from typing import Any

import numpy as np

MODEL_OPTIONS = (
    ("--factors", "factors", int, "length of the factors"),
    ("--regularization", "regularization", float, "λ"),
    ("--alpha", "alpha", float, "weight of the plays in the confidence"),
    ("--iterations", "iterations", int, "number of sweeps at most"),
    ("--tol", "tol", float, "stop when a sweep lowers the loss by less than this fraction"),
    ("--solver", "solver", str, "cholesky, cg, auto, nonnegative, or the name of an installed plug-in"),
    ("--confidence", "confidence", str, "linear, log or raw"),
    ("--epsilon", "epsilon", float, "unit of the plays in the log confidence"),
    ("--unobserved-weight", "unobserved_weight", float, "confidence of what was not played"),
    ("--regularization-exponent", "regularization_exponent", float, "growth of λ with a row's count"),
    ("--regularization-count", "regularization_count", str, "all: entries, and the others by their weight; or entries"),
    ("--threads", "num_threads", int, "0: all that this process may use"),
    ("--seed", "random_state", int, "of the initial factors"),
    ("--dtype", "dtype", str, "float32 or float64"),
)


def train_command(model: Any, path: str | os.PathLike[str], output: str | os.PathLike[str]) -> str:
    """Return the command line that trains such a model on the file `path` and writes it to `output`.

    Raises
    ------
    ValueError
        The model has a parameter that no command line can give, such as a solver object.
    """
    words = ["alscore", "train", os.fspath(path), "-o", os.fspath(output)]
    params, defaults = (one.get_params() | {"dtype": np.dtype(one.dtype).name} for one in (model, type(model)()))
    for option, parameter, *_ in MODEL_OPTIONS:
        value = params[parameter]
        if value == defaults[parameter]:
            continue
        if not isinstance(value, str | numbers.Real):
            raise ValueError(f"{parameter}={value!r} cannot be given on a command line: use a name or number for it")
        words += [option, str(value)]
    return shlex.join(words)
