"""The benchmark: that it measures what it says, not how fast anything is."""

import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, bench, datasets, solvers
from alscore._core import kernel_table
from alscore.bench import contenders, harness, machine, presentation, sweeps, task_contenders, tasks
from alscore.bench.contenders import CONTENDERS
from alscore.cli import _TRAINERS, main
from alscore.testing import half_sweep, loss, tolerance


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


def oracle(plays, factors, sweeps, regularization=0.01, alpha=1.0):
    """The objective after each of some exact sweeps from the benchmark's start, in dense float64."""
    dense, objective = plays.toarray(), []
    Y = np.random.default_rng(0).standard_normal((plays.shape[1], factors), np.float32) * np.float32(
        0.1 / np.sqrt(factors)
    )
    for _ in range(sweeps):
        X = half_sweep(dense, Y, regularization=regularization, alpha=alpha)
        Y = half_sweep(dense.T, X, regularization=regularization, alpha=alpha)
        objective.append(loss(dense, X, Y, regularization=regularization, alpha=alpha))
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
    ratios = [
        its["measured"][1]["seconds"] / ours["measured"][1]["seconds"]
        for its, ours in zip(*(answer["runs"][f"alscore-{solver}"] for solver in ("cg", "cholesky")), strict=True)
    ]
    assert cg["ratio"] == pytest.approx(statistics.mean(ratios))
    assert (exact["exact"], cg["exact"]) == (True, False)
    assert "forgets the random start" in cg["note"]
    assert "note" not in exact
    assert any(line.startswith("alscore-cg: forgets") for line in presentation.below(answer))
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
    assert sweeps.until(10, objectives, cumulated) == {"slow": [[3], [6]], "quick": [[6], [7]]}


def test_every_kernel_set_is_a_contender(plays):
    said = []
    sets = [*kernel_table.available(), "altivec"]
    answer = bench.sweep(plays, ["alscore-cg"], factors=5, threads=1, sweeps=1, repeats=1, isa=sets, say=said.append)
    assert [row["contender"] for row in answer["results"]] == [f"alscore-cg@{isa}" for isa in kernel_table.available()]
    assert said[0].startswith("alscore-cg@altivec: skipped, this processor cannot run the kernel set 'altivec'")
    assert list(answer["skipped"]) == ["alscore-cg@altivec"]


def test_peers_minimise_the_same_objective(plays):
    """Where a peer is installed, its exact sweeps must come to the oracle's; without any this compares ours alone."""
    present = [name for name, one in CONTENDERS.items() if one.exact and importlib.util.find_spec(one.package)]
    values = {"alpha": 3.0, "regularization": 2.0}
    answer = bench.sweep(plays, present, factors=5, threads=1, sweeps=2, repeats=1, **values)
    assert answer["failed"] == {}
    for result in answer["results"]:
        expected = oracle(plays, 5, 3, **values)
        np.testing.assert_allclose(result["objective"], expected, rtol=1e-3, err_msg=result["contender"])


def test_conjugate_gradient_comes_to_the_exact_objective(plays):
    values = {"alpha": 3.0, "regularization": 20.0}  # with a λ much smaller even exact sweeps need hundreds
    answer = bench.sweep(plays, ["alscore-cg", "alscore-auto"], factors=5, threads=1, sweeps=39, repeats=1, **values)
    for result in answer["results"]:
        assert result["objective"][-1] == pytest.approx(oracle(plays, 5, 40, **values)[-1], rel=1e-2)


def test_a_warm_up_leaves_no_trace(plays):
    """Sweeps after one that is thrown away start where they would without it."""
    X, Y = np.zeros((60, 5), np.float32), np.ones((50, 5), np.float32)
    numbers = []

    def sweep(number):
        numbers.append((number, X.sum(), Y.sum()))
        X[:], Y[:] = 7, 8

    for _ in contenders._timed(sweep, X, Y, {"warm_up": True, "times": 2}):
        pass
    assert numbers == [(0, 0, 250), (0, 0, 250), (1, 2100, 2000)]


def test_cmfrec_of_another_version_is_refused(monkeypatch, plays):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "3.5.2")
    with pytest.raises(ImportError, match=r"cmfrec 3\.5\.2 is installed, .* pip install cmfrec==3\.5\.1\.post14"):
        next(contenders._cmfrec(False, plays, np.ones((50, 5), np.float32), {"threads": 1}))


def test_peak_memory_is_that_of_what_is_measured(tmp_path):
    """An array made before is not counted, one made and dropped in between is."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(contenders.__file__).parent)!r})\n"
        "import numpy as np, contenders\n"
        "def prepare(settings):\n"
        "    first = np.ones(4_000_000)\n"
        "    return ((np.ones(8_000_000).sum() and 1.0, {}) for _ in range(2))\n"
        "contenders.speak(*sys.argv[1:], 'numpy', prepare)\n"
    )
    job = {"command": [sys.executable, "-c", script], "env": dict(os.environ), "contender": "anyone"}
    run = harness.run(job, str(tmp_path), {}, 2)
    peaks = [at["peak_bytes"] for at in run["measured"]]
    if None in peaks:
        pytest.skip("this system cannot forget the peak of memory")
    assert peaks == pytest.approx([64e6, 64e6], rel=0.1)


def test_unknown_peak_memory_is_a_dash():
    runs = {"A": [run_of(1, 1), {"measured": [{"seconds": 1, "peak_bytes": None}] * 2}]}
    (compared,) = harness.compare_warm(runs, "A").values()
    assert compared["peak_bytes"] is None
    answer = {"settings": {"bench": "load"}, "results": [{"contender": "A", **compared}]}
    assert presentation.table(answer)[1][0][-1] == "-"


def test_every_solver_of_ours_is_a_contender():
    assert {f"alscore-{name}" for name in ("cholesky", "cg", "auto")} <= CONTENDERS.keys()
    assert {"cholesky", "cg", "auto"} <= solvers.registered().keys()


def run_of(*seconds):
    return {"measured": [{"seconds": value, "peak_bytes": 1} for value in seconds]}


def test_contenders_alternate_and_who_fails_is_out():
    order, said = [], []

    def run(name):
        order.append(name)
        if order.count("B") == 2 and name == "B":
            raise RuntimeError("no more")
        return run_of(order.count(name))

    runs, failed = harness.alternate(["A", "B", "C"], 3, run, said.append)
    assert "".join(order) == "ABCCBAAC"
    assert failed == {"B": "no more"}
    assert runs == {name: [run_of(1), run_of(2), run_of(3)] for name in "AC"}
    assert "B: failed: no more" in said


def test_ratios_are_paired_by_repeat():
    rows = harness.compare({"A": [[1, 3], [4, 4], [10, 10]], "B": [[5, 7], [6, 6], [12, 14]]}, "A")
    assert rows["A"] == {"median": 4, "min": 1, "max": 10, "spread": 10, "ratio": 1, "ratio_low": 1, "ratio_high": 1}
    assert rows["B"] == pytest.approx(
        {"median": 6.5, "min": 5, "max": 14, "spread": 14 / 5, "ratio": 1.5, "ratio_low": 1.3, "ratio_high": 3}
    )
    assert "ratio" not in harness.compare({"B": [[1]]}, "A")["B"]


def test_the_first_time_in_a_process_warms_up():
    rows = harness.compare_warm({"A": [run_of(99, 1, 2), run_of(99, 3, 2)]}, "A")
    assert (rows["A"]["median"], rows["A"]["max"]) == (2, 3)


def test_noise_is_said():
    steady = {"A": [[1.0], [1.1], [1.0]], "B": [[2.0], [2.1], [2.2]]}
    assert harness.noise(harness.compare(steady, "A"), "A", 6) == []
    (said,) = harness.noise(harness.compare(steady, "A"), "A", 3)
    assert said == "3 repeats: of two equal contenders one would always look faster in 1 of 4 such runs"
    equal = {"A": [[1.0], [1.1], [1.0]], "B": [[1.1], [1.0], [1.1]]}
    assert harness.noise(harness.compare(equal, "A"), "A", 6) == [
        "too noisy to tell B from A: the ratio was 0.91 to 1.10"
    ]
    wide = {"A": [[1.0], [1.1], [1.0]], "B": [[2.0, 2.0, 3.0], [2.0], [2.0]]}
    assert harness.noise(harness.compare(wide, "A"), "A", 6, "there: ") == [
        "there: too noisy to rely on B: its slowest time was 1.50 times its fastest"
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
    header, rows = presentation.table(answer)
    assert header == ("contender", "median", "min", "max", "ratio", "users/s", "NDCG", "recall")
    assert rows == [
        ("A", "1.000", "1.000", "1.000", "1.00", "-", "0.2500", "-"),
        ("B", "1.800", "1.700", "1.900", "1.80 (1.70-1.90)", "-", "0.2500", "-"),
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
    assert json.loads((tmp_path / "settings.json").read_text()) == {"warm_up": False, "times": 3, "keep": True}


def test_what_is_not_installed_is_named_and_skipped(plays, tmp_path):
    bare = interpreter(tmp_path / "bare", "exit 1")
    said = []
    answer = bench.sweep(
        plays, ["implicit-cg", "alscore-cg"], factors=3, threads=1, sweeps=1, repeats=1,
        python={"implicit": bare}, say=said.append,
    )  # fmt: skip
    assert [row["contender"] for row in answer["results"]] == ["alscore-cg"]
    assert said[0] == (
        f"implicit-cg: skipped, implicit is not installed for {bare}: pip install implicit, or give an interpreter "
        f"that has it, --python implicit=PATH"
    )
    assert presentation.below(answer)[0].startswith("implicit-cg skipped: implicit is not installed")


def test_contender_that_fails_is_named_and_the_others_go_on(tmp_path, capsys):
    broken = interpreter(tmp_path / "broken", '[ "$1" = -c ] && exit 0; echo out of ideas >&2; exit 3')
    command = ["bench", "sweep", "--scale=0.0001", "--factors=3", "--threads=1", "--repeats=1", "--solver=cg,auto"]
    assert main([*command, f"--python=alscore-cg={broken}", f"--plot={tmp_path / 'plot.png'}"]) == 1
    out, err = capsys.readouterr()
    assert "alscore-cg failed: out of ideas" in out
    assert "  alscore-auto" in out
    assert err.endswith("alscore: error: alscore-cg failed\n")


def test_reference_that_fails_is_named(plays, monkeypatch):
    failing = {"command": [sys.executable, "-c", "raise ValueError('no')"], "env": {}, "contender": "anyone"}
    monkeypatch.setattr(sweeps, "_find", lambda *_: ({"alscore-cholesky": failing | {"package": "alscore"}}, {}))
    with pytest.raises(RuntimeError, match="the reference, 30 sweeps of alscore-cholesky, failed: ValueError: no"):
        bench.converge(plays, ["alscore-cholesky"], factors=3)


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
    answer = harness.answer({"bench": "load"}, {}, {}, {})
    assert "OPENBLAS_CORETYPE=Haswell OPENBLAS_L2_SIZE=1 not passed on" in "\n".join(presentation.above(answer))


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


@pytest.mark.parametrize("options", [{}, {"one_by_one": True}, {"random_factors": True}])
def test_topn_against_brute_force(plays, options):
    answer = bench.topn(plays, ["alscore", "numpy"], factors=4, top=5, users=20, threads=1, repeats=1, **options)
    assert answer["data"]["asked"] == 20
    assert row(answer, "numpy")["same_ids"] == 1
    assert row(answer, "numpy")["users_per_second"] == pytest.approx(20 / row(answer, "numpy")["median"])
    (run,) = answer["runs"]["numpy"]
    assert row(answer, "numpy")["first"] == run["measured"][0]["seconds"]


def test_topn_of_more_items_than_there_are(plays):
    answer = bench.topn(plays, ["alscore", "numpy"], factors=4, top=70, users=20, threads=1, repeats=1)
    assert answer["failed"] == {}
    assert row(answer, "numpy")["same_ids"] == 1


@pytest.mark.parametrize("options", [{}, {"one_by_one": True}])
def test_foldin_is_a_half_sweep(plays, options, monkeypatch):
    kept, measure = {}, tasks._measure
    monkeypatch.setattr(tasks, "_measure", lambda *args: (found := measure(*args), kept.update(found[1]))[0])
    answer = bench.foldin(
        plays, ["alscore", "alscore-half-sweep"], factors=4, users=20, threads=1, repeats=1, **options
    )
    assert answer["failed"] == {}
    norms = [np.linalg.norm(kept[name], axis=1) for name in ("alscore", "alscore-half-sweep")]  # in two bases
    np.testing.assert_allclose(*norms, rtol=1e-4)
    users = np.sort(np.random.default_rng(0).choice(60, 20, replace=False))
    Y = AlternatingLeastSquares(4, iterations=5, num_threads=1, random_state=0).fit(plays, False).item_factors
    X = half_sweep(plays[users].toarray(), Y, regularization=0.01)
    np.testing.assert_allclose(kept["alscore"], X, atol=1e-5)


def test_update_comes_near_to_a_fit(plays):
    contenders = ["alscore", "alscore-2-sweeps", "alscore-fit"]
    answer = bench.update(plays, contenders, factors=4, sweeps=6, threads=1, repeats=1)
    assert answer["failed"] == {}
    one, two, fit = (row(answer, name)["objective"] for name in contenders)
    assert fit == pytest.approx(oracle(plays, 4, 6)[-1], rel=tolerance("descent", "float32"))
    assert one > two
    assert two == pytest.approx(fit, rel=0.05)


def test_load_reads_the_same_as_pandas(plays, file, capsys):
    assert main(["bench", "load", "--data", str(file), "--repeats=1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["contender"] for row in answer["results"]] == ["alscore", "pandas", "bytes", "saved"]
    assert "rows" not in row(answer, "bytes")
    for result in (row(answer, name) for name in ("alscore", "pandas", "saved")):
        assert [result[name] for name in ("rows", "users", "items", "entries")] == [plays.nnz, 60, 50, plays.nnz]


def test_load_of_what_only_we_can_read(file, tmp_path, capsys):
    path = tmp_path / "plays.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(file, "usersha1-artmbid-artname-plays.tsv")
        archive.add(file, "usersha1-profile.tsv")
    assert main(["bench", "load", "--data", str(path), "--repeats=1"]) == 0
    assert "pandas failed: ValueError: Multiple files found in TAR" in capsys.readouterr().out


@pytest.mark.parametrize("n_users", [None, 9])
def test_evaluate_against_a_plain_count(plays, n_users):
    answer = bench.evaluate(plays, ["alscore"], factors=4, top=5, users=n_users, threads=1, repeats=1)
    out = np.random.default_rng(0).random(plays.nnz) < 0.1
    users, items = np.nonzero(plays.toarray())
    if n_users:
        out &= np.isin(users, np.random.default_rng(0).choice(plays.shape[0], n_users, replace=False))
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
    assert answer["data"]["asked"] == len(recall)
    assert row(answer, "alscore")["ndcg"] == pytest.approx(np.mean(ndcg))
    assert row(answer, "alscore")["recall"] == pytest.approx(np.mean(recall))


@pytest.mark.parametrize(
    "command",
    [
        ["sweep", "--solver=cg,auto", "--sweeps=1"],
        ["converge", "--solver=cg", "--sweeps=2", "--reference-sweeps=3"],
        ["topn", "--against=numpy", "--users=10"],
        ["evaluate", "--against=", "--users=10"],
    ],
    ids=lambda command: command[0],
)
def test_command(command, file, tmp_path, capsys):
    plot = tmp_path / "plot.png"
    small = ["--data", str(file), "--factors=4", "--threads=1", "--repeats=1"]
    assert main(["bench", *command, *small, "--json", f"--plot={plot}"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["settings"]["bench"] == command[0]
    assert answer["settings"]["data"] == str(file)
    assert answer["machine"]["cpu"]
    assert plot.read_bytes().startswith(b"\x89PNG\r\n")
    lines = [*presentation.above(answer), *presentation.below(answer)]
    assert any("alscore 0.1.0" in line for line in lines)
    assert any("one repeat allows no conclusion" in line for line in lines)
    header, rows = presentation.table(answer)
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


def test_json_to_a_file_leaves_the_table(tmp_path, capsys):
    path = tmp_path / "answer.json"
    command = ["bench", "sweep", "--scale=0.0001", "--factors=3", "--threads=1", "--sweeps=1", "--repeats=1"]
    assert main([*command, "--solver=cholesky", "--alpha=3", "--regularization=2", "--json", str(path)]) == 0
    settings = json.loads(path.read_text())["settings"]
    assert (settings["alpha"], settings["regularization"]) == (3, 2)
    assert settings["data"] == "synthetic (scale 0.0001, seed 0)"
    out = capsys.readouterr().out
    assert "data synthetic (scale 0.0001, seed 0)" in out
    assert "  alscore-cholesky" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scale=0"], "argument --scale: must be a finite number above 0, not '0'"),
        (["--scale=inf"], "argument --scale: must be a finite number above 0, not 'inf'"),
        (["--scale=0.1", "--data=plays.tsv"], "argument --data: not allowed with argument --scale"),
        (["--seed=-1"], "argument --seed: must be a whole number of at least 0, not '-1'"),
        (["--threads=-1"], "argument --threads: must be a whole number of at least 0"),
        (["--repeats=0"], "argument --repeats: must be a whole number of at least 1"),
        (["--sweeps=0"], "argument --sweeps: must be a whole number of at least 1"),
        (["--alpha=0"], "argument --alpha: must be a finite number above 0"),
        (["--alpha=much"], "argument --alpha: must be a finite number above 0, not 'much'"),
        (["--regularization=-1"], "argument --regularization: must be a finite number of at least 0"),
        (["--isa=avx2,altivec"], "argument --isa: must be some of avx512,avx2,neon,generic, not 'altivec'"),
    ],
)
def test_wrong_values_are_refused_at_the_door(options, message, capsys):
    with pytest.raises(SystemExit):
        main(["bench", "sweep", *options])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["sweep", "converge", "topn", "load", "evaluate"])
def test_help_lists_all_that_ours_can_be_compared_with(kind, capsys):
    with pytest.raises(SystemExit):
        main(["bench", kind, "--help"])
    names = task_contenders.CONTENDERS.get(kind, CONTENDERS)
    said = "".join(capsys.readouterr().out.split())
    assert f"of{','.join(name for name in names if not name.startswith('alscore'))};" in said
    assert set(_TRAINERS.split(",")) == {name for name, one in CONTENDERS.items() if one.package != "alscore"}
