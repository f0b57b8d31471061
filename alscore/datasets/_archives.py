"""Opens data files in place: plain, gzipped, or inside an archive, which is never unpacked to disk."""

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

# The errors that a damaged file can raise, when it is opened or while it is read.
DAMAGE_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile)
_END_OF_TAR = (tarfile.EmptyHeaderError, tarfile.EOFHeaderError)  # type: ignore[attr-defined]  # not in typeshed
_BUFFER_BYTES = 1 << 16  # bytes per read from an archive
_MAX_HEADER_BYTES = 1 << 20  # bytes of a tar header with its extensions, which tarfile reads into memory


def open_data(path: str | os.PathLike[str], name: str) -> AbstractContextManager[BufferedIOBase]:
    """Open a data file: the member `name` of the archive `path`, or `path` itself, decompressed if it is gzipped.

    The content of `path` decides how it is read; its name does not matter. Nothing is unpacked to disk. Memory holds
    one buffer and one header of at most 1 MiB.

    An archive is refused if any member has no place in a data set. Such members have an absolute path or ``..`` in the
    path, or are links, devices, sparse files or encrypted. The archive is also refused if the size of the member `name`
    is not the declared one.

    Parameters
    ----------
    path : str or path
        A regular file: tar (compressed or not), zip or gzip. Any other file is read unchanged.
    name : str
        Last part of the member's path. Ignored if `path` is not an archive.

    Returns
    -------
    context manager of a binary file
        The file can be read once, from front to end.

    Raises
    ------
    FileNotFoundError
        `path` does not exist.
    ValueError
        `path` is a folder, a FIFO or a device; or it is an archive with no member or several members of that name; or
        the archive is refused. The message names the member. Some of these errors appear only while the bytes are
        read, or at the end of the block.
    one of DAMAGE_ERRORS
        The file is damaged. This error can appear as late: at its end, the block reads the rest of a tar, because the
        checksum of the whole file comes last.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PK\x03\x04":
        return _zip_member(path, name)
    if magic.startswith((b"BZh", b"\xfd7zX")):  # bzip2 and xz, which tarfile decompresses
        return _tar_member(path, name, path.open("rb"))
    is_gzip = magic.startswith(b"\x1f\x8b")
    with _open(path, is_gzip) as stream:
        is_tar = _is_tar_header(stream.read(tarfile.BLOCKSIZE))
    stream = _open(path, is_gzip)
    return _tar_member(path, name, stream) if is_tar else stream


def zip_names(path: Path) -> list[str]:
    """Return the last parts of the members' paths. The list is empty if `path` is not a zip, or a damaged one."""
    with suppress(zipfile.BadZipFile), _damage_as_bad_zip(), zipfile.ZipFile(path) as archive:
        return [PureWindowsPath(name).name for name in archive.namelist()]
    return []


def _open(path: Path, is_gzip: bool) -> BufferedIOBase:
    return gzip.open(path, "rb") if is_gzip else path.open("rb")


def _is_tar_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


@contextmanager
def _tar_member(path: Path, name: str, file: BufferedIOBase) -> Iterator[BufferedIOBase]:
    n_matches = 0
    with file, tarfile.open(fileobj=file, mode="r|*", bufsize=_BUFFER_BYTES, tarinfo=_Member) as archive:
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member; not in typeshed
            # A sparse file can have any number of bytes, far more than the archive holds: zeros.
            if member.issparse() or not (member.isreg() or member.isdir()):
                raise _refusal(path, member.name, "is a link, a device or a sparse file")
            matches, stream = _has_name(path, member.name, name), archive.extractfile(member)
            if not isinstance(stream, BufferedIOBase):  # None, for a folder
                continue
            if matches:
                n_matches += 1
                if n_matches == 1:
                    yield stream
            # Read the rest: tarfile would skip the declared size, even past the end of the file.
            while stream.read(_BUFFER_BYTES):
                pass
        # Read to the end: there gzip verifies its checksum. A tar has no checksum of the content.
        while file.read(_BUFFER_BYTES):
            pass
    if n_matches != 1:
        raise _not_one_match(path, name, n_matches)


class _Member(tarfile.TarInfo):
    """A member of a tar. A damaged or too long header raises an error; tarfile alone would end the archive there."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        stream: Any = archive.fileobj
        archive.fileobj = _HeaderStream(stream)  # type: ignore[assignment]  # tarfile calls only `tell` and `read`
        try:
            return super().fromtarfile(archive)
        except _END_OF_TAR:
            raise
        except (tarfile.HeaderError, ValueError, RecursionError) as error:
            raise tarfile.ReadError(f"a header of the tar is damaged: {error}") from error
        finally:
            archive.fileobj = stream


class _HeaderStream:
    """A stream from which one header can be read, with its extensions."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.tell, self._read, self._n_left = stream.tell, stream.read, _MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        self._n_left -= size
        if self._n_left < 0:
            raise tarfile.ReadError(f"a header of the tar has more than {_MAX_HEADER_BYTES:,} bytes")
        return self._read(size)


@contextmanager
def _zip_member(path: Path, name: str) -> Iterator[BufferedIOBase]:
    matches = []
    with _damage_as_bad_zip():
        archive = zipfile.ZipFile(path)
    with archive:
        for member in archive.infolist():
            # The upper half holds the Unix permissions and file type; other systems leave the type at 0.
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refusal(path, member.filename, "is a link or a device")
            if member.flag_bits & 1:
                raise _refusal(path, member.filename, "is encrypted")
            if _has_name(path, member.filename, name) and not member.is_dir():
                matches.append(member)
        if len(matches) != 1:
            raise _not_one_match(path, name, len(matches))
        (member,) = matches
        declared, member.file_size = member.file_size, sys.maxsize  # else zipfile stops there without an error
        with _damage_as_bad_zip():
            stream = archive.open(member)
        with stream:
            yield BufferedReader(_SizeVerified(stream, path, member.filename, declared))


@contextmanager
def _damage_as_bad_zip() -> Iterator[None]:
    """Raise BadZipFile for every error that zipfile and the decompressors raise for damaged bytes.

    Those errors have nearly every type. An OSError among them has no errno, or EINVAL if an offset is negative.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
            raise
        raise zipfile.BadZipFile(str(error) or type(error).__name__) from error


def _has_name(path: Path, member: str, name: str) -> bool:
    """Whether the last part of a member's path is `name`. A path that leads out of the archive is refused."""
    parsed = PureWindowsPath(member)  # splits at / and at \
    if parsed.anchor or ".." in parsed.parts:
        raise _refusal(path, member, "has a path that is absolute or has '..'")
    return parsed.name == name


def _refusal(path: Path, member: str, reason: str) -> ValueError:
    return ValueError(f"{path} is refused: its member {member!r} {reason}")


def _not_one_match(path: Path, name: str, n_matches: int) -> ValueError:
    return ValueError(f"{path} is an archive {f'with {n_matches} files named' if n_matches else 'without'} {name}")


class _SizeVerified(RawIOBase):
    """The bytes of a member of an archive. More or fewer bytes than declared raise an error."""

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
            raise _refusal(
                self._path, self._member, f"has {'more' if block else 'fewer'} than the {self._size:,} bytes declared"
            )
        buffer[: len(block)] = block
        return len(block)
