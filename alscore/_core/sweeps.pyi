from alscore._support.arrays import Doubles, Floats, Int32s, Int64s

NOT_POSITIVE_DEFINITE: int
NOT_FINITE: int

def solver_flags(capsule: object) -> tuple[bool, bool, bool]: ...
def sweep(
    capsule: object,
    indptr: Int64s,
    indices: Int32s,
    strength: Floats,
    order: Int64s,
    factors: Floats,
    gram: Floats | None,
    diag: Doubles,
    regularization: Doubles,
    confidence: tuple[float, float, float],
    out: Floats,
    loss: Doubles | None,
    num_threads: int,
) -> tuple[int, int]: ...
def gram(factors: Floats, num_threads: int) -> Doubles: ...
def rotate(factors: Floats, rotation: Floats, num_threads: int) -> None: ...
def observed_losses(
    indptr: Int64s,
    indices: Int32s,
    strength: Floats,
    row_factors: Floats,
    column_factors: Floats,
    confidence: tuple[float, float, float],
    num_threads: int,
) -> Doubles: ...
def transpose(indptr: Int64s, indices: Int32s, data: Floats, n_columns: int) -> tuple[Int64s, Int32s, Floats]: ...
