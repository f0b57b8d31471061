"""A model or Interactions in one file: a zip of plain arrays, Arrow labels and a JSON manifest. Nothing is executed.

Its members are stored, not deflated, and what an array holds begins at a multiple of 64 bytes, ready to be mapped:

    user_factors.npy, item_factors.npy      of a fitted model
    indptr.npy, indices.npy, data.npy       the interactions as CSR, alone or of a fitted Recommender
    timestamps.npy                          if they have them
    users.arrow, items.arrow                their labels, Arrow IPC streams of one column
    manifest.json                           format, versions, kind, a model's parameters, SHA-256 of each other member
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import math
import os
import struct
import zipfile
from collections.abc import Iterator
from mmap import ACCESS_READ
from mmap import mmap as map_file
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from alscore import __version__, solvers
from alscore._files import atomic_writer
from alscore.canonical import from_canonical

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from alscore.als import AlternatingLeastSquares
    from alscore.factor_model import FactorModel
    from alscore.interactions import Interactions
    from alscore.recommender import Recommender

FORMAT = "alscore"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
FACTORS = ("user_factors.npy", "item_factors.npy")
MATRIX = ("indptr.npy", "indices.npy", "data.npy")
LABELS = ("users.arrow", "items.arrow")
TIMESTAMPS = "timestamps.npy"
COMPLETE = {
    "AlternatingLeastSquares": (set(), {*FACTORS}),
    "Recommender": (set(), {*FACTORS}, {*FACTORS, *MATRIX, *LABELS}, {*FACTORS, *MATRIX, *LABELS, TIMESTAMPS}),
    "Interactions": ({*MATRIX, *LABELS}, {*MATRIX, *LABELS, TIMESTAMPS}),
}
LOCAL_HEADER = 30  # bytes before the name in a zip
ALIGNMENT = 64


class FormatError(ValueError):
    """A file that is not a whole and unaltered alscore model or Interactions which this version can read."""


def save(obj: "Recommender | FactorModel | Interactions", file: str | os.PathLike[str] | BinaryIO) -> None:
    """Write a model or interactions to one file, without pickle.

    Equal ones give equal bytes. Not kept: a `random_state` that is a generator (it becomes None), and the
    `report` of the interactions.

    Parameters
    ----------
    obj : Recommender, AlternatingLeastSquares or Interactions
        A model may be fitted or not.
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
    from alscore.interactions import Interactions
    from alscore.recommender import Recommender

    if isinstance(file, str | os.PathLike):
        with atomic_writer(file) as opened:
            save(obj, opened)
        return

    model: Any = obj
    interactions: Interactions | None = None
    if isinstance(obj, Recommender):
        model, interactions = obj._known if obj.interactions is None else obj._fitted()
    kind = "AlternatingLeastSquares" if model is obj else "Recommender"
    if isinstance(obj, Interactions):
        kind, model, interactions = "Interactions", None, obj
    elif not isinstance(model, AlternatingLeastSquares):
        raise TypeError(
            f"can save a Recommender, an AlternatingLeastSquares or Interactions, not {type(model).__name__}"
        )

    digests: dict[str, str] = {}
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "alscore_version": __version__,
        "kind": kind,
        **({} if model is None else {"params": _params_to_json(model.get_params())}),
        "members": digests,
    }
    arrays: dict[str, NDArray[Any]] = {}
    labels: dict[str, pa.Table] = {}
    if model is not None and (model.user_factors is not None or model.item_factors is not None):
        arrays |= zip(FACTORS, (side.array for side in model._fitted()), strict=True)
    if interactions is not None:
        matrix = interactions.matrix
        arrays |= zip(MATRIX, (matrix.indptr, matrix.indices, matrix.data), strict=True)
        if interactions.timestamps is not None:
            arrays[TIMESTAMPS] = interactions.timestamps
        users = labels_to_arrow(interactions.users, "users")
        items = labels_to_arrow(interactions.items, "items")
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


def load(file: str | os.PathLike[str] | BinaryIO, mmap: bool = True) -> Any:
    """Read what `save` wrote.

    Parameters
    ----------
    file : str, path or seekable binary file object
    mmap : bool
        Whether to map Interactions into memory, if `file` is a path, instead of reading them: their arrays, which are
        read-only then, and text labels stay in the file, and in memory as far as they are in use, once for all
        processes. Such a file must not be changed in place while in use; `save` replaces it. All is verified as for any
        Interactions, but checksums are not compared: to notice a changed value that is a valid one, read the file.
        Models are always read.

    Returns
    -------
    Recommender, AlternatingLeastSquares or Interactions
        With the arrays bit for bit.

    Raises
    ------
    FormatError
        Damaged, incomplete, inconsistent, foreign, or written by a newer alscore. The message says which.
    OSError
        The file cannot be opened or read.
    """
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            return _load(opened, mmap)
    return _load(file, mmap=False)


def _load(file: BinaryIO, mmap: bool) -> "Recommender | AlternatingLeastSquares | Interactions":
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = _verified_manifest(archive)
            if manifest["kind"] == "Interactions" and mmap:
                mapped = memoryview(map_file(file.fileno(), 0, access=ACCESS_READ))
                return _restore_interactions(archive, manifest, mapped)
            _verify_digests(archive, manifest)
            restore = _restore_interactions if manifest["kind"] == "Interactions" else _restore_model
            return restore(archive, manifest)
    # The readers of zip, JSON, .npy and Arrow raise nearly every kind for bytes that are not as written: OSErrors too,
    # EINVAL where a damaged offset leads to before the start of the file, and Arrow's own, which have no errno.
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
            raise
        name, reason = getattr(file, "name", "the file object"), str(error) or type(error).__name__
        raise FormatError(f"{name} is not a usable alscore model or Interactions: {reason}") from error


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
    """Open member `name` for writing, aligned; note its digest in `digests` afterwards."""
    info = zipfile.ZipInfo(name)
    # After name, padding and the field for 64-bit sizes the member begins; .npy and Arrow keep alignment from there on.
    padding = -(archive.start_dir + LOCAL_HEADER + len(name) + 6 + 20) % ALIGNMENT
    info.extra = struct.pack("<HHH", 0xD935, 2 + padding, ALIGNMENT) + bytes(padding)  # the field that zipalign writes
    with archive.open(info, "w", force_zip64=True) as member:
        digester = _Digester(member)
        yield digester
    digests[name] = digester.sha256.hexdigest()


def _restore_model(archive: zipfile.ZipFile, manifest: dict[str, Any]) -> "Recommender | AlternatingLeastSquares":
    from alscore.als import AlternatingLeastSquares
    from alscore.recommender import Recommender

    model = AlternatingLeastSquares(**_params_from_json(manifest["params"]))
    members = manifest["members"]
    if members:
        model.user_factors = _read_array(archive, FACTORS[0], 2, np.float32, np.float64)
        model.item_factors = _read_array(archive, FACTORS[1], 2, np.float32, np.float64)
        shape = tuple(len(side.array) for side in model._fitted())
    if manifest["kind"] == "AlternatingLeastSquares":
        return model

    if MATRIX[0] not in members:
        return Recommender(model)
    return Recommender(model, _restore_interactions(archive, manifest, shape=shape))


def _restore_interactions(
    archive: zipfile.ZipFile,
    manifest: dict[str, Any],
    mapped: memoryview | None = None,
    shape: tuple[int, ...] | None = None,
) -> "Interactions":
    from alscore.interactions import Interactions

    users, items = (_read_labels(archive, name, mapped) for name in LABELS)
    indptr, indices, data = (
        _read_array(archive, name, 1, dtype, mapped=mapped)
        for name, dtype in zip(MATRIX, (np.int64, np.int32, np.float32), strict=True)
    )
    n_users, n_items = shape or (len(users), len(items))
    matrix = from_canonical(data, indices, indptr, (n_users, n_items))  # as `save` wrote it; Interactions verifies that
    timestamps = None
    if TIMESTAMPS in manifest["members"]:
        timestamps = _read_array(archive, TIMESTAMPS, 1, np.int64, mapped=mapped)
    return Interactions(matrix, users, items, timestamps=timestamps)


def _verified_manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Return the manifest, having verified that every member is there."""
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
    if manifest["kind"] not in COMPLETE:
        raise ValueError(f"it holds an unknown kind of model, {manifest['kind']!r}")
    if manifest["members"].keys() not in COMPLETE[manifest["kind"]]:
        raise ValueError(f"it has an incomplete set of members: {', '.join(sorted(manifest['members']))}")
    return manifest


def _verify_digests(archive: zipfile.ZipFile, manifest: dict[str, Any]) -> None:
    """Verify that every member holds what was written."""
    for name, digest in manifest["members"].items():
        with archive.open(name) as member:
            if hashlib.file_digest(member, "sha256").hexdigest() != digest:  # type: ignore[arg-type]  # it has readinto
                raise ValueError(f"its member {name} is damaged")


def _mapped_member(archive: zipfile.ZipFile, name: str, mapped: memoryview) -> memoryview:
    """Return the bytes of a member that `archive` can open."""
    info = archive.getinfo(name)
    lengths = struct.unpack_from("<HH", mapped, info.header_offset + LOCAL_HEADER - 4)  # of name and extra field
    start = info.header_offset + LOCAL_HEADER + sum(lengths)
    return mapped[start : start + info.file_size]


def _read_array(
    archive: zipfile.ZipFile, name: str, ndim: int, *dtypes: npt.DTypeLike, mapped: memoryview | None = None
) -> NDArray[Any]:
    """Read or map an array of one of `dtypes`, provided that its header claims the very bytes that there are."""
    with archive.open(name) as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        start = member.tell()
        size = start + math.prod(shape) * dtype.itemsize
        if dtype not in dtypes or len(shape) != ndim or size != archive.getinfo(name).file_size:
            raise ValueError(f"its member {name} is not the array that was expected: {dtype} {shape}")
        if mapped is not None:
            array: NDArray[Any] = np.ndarray(shape, dtype, _mapped_member(archive, name, mapped), start)
            return np.require(array, requirements="A")  # a copy, if something else than `save` wrote the zip
        member.seek(0)
        return np.lib.format.read_array(member, allow_pickle=False)


def labels_to_arrow(labels: "pd.Index", name: str) -> "pa.Table":
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

    # labels are unique: nothing to deduplicate
    labels: pd.Index = pd.Index(table.to_pandas(deduplicate_objects=False)["label"], tupleize_cols=False)
    return labels.rename(None)


def _write_arrow(file: _Digester, table: "pa.Table") -> None:
    import pyarrow as pa

    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def _read_labels(archive: zipfile.ZipFile, name: str, mapped: memoryview | None = None) -> "pd.Index":
    import pyarrow as pa

    with archive.open(name) as member:
        table = pa.ipc.open_stream(member if mapped is None else _mapped_member(archive, name, mapped)).read_all()
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
    names = [name for name, entries in solvers.registered().items() if origin in (entry.value for entry in entries)]
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
    return solvers.by_name(name)(**solver["options"])
