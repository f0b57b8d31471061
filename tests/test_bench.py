"""The benchmarks measure what they say. How fast anything is does not matter here."""

import functools
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
from alscore.bench import contenders, harness, machine, on_spark, presentation, sweeps, task_contenders, tasks
from alscore.bench.benchmarks import BENCHMARKS, FoldIn, Kind
from alscore.bench.contenders import CONTENDERS
from alscore.cli import main
from alscore.testing import exact_half_sweep, loss, tolerance


@pytest.fixture(scope="module")
def plays():
    return datasets.synthetic(60, 50, seed=0).matrix


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "plays.tsv"
    datasets.write_lastfm_360k(datasets.synthetic(60, 50, seed=0), path)
    return path


# The peaks are given: the shares of them can be checked, and no test waits for their measurement.
sweep = functools.partial(bench.sweep, peaks=lambda factors, threads: sweeps.Peaks(1e9, 1e8))


def interpreter(path, script):
    """Write an executable that takes the place of a Python interpreter; return its path."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def oracle(plays, factors, n_sweeps, regularization=0.01, alpha=1.0):
    """Return the objective after each exact sweep from the benchmark's initial factors, in dense float64."""
    dense, objective = plays.toarray(), []
    Y = np.random.default_rng(0).standard_normal((plays.shape[1], factors), np.float32) * np.float32(
        0.1 / np.sqrt(factors)
    )
    for _ in range(n_sweeps):
        X = exact_half_sweep(dense, Y, regularization=regularization, alpha=alpha)
        Y = exact_half_sweep(dense.T, X, regularization=regularization, alpha=alpha)
        objective.append(loss(dense, X, Y, regularization=regularization, alpha=alpha))
    return np.array(objective)


def row(outcome, contender):
    return next(row for row in outcome["results"] if row["contender"] == contender)


def test_sweep(plays):
    """The objectives are those of the float64 oracle, and the statistics those of the measurements."""
    outcome = sweep(plays, ["alscore-cholesky", "alscore-cg"], factors=5, threads=1, sweeps=1, repeats=2)
    exact, cg = row(outcome, "alscore-cholesky"), row(outcome, "alscore-cg")
    np.testing.assert_allclose(exact["objective"], oracle(plays, 5, 2), rtol=1e-4)
    assert len(cg["objective"]) == 2
    assert cg["objective"][0] >= exact["objective"][0]
    first, second = (run["measured"] for run in outcome["runs"]["alscore-cholesky"])
    assert (exact["min"], exact["max"]) == tuple(sorted((first[1]["seconds"], second[1]["seconds"])))
    assert exact["ratio"] == 1
    ratios = [
        other["measured"][1]["seconds"] / base["measured"][1]["seconds"]
        for other, base in zip(*(outcome["runs"][f"alscore-{solver}"] for solver in ("cg", "cholesky")), strict=True)
    ]
    assert cg["ratio"] == pytest.approx(statistics.mean(ratios))
    assert (exact["exact"], cg["exact"]) == (True, False)
    assert "forgets the random start" in cg["note"]
    assert "note" not in exact
    assert any(line.startswith("alscore-cg: forgets") for line in presentation.below(outcome))
    needed = machine.sweep_flops(np.diff(plays.indptr), np.diff(plays.tocsc().indptr), 5)
    assert exact["fma_share"] * 1e9 * exact["median"] == pytest.approx(needed)
    assert "fma_share" not in cg
    assert cg["gather_share"] * 1e8 * cg["median"] == pytest.approx(2 * plays.nnz * 5 * 4)
    assert outcome["data"] == {"users": 60, "items": 50, "entries": plays.nnz}
    assert outcome["versions"] == {"alscore": "0.1.0"}


def test_converge(plays):
    outcome = bench.converge(plays, ["alscore-cholesky"], factors=5, threads=1, sweeps=6, reference_sweeps=6, repeats=1)
    objective = oracle(plays, 5, 6)
    assert outcome["reference"] == pytest.approx(objective.min(), rel=1e-4)
    assert outcome["targets"].keys() == {"within 1 %", "within 0.1 %"}
    seconds = [at["seconds"] for at in outcome["runs"]["alscore-cholesky"][0]["measured"]]
    reached = row(outcome, "alscore-cholesky")["reached"]
    for label, factor in (("within 1 %", 1.01), ("within 0.1 %", 1.001)):
        needed = int(np.argmax(objective <= objective.min() * factor)) + 1
        assert reached[label]["median"] == pytest.approx(sum(seconds[:needed]))


def test_until_counts_the_sweep_that_reaches_the_target():
    objectives = {"slow": [30, 20, 10], "quick": [15, 9, 8], "never": [40, 40, 40]}
    cumulated = {"slow": [[1, 2, 3], [2, 4, 6]], "quick": [[5, 6, 7], [6, 7, 8]], "never": [[1, 2, 3]] * 2}
    assert sweeps.until(10, objectives, cumulated) == {"slow": [[3], [6]], "quick": [[6], [7]]}


def test_every_kernel_set_is_a_contender(plays):
    messages = []
    sets = [*kernel_table.available(), "altivec"]
    outcome = sweep(plays, ["alscore-cg"], factors=5, threads=1, sweeps=1, repeats=1, isa=sets, say=messages.append)
    assert [row["contender"] for row in outcome["results"]] == [f"alscore-cg@{isa}" for isa in kernel_table.available()]
    assert messages[0].startswith("alscore-cg@altivec: skipped, this processor cannot run the kernel set 'altivec'")
    assert list(outcome["skipped"]) == ["alscore-cg@altivec"]


def test_peers_minimise_the_same_objective(plays):
    """The exact sweeps of every installed peer reach the oracle's objective. Without a peer, only ours are tested."""
    present = [name for name, one in CONTENDERS.items() if one.exact and importlib.util.find_spec(one.package)]
    values = {"alpha": 3.0, "regularization": 2.0}
    outcome = sweep(plays, present, factors=5, threads=1, sweeps=2, repeats=1, **values)
    assert outcome["failed"] == {}
    for result in outcome["results"]:
        expected = oracle(plays, 5, 3, **values)
        np.testing.assert_allclose(result["objective"], expected, rtol=1e-3, err_msg=result["contender"])


def test_conjugate_gradient_reaches_the_exact_objective(plays):
    values = {"alpha": 3.0, "regularization": 20.0}  # with a much smaller λ even exact sweeps need hundreds of sweeps
    outcome = sweep(plays, ["alscore-cg", "alscore-auto"], factors=5, threads=1, sweeps=39, repeats=1, **values)
    for result in outcome["results"]:
        assert result["objective"][-1] == pytest.approx(oracle(plays, 5, 40, **values)[-1], rel=1e-2)


def test_a_warm_up_leaves_no_trace(plays):
    """The sweeps after a warm-up start from the factors that they would start from without it."""
    X, Y = np.zeros((60, 5), np.float32), np.ones((50, 5), np.float32)
    numbers = []

    def change(number):
        numbers.append((number, X.sum(), Y.sum()))
        X[:], Y[:] = 7, 8

    for _ in contenders._timed(change, X, Y, {"warm_up": True, "times": 2}):
        pass
    assert numbers == [(0, 0, 250), (0, 0, 250), (1, 2100, 2000)]


def test_cmfrec_of_another_version_is_refused(monkeypatch, plays):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "3.5.2")
    with pytest.raises(ImportError, match=r"cmfrec 3\.5\.2 is installed, .* pip install cmfrec==3\.5\.1\.post14"):
        next(contenders._cmfrec(False, plays, np.ones((50, 5), np.float32), {"threads": 1}))


def test_peak_memory_is_that_of_the_measurement(tmp_path):
    """An array made before the measurement does not count; an array made and dropped during it does."""
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
    outcome = {"settings": {"bench": "load"}, "results": [{"contender": "A", **compared}]}
    assert presentation.table(outcome)[1][0][-1] == "-"


def test_every_solver_of_ours_is_a_contender():
    assert {f"alscore-{name}" for name in ("cholesky", "cg", "auto")} <= CONTENDERS.keys()
    assert {"cholesky", "cg", "auto"} <= solvers.registered().keys()


def run_of(*seconds):
    return {"measured": [{"seconds": value, "peak_bytes": 1} for value in seconds]}


def test_contenders_alternate_and_one_that_fails_is_left_out():
    order, messages = [], []

    def run(name):
        order.append(name)
        if order.count("B") == 2 and name == "B":
            raise RuntimeError("no more")
        return run_of(order.count(name))

    runs, failed = harness.alternate(["A", "B", "C"], 3, run, messages.append)
    assert "".join(order) == "ABCCBAAC"
    assert failed == {"B": "no more"}
    assert runs == {name: [run_of(1), run_of(2), run_of(3)] for name in "AC"}
    assert "B: failed: no more" in messages


def test_ratios_are_paired_by_repeat():
    rows = harness.compare({"A": [[1, 3], [4, 4], [10, 10]], "B": [[5, 7], [6, 6], [12, 14]]}, "A")
    assert rows["A"] == {"median": 4, "min": 1, "max": 10, "spread": 10, "ratio": 1, "ratio_low": 1, "ratio_high": 1}
    assert rows["B"] == pytest.approx(
        {"median": 6.5, "min": 5, "max": 14, "spread": 14 / 5, "ratio": 1.5, "ratio_low": 1.3, "ratio_high": 3}
    )
    assert "ratio" not in harness.compare({"B": [[1]]}, "A")["B"]


def test_the_first_measurement_in_a_process_warms_up():
    rows = harness.compare_warm({"A": [run_of(99, 1, 2), run_of(99, 3, 2)]}, "A")
    assert (rows["A"]["median"], rows["A"]["max"]) == (2, 3)


def test_noise_is_reported():
    steady = {"A": [[1.0], [1.1], [1.0]], "B": [[2.0], [2.1], [2.2]]}
    assert harness.noise(harness.compare(steady, "A"), "A", 6) == []
    (message,) = harness.noise(harness.compare(steady, "A"), "A", 3)
    assert message == "only 3 repeats: in 1 of 4 such runs, one of two equal contenders is faster in every repeat"
    equal = {"A": [[1.0], [1.1], [1.0]], "B": [[1.1], [1.0], [1.1]]}
    assert harness.noise(harness.compare(equal, "A"), "A", 6) == [
        "too noisy to tell B from A: the ratio was 0.91 to 1.10"
    ]
    wide = {"A": [[1.0], [1.1], [1.0]], "B": [[2.0, 2.0, 3.0], [2.0], [2.0]]}
    assert harness.noise(harness.compare(wide, "A"), "A", 6, "there: ") == [
        "there: too noisy to rely on B: its slowest time was 1.50 times its fastest"
    ]
    (message,) = harness.noise(harness.compare({"A": [[1.0]], "B": [[2.0]]}, "A"), "A", 1)
    assert message.startswith("one repeat allows no conclusion")


def test_ratio_is_printed_with_its_interval():
    outcome = {
        "settings": {"bench": "evaluate"},
        "results": [
            {"contender": name, "ndcg": 0.25, **statistics}
            for name, statistics in harness.compare({"A": [[1.0], [1.0]], "B": [[1.7], [1.9]]}, "A").items()
        ],
    }
    header, rows = presentation.table(outcome)
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


def test_process_waits_while_its_results_are_inspected(tmp_path):
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


def test_contender_that_is_not_installed_is_named_and_skipped(plays, tmp_path):
    bare = interpreter(tmp_path / "bare", "exit 1")
    messages = []
    outcome = sweep(
        plays, ["implicit-cg", "alscore-cg"], factors=3, threads=1, sweeps=1, repeats=1,
        python={"implicit": bare}, say=messages.append,
    )  # fmt: skip
    assert [row["contender"] for row in outcome["results"]] == ["alscore-cg"]
    assert messages[0] == (
        f"implicit-cg: skipped, implicit is not installed for {bare}: pip install implicit, or give an interpreter "
        f"that has it, --python implicit=PATH"
    )
    assert presentation.below(outcome)[0].startswith("implicit-cg skipped: implicit is not installed")


def test_contender_that_fails_is_named_and_the_others_go_on(tmp_path, capsys):
    broken = interpreter(tmp_path / "broken", '[ "$1" = -c ] && exit 0; echo out of ideas >&2; exit 3')
    command = ["bench", "converge", "--scale=0.0001", "--factors=3", "--threads=1", "--repeats=1", "--solver=cg,auto"]
    assert main([*command, f"--python=alscore-cg={broken}", f"--plot={tmp_path / 'plot.png'}"]) == 1
    out, err = capsys.readouterr()
    assert "alscore-cg failed: out of ideas" in out
    assert "  alscore-auto" in out
    assert err.endswith("alscore: error: alscore-cg failed\n")


def test_reference_that_fails_is_named(plays):
    wrong = plays.astype(np.float32)
    wrong.data[3] = np.nan
    with pytest.raises(RuntimeError, match=r"the reference, 30 sweeps of alscore-cholesky, failed: ValueError: .* nan"):
        bench.converge(wrong, ["alscore-cholesky"], factors=3)


def test_other_interpreter_runs_the_contender(plays, tmp_path):
    path = ":".join(filter(None, sys.path))
    other = interpreter(tmp_path / "other", f'export PYTHONPATH="{path}"; exec "{sys.executable}" "$@"')
    outcome = sweep(
        plays, ["alscore-cg"], factors=3, threads=1, sweeps=1, repeats=1, python={"alscore": other}
    )  # fmt: skip
    assert len(row(outcome, "alscore-cg")["objective"]) == 2


def test_openblas_settings_of_the_machine_are_not_passed_on(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    jobs, _ = harness.find(["A"], {"A": "alscore"}, "contenders.py", {}, print)
    assert {name for name in jobs["A"]["env"] if name.startswith("OPENBLAS")} == {"OPENBLAS_NUM_THREADS"}
    outcome = harness.outcome({"bench": "load"}, {}, {}, {})
    assert "OPENBLAS_CORETYPE=Haswell OPENBLAS_L2_SIZE=1 not passed on" in "\n".join(presentation.above(outcome))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contenders": ["nobody"]}, "no contender is named 'nobody'; there are: alscore-cholesky"),
        ({"contenders": ["implicit-cg@avx2"]}, "no contender is named 'implicit-cg@avx2'"),
        ({"contenders": []}, "no contender is left to measure"),
        ({"baseline": "implicit-cg"}, "baseline 'implicit-cg' is not among the contenders: alscore-cg"),
        ({"python": {"alscore": "/not/there"}}, "there is no interpreter '/not/there'; give the path"),
        ({"python": {"implicit": sys.executable}}, "python for 'implicit': no contender's name begins with it"),
        ({"threads": -1}, "num_threads must be an integer from 0"),
        ({"sweep": 2}, r"sweep has no option 'sweep'; its options are: repeats, .*factors"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(plays, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        sweep(plays, **{"contenders": ["alscore-cg"], **options})


def test_functions_and_commands_have_the_same_benchmarks():
    assert set(bench.__all__) == BENCHMARKS.keys()
    assert all(callable(getattr(bench, name)) for name in BENCHMARKS)
    with pytest.raises(AttributeError, match=r"module 'alscore\.bench' has no attribute 'speed'"):
        bench.speed  # noqa: B018


@pytest.mark.parametrize("options", [{}, {"one_by_one": True}, {"random_factors": True}])
def test_topn_against_brute_force(plays, options):
    outcome = bench.topn(plays, ["alscore", "numpy"], factors=4, top=5, users=20, threads=1, repeats=1, **options)
    assert outcome["data"]["asked"] == 20
    assert row(outcome, "numpy")["same_ids"] == 1
    assert row(outcome, "numpy")["users_per_second"] == pytest.approx(20 / row(outcome, "numpy")["median"])
    (run,) = outcome["runs"]["numpy"]
    assert row(outcome, "numpy")["first"] == run["measured"][0]["seconds"]


def test_topn_of_more_items_than_there_are(plays):
    outcome = bench.topn(plays, ["alscore", "numpy"], factors=4, top=70, users=20, threads=1, repeats=1)
    assert outcome["failed"] == {}
    assert row(outcome, "numpy")["same_ids"] == 1


@pytest.mark.parametrize("one_by_one", [False, True])
def test_foldin_is_a_half_sweep(plays, one_by_one):
    names = ["alscore", "alscore-half-sweep"]
    settings = FoldIn(factors=4, users=20, threads=1, repeats=1, one_by_one=one_by_one)
    outcome, factors = tasks.folded_in(plays, names, settings)
    assert outcome["failed"] == {}
    assert [result["contender"] for result in outcome["results"]] == names
    norms = [np.linalg.norm(factors[name], axis=1) for name in names]  # their bases differ
    np.testing.assert_allclose(*norms, rtol=1e-4)
    users = np.sort(np.random.default_rng(0).choice(60, 20, replace=False))
    Y = AlternatingLeastSquares(4, iterations=5, num_threads=1, random_state=0).fit(plays, False).item_factors
    X = exact_half_sweep(plays[users].toarray(), Y, regularization=0.01)
    np.testing.assert_allclose(factors["alscore"], X, atol=1e-5)


def test_update_is_near_a_fit(plays):
    contenders = ["alscore", "alscore-2-sweeps", "alscore-fit"]
    outcome = bench.update(plays, contenders, factors=4, sweeps=6, threads=1, repeats=1)
    assert outcome["failed"] == {}
    one, two, fit = (row(outcome, name)["objective"] for name in contenders)
    assert fit == pytest.approx(oracle(plays, 4, 6)[-1], rel=tolerance("descent", "float32"))
    assert one > two
    assert two == pytest.approx(fit, rel=0.05)


def test_load_reads_the_same_as_pandas(plays, file, capsys):
    assert main(["bench", "load", "--data", str(file), "--repeats=1", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert [row["contender"] for row in outcome["results"]] == ["alscore", "pandas", "bytes", "saved"]
    assert "rows" not in row(outcome, "bytes")
    for result in (row(outcome, name) for name in ("alscore", "pandas", "saved")):
        assert [result[name] for name in ("rows", "users", "items", "entries")] == [plays.nnz, 60, 50, plays.nnz]


def test_load_of_a_file_that_only_ours_can_read(file, tmp_path, capsys):
    path = tmp_path / "plays.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(file, "usersha1-artmbid-artname-plays.tsv")
        archive.add(file, "usersha1-profile.tsv")
    assert main(["bench", "load", "--data", str(path), "--repeats=1"]) == 0
    assert "pandas failed: ValueError: Multiple files found in TAR" in capsys.readouterr().out


@pytest.mark.parametrize("n_users", [None, 9])
def test_evaluate_against_a_plain_count(plays, n_users):
    outcome = bench.evaluate(plays, ["alscore"], factors=4, top=5, users=n_users, threads=1, repeats=1)
    out = np.random.default_rng(0).random(plays.nnz) < 0.1
    users, items = np.nonzero(plays.toarray())
    if n_users:
        out &= np.isin(users, np.random.default_rng(0).choice(plays.shape[0], n_users, replace=False))
    seen = sparse.csr_matrix((plays.data[~out], (users[~out], items[~out])), plays.shape)
    model = AlternatingLeastSquares(4, iterations=5, num_threads=1, random_state=0).fit(seen, show_progress=False)
    scores = model.user_factors.astype(np.float64) @ model.item_factors.T.astype(np.float64)
    ndcg, recall = [], []
    for user in range(plays.shape[0]):
        held_out = set(items[out & (users == user)])
        unseen = [item for item in np.argsort(-scores[user]) if seen[user, item] == 0]
        hits = [place for place, item in enumerate(unseen[:5]) if item in held_out]
        if held_out:
            best = sum(1 / np.log2(place + 2) for place in range(min(5, len(held_out))))
            ndcg.append(sum(1 / np.log2(place + 2) for place in hits) / best)
            recall.append(len(hits) / len(held_out))
    assert 0 < np.mean(recall) < 1
    assert outcome["data"]["asked"] == len(recall)
    assert row(outcome, "alscore")["ndcg"] == pytest.approx(np.mean(ndcg))
    assert row(outcome, "alscore")["recall"] == pytest.approx(np.mean(recall))


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
def test_command(command, file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "sweep", sweep)  # the same function with given peaks
    plot = tmp_path / "plot.png"
    small = ["--data", str(file), "--factors=4", "--threads=1", "--repeats=1"]
    assert main(["bench", *command, *small, "--json", f"--plot={plot}"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["settings"]["bench"] == command[0]
    assert outcome["settings"]["data"] == str(file)
    assert outcome["machine"]["cpu"]
    assert plot.read_bytes().startswith(b"\x89PNG\r\n")
    lines = [*presentation.above(outcome), *presentation.below(outcome)]
    assert any("alscore 0.1.0" in line for line in lines)
    assert any("one repeat allows no conclusion" in line for line in lines)
    header, rows = presentation.table(outcome)
    assert header[0] == "contender"
    assert len(rows) == len(outcome["results"])


def test_plot_without_matplotlib_is_refused_at_once(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "sweep", "--plot=plot.png"]) == 1
    assert capsys.readouterr().err == "alscore: error: --plot needs matplotlib: pip install 'alscore[bench]'\n"


def test_python_without_a_path_is_wrong_usage(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "sweep", "--python", "buffalo"])
    assert "must be NAME=PATH" in capsys.readouterr().err


def test_json_to_a_file_leaves_the_table(tmp_path, capsys):
    path = tmp_path / "outcome.json"
    command = ["bench", "converge", "--scale=0.0001", "--factors=3", "--threads=1", "--sweeps=1", "--repeats=1"]
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
def test_wrong_values_are_refused_by_the_parser(options, message, capsys):
    with pytest.raises(SystemExit):
        main(["bench", "sweep", *options])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_help_lists_all_contenders_that_can_be_added_to_ours(kind, capsys):
    with pytest.raises(SystemExit):
        main(["bench", kind, "--help"])
    help = "".join(capsys.readouterr().out.split())
    names = {**task_contenders.CONTENDERS, "spark": on_spark.CONTENDERS}.get(kind, CONTENDERS)
    solvers = [f"alscore-{name}" for name in ("cholesky", "cg", "auto")] if BENCHMARKS[kind].solvers else ["alscore"]
    others = [name for name in names if name not in solvers]
    assert f"of{','.join(others)};" in help
    assert set(BENCHMARKS[kind].contenders()) <= names.keys()


def test_command_passes_every_option_on(file, tmp_path, monkeypatch):
    """Every option of every benchmark reaches its function, with the type that the function takes."""
    values = {
        Kind.AT_LEAST_1: ("=7", 7), Kind.AT_LEAST_0: ("=8", 8), Kind.ABOVE_ZERO: ("=0.5", 0.5),
        Kind.NOT_NEGATIVE: ("=0", 0.0), Kind.TEXT: ("=any", "any"), Kind.FLAG: ("", True),
        Kind.KERNEL_SETS: ("=avx2,generic", ["avx2", "generic"]), Kind.INTERPRETERS: ("=alscore=sh", {"alscore": "sh"}),
    }  # fmt: skip
    for kind, benchmark in BENCHMARKS.items():
        command, expected = ["bench", kind, f"--data={file}", f"--json={tmp_path / 'outcome.json'}"], {}
        for keyword, (option, _) in benchmark.options().items():
            text, expected[keyword] = values[option.kind]
            command.append(f"--{keyword.replace('_', '-')}{text}")
        calls = []

        def record(data, contenders, *, say, calls=calls, benchmark=benchmark, **options):
            calls.append((contenders, options))
            raise KeyboardInterrupt

        monkeypatch.setitem(vars(bench), kind, record)
        assert main(command) == 130
        assert calls == [(benchmark.contenders(), expected)]
