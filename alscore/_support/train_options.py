"""The options of ``alscore train`` that set a model's parameters, and the command line that trains a given model.

The command line imports this module at its start: only `train_command` imports numpy, when it is called.
"""

import numbers
import os
import shlex
from typing import Any, NamedTuple


class ModelOption(NamedTuple):
    """An option of the command line, and the parameter of `alscore.AlternatingLeastSquares` that it sets."""

    flag: str
    parameter: str
    kind: type
    help: str


MODEL_OPTIONS = (
    ModelOption("--factors", "factors", int, "length of the factors"),
    ModelOption("--regularization", "regularization", float, "λ"),
    ModelOption("--alpha", "alpha", float, "weight of the plays in the confidence"),
    ModelOption("--iterations", "iterations", int, "maximum number of sweeps"),
    ModelOption("--tol", "tol", float, "stop when a sweep lowers the loss by less than this fraction"),
    ModelOption("--solver", "solver", str, "cholesky, cg, auto, nonnegative, or the name of an installed plug-in"),
    ModelOption("--confidence", "confidence", str, "linear, log or raw"),
    ModelOption("--epsilon", "epsilon", float, "unit of the plays in the log confidence"),
    ModelOption("--unobserved-weight", "unobserved_weight", float, "confidence of items that the user has not played"),
    ModelOption("--regularization-exponent", "regularization_exponent", float, "exponent of a row's count in its λ"),
    ModelOption(
        "--regularization-count", "regularization_count", str,
        "count of a row: entries, or all (entries, and all other pairs by the unobserved weight)",
    ),
    ModelOption("--threads", "num_threads", int, "0: all CPUs that this process may use"),
    ModelOption("--seed", "random_state", int, "seed of the initial factors"),
    ModelOption("--dtype", "dtype", str, "float32 or float64"),
)  # fmt: skip


def train_command(model: Any, path: str | os.PathLike[str], output: str | os.PathLike[str]) -> str:
    """Return the command line that trains such a model on the file `path` and writes it to `output`.

    Raises
    ------
    ValueError
        The model has a parameter that no command line can give, such as a solver object.
    """
    words = ["alscore", "train", os.fspath(path), "-o", os.fspath(output)]
    params, defaults = _params(model), _params(type(model)())
    for option in MODEL_OPTIONS:
        value = params[option.parameter]
        if value == defaults[option.parameter]:
            continue
        if not isinstance(value, str | numbers.Real):
            raise ValueError(
                f"{option.parameter}={value!r} cannot be given on a command line: use a name or number for it"
            )
        words += [option.flag, str(value)]
    return shlex.join(words)


def _params(model: Any) -> dict[str, Any]:
    """Return the parameters of a model, the dtype by its name."""
    import numpy as np

    return {**model.get_params(), "dtype": np.dtype(model.dtype).name}
