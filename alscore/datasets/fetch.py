"""Downloads published data sets, verifies them and keeps them. If one address fails, another one is tried."""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from alscore._support.files import atomic_writer
from alscore._support.version import __version__

if TYPE_CHECKING:
    import requests

FOLDER_VARIABLE = "ALSCORE_DATA"
_PAUSES_S = (0, 1, 2)  # seconds before each round through all addresses
_CHUNK_BYTES = 1 << 18  # bytes per read from the network


@dataclass(frozen=True)
class Archive:
    """A published file.

    Attributes
    ----------
    file : str
        Name of the file.
    size : int
        Number of bytes.
    sha256 : str
        SHA-256 of the content, in hexadecimal digits.
    urls : tuple of str
        Addresses, in the order in which they are tried.
    licence : str
        What the licence allows, printed before a download.
    """

    file: str
    size: int
    sha256: str
    urls: tuple[str, ...]
    licence: str

    def difference(self, size: int, sha256: str) -> str:
        """Return how a file of this size and hash differs from the published one; empty if it does not."""
        if (size, sha256) == (self.size, self.sha256):
            return ""
        return f"is {size:,} bytes with SHA-256 {sha256}, not {self.size:,} bytes with SHA-256 {self.sha256}"


_LASTFM = "for non-commercial use only, by permission of Last.fm; for other use, write to partners [at] last [dot] fm"
ARCHIVES = {
    "lastfm-360k": Archive(
        "lastfm-dataset-360K.tar.gz",
        569_202_935,
        "375b53f5a72790e51166cfba052ae5e093f587ece817577185188855ac10f9f0",
        (
            "https://zenodo.org/records/6090214/files/lastfm-dataset-360K.tar.gz",
            "https://mtg.upf.edu/static/datasets/last.fm/lastfm-dataset-360K.tar.gz",
        ),
        _LASTFM,
    ),
    "lastfm-1k": Archive(
        "lastfm-dataset-1K.tar.gz",
        672_741_554,
        "c8075a048b0e14737c0b38d708f9e8e56a37193f33c6592e599bfcaa982bdb70",
        (
            "https://zenodo.org/records/6090214/files/lastfm-dataset-1K.tar.gz",
            "https://mtg.upf.edu/static/datasets/last.fm/lastfm-dataset-1K.tar.gz",
        ),
        _LASTFM,
    ),
    "hetrec-lastfm-2k": Archive(
        "hetrec2011-lastfm-2k.zip",
        2_589_075,
        "6738f48195667ff03caaab4d32ca9a3133d8cc026b7c3cdaf6ce1010e913c59c",
        (
            "https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",
            "https://web.archive.org/web/2022id_/https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",
        ),
        "for non-commercial use only; for other use, ask Last.fm: http://www.lastfm.com/about/contact",
    ),
}


def fetch(
    name: str, folder: str | os.PathLike[str] | None = None, *, timeout: float = 30.0, show_progress: bool = True
) -> Path:
    """Download the archive of a published data set, unless it is in the folder already.

    A file is used only if its size and its SHA-256 are the published ones. This is also true for a file that you put
    in the folder yourself. A download gets its name only when it is complete and verified. The licence is printed to
    stderr before a download. Several processes can fetch the same file at the same time.

    Parameters
    ----------
    name : {"lastfm-360k", "lastfm-1k", "hetrec-lastfm-2k"}
        The data set: 569, 673 or 2.6 MB.
    folder : str or path, optional
        Folder of the archive. Default: the environment variable ``ALSCORE_DATA``. If it is not set, the user's cache
        folder: ``$XDG_CACHE_HOME/alscore`` or ``~/.cache/alscore``.
    timeout : float
        Seconds to wait for a response before the next address is tried.
    show_progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    Path
        The archive. The reader of the data set reads it in place.

    Raises
    ------
    ValueError
        `name` is unknown, `timeout` is not positive, or a file with the name of the archive is not the published one.
        That file is not changed.
    ImportError
        pooch is not installed: ``pip install 'alscore[fetch]'``.
    ConnectionError
        Every address failed. The message says what to download by hand and where to put it.
    OSError
        The folder cannot be written to.
    """
    if name not in ARCHIVES:
        raise ValueError(f"the data set {name!r} is unknown; the known ones are {', '.join(ARCHIVES)}")
    if not timeout > 0:
        raise ValueError(f"timeout must be positive, not {timeout!r}")
    archive = ARCHIVES[name]
    path = _folder(folder) / archive.file
    if path.is_file():
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if difference := archive.difference(path.stat().st_size, sha256):
            raise ValueError(f"{path} {difference}; move it away, or put the published file in its place")
        return path
    downloader = _pooch().HTTPDownloader(
        progressbar=show_progress,
        chunk_size=_CHUNK_BYTES,
        timeout=timeout,
        # Some servers slow down or refuse clients without a User-Agent.
        headers={"User-Agent": f"alscore/{__version__}", "Accept-Encoding": "identity"},
        hooks={"response": _keep_compressed},
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writer(path) as file:
            print(f"{name}: {archive.licence}", file=sys.stderr)
            _download(name, path, file, downloader)
    except OSError as error:
        if error.errno is None:  # not from the file system
            raise
        message = f"{error.strerror}; choose another folder, or set {FOLDER_VARIABLE} to one"
        raise OSError(error.errno, message, str(path)) from error
    return path


def _pooch() -> Any:
    try:
        import pooch
    except ImportError as error:
        raise ImportError("fetch needs pooch: pip install 'alscore[fetch]'") from error
    return pooch


def _folder(folder: str | os.PathLike[str] | None) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "alscore")  # same as pooch.os_cache, without pooch
    return Path(folder or os.environ.get(FOLDER_VARIABLE) or cache).expanduser()


def _keep_compressed(response: "requests.Response", **_: object) -> None:
    """Keep requests from decompressing the file: some servers declare the .gz of its name as an encoding."""
    response.raw.headers.pop("content-encoding", None)


def _download(name: str, path: Path, file: BinaryIO, downloader: Callable[[str, "_Sink", None], None]) -> None:
    """Write the published content to `file`, from the first address that has it. `file` will be moved to `path`."""
    from requests import RequestException

    archive = ARCHIVES[name]
    failures: dict[str, str] = {}
    for pause in _PAUSES_S:
        time.sleep(pause)
        for url in archive.urls:
            sink = _Sink(file, archive.size)
            try:
                downloader(url, sink, None)
            except (RequestException, ValueError) as error:
                failures[url] = str(error)
                continue
            difference = archive.difference(sink.size, sink.digest.hexdigest())
            if not difference:
                return
            failures[url] = f"the file there {difference}"
    reasons = "".join(f"\n  {url}: {reason};" for url, reason in failures.items())
    raise ConnectionError(
        f"{name} could not be downloaded:{reasons}\nDownload it by hand from one of these addresses and put it at "
        f"{path} ({archive.size:,} bytes, SHA-256 {archive.sha256})"
    )


class _Sink:
    """The file that pooch writes to, from its start. It counts and hashes the bytes, and accepts at most `limit`."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        file.seek(0)
        self.file, self.limit, self.size, self.digest = file, limit, 0, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.limit:
            raise ValueError(f"the file there has more than {self.limit:,} bytes")
        self.digest.update(data)
        self.file.write(data)

    def flush(self) -> None:
        self.file.flush()
