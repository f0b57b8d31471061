"""Names of numpy array types for signatures: by the kind of number, or by the dtype where only one dtype will do."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]  # float32 or float64
Doubles = NDArray[np.float64]
Ints = NDArray[np.integer]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Bools = NDArray[np.bool]
Numbers = NDArray[np.number]
