"""Solvers of other packages: the examples, built and tested in an environment with alscore from a wheel."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest

import alscore

ROOT = Path(__file__).parents[1]
EXAMPLES = ["eals_c", "ialspp", "textbook"]
COMPILED = sysconfig.get_config_var("EXT_SUFFIX")
BUILT = shutil.ignore_patterns(f"*{COMPILED}", "__pycache__", "build", "*.egg-info")


class Environment:
    """A virtual environment. Its own packages come before those of this environment, which it sees too."""

    def __init__(self, folder):
        venv.create(folder, symlinks=os.name != "nt", with_pip=False)
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        variables = {"base": folder, "platbase": folder}
        packages = Path(sysconfig.get_path("purelib", "venv", vars=variables))
        # PYTHONPATH would come first. Python reads no .pth files of these folders, such as that of an editable alscore.
        (packages / "surroundings.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
        self.packages = packages

    def run(self, *arguments, folder=None):
        """Output of Python with these arguments; a failure shows it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP"))}
        done = subprocess.run(
            [self.python, *map(str, arguments)],
            cwd=folder or self.packages,
            env=inherited,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def install(self, *what):
        self.run("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", *what)


def checkout(folder):
    """A copy of the sources of a wheel, with the compiled modules under test: to compile them takes a minute."""
    for name in ("alscore", "src_c", "licenses", "build/cython"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=BUILT)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    built = folder / "build" / "lib" / "alscore"
    built.mkdir(parents=True)
    package = Path(alscore.__file__).parent
    for module in package.rglob(f"*{COMPILED}"):
        copy = built / module.relative_to(package)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(module, copy)
    (folder / "build" / "release").touch()
    (folder / "setup.cfg").write_text("[build]\nbuild_lib = build/lib\n")
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment with alscore from a wheel, and every example."""
    folder = tmp_path_factory.mktemp("plugins")
    environment = Environment(folder / "venv")
    source = checkout(folder / "alscore")
    wheels = folder / "wheels"
    environment.run("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", wheels, source)
    environment.install(*wheels.iterdir())
    environment.examples = shutil.copytree(ROOT / "examples", folder / "examples", ignore=BUILT)
    environment.install(*(environment.examples / name for name in EXAMPLES))
    return environment


def test_alscore_is_that_of_the_wheel(environment):
    file = environment.run("-c", "import alscore; print(alscore.__file__)").strip()
    assert Path(file).parents[1].samefile(environment.packages)


@pytest.mark.parametrize("example", EXAMPLES)
def test_tests_of_the_example(example, environment):
    environment.run("-m", "pytest", "-q", "-W", "error", folder=environment.examples / example)


def test_same_name_from_two_packages(environment, tmp_path):
    other = shutil.copytree(environment.examples / "textbook", tmp_path / "other")
    settings = (other / "pyproject.toml").read_text().replace("alscore-textbook", "other")
    (other / "pyproject.toml").write_text(settings.replace("alscore_textbook:Textbook", "alscore_textbook:Other"))
    folder = tmp_path / "site"
    environment.install("--target", folder, other)
    code = f"""import sys; sys.path.append({str(folder)!r})
from alscore import solvers
try:
    solvers.resolve("textbook")
except ValueError as error:
    print(error)
"""
    assert "two packages register the solver 'textbook'" in environment.run("-c", code)


PROBE = """# cython: language_level=3
from cython cimport floating
from libc.stdint cimport int32_t

from alscore cimport kernels

IDENTITY, ADD, SUBTRACT = kernels.IDENTITY, kernels.ADD, kernels.SUBTRACT


def dot(const floating[::1] a, const floating[::1] b):
    return kernels.dot(a.shape[0], &a[0], &b[0])


def products(const int32_t[::1] cols, const floating[:, ::1] Y, const floating[::1] x, floating[::1] out):
    kernels.rows_dot(cols.shape[0], Y.shape[1], &cols[0], &Y[0, 0], &x[0], &out[0])


def add_sum(const int32_t[::1] cols, const floating[:, ::1] Y, const floating[::1] s, floating[::1] out):
    kernels.rows_sum(cols.shape[0], Y.shape[1], &cols[0], &Y[0, 0], &s[0], &out[0])


def solve(const int32_t[::1] cols, const floating[:, ::1] Y, const floating[::1] d, const floating[::1] e,
          bint transposed, list starts, floating[::1] P, floating[::1] C, floating[::1] b):
    cdef ptrdiff_t n = cols.shape[0], k = Y.shape[1]
    cdef ptrdiff_t q = n if transposed else k, depth = k if transposed else n
    cdef floating cancelled
    cdef int start
    assert kernels.lanes(&P[0]) in (2, 4, 8, 16)
    if transposed:
        kernels.gather_columns(n, k, &cols[0], &Y[0, 0], &d[0], &e[0], &P[0])
    else:
        kernels.gather_rows(n, k, &cols[0], &Y[0, 0], &d[0], &e[0], &P[0])
    for start in starts:
        kernels.rank_update(start, q, depth, &P[0], &C[0])
    failed = kernels.cholesky(q, &C[0], &cancelled)
    kernels.solve(q, &C[0], &b[0])
    return failed, cancelled
"""


@pytest.fixture(scope="module")
def probe(environment, tmp_path_factory):
    """An extension module that cimports alscore.kernels, compiled in that environment and imported here."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.pyx").write_text(PROBE)
    environment.run("-m", "Cython.Build.Cythonize", "-q", "-i", "probe.pyx", folder=folder)
    spec = importlib.util.spec_from_file_location("probe", folder / f"probe{COMPILED}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_public_kernels_equal_numpy(probe, isa, dtype):
    rng = np.random.default_rng(0)
    n, k, margin = 21, 37, 16
    Y = rng.standard_normal((50, k)).astype(dtype)
    cols = rng.permutation(50)[:n].astype(np.int32)
    a, s = rng.standard_normal(k).astype(dtype), rng.standard_normal(n).astype(dtype)
    close = {"rtol": 0, "atol": 1e-4 if dtype == np.float32 else 1e-12}

    wide, rows = a.astype(np.float64), Y[cols].astype(np.float64)
    np.testing.assert_allclose(probe.dot(a, a), wide @ wide, **close)
    out = np.zeros(n, dtype)
    probe.products(cols, Y, a, out)
    np.testing.assert_allclose(out, rows @ wide, **close)
    out = np.ones(k, dtype)
    probe.add_sum(cols, Y, s, out)
    np.testing.assert_allclose(out, 1 + rows.T @ s, **close)

    d, e = rng.random(n).astype(dtype), np.zeros(k + margin, dtype)
    e[:k] = rng.random(k)
    once, twice = [probe.IDENTITY], [probe.IDENTITY, probe.ADD]
    for transposed, starts, times in (
        (False, once, 1),
        (True, once, 1),
        (False, twice, 2),
        (False, [*twice, probe.SUBTRACT], 1),
    ):
        P = (d[:, None] * rows * e[:k]).astype(np.float64)
        system = times * (P @ P.T if transposed else P.T @ P)
        q = len(system)
        b = np.zeros(q + margin, dtype)
        b[:q] = rng.standard_normal(q)
        expected = np.linalg.solve(np.eye(q) + system, b[:q].astype(np.float64))
        panels, C = np.zeros((k + margin) ** 2, dtype), np.zeros((k + margin) ** 2, dtype)
        failed, cancelled = probe.solve(cols, Y, d, e, transposed, starts, panels, C, b)
        assert failed == 0
        assert 1 <= cancelled <= np.linalg.cond(np.eye(q) + system)
        np.testing.assert_allclose(b[:q], expected, **close)
