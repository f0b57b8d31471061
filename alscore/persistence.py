"""Save and load anything of alscore by one function each; the format is described in `alscore._data.container`."""

import os
from typing import Any, BinaryIO

from alscore._data import container
from alscore._data.container import FormatError as FormatError
from alscore.als import AlternatingLeastSquares
from alscore.interactions import Interactions
from alscore.recommender import Recommender

_KINDS = {kind.__name__: kind._restored for kind in (AlternatingLeastSquares, Interactions, Recommender)}


def save(obj: Recommender | AlternatingLeastSquares | Interactions, file: str | os.PathLike[str] | BinaryIO) -> None:
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
    if not isinstance(obj, Recommender | AlternatingLeastSquares | Interactions):
        raise TypeError(f"can save a Recommender, an AlternatingLeastSquares or Interactions, not {type(obj).__name__}")
    obj.save(file)


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
    return container.read(file, _KINDS, KeyError, mmap)
