from typing import Any

from numpy import uint8
from numpy.typing import NDArray

from alscore._support.arrays import Doubles, Floats, Int32s, Int64s

def search(
    queries: Floats,
    query_norm: Doubles,
    candidates: Any,
    exclude: Any,
    banned: NDArray[uint8] | None,
    n: int,
    num_threads: int,
) -> tuple[Int32s, Floats]: ...
def best(scores: Floats, exclude_indptr: Int64s, exclude_indices: Int32s, n: int, num_threads: int) -> Int32s: ...
def norms(factors: Floats, num_threads: int) -> Doubles: ...
def pack(factors: Floats, order: Int32s, scale: Floats | None, n: int, num_threads: int) -> Floats: ...
