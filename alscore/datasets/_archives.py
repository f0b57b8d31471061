"""Data files read where they are: plain, gzipped, or inside an archive that is never unpacked."""

import errno
import gzip
import os
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from io import BufferedIOBase, BufferedReader, RawIOBase
from pathlib import Path, PureWindowsPath
from typing import IO, Any

# What reading a damaged file can raise, on opening as well as midway.
DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile)
_END_OF_TAR = (tarfile.EmptyHeaderError, tarfile.EOFHeaderError)  # type: ignore[attr-defined]  # not in typeshed
_BUFFER = 1 << 16
_MOST_OF_A_HEADER = 1 << 20  # bytes, with the extended headers before it: tarfile takes them into memory


def open_data(path: str | os.PathLike[str], name: str) -> AbstractContextManager[BufferedIOBase]:
    """Open the data file `name`: a member of the archive `path`, or else `path` itself, gunzipped where need be.

    What `path` is, its content tells and not its name. Nothing is unpacked to disk, or held in memory beyond a
    buffer and a header, which has at most 1 MiB. A member that no data set has any use for stops the reading, the
    wanted one or another: a path that is absolute or has ``..``, a link, a device, a sparse or an encrypted file, and
    more or fewer bytes than declared.

    Parameters
    ----------
    path : str or path
        A regular file: tar (compressed or not), zip, gzip, or anything else, which is read as it is.
    name : str
        The last part of the member's path. Not used if `path` is no archive.

    Returns
    -------
    context manager of a binary file
        To be read from front to end.

    Raises
    ------
    FileNotFoundError
        There is no such path.
    ValueError
        `path` is a folder, a FIFO or a device, or an archive in which not one member has that name or any member is
        refused, which the message names. May come only when the bytes are read, or at the end of the block.
    one of DAMAGE
        A damaged archive. As late: at its end, the block reads what is left of a tar, for the checksum of the whole.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PK\x03\x04":
        return _zip_member(path, name)
    if magic.startswith((b"BZh", b"\xfd7zX")):  # bzip2 and xz, which tarfile undoes
        return _tar_member(path, name, path.open("rb"))
    is_gzip = magic.startswith(b"\x1f\x8b")
    with _opened(path, is_gzip) as stream:
        is_tar = _is_header(stream.read(tarfile.BLOCKSIZE))
    stream = _opened(path, is_gzip)
    return _tar_member(path, name, stream) if is_tar else stream


def zip_names(path: Path) -> list[str]:
    """Return the last parts of the members' paths: of no zip or a damaged one, which reading it tells, none."""
    with suppress(zipfile.BadZipFile), _damage_as_bad_zip(), zipfile.ZipFile(path) as archive:
        return [PureWindowsPath(name).name for name in archive.namelist()]
    return []


def _opened(path: Path, is_gzip: bool) -> BufferedIOBase:
    return gzip.open(path, "rb") if is_gzip else path.open("rb")


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


@contextmanager
def _tar_member(path: Path, name: str, file: BufferedIOBase) -> Iterator[BufferedIOBase]:
    n_found = 0
    with file, tarfile.open(fileobj=file, mode="r|*", bufsize=_BUFFER, tarinfo=_Member) as archive:
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile remembers them all, typeshed forgot them
            # A sparse file has more bytes than the archive holds, all zeros, and as many as it likes.
            if member.issparse() or not (member.isreg() or member.isdir()):
                raise _refused(path, member.name, "is a link, a device or a sparse file")
            wanted, stream = _wanted(path, member.name, name), archive.extractfile(member)
            if not isinstance(stream, BufferedIOBase):  # None, for a folder
                continue
            if wanted:
                n_found += 1
                if n_found == 1:
                    yield stream
            while stream.read(_BUFFER):  # tarfile would skip as much as is declared, past the end of the file
                pass
        while file.read(_BUFFER):  # gzip tells at its end whether what was read is what was written; tar never does
            pass
    if n_found != 1:
        raise _not_one(path, name, n_found)


class _Member(tarfile.TarInfo):
    """A member whose header, if it is damaged or too long, is an error: to tarfile it is the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        stream: Any = archive.fileobj
        archive.fileobj = _Header(stream)  # type: ignore[assignment]  # no more than this is asked of it
        try:
            return super().fromtarfile(archive)
        except _END_OF_TAR:
            raise
        except (tarfile.HeaderError, ValueError, RecursionError) as error:
            raise tarfile.ReadError(f"a header of the tar is damaged: {error}") from error
        finally:
            archive.fileobj = stream


class _Header:
    """A stream of which a header may be read, and no more."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.tell, self._read, self._n_left = stream.tell, stream.read, _MOST_OF_A_HEADER

    def read(self, size: int) -> bytes:
        self._n_left -= size
        if self._n_left < 0:
            raise tarfile.ReadError(f"a header of the tar has more than {_MOST_OF_A_HEADER:,} bytes")
        return self._read(size)


@contextmanager
def _zip_member(path: Path, name: str) -> Iterator[BufferedIOBase]:
    found = []
    with _damage_as_bad_zip():
        archive = zipfile.ZipFile(path)
    with archive:
        for member in archive.infolist():
            # Unix permissions and file type are in the upper half; other systems leave the type at 0.
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(path, member.filename, "is a link or a device")
            if member.flag_bits & 1:
                raise _refused(path, member.filename, "is encrypted")
            if _wanted(path, member.filename, name) and not member.is_dir():
                found.append(member)
        if len(found) != 1:
            raise _not_one(path, name, len(found))
        (member,) = found
        declared, member.file_size = member.file_size, sys.maxsize  # zipfile would stop there without a word
        with _damage_as_bad_zip():
            stream = archive.open(member)
        with stream:
            yield BufferedReader(_Declared(stream, path, member.filename, declared))


@contextmanager
def _damage_as_bad_zip() -> Iterator[None]:
    """Raise BadZipFile for what zipfile and the decompressors raise for bytes that are not as written.

    That is nearly every kind; OSErrors too, without an errno or with EINVAL, where an offset is before the file.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
            raise
        raise zipfile.BadZipFile(str(error) or type(error).__name__) from error


def _wanted(path: Path, member: str, name: str) -> bool:
    """Whether a member is the file `name`; one with a path out of the archive is refused."""
    parsed = PureWindowsPath(member)  # takes / and \ alike
    if parsed.anchor or ".." in parsed.parts:
        raise _refused(path, member, "has a path that is absolute or has '..'")
    return parsed.name == name


def _refused(path: Path, member: str, reason: str) -> ValueError:
    return ValueError(f"{path} is refused: its member {member!r} {reason}")


def _not_one(path: Path, name: str, n_found: int) -> ValueError:
    return ValueError(f"{path} is an archive {f'with {n_found} files named' if n_found else 'without'} {name}")


class _Declared(RawIOBase):
    """The bytes of a member of an archive, refused when they turn out to be not as many as declared."""

    def __init__(self, stream: IO[bytes], path: Path, member: str, size: int) -> None:
        self._stream, self._path, self._member, self._size = stream, path, member, size
        self._n_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _damage_as_bad_zip():
            block = self._stream.read(len(buffer))
        self._n_read += len(block)
        if self._n_read > self._size or (not block and self._n_read < self._size):
            raise _refused(
                self._path, self._member, f"has {'more' if block else 'fewer'} than the {self._size:,} bytes declared"
            )
        buffer[: len(block)] = block
        return len(block)
