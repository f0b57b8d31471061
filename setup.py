"""What TOML cannot say: the extension modules. Everything else is in pyproject.toml."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("ALSCORE_DEBUG") == "1"  # bounds checks
# gnu11, not c99: with a strict standard GCC does not contract a*b+c to one FMA
CFLAGS = ["-std=gnu11", "-fno-math-errno", "-O1" if DEBUG else "-O3", "-g" if DEBUG else "-g0"]
if sys.platform == "win32":
    CFLAGS = [f"/clang:{flag}" for flag in CFLAGS]
OPENMP, LINK_OPENMP = {
    "win32": (["/openmp"], ["libomp.lib"]),  # LLVM's, as its clang-cl is
    "darwin": (["-Xpreprocessor", "-fopenmp"], ["-lomp"]),  # Apple's clang has no -fopenmp of its own, nor a library
}.get(sys.platform, (["-fopenmp"], ["-fopenmp"]))
KERNELS = ["src_c/dispatch.c", *(f"src_c/kernels_{isa}.c" for isa in ("generic", "avx2", "avx512", "neon"))]
HEADERS = [
    "alscore/include/alscore.h",
    *(f"src_c/{name}.h" for name in ("kernels", "kernels.inc", "kernels.body", "x86")),
]


def extension(name, sources=()):
    return Extension(
        f"alscore.{name}",
        [f"alscore/{name.replace('.', '/')}.pyx", *sources],
        include_dirs=["src_c", "alscore/include"],
        depends=HEADERS,
        extra_compile_args=[*CFLAGS, *OPENMP],
        extra_link_args=LINK_OPENMP,
    )


class BuildExtensions(build_ext):
    """Compiles everything afresh after a build in the other mode: time stamps do not tell the two apart."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self):
        stamps = Path("build/release"), Path("build/debug")
        self.force = self.force or not stamps[DEBUG].exists()
        stamps[not DEBUG].unlink(missing_ok=True)
        super().run()
        stamps[DEBUG].touch()

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            self._use_clang_cl()
        if sys.platform == "darwin":
            self._find_openmp()
        super().build_extensions()

    def _use_clang_cl(self):
        tools = [shutil.which(name) for name in ("clang-cl", "lld-link")]
        if None in tools:
            sys.exit("alscore: cl.exe does not know vector types: install LLVM and put clang-cl and lld-link into PATH")
        self.compiler.initialize()  # else it looks for its own compiler later
        self.compiler.cc, self.compiler.linker = tools

    def _find_openmp(self):
        """Homebrew's, where Apple's clang does not look, unless the environment names another."""
        flags = f"{os.environ.get('CFLAGS', '')} {os.environ.get('CPPFLAGS', '')}"
        named = re.findall(r"-(?:I|isystem) ?(\S+)", flags) + os.environ.get("CPATH", "").split(os.pathsep)
        if any(folder and Path(folder, "omp.h").is_file() for folder in named):
            return
        found = shutil.which("brew") and subprocess.check_output(["brew", "--prefix", "libomp"], text=True).strip()
        if not found or not Path(found, "include/omp.h").is_file():
            sys.exit("alscore: Apple's clang has no OpenMP: brew install libomp, or name one in CFLAGS and LDFLAGS")
        self.compiler.add_include_dir(f"{found}/include")
        self.compiler.add_library_dir(f"{found}/lib")


setup(
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=cythonize(
        [
            extension("_core.kernel_table", KERNELS),
            extension("_core.builtin_solvers"),
            extension("_core.nonnegative"),
            extension("_core.scratch"),
            extension("_core.sweeps"),
            extension("_core.topk"),
            extension("_core.ranking"),
            extension("_core.probe", ["src_c/probe.c"]),
            extension("kernels"),
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
