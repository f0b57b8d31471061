"""The command line: its text and JSON output, its exit codes and its one-line errors."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, Interactions, Recommender, __version__, datasets, load
from alscore._support import threads
from alscore.cli import main
from alscore.datasets.fetch import ARCHIVES, Archive
from alscore.datasets.lastfm import PLAYS_FILE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with plays.tsv, one line of which is wrong, and model.als, which the command has trained on it."""
    folder = tmp_path_factory.mktemp("cli")
    datasets.write_lastfm_360k(datasets.synthetic(150, 120, seed=0), folder / "plays.tsv")
    with open(folder / "plays.tsv", "ab") as file:
        file.write(b"sep 20, 2008\t\tthe artist\t1\n")
    command = ["train", str(folder / "plays.tsv"), "-o", str(folder / "model.als"), "--factors=8", "--seed=1"]
    assert main([*command, "--threads=1", "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load(folder / "model.als")


def failure(capsys, *argv):
    """Run a command that must fail; return the one line that it prints."""
    assert main(list(map(str, argv))) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("alscore: error: ")
    assert err.count("\n") == 1
    return err


def run(*argv, **kwargs):
    command = [sys.executable, "-m", "alscore", *map(str, argv)]
    return subprocess.run(command, capture_output=True, timeout=60, **kwargs)


def test_train_reports_in_json(folder, model, capsys, tmp_path):
    path = tmp_path / "again.als"
    command = ["train", str(folder / "plays.tsv"), "-o", str(path), "--factors=8", "--seed=1"]
    assert main([*command, "--threads=1", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    lines = (folder / "plays.tsv").read_text().splitlines()
    assert document["model"] == str(path)
    assert document["read"] == len(lines)
    assert document["kept"] == len({tuple(line.split("\t")[::2]) for line in lines[:-1]}) == len(lines) - 1
    assert document["rejected"] == [{"number": len(lines), "reason": "user is not a SHA-1"}]
    assert document["users"] == len({line.split("\t")[0] for line in lines[:-1]})
    assert document["items"] == len({line.split("\t")[2] for line in lines[:-1]})
    assert document["seconds"] > sum(sweep["seconds"] for sweep in document["sweeps"]) > 0
    assert "sweep 15/15" in err
    assert path.read_bytes() == (folder / "model.als").read_bytes()

    X, Y = model.model.user_factors.astype(float), model.model.item_factors.astype(float)
    plays = model.interactions.matrix.toarray().astype(float)
    loss = ((1 + plays) * ((plays > 0) - X @ Y.T) ** 2).sum() + 0.01 * ((X**2).sum() + (Y**2).sum())
    losses = [sweep["loss"] for sweep in document["sweeps"]]
    assert losses[-1] == pytest.approx(loss, rel=1e-4)
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 15


def test_train_passes_every_parameter_to_the_model(folder, tmp_path, capsys):
    path = tmp_path / "model.als"
    options = [
        "--factors=5",
        "--regularization=0.5",
        "--alpha=2",
        "--iterations=2",
        "--tol=1e-9",
        "--solver=cholesky",
        "--confidence=log",
        "--epsilon=3",
        "--unobserved-weight=0.5",
        "--regularization-exponent=0.25",
        "--regularization-count=entries",
        "--threads=1",
        "--seed=9",
        "--dtype=float64",
        "--items=mbid",
    ]
    assert main(["train", str(folder / "plays.tsv"), "-o", str(path), *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "1 rejected" in out
    assert "user is not a SHA-1" in out
    assert "sweep  2/2" in out
    assert "sweep  3" not in out

    interactions = datasets.lastfm_360k(folder / "plays.tsv", items="mbid")
    expected = AlternatingLeastSquares(
        factors=5,
        regularization=0.5,
        alpha=2.0,
        iterations=2,
        tol=1e-9,
        solver="cholesky",
        confidence="log",
        epsilon=3.0,
        unobserved_weight=0.5,
        regularization_exponent=0.25,
        regularization_count="entries",
        num_threads=1,
        random_state=9,
        dtype=np.float64,
    )
    loaded = load(path)
    assert loaded.model.get_params() == expected.get_params()
    assert loaded.interactions.items.equals(interactions.items)
    expected.fit(interactions, show_progress=False)
    assert loaded.model.item_factors.tobytes() == expected.item_factors.tobytes()


def test_quiet_train_prints_nothing(folder, tmp_path, capsys):
    command = ["train", str(folder / "plays.tsv"), "-o", str(tmp_path / "model.als"), "--iterations=1"]
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_recommend(folder, model, capsys):
    users = model.interactions.users[[3, 1]].tolist()
    command = ["recommend", str(folder / "model.als"), "--user", users[0], "--user", users[1], "-n", "4"]
    expected = model.recommend(users, n=4)

    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {"recommendations": expected.to_dict("records"), "unknown": []}

    assert main(command) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == f"user {users[0]}"
    assert lines[1].split() == ["rank", "item", "score"]
    assert [line[8:].rpartition("  ")[0].strip() for line in lines[2:6]] == expected["item"][:4].tolist()
    assert lines[7] == f"user {users[1]}"


def test_recommend_filters_items(folder, model, capsys):
    user = model.interactions.users[3]
    best = model.recommend(user, n=4)["item"].tolist()
    command = ["recommend", str(folder / "model.als"), "--user", user, "-n", "2", "--json"]
    assert main([*command, "--filter", best[0], "--filter", best[2]]) == 0
    results = json.loads(capsys.readouterr().out)["recommendations"]
    assert [row["item"] for row in results] == [best[1], best[3]]

    message = failure(capsys, *command, "--filter", "nothing")
    assert "unknown items (1): 'nothing'" in message
    assert "--skip-unknown" in message
    assert main([*command, "--filter", "nothing", "--filter", best[0], "--skip-unknown"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["item"] for row in document["recommendations"]] == best[1:3]
    assert document["unknown"] == ["nothing"]
    assert main([*command[:-1], "--user", "nobody", "--filter", "nothing", "--skip-unknown"]) == 0
    assert capsys.readouterr().err == "alscore: unknown, left out: 'nobody'\nalscore: unknown, left out: 'nothing'\n"


def test_recommend_to_all(folder, model, tmp_path, capsys):
    path, item = tmp_path / "recs.parquet", model.interactions.items[7]
    command = ["recommend", str(folder / "model.als"), "--all", str(path), "-n", "4"]
    for options, expected in (([], model.recommend(n=4)), (["--filter", item], model.recommend(n=4, deny=item))):
        assert main([*command, *options]) == 0
        assert capsys.readouterr() == (f"{path}: {len(expected):,} recommendations\n", "")
        pd.testing.assert_frame_equal(pd.read_parquet(path), expected)
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(path), "recommendations": 600, "unknown": []}
    skipping = [*command, "--filter", "nothing", "--skip-unknown"]
    assert main(skipping) == 0
    assert capsys.readouterr().err == "alscore: unknown, left out: 'nothing'\n"
    assert main([*skipping, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unknown"] == ["nothing"]

    written = path.read_bytes()
    assert f"{os.getcwd()}: exists and is not a regular file" in failure(capsys, *command[:2], "--all", "")
    assert "unknown items" in failure(capsys, *command, "--filter", "nothing")
    assert path.read_bytes() == written
    model.save(tmp_path / "model.als")
    command = "recommend", tmp_path / "model.als", "--all", tmp_path / "model.als"
    assert "is the file to read: give the table another name" in failure(capsys, *command)


def test_similar(folder, model, capsys):
    item = model.interactions.items[7]
    command = ["similar", str(folder / "model.als"), "--item", item, "-n", "3"]
    expected = model.similar_items(item, n=3)
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"similar_items": expected.to_dict("records"), "unknown": []}
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"item {item}\n")
    assert all(other in out for other in expected["similar_item"])


def test_integer_labels_are_read(tmp_path, capsys):
    plays = sparse.csr_array(np.eye(4) + np.eye(4, k=1))
    interactions = Interactions(plays, [10, 20, 30, 40], [-1, 1, 2, 3])
    recommender = Recommender(AlternatingLeastSquares(factors=2)).fit(interactions, show_progress=False)
    recommender.save(tmp_path / "model.als")
    assert main(["recommend", str(tmp_path / "model.als"), "--user", "30", "--json"]) == 0
    results = pd.DataFrame(json.loads(capsys.readouterr().out)["recommendations"])
    assert results["user"].tolist() == [30, 30]
    assert sorted(results["item"]) == [-1, 1]
    assert main(["similar", str(tmp_path / "model.als"), "--item", "-1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["similar_items"]) == 3
    assert "unknown items (1): 'x'; this model's labels are of type integer" in failure(
        capsys, "similar", tmp_path / "model.als", "--item", "x"
    )


def test_unknown_labels(folder, model, capsys):
    item, user = model.interactions.items[5], model.interactions.users[5]
    message = failure(capsys, "similar", folder / "model.als", "--item", item.upper()[:-1])
    assert f"did you mean {item!r}" in message
    assert "--skip-unknown" in message
    wrong = user[:20] + ("0" if user[20] != "0" else "1") + user[21:]
    assert f"did you mean {user!r}" in failure(capsys, "recommend", folder / "model.als", "--user", wrong)

    command = ["recommend", str(folder / "model.als"), "--user", wrong, "--user", user, "--skip-unknown"]
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["unknown"] == [wrong]
    assert {row["user"] for row in json.loads(out)["recommendations"]} == {user}
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"user {user}\n")
    assert err == f"alscore: unknown, left out: {wrong!r}\n"


def test_bad_models(folder, tmp_path, capsys):
    content = bytearray((folder / "model.als").read_bytes())
    content[200] ^= 1
    damaged, bare = tmp_path / "damaged.als", tmp_path / "bare.als"
    damaged.write_bytes(content)
    AlternatingLeastSquares().save(bare)
    for model, reason in (
        (damaged, "damaged.als is not a usable alscore model"),
        (folder / "plays.tsv", "plays.tsv is not a usable alscore model"),
        (bare, "bare.als holds a model without labels"),
        (tmp_path / "none.als", "none.als: No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        assert reason in failure(capsys, "recommend", model, "--user", "x")
        assert reason in failure(capsys, "similar", model, "--item", "x")


def test_plays_are_not_replaced_by_the_model(folder, tmp_path, capsys):
    plays, link = tmp_path / PLAYS_FILE, tmp_path / "link"
    shutil.copy(folder / "plays.tsv", plays)
    link.symlink_to(plays)
    for path, output in ((plays, plays), (plays, link), (link, plays), (tmp_path, plays)):
        message = f"alscore: error: {output} is the file to read: give the model another name\n"
        assert failure(capsys, "train", path, "-o", output) == message
    assert plays.read_bytes() == (folder / "plays.tsv").read_bytes()
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "model.als"), "--iterations=1", "--quiet"]) == 0


def test_bad_plays(tmp_path, capsys):
    (tmp_path / "empty.tsv").touch()
    (tmp_path / "table.csv").write_text("user,item\n1,2\n")
    (tmp_path / "folder").mkdir()
    for name in ("none.tsv", "empty.tsv", "table.csv", "folder"):
        path = tmp_path / name
        assert str(path) in failure(capsys, "train", path, "-o", tmp_path / "model.als", "--quiet")
    assert sorted(os.listdir(tmp_path)) == ["empty.tsv", "folder", "table.csv"]


def test_bad_outputs_fail_before_anything_is_read(folder, tmp_path, capsys):
    plays = folder / "plays.tsv"
    for output, reason in (
        (tmp_path, "exists and is not a regular file"),
        (plays / "model.als", "Not a directory"),
        (tmp_path / "no" / "model.als", "No such file or directory"),
    ):
        message = failure(capsys, "train", plays, "-o", output)
        assert message == f"alscore: error: {output}: {reason}\n"


def test_bad_parameters(folder, tmp_path, capsys):
    command = "train", folder / "plays.tsv", "-o", tmp_path / "model.als", "--quiet"
    for option, name in (
        ("--factors=0", "factors"),
        ("--solver=magic", "magic"),
        ("--dtype=int8", "dtype"),
        ("--confidence=blind", "confidence"),
        ("--regularization=-1", "regularization"),
    ):
        assert name in failure(capsys, *command, option)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: COMMAND"),
        (["predict"], "invalid choice: 'predict'"),
        (["train", "plays.tsv"], "required: -o/--output"),
        (["train", "plays.tsv", "-o", "m", "--factors=many"], "argument --factors: invalid int value: 'many'"),
        (["recommend", "m"], "one of the arguments --user --all is required"),
        (["recommend", "m", "--user=x", "--all=y"], "argument --all: not allowed with argument --user"),
        (["recommend", "m", "--user=x", "-n=0"], "argument -n: must be a whole number of at least 1, not '0'"),
        (["demo", "--users=x"], "argument --users: must be a whole number of at least 1, not 'x'"),
        (["demo", "--users=2.5"], "argument --users: must be a whole number of at least 1, not '2.5'"),
    ],
)
def test_wrong_usage(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("usage: alscore")
    assert message in err


def test_debug_shows_the_traceback(tmp_path):
    for argv in (
        ["--debug", "similar", str(tmp_path / "none"), "--item=x"],
        ["similar", str(tmp_path / "none"), "--item=x", "--debug"],
    ):
        with pytest.raises(FileNotFoundError):
            main(argv)


@pytest.mark.parametrize("n_sweeps", [0, 2])
def test_interrupted_train_leaves_nothing(folder, tmp_path, monkeypatch, capsys, n_sweeps):
    def interrupted(self, interactions, show_progress, callback):
        for iteration in range(n_sweeps):
            callback(iteration, 0.1, 1.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(AlternatingLeastSquares, "fit", interrupted)
    assert main(["train", str(folder / "plays.tsv"), "-o", str(tmp_path / "model.als"), "--quiet"]) == 130
    assert capsys.readouterr() == ("", f"alscore: interrupted after {n_sweeps} of 15 sweeps; nothing is saved\n")
    assert not os.listdir(tmp_path)


def test_interrupted_reading_leaves_nothing(folder, tmp_path, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "lastfm_360k", interrupted)
    assert main(["train", str(folder / "plays.tsv"), "-o", str(tmp_path / "model.als"), "--quiet"]) == 130
    assert capsys.readouterr() == ("", "alscore: interrupted\n")
    assert not os.listdir(tmp_path)


def test_demo_recommends_within_genres(capsys):
    assert main(["demo", "--users=600", "--items=500", "--factors=16"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "sweep 15/15" in out
    assert "a sweep takes" in out
    assert out.count("\nuser ") == 3
    pairs = [line.split(" (")[1:] for line in out.partition("similar artist")[2].splitlines()[1:]]
    same = [one.split(" #")[0] == other.split(" #")[0] for one, other in pairs]
    assert len(same) == 9
    assert sum(same) >= 5  # 20 genres: by chance less than one


def test_module_entry_point():
    done = run("--version")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"alscore {__version__}\n", b"")


def test_errors_leave_the_process_with_their_code(tmp_path):
    done = run("recommend", tmp_path / "none", "--user", "x")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.decode() == f"alscore: error: {tmp_path / 'none'}: No such file or directory\n"


def test_terminal_without_utf8(tmp_path):
    interactions = Interactions(sparse.csr_array(np.eye(3)), ["a", "b", "c"], ["坂本", "björk", "x"])
    model = Recommender(AlternatingLeastSquares(factors=2)).fit(interactions, show_progress=False)
    model.save(tmp_path / "model.als")
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = run("similar", tmp_path / "model.als", "--item", "x", env=ascii_only)
    assert done.returncode == 0
    assert rb"\u5742\u672c" in done.stdout
    assert rb"bj\xf6rk" in done.stdout


def test_closed_pipe_is_silent(folder, model):
    command = [sys.executable, "-m", "alscore", "recommend", str(folder / "model.als"), "--user"]
    with subprocess.Popen(
        [*command, model.interactions.users[0]], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_real_plays(shared_data, tmp_path, capsys):
    plays = shared_data / "lastfm-360k-first10000" / "usersha1-artmbid-artname-plays.tsv.gz"
    path = str(tmp_path / "model.als")
    assert main(["train", str(plays), "-o", path, "--factors=16", "--confidence=log", "--seed=0"]) == 0
    assert "10,000 read, 10,000 kept" in capsys.readouterr().out
    table = datasets.lastfm_360k(plays).to_pandas()
    user = table["user"][0]
    assert main(["recommend", path, "--user", user, "-n", "20", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["recommendations"]
    played = table.query("user == @user")["item"]
    assert len(played) > 0
    assert len(results) == 20
    assert not {row["item"] for row in results} & set(played)
    assert main(["similar", path, "--item", '"weird al" yankovic']) == 0
    assert capsys.readouterr().out.startswith('item "weird al" yankovic\n')


def test_fetch_uses_a_file_put_there_by_hand_and_leaves_a_wrong_one(tmp_path, monkeypatch, capsys):
    sha256 = hashlib.sha256(b"abc").hexdigest()
    monkeypatch.setitem(ARCHIVES, "lastfm-1k", Archive("a.tar.gz", 3, sha256, (), ""))
    (tmp_path / "a.tar.gz").write_bytes(b"abc")
    assert main(["fetch", "lastfm-1k", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr() == (f"{tmp_path / 'a.tar.gz'}\n", "")
    (tmp_path / "a.tar.gz").write_bytes(b"abd")
    assert f"not 3 bytes with SHA-256 {sha256}" in failure(capsys, "fetch", "lastfm-1k", "--folder", tmp_path)


def test_threads_reach_the_model(folder, tmp_path, monkeypatch):
    """Every call of every module for a number of threads gets the number of the command."""
    numbers = []
    resolve = threads.resolve_threads

    def spy(num_threads, *work):
        numbers.append(num_threads)
        return resolve(num_threads, *work)

    for module in [each for name, each in sys.modules.items() if name.startswith("alscore.")]:
        if vars(module).get("resolve_threads") is resolve:
            monkeypatch.setattr(module, "resolve_threads", spy)
    plays, model, later = str(folder / "plays.tsv"), str(tmp_path / "model.als"), str(tmp_path / "later.tsv")
    known = datasets.lastfm_360k(plays)
    datasets.write_lastfm_360k(Interactions(known.matrix, known.users[::-1], known.items), later)
    for command in (
        ["train", plays, "-o", model, "--factors=2", "--iterations=1"],
        ["tune", plays, "--trials=1", "--factors=2", "--iterations=1"],
        ["evaluate", str(folder / "model.als"), "--test", later, "--drop-overlap", "--metrics=auc"],
    ):
        numbers.clear()
        assert main([*command, "--threads=2", "--quiet"]) == 0
        assert set(numbers) == {2}, command


def test_help_starts_without_slow_imports(run_python):
    code = """
import sys
from alscore.cli import main
try:
    main(["--help"])
finally:
    print(sorted({"numpy", "scipy", "pandas", "pyarrow", "threadpoolctl"} & set(sys.modules)))
"""
    done = run_python(code)
    assert done.stdout.startswith("usage: alscore"), done.stderr
    assert done.stdout.endswith("\n[]\n")
