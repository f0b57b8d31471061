"""A model in one file: a zip of plain arrays, Arrow labels and a JSON manifest. Nothing in it is executed.

Its members are stored, not deflated:

    user_factors.npy, item_factors.npy      if fitted
    indptr.npy, indices.npy, data.npy       the interactions as CSR, if a fitted Recommender
    users.arrow, items.arrow                their labels, Arrow IPC streams of one column
    manifest.json                           format, versions, kind, parameters, SHA-256 of each other member
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from scipy import sparse

from alscore import __version__, solvers
from alscore._files import atomic_writer

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from alscore.als import AlternatingLeastSquares
    from alscore.recommender import Recommender

FORMAT = "alscore"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
FACTORS = ("user_factors.npy", "item_factors.npy")
MATRIX = ("indptr.npy", "indices.npy", "data.npy")
LABELS = ("users.arrow", "items.arrow")


class FormatError(ValueError):
    """A file that is not a whole and unaltered alscore model which this version can read."""


def save(obj: "Recommender | AlternatingLeastSquares", file: str | os.PathLike[str] | BinaryIO) -> None:
    """Write a model to one file, without pickle.

    Equal models give equal bytes. Not kept: a `random_state` that is a generator (it becomes None), and the
    `report` of the interactions.

    Parameters
    ----------
    obj : Recommender or AlternatingLeastSquares
        Fitted or not.
    file : str, path or binary file object
        A path is replaced once the new file is whole and on the disk; a file object is written to directly.

    Raises
    ------
    TypeError
        Another `obj`, labels that Arrow has no type for, or a solver object that goes by no installed name.
    ValueError
        Factors were assigned that do not fit each other, or to one side alone.
    """
    from alscore.als import AlternatingLeastSquares
    from alscore.recommender import Recommender

    if isinstance(file, str | os.PathLike):
        with atomic_writer(file) as opened:
            return save(obj, opened)

    model, interactions = (obj.model, obj.interactions) if isinstance(obj, Recommender) else (obj, None)
    if not isinstance(model, AlternatingLeastSquares):
        raise TypeError(f"can save a Recommender or an AlternatingLeastSquares, not {type(model).__name__}")

    digests: dict[str, str] = {}
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "alscore_version": __version__,
        "kind": "AlternatingLeastSquares" if model is obj else "Recommender",
        "params": _params_to_json(model.get_params()),
        "members": digests,
    }
    arrays: dict[str, np.ndarray] = {}
    labels: dict[str, pa.Table] = {}
    if model.user_factors is not None or model.item_factors is not None:
        arrays |= zip(FACTORS, (side.array for side in model._fitted()), strict=True)
    if interactions is not None:
        matrix = interactions.matrix
        arrays |= zip(MATRIX, (matrix.indptr, matrix.indices, matrix.data), strict=True)
        users = _labels_to_arrow(interactions.users, "users")
        items = _labels_to_arrow(interactions.items, "items")
        labels |= zip(LABELS, (users, items), strict=True)

    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with _digesting(archive, name, digests) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        for name, table in labels.items():
            with _digesting(archive, name, digests) as member:
                _write_arrow(member, table)
        with archive.open(MANIFEST, "w") as member:
            member.write(json.dumps(manifest, indent=2, default=np.generic.item).encode())


def load(file: str | os.PathLike[str] | BinaryIO) -> "Recommender | AlternatingLeastSquares":
    """Read what `save` wrote.

    Parameters
    ----------
    file : str, path or seekable binary file object

    Returns
    -------
    Recommender or AlternatingLeastSquares
        With the factors bit for bit.

    Raises
    ------
    FormatError
        Damaged, incomplete, inconsistent, foreign, or written by a newer alscore. The message says which.
    OSError
        The file cannot be opened or read.
    """
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            return load(opened)
    try:
        with zipfile.ZipFile(file) as archive:
            return _restore(archive)
    # The readers of zip, JSON, .npy and Arrow raise nearly every kind for bytes that are not as written: OSErrors too,
    # EINVAL where a damaged offset leads to before the start of the file, and Arrow's own, which have no errno.
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
            raise
        name, reason = getattr(file, "name", "the file object"), str(error) or type(error).__name__
        raise FormatError(f"{name} is not a usable alscore model: {reason}") from error


class _Digester(io.RawIOBase):
    """A writer that passes everything on and takes its SHA-256."""

    def __init__(self, target: IO[bytes]) -> None:
        self.target = target
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return self.target.write(data)


@contextlib.contextmanager
def _digesting(archive: zipfile.ZipFile, name: str, digests: dict[str, str]) -> Iterator[_Digester]:
    """Open member `name` for writing; note its digest in `digests` afterwards."""
    with archive.open(name, "w", force_zip64=True) as member:
        digester = _Digester(member)
        yield digester
    digests[name] = digester.sha256.hexdigest()


def _restore(archive: zipfile.ZipFile) -> "Recommender | AlternatingLeastSquares":
    from alscore.als import AlternatingLeastSquares
    from alscore.interactions import Interactions
    from alscore.recommender import Recommender

    manifest = _verified_manifest(archive)
    model = AlternatingLeastSquares(**_params_from_json(manifest["params"]))
    kind, members = manifest["kind"], set(manifest["members"])
    complete = {"AlternatingLeastSquares": {*FACTORS}, "Recommender": {*FACTORS, *MATRIX, *LABELS}}
    if kind not in complete:
        raise ValueError(f"it holds an unknown kind of model, {kind!r}")
    if members not in (set(), {*FACTORS}, complete[kind]):
        raise ValueError(f"it has an incomplete set of members: {', '.join(sorted(members))}")

    if members:
        model.user_factors = _read_array(archive, FACTORS[0], 2, np.float32, np.float64)
        model.item_factors = _read_array(archive, FACTORS[1], 2, np.float32, np.float64)
        users, items = (side.array for side in model._fitted())
    if kind == "AlternatingLeastSquares":
        return model

    recommender = Recommender(model)
    if members == complete[kind]:
        labels = [_read_labels(archive, name) for name in LABELS]
        # Set as attributes: the constructor would bring indptr and indices to one dtype.
        matrix = sparse.csr_array((len(users), len(items)), dtype=np.float32)
        matrix.indptr, matrix.indices, matrix.data = (
            _read_array(archive, name, 1, dtype)
            for name, dtype in zip(MATRIX, (np.int64, np.int32, np.float32), strict=True)
        )
        recommender.interactions = Interactions(matrix, *labels)
    return recommender


def _verified_manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Return the manifest, having verified that every member is there and holds what was written."""
    infos = {info.filename: info for info in archive.infolist()}
    if MANIFEST not in infos:
        raise ValueError(f"it has no {MANIFEST}")
    for name, info in infos.items():
        # So that no member can unpack to more than the file holds.
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"its member {name} is compressed")
    manifest = json.loads(archive.read(MANIFEST))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"its {MANIFEST} does not say format {FORMAT!r}")
    if manifest["format_version"] > FORMAT_VERSION:
        raise ValueError(f"it was written by a newer alscore, {manifest['alscore_version']}; upgrade alscore")
    odd = manifest["members"].keys() ^ infos.keys() - {MANIFEST}
    if odd:
        raise ValueError(f"members are missing or not listed in its {MANIFEST}: {', '.join(sorted(odd))}")
    for name, digest in manifest["members"].items():
        with archive.open(name) as member:
            if hashlib.file_digest(member, "sha256").hexdigest() != digest:  # type: ignore[arg-type]  # it has readinto
                raise ValueError(f"its member {name} is damaged")
    return manifest


def _read_array(archive: zipfile.ZipFile, name: str, ndim: int, *dtypes: npt.DTypeLike) -> np.ndarray:
    """Read an array of one of `dtypes`, provided that its header claims the very bytes that there are."""
    with archive.open(name) as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        size = member.tell() + math.prod(shape) * dtype.itemsize
        if dtype not in dtypes or len(shape) != ndim or size != archive.getinfo(name).file_size:
            raise ValueError(f"its member {name} is not the array that was expected: {dtype} {shape}")
        member.seek(0)
        return np.lib.format.read_array(member, allow_pickle=False)


def _labels_to_arrow(labels: "pd.Index", name: str) -> "pa.Table":
    """Return the labels as a table of one column, from which pandas restores their dtype."""
    import pandas as pd
    import pyarrow as pa

    unsupported = TypeError(
        f"{name} have labels of type {labels.inferred_type} that Arrow cannot hold; "
        f"use strings, numbers or dates, e.g. {name}.astype(str)"
    )
    try:
        table = pa.Table.from_pandas(pd.DataFrame({"label": labels}))
        restored = _labels_from_arrow(table)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise unsupported from error
    if not restored.astype(object).equals(labels.astype(object)):
        raise unsupported
    return table


def _labels_from_arrow(table: "pa.Table") -> "pd.Index":
    import pandas as pd

    return pd.Index(table.to_pandas()["label"], tupleize_cols=False).rename(None)


def _write_arrow(file: _Digester, table: "pa.Table") -> None:
    import pyarrow as pa

    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def _read_labels(archive: zipfile.ZipFile, name: str) -> "pd.Index":
    import pyarrow as pa

    with archive.open(name) as member:
        table = pa.ipc.open_stream(member).read_all()
    table.validate(full=True)
    return _labels_from_arrow(table)


def _params_to_json(params: dict[str, Any]) -> dict[str, Any]:
    seed = params["random_state"]
    return params | {
        "dtype": np.dtype(params["dtype"]).name,
        "solver": _solver_to_json(params["solver"]),
        "random_state": seed if isinstance(seed, int | np.integer) else None,
    }


def _params_from_json(params: dict[str, Any]) -> dict[str, Any]:
    return params | {"dtype": np.dtype(params["dtype"]).type, "solver": _solver_from_json(params["solver"])}


def _solver_to_json(solver: Any) -> str | dict[str, Any]:
    """Return a solver's name, or the name and the options of an option object that is registered under it."""
    if isinstance(solver, str):
        return solver
    origin = f"{type(solver).__module__}:{type(solver).__qualname__}"
    names = [name for name, entry in solvers.registered().items() if entry.value == origin]
    if not names or not dataclasses.is_dataclass(type(solver)):
        raise TypeError(
            f"cannot save the solver {solver!r}, not an option object of an installed one; "
            f"choose another with set_params(solver=...)"
        )
    return {"name": names[0], "options": dataclasses.asdict(solver)}


def _solver_from_json(solver: str | dict[str, Any]) -> Any:
    if isinstance(solver, str):
        return solver
    name = solver["name"]
    if name not in solvers.registered():
        raise ValueError(f"its solver {name!r} is not installed here")
    return solvers.registered()[name].load()(**solver["options"])
