"""alscore info: what people paste into a bug report."""

import importlib.metadata
import json
import platform
import re
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from alscore import __version__, solvers
from alscore._core import kernel_table
from alscore._support import threads
from alscore.cli import installation, main


@pytest.fixture
def info(capsys):
    assert main(["info", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_versions(info):
    assert info["version"] == __version__
    assert info["python"] == f"{platform.python_implementation()} {platform.python_version()}"
    assert info["dependencies"]["numpy"] == np.__version__
    required = {re.match(r"[\w-]+", line)[0] for line in importlib.metadata.requires("alscore") if "extra" not in line}
    assert set(info["dependencies"]) == required


def test_kernel_sets_are_those_in_use_and_available(info):
    assert info["isa"] == kernel_table.isa()
    assert info["isa_available"] == kernel_table.available()
    assert info["cpus"] == threads.available_cpus()


def test_every_library_with_threads_is_reported_without_its_path(info):
    loaded = {(each["filepath"], each["num_threads"]) for each in threadpool_info()}
    reported = [(each["file"], each["threads"]) for each in info["blas"] + info["openmp"]]
    assert {(Path(path).name, threads) for path, threads in loaded} == {(Path(path).name, n) for path, n in reported}
    assert all(len(Path(path).parts) == 2 for path, _ in reported)
    assert info["openmp"], "alscore has loops in OpenMP"


def test_solvers_by_name(info):
    assert info["solvers"]["cholesky"] == f"alscore.solvers:Cholesky from alscore {__version__}"
    assert set(info["solvers"]) == importlib.metadata.entry_points(group="alscore.solvers").names


def test_broken_parts_are_reported(monkeypatch, tmp_path):
    """A dependency without metadata and solvers that cannot be used do not prevent the report."""
    for name, entries in (("one", "a = one:A\nb = json:B\nc = json:loads"), ("two", "a = two:A")):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[alscore.solvers]\n{entries}\n")
    monkeypatch.syspath_prepend(tmp_path)
    for cache in (solvers.registered, solvers.by_name):
        cache.cache_clear()
    try:
        info = installation.collect(dependencies=("numpy", "no-such-thing"))
    finally:
        for cache in (solvers.registered, solvers.by_name):
            cache.cache_clear()
    assert info["dependencies"] == {"numpy": np.__version__, "no-such-thing": "missing"}
    assert info["solvers"]["a"].startswith("two packages register the solver 'a': ")
    assert all(each in info["solvers"]["a"] for each in ("one:A from one 1.0", "two:A from two 1.0"))
    assert re.match(r"the solver 'b' \(json:B from one 1.0\) cannot be imported: AttributeError", info["solvers"]["b"])
    assert info["solvers"]["c"].startswith("solver must be a name")
    assert info["solvers"]["cg"].startswith("alscore.solvers:ConjugateGradient")


def test_only_the_relevant_environment_is_reported(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("ALSCORE_DATA", "/home/me")
    main(["info"])
    out = capsys.readouterr().out
    assert "OMP_NUM_THREADS 3" in out
    assert "/home/me" not in out


def test_the_environment_is_what_the_user_set(run_python):
    code = """
import json, os
for name in [name for name in os.environ if name.startswith(("ALSCORE", "OMP", "GOMP", "KMP", "OPENBLAS", "MKL"))]:
    del os.environ[name]
before = dict(os.environ)
import alscore.als, alscore.recommender
assert dict(os.environ) == before
from alscore.cli import main
main(["info", "--json"])
"""
    result = run_python(code)
    assert json.loads(result.stdout)["environment"] == {}, result.stderr


def test_lines_say_the_same(info, capsys):
    main(["info"])
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["version"] == __version__
    assert lines["isa"] == info["isa"]
    assert lines["isa available"] == ", ".join(info["isa_available"])
    assert f"numpy {np.__version__}" in lines["dependencies"]
    assert "libgomp" in lines["openmp"] or "libomp" in lines["openmp"] or "libiomp" in lines["openmp"]


def test_a_forced_kernel_set_is_reported(run_python):
    code = "from alscore.cli import main; main(['info'])"
    assert "\nisa: generic\n" in run_python(code, ALSCORE_ISA="generic").stdout
