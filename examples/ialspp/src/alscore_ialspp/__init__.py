"""iALS++ as a solver for alscore."""

import dataclasses

from alscore_ialspp import _ialspp


@dataclasses.dataclass(frozen=True)
class IALSpp:
    """One pass of block-coordinate descent over each row's factors (Rendle, Krichene, Zhang, Koren 2021).

    Parameters
    ----------
    block : int
        Number of factors that are solved together, from 1 to 2**31 - 1. A block of k factors or more solves the row
        exactly.
    """

    block: int = 32

    def __post_init__(self) -> None:
        if isinstance(self.block, bool) or not hasattr(self.block, "__index__") or not 1 <= self.block < 2**31:
            raise ValueError(f"block must be an integer from 1 to 2**31 - 1, not {self.block!r}")

    def capsule(self) -> object:
        return _ialspp.publish(self.block)
