"""Integer codes for text labels that arrive block by block."""

from array import array
from typing import TYPE_CHECKING

import numpy as np

from alscore._support.arrays import Int32s

if TYPE_CHECKING:
    import pyarrow as pa

Coded = tuple[Int32s, "pa.Array"]  # int32 codes, and the text labels (large_string) that they number
_MOST = np.iinfo(np.int32).max
_MANY = 1 << 16  # labels or codes that are worth a call


class LabelCoder:
    """Gives each distinct label one code, in memory that grows with the codes and the distinct labels alone.

    Parameters
    ----------
    name : str
        What messages call the labels.
    """

    def __init__(self, name: str) -> None:
        import pyarrow as pa

        self._name = name
        self._labels = pa.array([], pa.large_string())
        self._codes = array("i")  # grows in place
        self._waiting: list[Coded] = []
        self._n_waiting = 0

    def add(self, column: "pa.DictionaryArray") -> None:
        """Append the codes of a block, which number its own labels (large_string), in use or not.

        Raises
        ------
        ValueError
            More than 2**31 - 1 labels, here or in `sorted`.
        """
        import pyarrow as pa

        codes, labels = column.indices.to_numpy(), column.dictionary
        used = np.zeros(len(labels), bool)
        used[codes] = True
        if not used.all():
            codes, labels = (np.cumsum(used, dtype=np.int32) - np.int32(1))[codes], labels.filter(pa.array(used))
        if len(self._labels) + self._n_waiting + len(labels) > _MOST:  # of those that wait, many may be known
            self._join()
        self._waiting.append((codes, labels))
        self._n_waiting += len(labels)
        # Joining hashes the known labels again, so no sooner than for twice as many.
        if self._n_waiting > 2 * max(len(self._labels), _MANY):
            self._join()

    def _join(self) -> None:
        import pyarrow as pa

        start = len(self._labels)
        if start + self._n_waiting > _MOST:
            raise ValueError(f"{self._name}: more labels than the {_MOST:,} that int32 codes tell apart")
        # Codes follow the first appearance, so the labels known keep theirs.
        joined = pa.concat_arrays([self._labels, *(labels for _, labels in self._waiting)]).dictionary_encode()
        recoded = joined.indices.to_numpy()
        for codes, labels in self._waiting:
            self._codes.frombytes(recoded[start:][codes].view(np.uint8))
            start += len(labels)
        self._labels, self._waiting, self._n_waiting = joined.dictionary, [], 0

    def sorted(self) -> Coded:
        """Return all codes, in the order they came, and the labels, ascending. The coder is then of no more use."""
        import pyarrow.compute as pc

        self._join()
        order = pc.sort_indices(self._labels)
        rank = np.empty(len(order), np.int32)
        rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
        codes = np.frombuffer(self._codes, np.int32)
        for at in range(0, len(codes), _MANY):  # in place; numpy makes int64 of what it looks up
            some = codes[at : at + _MANY]
            some[:] = rank[some]
        return codes, self._labels.take(order)
