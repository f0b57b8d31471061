"""The objective that training minimises: its parameters, and the weights that follow from them."""

import dataclasses
import math

import numpy as np

from alscore._support.arrays import Doubles, Floats, Ints

CONFIDENCES = ("linear", "log", "raw")
REGULARIZATION_COUNTS = ("all", "entries")


@dataclasses.dataclass(frozen=True)
class Objective:
    """The verified parameters of the objective. `AlternatingLeastSquares` describes them."""

    regularization: float
    alpha: float = 1.0
    confidence: str = "linear"
    epsilon: float = 1.0
    unobserved_weight: float = 1.0
    regularization_exponent: float = 0.0
    regularization_count: str = "all"

    def __post_init__(self) -> None:
        for name in ("regularization", "alpha", "epsilon", "unobserved_weight", "regularization_exponent"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, not {value!r}")
        for name in ("regularization", "unobserved_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)!r}")
        for name in ("alpha", "epsilon"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
        if self.unobserved_weight == 0 and self.regularization == 0:
            raise ValueError(
                "with unobserved_weight=0 a row with few entries has no unique solution: "
                "give regularization a value above 0"
            )
        for name, choices in (("confidence", CONFIDENCES), ("regularization_count", REGULARIZATION_COUNTS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")

    @property
    def weights(self) -> tuple[float, float, float]:
        """(base, scale, unobserved): an entry of strength s has confidence base + scale |s|."""
        return 0.0 if self.confidence == "raw" else 1.0, float(self.alpha), float(self.unobserved_weight)

    def strength(self, values: Floats) -> Floats:
        """Return the signed numbers that confidence is linear in: `values` themselves, or their logarithms."""
        if self.confidence == "log":
            logarithms = np.log1p(np.abs(values, dtype=np.float64) / self.epsilon)
            values = np.copysign(logarithms, values).astype(values.dtype)
        # a quarter of the range: sums of a few confidences must not overflow
        largest = float(max(values.max(), -values.min())) if values.size else 0.0
        if not float(self.alpha) * largest < float(np.finfo(values.dtype).max) / 4:
            raise ValueError(
                f"alpha times the largest value does not fit {values.dtype}: scale the values or alpha "
                "down, or use dtype=float64"
            )
        return values

    def row_regularization(self, entries: Ints, n_columns: int) -> Doubles:
        """Return λ n^ν for rows with these numbers of entries. `regularization_count` defines n. With ν = 0: one λ."""
        if self.regularization_exponent == 0 or self.regularization == 0:
            return np.array([self.regularization], np.float64)
        size = entries + (self.unobserved_weight * n_columns if self.regularization_count == "all" else 0)
        # a row of size 0 has no entries: its factors are 0 with any regularization
        with np.errstate(over="ignore"):
            scale = np.power(size, self.regularization_exponent, out=np.zeros(len(size)), where=size > 0)
            row_regularization: Doubles = self.regularization * scale
        if not np.isfinite(row_regularization).all():
            raise ValueError(
                f"regularization_exponent={self.regularization_exponent!r} makes a row's regularization infinite: "
                "bring it nearer to 0"
            )
        return row_regularization
