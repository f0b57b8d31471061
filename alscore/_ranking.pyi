import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

def find(
    wanted_indptr: npt.NDArray[np.int64],
    wanted: npt.NDArray[np.int32],
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    num_threads: int,
) -> npt.NDArray[np.int64]: ...
def places(
    scores: Floats,
    seen_indptr: npt.NDArray[np.int64],
    seen: npt.NDArray[np.int32],
    wanted_indptr: npt.NDArray[np.int64],
    wanted: npt.NDArray[np.int32],
    num_threads: int,
) -> npt.NDArray[np.float64]: ...
def similarities(
    ranked: npt.NDArray[np.int32],
    indptr: npt.NDArray[np.int64],
    users: npt.NDArray[np.int32],
    n_users: int,
    num_threads: int,
) -> npt.NDArray[np.float64]: ...
