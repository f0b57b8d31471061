from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import alscore

setup(
    ext_modules=cythonize(
        Extension("alscore_ialspp._ialspp", ["src/alscore_ialspp/_ialspp.pyx"], include_dirs=[alscore.get_include()]),
        include_path=[str(Path(alscore.__file__).parents[1])],  # Cython does not look where an editable install points
        build_dir="build",
        compiler_directives={"cdivision": True},
    )
)
