"""The benchmark: that it measures what it says, not how fast anything is."""

import importlib.util
import json
import sys
import tarfile

import numpy as np
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, _kernels, bench, datasets, solvers
from alscore.bench import harness, machine, report, training
from alscore.bench.contenders import CONTENDERS
from alscore.cli import main
from alscore.testing import half_sweep, loss


@pytest.fixture(scope="module")
def plays():
    return datasets.synthetic(60, 50, seed=0).matrix


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "plays.tsv"
    datasets.write_lastfm_360k(datasets.synthetic(60, 50, seed=0), path)
    return path


@pytest.fixture(autouse=True)
def _known_machine(monkeypatch):
    """Peaks that need no measuring, so that the shares of them are known."""
    monkeypatch.setattr(machine, "fma_peak", lambda threads: 1e9)
    monkeypatch.setattr(machine, "gather_bandwidth", lambda k, threads: 1e8)


def interpreter(path, script):
    """An executable that stands in for a Python."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def oracle(plays, factors, sweeps):
    """The objective after each of some exact sweeps from the benchmark's start, in dense float64."""
    dense, objective = plays.toarray(), []
    Y = np.random.default_rng(0).standard_normal((plays.shape[1], factors), np.float32) * np.float32(
        0.1 / np.sqrt(factors)
    )
    for _ in range(sweeps):
        X = half_sweep(dense, Y, regularization=0.01)
        Y = half_sweep(dense.T, X, regularization=0.01)
        objective.append(loss(dense, X, Y, regularization=0.01))
    return np.array(objective)


def row(answer, contender):
    return next(row for row in answer["results"] if row["contender"] == contender)


def test_sweep(plays):
    """Exact sweeps against the float64 oracle's, from the same item factors; the statistics from what was measured."""
    answer = bench.sweep(plays, ["alscore-cholesky", "alscore-cg"], factors=5, threads=1, sweeps=1, repeats=2)
    exact, cg = row(answer, "alscore-cholesky"), row(answer, "alscore-cg")
    np.testing.assert_allclose(exact["objective"], oracle(plays, 5, 2), rtol=1e-4)
    assert len(cg["objective"]) == 2
    assert cg["objective"][0] >= exact["objective"][0]
    first, second = (run["measured"] for run in answer["runs"]["alscore-cholesky"])
    assert (exact["min"], exact["max"]) == tuple(sorted((first[1]["seconds"], second[1]["seconds"])))
    assert exact["ratio"] == 1
    assert cg["ratio"] == pytest.approx(cg["median"] / exact["median"])
    needed = machine.sweep_flops(np.diff(plays.indptr), np.diff(plays.tocsc().indptr), 5)
    assert exact["fma_share"] * 1e9 * exact["median"] == pytest.approx(needed)
    assert "fma_share" not in cg
    assert cg["gather_share"] * 1e8 * cg["median"] == pytest.approx(2 * plays.nnz * 5 * 4)
    assert answer["data"] == {"users": 60, "items": 50, "entries": plays.nnz}
    assert answer["versions"] == {"alscore": "0.1.0"}


def test_converge(plays):
    answer = bench.converge(plays, ["alscore-cholesky"], factors=5, threads=1, sweeps=6, reference_sweeps=6, repeats=1)
    objective = oracle(plays, 5, 6)
    assert answer["reference"] == pytest.approx(objective.min(), rel=1e-4)
    assert answer["targets"].keys() == {"within 1 %", "within 0.1 %"}
    seconds = [at["seconds"] for at in answer["runs"]["alscore-cholesky"][0]["measured"]]
    reached = row(answer, "alscore-cholesky")["reached"]
    for label, factor in (("within 1 %", 1.01), ("within 0.1 %", 1.001)):
        needed = int(np.argmax(objective <= objective.min() * factor)) + 1
        assert reached[label]["median"] == pytest.approx(sum(seconds[:needed]))


def test_until_counts_the_sweep_that_comes_to_the_target():
    objectives = {"slow": [30, 20, 10], "quick": [15, 9, 8], "never": [40, 40, 40]}
    cumulated = {"slow": [[1, 2, 3], [2, 4, 6]], "quick": [[5, 6, 7], [6, 7, 8]], "never": [[1, 2, 3]] * 2}
    assert training.until(10, objectives, cumulated) == {"slow": [[3], [6]], "quick": [[6], [7]]}


def test_every_kernel_set_is_a_contender(plays):
    said = []
    sets = [*_kernels.available(), "altivec"]
    answer = bench.sweep(plays, ["alscore-cg"], factors=5, threads=1, sweeps=1, repeats=1, isa=sets, say=said.append)
    assert [row["contender"] for row in answer["results"]] == [f"alscore-cg@{isa}" for isa in _kernels.available()]
    assert said[0].startswith("alscore-cg@altivec: skipped, this processor cannot run the kernel set 'altivec'")
    assert list(answer["skipped"]) == ["alscore-cg@altivec"]


def test_peers_minimise_the_same_objective(plays):
    """Where a peer is installed, its exact sweeps must come to the oracle's; without any this compares ours alone."""
    exact = [name for name in CONTENDERS if name.endswith("cholesky")]
    present = [name for name in exact if importlib.util.find_spec(CONTENDERS[name].package)]
    answer = bench.sweep(plays, present, factors=5, threads=1, sweeps=2, repeats=1)
    assert answer["failed"] == {}
    for result in answer["results"]:
        np.testing.assert_allclose(result["objective"], oracle(plays, 5, 3), rtol=1e-3, err_msg=result["contender"])


def test_every_solver_of_ours_is_a_contender():
    assert {f"alscore-{name}" for name in ("cholesky", "cg", "auto")} <= CONTENDERS.keys()
    assert {"cholesky", "cg", "auto"} <= solvers.registered().keys()


def run_of(*seconds):
    return {"measured": [{"seconds": value, "peak_bytes": 1} for value in seconds]}


def test_contenders_alternate_and_who_fails_is_out():
    order, said = [], []

    def run(name, repeat):
        order.append(name)
        if (name, repeat) == ("B", 1):
            raise RuntimeError("no more")
        return run_of(repeat)

    runs, failed = harness.alternate(["A", "B", "C"], 3, run, said.append)
    assert "".join(order) == "ABCABCAC"
    assert failed == {"B": "no more"}
    assert runs == {name: [run_of(0), run_of(1), run_of(2)] for name in "AC"}
    assert "B: failed: no more" in said


def test_ratios_are_paired_by_repeat():
    rows = harness.compare({"A": [[1, 3], [4, 4], [10, 10]], "B": [[5, 7], [6, 6], [12, 14]]}, "A")
    assert rows["A"] == {"median": 4, "min": 1, "max": 10, "spread": 5, "ratio": 1, "ratio_low": 1, "ratio_high": 1}
    assert rows["B"] == pytest.approx(
        {"median": 6.5, "min": 5, "max": 14, "spread": 13 / 6, "ratio": 1.625, "ratio_low": 1.3, "ratio_high": 3}
    )
    assert "ratio" not in harness.compare({"B": [[1]]}, "A")["B"]


def test_the_first_time_in_a_process_warms_up():
    rows = harness.compare_warm({"A": [run_of(99, 1, 2), run_of(99, 3, 2)]}, "A")
    assert (rows["A"]["median"], rows["A"]["max"]) == (2, 3)


def test_noise_is_said():
    steady = {"A": [[1.0], [1.1], [1.0]], "B": [[2.0], [2.1], [2.2]]}
    assert harness.noise(harness.compare(steady, "A"), "A", 3) == []
    equal = {"A": [[1.0], [1.1], [1.0]], "B": [[1.1], [1.0], [1.1]]}
    assert harness.noise(harness.compare(equal, "A"), "A", 3) == [
        "too noisy to tell B from A: the ratio was 0.91 to 1.10"
    ]
    wide = {"A": [[1.0], [1.1], [1.0]], "B": [[2.0], [3.0], [2.0]]}
    assert harness.noise(harness.compare(wide, "A"), "A", 3, "there: ") == [
        "there: too noisy to rely on B: its slowest repeat took 1.50 times its fastest"
    ]
    (said,) = harness.noise(harness.compare({"A": [[1.0]], "B": [[2.0]]}, "A"), "A", 1)
    assert said.startswith("one repeat allows no conclusion")


def test_ratio_is_printed_with_its_interval():
    answer = {
        "settings": {"bench": "evaluate"},
        "results": [
            {"contender": name, "ndcg": 0.25, **statistics}
            for name, statistics in harness.compare({"A": [[1.0], [1.0]], "B": [[1.7], [1.9]]}, "A").items()
        ],
    }
    header, rows = report.table(answer)
    assert header == ("contender", "median", "min", "max", "ratio", "NDCG", "recall")
    assert rows == [
        ("A", "1.000", "1.000", "1.000", "1.00", "0.2500", "-"),
        ("B", "1.800", "1.700", "1.900", "1.80 (1.70-1.90)", "0.2500", "-"),
    ]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('{}'); raise ValueError('too many')", "ValueError: too many"),
        ("import os; os._exit(3)", "ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "ended with exit code -9"),
        ("print('{}'); print('{\"seconds\": 1}')", "gave 1 of 2 measurements"),
        ("print('hello')", "JSONDecodeError"),
    ],
)
def test_process_that_fails_says_why(tmp_path, code, message):
    job = {"command": [sys.executable, "-c", code], "env": {}, "contender": "anyone"}
    with pytest.raises(RuntimeError, match=message):
        harness.run(job, str(tmp_path), {}, 2)


def test_process_stands_still_while_its_results_are_looked_at(tmp_path):
    code = (
        "import json, pathlib, sys\n"
        "print('{}', flush=True)\n"
        "for time in range(3):\n"
        "    pathlib.Path(sys.argv[1], sys.argv[2]).write_text(str(time))\n"
        "    print(json.dumps({'seconds': time}), flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    job = {"command": [sys.executable, "-c", code], "env": {}, "contender": "anyone"}
    run = harness.run(job, str(tmp_path), {}, 3, lambda name: {"seen": (tmp_path / name).read_text()})
    assert run["measured"] == [{"seconds": time, "seen": str(time)} for time in range(3)]
    assert json.loads((tmp_path / "settings.json").read_text()) == {"keep": True}


def test_what_is_not_installed_is_named_and_skipped(plays, tmp_path):
    bare = interpreter(tmp_path / "bare", "exit 1")
    said = []
    answer = bench.sweep(
        plays, ["implicit-cg", "alscore-cg"], factors=3, threads=1, sweeps=1, repeats=1,
        python={"implicit": bare}, say=said.append,
    )  # fmt: skip
    assert [row["contender"] for row in answer["results"]] == ["alscore-cg"]
    assert said[0] == f"implicit-cg: skipped, implicit is not installed for {bare} (pip install 'alscore[peers]')"
    assert report.below(answer)[0].startswith("implicit-cg skipped: implicit is not installed")


def test_contender_that_fails_is_named_and_the_others_go_on(tmp_path, capsys):
    broken = interpreter(tmp_path / "broken", '[ "$1" = -c ] && exit 0; echo out of ideas >&2; exit 3')
    command = ["bench", "sweep", "--scale=0.0001", "--factors=3", "--threads=1", "--repeats=1", "--solver=cg,auto"]
    assert main([*command, f"--python=alscore-cg={broken}", f"--plot={tmp_path / 'plot.png'}"]) == 1
    out, err = capsys.readouterr()
    assert "alscore-cg failed: out of ideas" in out
    assert "  alscore-auto" in out
    assert err.endswith("alscore: error: alscore-cg failed\n")


def test_other_interpreter_runs_the_contender(plays, tmp_path):
    path = ":".join(filter(None, sys.path))
    other = interpreter(tmp_path / "other", f'export PYTHONPATH="{path}"; exec "{sys.executable}" "$@"')
    answer = bench.sweep(
        plays, ["alscore-cg"], factors=3, threads=1, sweeps=1, repeats=1, python={"alscore": other}
    )  # fmt: skip
    assert len(row(answer, "alscore-cg")["objective"]) == 2


def test_openblas_settings_of_the_machine_are_not_passed_on(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    jobs, _ = harness.find(["A"], {"A": "alscore"}, "contenders.py", {}, print)
    assert {name for name in jobs["A"]["env"] if name.startswith("OPENBLAS")} == {"OPENBLAS_NUM_THREADS"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contenders": ["nobody"]}, "no contender is named 'nobody'; there are: alscore-cholesky"),
        ({"contenders": ["implicit-cg@avx2"]}, "no contender is named 'implicit-cg@avx2'"),
        ({"contenders": []}, "no contender is left to measure"),
        ({"baseline": "implicit-cg"}, "baseline 'implicit-cg' is not among the contenders: alscore-cg"),
        ({"python": {"alscore": "/not/there"}}, "there is no interpreter '/not/there'; give the path"),
        ({"python": {"implicit": sys.executable}}, "python for 'implicit': no contender's name starts so"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(plays, options, message):
    with pytest.raises(ValueError, match=message):
        bench.sweep(plays, **{"contenders": ["alscore-cg"], **options})


def test_topn_against_brute_force(plays):
    answer = bench.topn(plays, ["alscore", "numpy"], factors=4, top=5, users=20, threads=1, repeats=1)
    assert answer["data"]["asked"] == 20
    assert row(answer, "numpy")["same_ids"] == 1
    assert row(answer, "numpy")["users_per_second"] == pytest.approx(20 / row(answer, "numpy")["median"])


def test_load_reads_the_same_as_pandas(plays, file, capsys):
    assert main(["bench", "load", "--data", str(file), "--repeats=1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["contender"] for row in answer["results"]] == ["alscore", "pandas"]
    for result in answer["results"]:
        assert [result[name] for name in ("rows", "users", "items", "entries")] == [plays.nnz, 60, 50, plays.nnz]


def test_load_of_what_only_we_can_read(file, tmp_path, capsys):
    path = tmp_path / "plays.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(file, "usersha1-artmbid-artname-plays.tsv")
        archive.add(file, "usersha1-profile.tsv")
    assert main(["bench", "load", "--data", str(path), "--repeats=1"]) == 0
    assert "pandas failed: ValueError: Multiple files found in TAR" in capsys.readouterr().out


def test_evaluate_against_a_plain_count(plays):
    answer = bench.evaluate(plays, ["alscore"], factors=4, top=5, threads=1, repeats=1)
    out = np.random.default_rng(0).random(plays.nnz) < 0.1
    users, items = np.nonzero(plays.toarray())
    seen = sparse.csr_matrix((plays.data[~out], (users[~out], items[~out])), plays.shape)
    model = AlternatingLeastSquares(4, iterations=5, num_threads=1, random_state=0).fit(seen, show_progress=False)
    scores = model.user_factors.astype(np.float64) @ model.item_factors.T.astype(np.float64)
    ndcg, recall = [], []
    for user in range(plays.shape[0]):
        wanted = set(items[out & (users == user)])
        unseen = [item for item in np.argsort(-scores[user]) if seen[user, item] == 0]
        hits = [place for place, item in enumerate(unseen[:5]) if item in wanted]
        if wanted:
            best = sum(1 / np.log2(place + 2) for place in range(min(5, len(wanted))))
            ndcg.append(sum(1 / np.log2(place + 2) for place in hits) / best)
            recall.append(len(hits) / len(wanted))
    assert 0 < np.mean(recall) < 1
    assert row(answer, "alscore")["ndcg"] == pytest.approx(np.mean(ndcg))
    assert row(answer, "alscore")["recall"] == pytest.approx(np.mean(recall))


@pytest.mark.parametrize(
    "command",
    [
        ["sweep", "--solver=cg,auto", "--sweeps=1"],
        ["converge", "--solver=cg", "--sweeps=2", "--reference-sweeps=3"],
        ["topn", "--against=numpy", "--users=10"],
        ["evaluate", "--against="],
    ],
    ids=lambda command: command[0],
)
def test_command(command, file, tmp_path, capsys):
    plot = tmp_path / "plot.png"
    small = ["--data", str(file), "--factors=4", "--threads=1", "--repeats=1"]
    assert main(["bench", *command, *small, "--json", f"--plot={plot}"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["settings"]["bench"] == command[0]
    assert answer["machine"]["cpu"]
    assert plot.read_bytes().startswith(b"\x89PNG\r\n")
    lines = [*report.above(answer), *report.below(answer)]
    assert any("alscore 0.1.0" in line for line in lines)
    assert any("one repeat allows no conclusion" in line for line in lines)
    header, rows = report.table(answer)
    assert header[0] == "contender"
    assert len(rows) == len(answer["results"])


def test_plot_without_matplotlib_is_refused_at_once(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["bench", "sweep", "--plot=plot.png"]) == 1
    assert capsys.readouterr().err == "alscore: error: --plot needs matplotlib: pip install 'alscore[bench]'\n"


def test_python_without_a_path_is_wrong_usage(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "sweep", "--python", "buffalo"])
    assert "must be NAME=PATH" in capsys.readouterr().err
