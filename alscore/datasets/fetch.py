"""Download of published data sets: verified, kept, and from a second address where the first one fails."""

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
_ROUNDS = 3  # through all addresses, with a pause of 1 s and then of 2 s
_CHUNK = 1 << 18  # bytes


@dataclass(frozen=True)
class Archive:
    """A published file: its name, what is known of its content, where it is, and what its licence allows."""

    file: str
    size: int
    sha256: str
    urls: tuple[str, ...]
    licence: str

    def difference(self, size: int, sha256: str) -> str:
        """Say how a file of this size and hash differs from the published one: empty if it does not."""
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
    """Download an archive of a published data set, unless it is there already.

    Whatever its source, the file is used only if its size and SHA-256 are the published ones; until all of it is
    there and verified, it does not have its name. A file put there by hand is as good. The licence is printed to
    stderr before a download. Several processes may fetch the same file at the same time.

    Parameters
    ----------
    name : {"lastfm-360k", "lastfm-1k", "hetrec-lastfm-2k"}
        The data set: 569, 673 and 2.6 MB.
    folder : str or path, optional
        Where the file is kept. Default: the environment variable ``ALSCORE_DATA``, or else the user's cache folder,
        ``~/.cache/alscore`` unless ``XDG_CACHE_HOME`` names another one.
    timeout : float
        Seconds without an answer after which an address is given up.
    show_progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    Path
        The archive, for the reader of that data set, which reads it in place.

    Raises
    ------
    ValueError
        An unknown name, a timeout that is not positive, or a wrong file in the place of the archive, which is left
        as it is.
    ImportError
        No pooch, which downloads: ``pip install 'alscore[fetch]'``.
    ConnectionError
        No address gave the file; the message says what to download by hand and where to put it.
    OSError
        The folder cannot be written to.
    """
    if name not in ARCHIVES:
        raise ValueError(f"the data set {name!r} is unknown; there are {', '.join(ARCHIVES)}")
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
        chunk_size=_CHUNK,
        timeout=timeout,
        # Some servers slow down or refuse clients that do not say what they are.
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
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "alscore")  # as pooch has it, which may not be there
    return Path(folder or os.environ.get(FOLDER_VARIABLE) or cache).expanduser()


def _keep_compressed(response: "requests.Response", **_: object) -> None:
    """Have the file as it is: a server may call the .gz of its name an encoding, which requests would undo."""
    response.raw.headers.pop("content-encoding", None)


def _download(name: str, path: Path, file: BinaryIO, downloader: Callable[[str, "_Sink", None], None]) -> None:
    """Write to `file`, which is to become `path`, what the first address gives that has the published content."""
    from requests import RequestException

    archive = ARCHIVES[name]
    failures: dict[str, str] = {}
    for pause in range(_ROUNDS):
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
    """What pooch writes to: a file, from its start, that takes no more than `limit` bytes and has their SHA-256."""

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
