"""The benchmark: that it measures what it says, not how fast anything is."""

import importlib.util
import json

import numpy as np
import pytest

from alscore import bench, datasets, solvers
from alscore.cli import main
from alscore.testing import half_sweep, loss


@pytest.fixture(scope="module")
def plays():
    return datasets.synthetic(60, 50, seed=0).matrix


def test_sweep_minimises_the_objective_from_the_common_start(plays):
    """Exact sweeps against the float64 oracle's, from the same item factors."""
    answer = bench.sweep(plays, ["alscore-cholesky", "alscore-cg"], factors=5, threads=1, sweeps=1, repeats=2)
    dense, expected = plays.toarray(), []
    Y = np.random.default_rng(0).standard_normal((50, 5), np.float32) * np.float32(0.1 / np.sqrt(5))
    for _ in range(2):
        X = half_sweep(dense, Y, regularization=0.01)
        Y = half_sweep(dense.T, X, regularization=0.01)
        expected.append(loss(dense, X, Y, regularization=0.01))
    exact, cg = answer["results"]
    np.testing.assert_allclose(exact["objective"], expected, rtol=1e-4)
    assert len(cg["objective"]) == 2
    assert cg["objective"][0] >= exact["objective"][0]
    assert exact["ratio"] == 1.0
    assert cg["ratio"] == cg["median"] / exact["median"]
    for row in answer["results"]:
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert row["peak_bytes"] > 0
    assert answer["entries"] == plays.nnz


def test_what_is_not_installed_is_named_and_skipped(plays, monkeypatch):
    monkeypatch.setitem(bench.CONTENDERS, "nobody-cg", ("a_package_that_is_not_there", None, None))
    said = []
    answer = bench.sweep(plays, ["nobody-cg", "alscore-cg"], 3, 1, 1, 1, say=said.append)
    assert [row["contender"] for row in answer["results"]] == ["alscore-cg"]
    assert "nobody-cg: skipped, a_package_that_is_not_there is not installed" in said[0]


def test_unknown_contender_is_refused(plays):
    with pytest.raises(ValueError, match="no contender is named 'nobody'; there are: alscore-cholesky"):
        bench.sweep(plays, ["nobody"])


def test_contender_that_fails_is_named(plays):
    with pytest.raises(RuntimeError, match="alscore-cg failed: ValueError: alpha must be above 0"):
        bench.sweep(plays, ["alscore-cg"], 3, 1, 1, 1, alpha=-1.0)


def test_peers_minimise_the_same_objective(plays):
    """Where a peer is installed its exact sweeps must come to ours: CI has none, and there this compares ours alone."""
    exact = [name for name in bench.CONTENDERS if name.endswith("cholesky")]
    present = [name for name in exact if importlib.util.find_spec(bench.CONTENDERS[name][0])]
    results = bench.sweep(plays, present, factors=5, threads=1, sweeps=2, repeats=1)["results"]
    for row in results:
        np.testing.assert_allclose(row["objective"], results[0]["objective"], rtol=1e-3)


def test_every_solver_of_ours_is_a_contender():
    assert {f"alscore-{name}" for name in ("cholesky", "cg", "auto")} <= bench.CONTENDERS.keys()
    assert {"cholesky", "cg", "auto"} <= solvers.registered().keys()


def test_command(tmp_path, capsys):
    path = tmp_path / "plays.tsv"
    datasets.write_lastfm_360k(datasets.synthetic(60, 50, seed=0), path)
    command = ["bench", "sweep", "--data", str(path), "--solver", "cg,auto", "--factors", "4", "--threads", "1"]
    assert main([*command, "--sweeps", "1", "--repeats", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["contender"] for row in answer["results"]] == ["alscore-cg", "alscore-auto"]
    assert answer["factors"] == 4
    assert main(["bench", "sweep", "--scale", "0.0001", "--solver", "cg", "--factors", "4", "--repeats", "1"]) == 0
    assert "alscore-cg" in capsys.readouterr().out
