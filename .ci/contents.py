"""What is in the sdist and wheels named on the command line, and how big they are, must be what is meant to be."""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

LARGEST = 4_000_000  # bytes
LIBRARY = r"\.(so|pyd|dylib|dll)"
WHEEL = re.compile(
    rf"alscore/([\w/]+\.(py|pyi|pxd)|[\w.-]+{LIBRARY}|py\.typed|include/alscore\.h|\.dylibs/libomp\.dylib)"
    r"|alscore\.libs/((libgomp|libomp|vcruntime|msvcp|\.load-order)[^/]*)"  # OpenMP's runtime, and what that needs
    r"|alscore-[^/]+\.dist-info/.+"
)
IN_WHEEL = {
    *(f"alscore/{name}" for name in ("py.typed", "include/alscore.h", "solver.pxd", "kernels.pxd", "_sweep.pyi")),
    *(f"alscore/{package}__init__.py" for package in ("", "bench/", "datasets/")),
}
NOT_IN_SDIST = re.compile(rf"build/.*|alscore/\w+\.c|.*({LIBRARY}|\.(pyc|o|als|parquet|gz|zip))")
IN_SDIST = {"setup.py", "pyproject.toml", "LICENSE", "src_c/kernels.h", "alscore/_sweep.pyx", "tests/conftest.py"}


def wrong(path: Path) -> list[str]:
    """What should not be, in words."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            names = {name for name in wheel.namelist() if not name.endswith("/")}
        unwanted = {name for name in names if not WHEEL.fullmatch(name)}
        missing = IN_WHEEL - names
        if not any(re.search(r"lib(g|i)?omp[^/]*(\.so|\.dylib|\.dll)", name) for name in names):
            missing.add("a runtime of OpenMP")
    else:
        with tarfile.open(path) as sdist:
            names = {name.partition("/")[2] for name in sdist.getnames()}
        unwanted = {name for name in names if NOT_IN_SDIST.fullmatch(name)}
        missing = IN_SDIST - names
    found = [f"should not be in it: {name}" for name in sorted(unwanted)]
    found += [f"is not in it: {name}" for name in sorted(missing)]
    if path.stat().st_size > LARGEST:
        found.append(f"has {path.stat().st_size:,} bytes, more than {LARGEST:,}")
    return [f"{path.name}: {what}" for what in found]


paths = [Path(argument) for argument in sys.argv[1:]]
for path in paths:
    print(f"{path.name}: {path.stat().st_size:,} bytes")
sys.exit("\n".join(what for path in paths for what in wrong(path)) or (None if paths else "no files named"))
