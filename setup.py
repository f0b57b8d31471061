"""What TOML cannot say: the extension modules. Everything else is in pyproject.toml."""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("ALSCORE_DEBUG") == "1"  # bounds checks
# gnu11, not c99: with a strict standard GCC does not contract a*b+c to one FMA
CFLAGS = ["-std=gnu11", "-fno-math-errno", "-O1" if DEBUG else "-O3", "-g" if DEBUG else "-g0"]
OPENMP = ["-fopenmp"] if sys.platform != "win32" else ["/openmp"]
KERNELS = [f"src_c/{name}.c" for name in ("dispatch", "kernels_generic", "kernels_avx2", "kernels_avx512")]
HEADERS = ["src_c/kernels.h", "src_c/kernels.inc.h", "src_c/kernels.body.h", "alscore/include/alscore.h"]


def extension(name, sources=()):
    return Extension(
        f"alscore.{name}",
        [f"alscore/{name}.pyx", *sources],
        include_dirs=["src_c", "alscore/include"],
        depends=HEADERS,
        extra_compile_args=[*CFLAGS, *OPENMP],
        extra_link_args=OPENMP,
    )


class BuildExtensions(build_ext):
    """Compiles everything afresh after a build in the other mode: time stamps do not tell the two apart."""

    def run(self):
        stamps = Path("build/release"), Path("build/debug")
        self.force = self.force or not stamps[DEBUG].exists()
        stamps[not DEBUG].unlink(missing_ok=True)
        super().run()
        stamps[DEBUG].touch()


setup(
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=cythonize(
        [
            extension("_kernels", KERNELS),
            extension("kernels"),
            extension("_solvers"),
            extension("_sweep"),
            extension("_topk"),
            extension("_ranking"),
            extension("_probe", ["src_c/probe.c"]),
        ],
        build_dir="build/cython-debug" if DEBUG else "build/cython",
        language_level=3,
        compiler_directives={
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "binding": True,
            "embedsignature": True,
            "autotestdict": False,
            "auto_pickle": False,
        },
    ),
)
