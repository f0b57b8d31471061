"""The file of a model or of Interactions: a zip of plain arrays, Arrow labels and a JSON manifest, without any code.

The members are stored, not compressed. The numbers of an array begin at a multiple of 64 bytes, so they can be mapped:

    user_factors.npy, item_factors.npy      factors of a fitted model
    indptr.npy, indices.npy, data.npy       the interactions as CSR, alone or of a fitted Recommender
    timestamps.npy                          their timestamps, if they have any
    users.arrow, items.arrow                their labels, Arrow IPC streams of one column
    manifest.json                           format, versions, kind, parameters, SHA-256 of each other member
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from mmap import ACCESS_READ
from mmap import mmap as map_file
from typing import IO, Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from alscore._support.files import atomic_writer
from alscore._support.version import __version__

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


File = str | os.PathLike[str] | BinaryIO
Restored = TypeVar("Restored")


class Parts:
    """What a file holds, verified to be complete; read or mapped when it is asked for."""

    def __init__(self, archive: zipfile.ZipFile, manifest: dict[str, Any], mapped: memoryview | None) -> None:
        self.kind: str = manifest["kind"]
        self.params: dict[str, Any] = manifest.get("params", {})
        self._archive, self._members, self._mapped = archive, manifest["members"], mapped

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def array(self, name: str, ndim: int, *dtypes: npt.DTypeLike) -> NDArray[Any]:
        return _read_array(self._archive, name, ndim, *dtypes, mapped=self._mapped)

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes] | memoryview]:
        """Open a member, for a reader that takes a file or the bytes in memory."""
        if self._mapped is not None:
            yield _mapped_member(self._archive, name, self._mapped)
            return
        with self._archive.open(name) as member:
            yield member


def write(
    file: File,
    kind: str,
    params: dict[str, Any] | None,
    arrays: Mapping[str, NDArray[Any]],
    streams: Mapping[str, Callable[[Any], None]],
) -> None:
    """Write one object to a file. A path is replaced once the new file is complete.

    Parameters
    ----------
    file : str, path or binary file object
    kind : str
        A key of `COMPLETE`.
    params : dict, optional
        What JSON can hold.
    arrays : dict
        Arrays by member.
    streams : dict
        Functions by member. Each writes the member to the file object that it gets.
    """
    if isinstance(file, str | os.PathLike):
        with atomic_writer(file) as opened:
            write(opened, kind, params, arrays, streams)
        return
    digests: dict[str, str] = {}
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "alscore_version": __version__,
        "kind": kind,
        **({} if params is None else {"params": params}),
        "members": digests,
    }
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with _digesting(archive, name, digests) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        for name, write_to in streams.items():
            with _digesting(archive, name, digests) as member:
                write_to(member)
        with archive.open(MANIFEST, "w") as member:
            member.write(json.dumps(manifest, indent=2, default=np.generic.item).encode())


def read(
    file: File,
    restore: Mapping[str, Callable[[Parts], Restored]],
    refusal: Callable[[str], Exception],
    mmap: bool = False,
) -> Restored:
    """Give what the function for the kind in the file makes of its parts; raise ``refusal(kind)`` where there is none.

    Anything else that is wrong with the file is a FormatError.
    """
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            return _read(opened, restore, refusal, mmap)
    return _read(file, restore, refusal, mmap=False)


def _read(
    file: BinaryIO, restore: Mapping[str, Callable[[Parts], Restored]], refusal: Callable[[str], Exception], mmap: bool
) -> Restored:
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = _verified_manifest(archive)
            mapped = None
            if manifest["kind"] == "Interactions" and mmap:
                mapped = memoryview(map_file(file.fileno(), 0, access=ACCESS_READ))
            else:
                _verify_digests(archive, manifest)
            if manifest["kind"] in restore:
                return restore[manifest["kind"]](Parts(archive, manifest, mapped))
    # The readers of zip, JSON, .npy and Arrow raise nearly every kind for bytes that are not as written: OSErrors too,
    # EINVAL where a damaged offset leads to before the start of the file, and Arrow's own, which have no errno.
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
            raise
        name, reason = getattr(file, "name", "the file object"), str(error) or type(error).__name__
        raise FormatError(f"{name} is not a usable alscore model or Interactions: {reason}") from error
    raise refusal(manifest["kind"])


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
