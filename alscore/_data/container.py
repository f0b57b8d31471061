"""The file format of models and Interactions: a zip of arrays, Arrow labels and a JSON manifest. It holds no code.

The members are stored, not compressed. The numbers of an array begin at a multiple of 64 bytes of the file, which can
therefore be mapped into memory:

    user_factors.npy, item_factors.npy      factors of a fitted model
    indptr.npy, indices.npy, data.npy       the matrix of Interactions as CSR, alone or in a fitted Recommender
    timestamps.npy                          the timestamps of these Interactions, if they have timestamps
    users.arrow, items.arrow                their labels, Arrow IPC streams of one column
    manifest.json                           format, versions, kind, parameters, SHA-256 of each other member

This module knows the members, but not the classes: each class gives its arrays and restores itself from `Parts`.
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
COMPLETE = {  # the complete sets of members, by kind
    "AlternatingLeastSquares": (set(), {*FACTORS}),
    "Recommender": (set(), {*FACTORS}, {*FACTORS, *MATRIX, *LABELS}, {*FACTORS, *MATRIX, *LABELS, TIMESTAMPS}),
    "Interactions": ({*MATRIX, *LABELS}, {*MATRIX, *LABELS, TIMESTAMPS}),
}
LOCAL_HEADER_BYTES = 30  # of the header of a member in a zip, up to its name
ALIGNMENT_BYTES = 64  # of members and arrays in the file; Arrow recommends it


class FormatError(ValueError):
    """The file is not a model or Interactions, is damaged or incomplete, or was written by a newer alscore."""

    __module__ = "alscore"  # its public home


File = str | os.PathLike[str] | BinaryIO
Restored = TypeVar("Restored")


class Parts:
    """The members of an open file. They are verified to be complete, and read or mapped when they are asked for.

    Attributes
    ----------
    params : dict
        Its parameters, from the manifest.
    """

    def __init__(self, archive: zipfile.ZipFile, manifest: dict[str, Any], mapped: memoryview | None) -> None:
        self.params: dict[str, Any] = manifest.get("params", {})
        self._archive, self._members, self._mapped = archive, manifest["members"], mapped

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def array(self, name: str, ndim: int, *dtypes: npt.DTypeLike) -> NDArray[Any]:
        """Return the array of a member. Raise a ValueError unless it has `ndim` dimensions and one of `dtypes`."""
        return _read_array(self._archive, name, ndim, *dtypes, mapped=self._mapped)

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes] | memoryview]:
        """Open a member: as a file object, or as the bytes in memory if the file is mapped."""
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
        Parameters that JSON can hold.
    arrays : dict
        Arrays, by the name of the member.
    streams : dict
        Functions, by the name of the member. Each gets a file object and writes the member to it.
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
    """Read one object from a file.

    Parameters
    ----------
    file : str, path or seekable binary file object
    restore : dict
        By kind, a function that makes the object of the `Parts` in the file.
    refusal : callable
        ``refusal(kind)`` returns the exception to raise for a kind that `restore` does not have.
    mmap : bool
        Whether to map Interactions into memory instead of reading them, if `file` is a path. The checksums of a mapped
        file are not compared.

    Raises
    ------
    FormatError
        The file is damaged, incomplete, of another format, or newer. The message says which.
    OSError
        The file cannot be opened or read.
    Exception
        The result of `refusal`: `restore` does not have the kind of the file.
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
    # For damaged bytes the readers of zip, JSON, .npy and Arrow raise nearly every kind of exception. Two of these are
    # OSErrors: Arrow's own, without errno, and EINVAL for an offset that leads to before the start of the file.
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
            raise
        name, reason = getattr(file, "name", "the file object"), str(error) or type(error).__name__
        raise FormatError(f"{name} is not a usable alscore model or Interactions: {reason}") from error
    raise refusal(manifest["kind"])


class _Digester(io.RawIOBase):
    """A writer that passes its data on to another writer and computes their SHA-256."""

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
    """Open member `name` for writing, aligned. Its SHA-256 is in `digests` after the block."""
    info = zipfile.ZipInfo(name)
    # The member begins after its name, this field and the field of 64-bit sizes. .npy and Arrow align the rest.
    padding = -(archive.start_dir + LOCAL_HEADER_BYTES + len(name) + 6 + 20) % ALIGNMENT_BYTES
    # zipalign writes the same field
    info.extra = struct.pack("<HHH", 0xD935, 2 + padding, ALIGNMENT_BYTES) + bytes(padding)
    with archive.open(info, "w", force_zip64=True) as member:
        digester = _Digester(member)
        yield digester
    digests[name] = digester.sha256.hexdigest()


def _verified_manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Return the manifest. Verify that the file has exactly the members that its kind needs, uncompressed."""
    infos = {info.filename: info for info in archive.infolist()}
    if MANIFEST not in infos:
        raise ValueError(f"it has no {MANIFEST}")
    for name, info in infos.items():
        # A stored member cannot unpack to more bytes than the file has.
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"its member {name} is compressed")
    manifest = json.loads(archive.read(MANIFEST))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"its {MANIFEST} does not say format {FORMAT!r}")
    if manifest["format_version"] > FORMAT_VERSION:
        raise ValueError(f"it was written by a newer alscore, {manifest['alscore_version']}; upgrade alscore")
    unmatched = manifest["members"].keys() ^ infos.keys() - {MANIFEST}
    if unmatched:
        raise ValueError(f"members are missing or not listed in its {MANIFEST}: {', '.join(sorted(unmatched))}")
    if manifest["kind"] not in COMPLETE:
        raise ValueError(f"it holds an unknown kind of model, {manifest['kind']!r}")
    if manifest["members"].keys() not in COMPLETE[manifest["kind"]]:
        raise ValueError(f"it has an incomplete set of members: {', '.join(sorted(manifest['members']))}")
    return manifest


def _verify_digests(archive: zipfile.ZipFile, manifest: dict[str, Any]) -> None:
    """Verify the SHA-256 of every member."""
    for name, digest in manifest["members"].items():
        with archive.open(name) as member:
            if hashlib.file_digest(member, "sha256").hexdigest() != digest:  # type: ignore[arg-type]  # the member has readinto
                raise ValueError(f"its member {name} is damaged")


def _mapped_member(archive: zipfile.ZipFile, name: str, mapped: memoryview) -> memoryview:
    """Return the bytes of a member in the mapped file."""
    info = archive.getinfo(name)
    lengths = struct.unpack_from("<HH", mapped, info.header_offset + LOCAL_HEADER_BYTES - 4)  # of name and extra field
    start = info.header_offset + LOCAL_HEADER_BYTES + sum(lengths)
    return mapped[start : start + info.file_size]


def _read_array(
    archive: zipfile.ZipFile, name: str, ndim: int, *dtypes: npt.DTypeLike, mapped: memoryview | None = None
) -> NDArray[Any]:
    """Read or map an array. Refuse another dtype or shape, and a header that does not fit the number of bytes."""
    with archive.open(name) as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        start = member.tell()
        size = start + math.prod(shape) * dtype.itemsize
        if dtype not in dtypes or len(shape) != ndim or size != archive.getinfo(name).file_size:
            raise ValueError(f"its member {name} is not the array that was expected: {dtype} {shape}")
        if mapped is not None:
            array: NDArray[Any] = np.ndarray(shape, dtype, _mapped_member(archive, name, mapped), start)
            return np.require(array, requirements="A")  # copies only if another program wrote the zip
        member.seek(0)
        return np.lib.format.read_array(member, allow_pickle=False)
