import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

def top_n(
    queries: Floats,
    factors: Floats,
    exclude_indptr: npt.NDArray[np.int64] | None,
    exclude_indices: npt.NDArray[np.int32] | None,
    banned: npt.NDArray[np.uint8] | None,
    ids: npt.NDArray[np.int32],
    scores: Floats,
    num_threads: int,
) -> None: ...
