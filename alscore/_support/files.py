"""Writing a file in one step: the new file appears complete, or the old one stays."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file for writing bytes. It replaces `path` when the ``with`` block ends without an exception.

    The temporary file is in the folder of `path`. It is on the disk (fsync) before it replaces the old file, and it
    gets the permissions of the old file. An exception removes it, and the old file stays.

    Parameters
    ----------
    path : str or path
        A symbolic link is followed.

    Raises
    ------
    OSError
        At once, if `path` is a folder or a device, or if its folder cannot be written to.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "exists and is not a regular file", str(path))
    temporary = path.with_name(f".alscore-{secrets.token_hex(8)}.tmp")
    try:
        file = open(temporary, "xb")  # noqa: SIM115
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with file:
            if path.exists():
                shutil.copymode(path, temporary)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
