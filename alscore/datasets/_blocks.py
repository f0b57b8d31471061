"""Splits a stream into blocks of whole lines, which threads can parse."""

from collections.abc import Iterator
from io import BufferedIOBase
from itertools import cycle

BOM = b"\xef\xbb\xbf"  # byte order mark of UTF-8
BLOCK_BYTES = 12 << 20  # bytes of a block, and of the longest line
_READ_BYTES = 1 << 18  # bytes per read: for longer reads tarfile gets new memory from the system each time


class LineTooLongError(ValueError):
    """A line is longer than a block."""


def blocks(stream: BufferedIOBase, n_buffers: int, block_bytes: int = BLOCK_BYTES) -> Iterator[memoryview]:
    """Yield a stream in blocks of whole lines, without a byte order mark.

    The blocks use `n_buffers` buffers in turn: a block is overwritten when the `n_buffers`-th block after it is read.
    """
    rest = stream.read(3).removeprefix(BOM)
    for buffer in cycle([bytearray(block_bytes) for _ in range(n_buffers)]):
        view, end = memoryview(buffer), len(rest)
        view[:end] = rest
        while size := stream.readinto(view[end : end + _READ_BYTES]):
            end += size
        if end == len(rest):
            break
        whole = buffer.rfind(b"\n", 0, end) + 1
        if not whole and end == block_bytes:
            raise LineTooLongError(f"the next line has more than {block_bytes:,} bytes")
        rest = bytes(view[whole:end])
        if whole:
            yield view[:whole]
    if rest:
        yield memoryview(rest)
