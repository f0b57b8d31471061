"""Integer codes for text labels that arrive block by block."""

from array import array

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alscore._support.arrays import Int32s

Coded = tuple[Int32s, pa.Array]  # int32 codes, and the labels (large_string) that they number
MAX_LABELS = np.iinfo(np.int32).max
# More than twice this number of labels (or twice the known labels, if more) wait before they are joined. This many
# codes are recoded at a time. At this number the cost of a call does not matter.
_BATCH = 1 << 16


class LabelCoder:
    """Gives each distinct label one code. Memory holds the codes and the distinct labels.

    Parameters
    ----------
    name : str
        What the labels are, for messages.
    max_labels : int
        The largest number of distinct labels.
    batch : int
        More than twice as many labels wait before they are joined. This many codes are recoded at a time.
    """

    def __init__(self, name: str, max_labels: int = MAX_LABELS, batch: int = _BATCH) -> None:
        self._name, self._max_labels, self._batch = name, max_labels, batch
        self._labels = pa.array([], pa.large_string())
        self._codes = array("i")  # grows in place
        self._waiting: list[Coded] = []
        self._n_waiting = 0  # labels, some of which may be known

    def add(self, column: pa.DictionaryArray) -> None:
        """Append the codes of a block. The dictionary of the block (large_string) may have labels that are not used.

        Raises
        ------
        ValueError
            There are more than `max_labels` labels. `sorted` can raise it too.
        """
        codes, labels = column.indices.to_numpy(), column.dictionary
        used = np.zeros(len(labels), bool)
        used[codes] = True
        if not used.all():
            codes, labels = (np.cumsum(used, dtype=np.int32) - np.int32(1))[codes], labels.filter(pa.array(used))
        if len(self._labels) + self._n_waiting + len(labels) > self._max_labels:  # fewer when joined, perhaps
            self._join()
        self._waiting.append((codes, labels))
        self._n_waiting += len(labels)
        # A join hashes all known labels again, so it waits for twice as many new ones.
        if self._n_waiting > 2 * max(len(self._labels), self._batch):
            self._join()

    def _join(self) -> None:
        start = len(self._labels)
        if start + self._n_waiting > self._max_labels:
            raise ValueError(f"{self._name}: more labels than the {self._max_labels:,} that int32 codes tell apart")
        # dictionary_encode numbers labels by first appearance, so the known labels keep their codes.
        joined = pa.concat_arrays([self._labels, *(labels for _, labels in self._waiting)]).dictionary_encode()
        recoded = joined.indices.to_numpy()
        for codes, labels in self._waiting:
            self._codes.frombytes(recoded[start:][codes].view(np.uint8))
            start += len(labels)
        self._labels, self._waiting, self._n_waiting = joined.dictionary, [], 0

    def sorted(self) -> Coded:
        """Return all codes, in the order in which they were added, and the labels, ascending. Call it once, last."""
        self._join()
        order = pc.sort_indices(self._labels)
        rank = np.empty(len(order), np.int32)
        rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
        codes = np.frombuffer(self._codes, np.int32)
        for at in range(0, len(codes), self._batch):  # in place: at once, numpy would copy all codes to int64
            batch = codes[at : at + self._batch]
            batch[:] = rank[batch]
        return codes, self._labels.take(order)
