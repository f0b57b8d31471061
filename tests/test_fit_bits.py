"""A complete fit has the bits that are stored here, for each kernel set. They may only change on purpose.

BLAS and LAPACK round differently on each processor and in each version. Plain IEEE arithmetic replaces the three steps
that use them: Gram matrix, rotation, eigenvectors. The bits are those of the package compiled with GCC for x86-64;
another compiler may order operations differently.

After a change that alters bits on purpose, ``python tests/test_fit_bits.py`` prints the new table.
"""

import hashlib
import math
import platform

import numpy as np
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares
from alscore._core import kernel_table, sweeps
from alscore.solvers import Auto

# Digests of the factors, in the order of SOLVERS, by kernel set and dtype. Auto takes CG from 51 factors on here.
SOLVERS = {"cholesky": "cholesky", "cg": "cg", "auto": Auto(steps=1), "nonnegative": "nonnegative"}
STORED = {
    ("avx512", "float32"): ("3916df08c9362cf1", "a2c73e65e93b52c1", "48c6e348c18ca745", "29775ebcf68bb3ed"),
    ("avx512", "float64"): ("07d1ab00572f20d7", "c958af6fa83f2182", "4f8381a911ce9957", "d88259b6b4c3cd8f"),
    ("avx2", "float32"): ("e45df3f236d877ed", "7d46ec5f0c782915", "e340a3b2b363833b", "29775ebcf68bb3ed"),
    ("avx2", "float64"): ("bae231b50e7affc8", "0a89ba56ec55812d", "5a5f765fbcfce4da", "bcbb4a4fd7779445"),
    ("generic", "float32"): ("4b047bac78ba03cb", "509d19d8d23f4a32", "2079386bb37a7799", "29775ebcf68bb3ed"),
    ("generic", "float64"): ("94dbc97b78cc0e4e", "41927ceee4cab946", "f4846d0e443ec9b4", "0a5b964aad659093"),
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="the stored bits are those of x86-64"
)


def plain_gram(factors, num_threads):
    total = np.zeros((factors.shape[1],) * 2)
    for row in factors.astype(np.float64):
        total += row[:, None] * row
    return total


def plain_rotate(factors, rotation, num_threads):
    rotated = np.zeros_like(factors)
    for column, row in zip(factors.T, rotation, strict=True):
        rotated += column[:, None] * row
    factors[:] = rotated


def plain_eigh(matrix):
    """Jacobi's method: eigenvalues in ascending order, and eigenvectors as columns."""
    A = [[float(number) for number in row] for row in matrix]
    n = len(A)
    V = [[float(i == j) for j in range(n)] for i in range(n)]
    for _ in range(12):  # more sweeps of Jacobi than any matrix here needs to converge
        for p in range(n - 1):
            for q in range(p + 1, n):
                if A[p][q] == 0:
                    continue
                theta = (A[q][q] - A[p][p]) / (2 * A[p][q])
                t = (1 if theta >= 0 else -1) / (abs(theta) + math.sqrt(theta * theta + 1))
                c = 1 / math.sqrt(t * t + 1)
                s = t * c
                for rows in (A, V):
                    for row in rows:
                        row[p], row[q] = c * row[p] - s * row[q], s * row[p] + c * row[q]
                A[p], A[q] = (
                    [c * a - s * b for a, b in zip(A[p], A[q], strict=True)],
                    [s * a + c * b for a, b in zip(A[p], A[q], strict=True)],
                )
                A[p][q] = A[q][p] = 0.0
    values = np.array([A[i][i] for i in range(n)])
    order = np.argsort(values, kind="stable")
    return values[order], np.array(V)[:, order]


def interactions():
    """Rows of 0 to 70 entries, some below zero: shorter and longer than the factors."""
    rng = np.random.default_rng(0)
    values = rng.integers(1, 50, (80, 70)) * np.where(rng.random((80, 70)) < 0.1, -1, 1)
    observed = rng.random((80, 70)) < np.linspace(0, 0.95, 80)[:, None]
    return sparse.csr_array((values * observed).astype(np.float32))


def digest(solver, dtype):
    """The SHA-256 of the factors of fits with 6 and with 52 factors, in hexadecimal, the first 16 digits."""
    sha256 = hashlib.sha256()
    for factors in (6, 52):
        model = AlternatingLeastSquares(
            factors,
            regularization=0.5,
            iterations=3,
            solver=SOLVERS[solver],
            dtype=dtype,
            random_state=0,
            num_threads=2,
        )
        model.fit(interactions(), show_progress=False)
        sha256.update(model.user_factors.tobytes())
        sha256.update(model.item_factors.tobytes())
    return sha256.hexdigest()[:16]


@pytest.fixture
def _plain_linear_algebra(monkeypatch):
    monkeypatch.setattr(sweeps, "gram", plain_gram)
    monkeypatch.setattr(sweeps, "rotate", plain_rotate)
    monkeypatch.setattr(np.linalg, "eigh", plain_eigh)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.usefixtures("_plain_linear_algebra", "little_work_in_parallel")
def test_a_complete_fit_has_the_stored_bits(isa, solver, dtype):
    assert digest(solver, dtype) == STORED[isa, dtype.name][list(SOLVERS).index(solver)]


def test_plain_linear_algebra_is_right():
    rng = np.random.default_rng(1)
    Y, R = rng.standard_normal((30, 7)), rng.standard_normal((7, 7))
    np.testing.assert_allclose(plain_gram(Y, 1), Y.T @ Y, rtol=1e-12)
    rotated = Y.copy()
    plain_rotate(rotated, R, 1)
    np.testing.assert_allclose(rotated, Y @ R, rtol=1e-12)
    values, vectors = plain_eigh(Y.T @ Y)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(Y.T @ Y), rtol=1e-10)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, Y.T @ Y, rtol=1e-10, atol=1e-10)


if __name__ == "__main__":
    sweeps.gram, sweeps.rotate, np.linalg.eigh = plain_gram, plain_rotate, plain_eigh
    for name in kernel_table.available():
        kernel_table.use(name)
        for dtype in ("float32", "float64"):
            print(f"    ({name!r}, {dtype!r}): {tuple(digest(solver, dtype) for solver in SOLVERS)},")
