"""Streams in blocks of whole lines, which threads can parse."""

from collections.abc import Iterator
from io import BufferedIOBase
from itertools import cycle

BOM = b"\xef\xbb\xbf"
_BLOCK = 12 << 20  # bytes parsed at a time: a longer line is none
_PIECE = 1 << 18  # bytes read at a time: for longer ones tarfile would have new memory from the system each time


class LineTooLongError(ValueError):
    """There is no end of line within a block."""


def blocks(stream: BufferedIOBase, n_buffers: int) -> Iterator[memoryview]:
    """Yield the stream, without a byte order mark, in blocks of whole lines, of which `n_buffers` exist at a time."""
    rest = stream.read(3).removeprefix(BOM)
    for buffer in cycle([bytearray(_BLOCK) for _ in range(n_buffers)]):
        view, end = memoryview(buffer), len(rest)
        view[:end] = rest
        while size := stream.readinto(view[end : end + _PIECE]):
            end += size
        if end == len(rest):
            break
        whole = buffer.rfind(b"\n", 0, end) + 1
        if not whole and end == _BLOCK:
            raise LineTooLongError(f"the next line has more than {_BLOCK:,} bytes")
        rest = bytes(view[whole:end])
        if whole:
            yield view[:whole]
    if rest:
        yield memoryview(rest)
