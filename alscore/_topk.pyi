import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

def top_n(
    queries: Floats,
    query_norm: npt.NDArray[np.float64],
    factors: Floats,
    order: npt.NDArray[np.int32],
    scale: Floats | None,
    norm: npt.NDArray[np.float64],
    packed: Floats | None,
    exclude_indptr: npt.NDArray[np.int64] | None,
    exclude_indices: npt.NDArray[np.int32] | None,
    banned: npt.NDArray[np.uint8] | None,
    n: int,
    num_threads: int,
) -> tuple[npt.NDArray[np.int32], Floats]: ...
def best(
    scores: Floats,
    exclude_indptr: npt.NDArray[np.int64],
    exclude_indices: npt.NDArray[np.int32],
    n: int,
    num_threads: int,
) -> npt.NDArray[np.int32]: ...
def norms(factors: Floats, num_threads: int) -> npt.NDArray[np.float64]: ...
def pack(factors: Floats, order: npt.NDArray[np.int32], scale: Floats | None, n: int, num_threads: int) -> Floats: ...
