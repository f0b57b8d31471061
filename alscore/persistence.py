"""Save and load models and interactions. `alscore._data.container` describes the format of the file."""

import os
from typing import Any, BinaryIO

from alscore._data import container
from alscore._data.container import FormatError as FormatError
from alscore.als import AlternatingLeastSquares
from alscore.interactions import Interactions
from alscore.recommender import Recommender

_KINDS = {kind.__name__: kind._restored for kind in (AlternatingLeastSquares, Interactions, Recommender)}


def save(obj: Recommender | AlternatingLeastSquares | Interactions, file: str | os.PathLike[str] | BinaryIO) -> None:
    """Write a model or interactions to one file. The file holds no pickle.

    Equal objects give equal bytes. Two things are not saved: the state of a `random_state` that is a generator (it is
    None after loading), and the `report` of the interactions.

    Parameters
    ----------
    obj : Recommender, AlternatingLeastSquares or Interactions
        A model may be fitted or not.
    file : str, path or binary file object
        A path is replaced once the new file is complete and on the disk. A file object is written to directly.

    Raises
    ------
    TypeError
        `obj` is of another type, Arrow cannot hold the labels, or the solver's class is not installed as a plug-in.
    NotFittedError
        Factors were assigned to one side only.
    ValueError
        Factors were assigned that do not fit each other.
    OSError
        The file cannot be written.
    """
    if not isinstance(obj, Recommender | AlternatingLeastSquares | Interactions):
        raise TypeError(f"can save a Recommender, an AlternatingLeastSquares or Interactions, not {type(obj).__name__}")
    obj._write(file)


def load(file: str | os.PathLike[str] | BinaryIO, mmap: bool = True) -> Any:
    """Load a model or interactions from a file that `save` wrote.

    Parameters
    ----------
    file : str, path or seekable binary file object
    mmap : bool
        Whether to map Interactions into memory instead of reading them, if `file` is a path. Models are always read.

    Returns
    -------
    Recommender, AlternatingLeastSquares or Interactions
        With the same arrays, bit for bit.

    Raises
    ------
    FormatError
        The file is damaged, incomplete, inconsistent, of another format, or was written by a newer alscore. The message
        says which.
    OSError
        The file cannot be opened or read.

    Notes
    -----
    Mapped arrays are read-only. They and text labels stay in the file; the parts in use are in memory once for all
    processes. Do not change a mapped file in place; `save` replaces the file and is safe. Mapped Interactions are
    verified like all Interactions, but checksums are not compared: a changed value that is still valid is only noticed
    with ``mmap=False``.
    """
    return container.read(file, _KINDS, KeyError, mmap)
