"""Verify the contents and the size of the sdist and wheels that are named on the command line.

Wheels must have every module of the package beside this script.
"""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 4_000_000  # bytes
LIBRARY = r"\.(so|pyd|dylib|dll)"
WHEEL = re.compile(
    rf"alscore/([\w/]+\.(py|pyi|pxd)|(_core/)?[\w.-]+{LIBRARY}|py\.typed|include/alscore\.h|\.dylibs/libomp\.dylib)"
    r"|alscore\.libs/((libgomp|libomp|vcruntime|msvcp|\.load-order)[^/]*)"  # the OpenMP runtime and its dependencies
    r"|alscore-[^/]+\.dist-info/.+"
)
PACKAGE = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("alscore/**/*")}
IN_WHEEL = {name for name in PACKAGE if re.search(r"\.(py|pyi|pxd|typed|h)$", name)}
COMPILED = {name.removesuffix(".pyx") for name in PACKAGE if name.endswith(".pyx")}
BUNDLED = ("bundled", "GPL-3.0", "GCC-exception-3.1", "Apache-2.0-with-LLVM-exception")
LICENSES = {"LICENSE", *(f"licenses/{name}.txt" for name in BUNDLED)}
NOT_IN_SDIST = re.compile(rf"build/.*|alscore/[\w/]+\.c|.*({LIBRARY}|\.(pyc|o|als|parquet|gz|zip))")
IN_SDIST = {"setup.py", "pyproject.toml", "src_c/kernels.h", "alscore/_core/sweeps.pyx", "tests/conftest.py", *LICENSES}
IN_SDIST.add("docs/migrating-from-implicit.md")  # a test runs its code


def wrong(path: Path) -> list[str]:
    """Describe what is missing in a file, and what should not be in it."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            names = {name for name in wheel.namelist() if not name.endswith("/")}
        unwanted = {name for name in names if not WHEEL.fullmatch(name)}
        modules = {name.partition(".")[0] for name in names if re.search(rf"{LIBRARY}$", name)}
        licenses = {name.partition(".dist-info/licenses/")[2] for name in names}
        missing = (IN_WHEEL - names) | (LICENSES - licenses)
        missing |= {f"{name}, compiled" for name in COMPILED - modules}
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
