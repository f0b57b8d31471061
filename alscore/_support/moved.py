"""Old names of modules and of names in modules: they work for one release, with a DeprecationWarning.

A module that has moved has the names of its new place. Of names that changed inside a module, only the public ones are
kept: see `renamed`.
"""

import importlib
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

NEW_MODULES = {  # by the old name
    "alscore.bench.report": ("alscore.bench.presentation",),
    "alscore.bench.training": ("alscore.bench.sweeps",),
    "alscore.canonical": ("alscore._data.canonical",),
    "alscore.evaluation": ("alscore.metrics.evaluation",),
    "alscore.explain": ("alscore.retrieval.explain",),
    "alscore.factor_model": ("alscore.retrieval.factor_model", "alscore.retrieval.factors"),
    "alscore.fold_in": ("alscore.solvers.fold_in",),
    "alscore.half_sweeps": ("alscore.solvers.half_sweeps",),
    "alscore.objective": ("alscore.solvers.objective", "alscore.solvers.loss"),
    "alscore.rankings": ("alscore.metrics.rankings",),
    "alscore.spark.training": ("alscore.spark.jobs",),
}


class _Finder:
    """Finds a module under its old name, and fills it with the names of the module at its new place."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name in NEW_MODULES else None  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        homes = NEW_MODULES[module.__name__]
        warnings.warn(
            f"{module.__name__} is now {' and '.join(homes)}; the old name will be removed in the next release. Import "
            "public names from the modules that the reference lists",
            DeprecationWarning,
            stacklevel=2,
        )
        for home in map(importlib.import_module, homes):
            module.__dict__.update({name: value for name, value in vars(home).items() if not name.startswith("__")})


def install() -> None:
    """Make the old names importable, after everything that is really there."""
    sys.meta_path.append(_Finder())


def renamed(module: str, names: dict[str, str], homes: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that finds its names by their old names: `names` maps old to new.

    It also finds the names in `homes`: each is imported on first use, from the module that `homes` maps it to.
    """

    def find(name: str) -> Any:
        if homes is not None and name in homes:
            return getattr(importlib.import_module(homes[name]), name)
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(
            f"{module}.{name} is now {names[name]}; the old name will be removed in the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(sys.modules[module], names[name])

    return find
