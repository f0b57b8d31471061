from setuptools import Extension, setup

import alscore

setup(
    ext_modules=[
        Extension("alscore_eals", ["eals.c"], include_dirs=[alscore.get_include()], depends=["eals_row.inc.h"])
    ]
)
