"""`evaluate` against rankings made by sorting, models of every kind, wrong input, and the statistics of the result."""

import itertools
import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares as ImplicitALS
from scipy import sparse, stats

from alscore import AlternatingLeastSquares, Interactions, Recommender, datasets, evaluate, metrics, rankings, splits
from alscore.cli import main
from alscore.evaluation import METRICS, Evaluation, compare
from alscore.factor_model import NotFittedError

CUTOFFS = (3, 10, 200)  # the last beyond all items


@pytest.fixture(scope="module")
def parts(plays):
    return splits.random_split(plays, 0.3)


@pytest.fixture(scope="module")
def model(parts):
    return AlternatingLeastSquares(8, iterations=3, random_state=0).fit(parts.train, show_progress=False)


def ranked(scores, train):
    """By sorting: seen items at the end and then out, equal scores by the lower code."""
    scores = np.where(train.toarray() != 0, -np.inf, scores.astype(np.float64))
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.where(np.isneginf(np.take_along_axis(scores, order, axis=1)), -1, order)


def expected(scores, train, test):
    """Every metric by the functions of rankings and scores."""
    order = ranked(scores, train)
    judged = np.flatnonzero((test > 0).sum(axis=1))
    values, catalogue = {}, {}
    for name, k in itertools.product(METRICS, CUTOFFS):
        if name in ("coverage", "gini"):
            catalogue[f"{name}@{k}"] = getattr(metrics, name)(order[judged], test.shape[1], k)
        elif name in ("auc", "mpr"):
            values[name] = getattr(metrics, name)(scores, test, train)[judged]
        else:
            values[f"{name}@{k}"] = getattr(metrics, name)(
                order, train if name in ("novelty", "diversity") else test, k
            )[judged]
    return judged, values, catalogue


def assert_as_expected(found, scores, train, test):
    judged, values, catalogue = expected(scores, train, test)
    np.testing.assert_array_equal(found.users, judged)
    assert found.n_users_without_test == test.shape[0] - len(judged) > 0
    assert found.values.keys() == values.keys()
    for name, oracle in values.items():
        np.testing.assert_allclose(found.values[name], oracle, atol=1e-12, err_msg=name)
        if name != "mpr":
            assert found[name] == found.mean(name) == pytest.approx(oracle.mean())
    assert found.catalogue == pytest.approx(catalogue)
    assert found["gini@3"] == found.catalogue["gini@3"]


@pytest.mark.parametrize("batch", [64, 4096])
def test_kinds_of_model(parts, model, batch, monkeypatch):
    monkeypatch.setattr(rankings, "_SEARCHED", batch)
    monkeypatch.setattr(rankings, "_SCORES", batch * parts.train.shape[1])
    scores = model.user_factors @ model.item_factors.T
    order = ranked(scores, parts.train)
    of_rows = {row.tobytes(): scores[at] for at, row in enumerate(parts.train.toarray())}
    kinds = {
        "ours": model,
        "factors": SimpleNamespace(user_factors=model.user_factors, item_factors=model.item_factors),
        "scores": SimpleNamespace(scores=lambda rows: np.array([of_rows[row.tobytes()] for row in rows.toarray()])),
        "function to scores": lambda users: scores[users],
        "function to ids": lambda users: order[users],
    }
    for kind, asked in kinds.items():
        wanted = [name for name in METRICS if kind != "function to ids" or name not in ("auc", "mpr")]
        found = evaluate(asked, *parts, CUTOFFS, wanted, show_progress=False)
        if kind == "function to ids":
            found = Evaluation(found.values | {name: expected(scores, *parts)[1][name] for name in ("auc", "mpr")},
                               *list(vars(found).values())[1:])  # fmt: skip
        assert_as_expected(found, scores, *parts)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equal_scores_rank_by_code(parts, dtype):
    scores = np.random.default_rng(0).integers(-1, 2, parts.train.shape).astype(dtype)
    assert_as_expected(evaluate(lambda users: scores[users], *parts, CUTOFFS, METRICS, show_progress=False),
                       scores, *parts)  # fmt: skip
    one_factor = SimpleNamespace(user_factors=scores.astype("f4"), item_factors=np.eye(scores.shape[1], dtype="f4"))
    assert_as_expected(evaluate(one_factor, *parts, CUTOFFS, METRICS, show_progress=False), scores, *parts)


def test_score_of_minus_infinity_is_never_ranked(parts):
    scores = np.full(parts.train.shape, -np.inf)
    scores[:, 3] = 0
    found = evaluate(lambda users: scores[users], *parts, 5, METRICS, show_progress=False)
    assert found["coverage@5"] == 1 / parts.train.shape[1]


def test_same_bits_on_any_number_of_threads(parts, model, little_work_in_parallel):
    one, *others = (
        evaluate(model, *parts, CUTOFFS, METRICS, num_threads=threads, show_progress=False) for threads in (1, 2, 5)
    )
    for other in others:
        assert other.catalogue == one.catalogue
        assert all(other.values[name].tobytes() == one.values[name].tobytes() for name in METRICS if name in one.values)
        assert {name: values.tobytes() for name, values in other.values.items()} == {
            name: values.tobytes() for name, values in one.values.items()
        }


def test_mean_percentile_rank_weighs_entries_as_in_its_paper(parts, model):
    found = evaluate(model, *parts, 10, "mpr", show_progress=False)
    scores, total = model.user_factors @ model.item_factors.T, 0
    for user, item in np.argwhere(parts.test.toarray()):
        left = scores[user, parts.train[[user]].toarray()[0] == 0]
        above = np.sum(left > scores[user, item]) + (np.sum(left == scores[user, item]) - 1) / 2
        total += parts.test[user, item] * above / (len(left) - 1)
    assert found["mpr"] == pytest.approx(total / parts.test.sum())


def test_new_users_are_folded_in(plays):
    split = splits.user_split(plays, 50)
    model = AlternatingLeastSquares(8, iterations=3, random_state=0).fit(split.train, show_progress=False)
    found = evaluate(model, split.fold_in, split.test, CUTOFFS, METRICS, new_users=True, show_progress=False)
    X = model.recalculate_user(np.arange(split.test.shape[0]), split.fold_in)
    oracle = evaluate(lambda users: X[users] @ model.item_factors.T, split.fold_in, split.test, CUTOFFS, METRICS,
                      show_progress=False)  # fmt: skip
    for name, values in oracle.values.items():
        np.testing.assert_allclose(found.values[name], values, atol=1e-12)


def test_implicit_models_with_new_users(parts, model):
    theirs = ImplicitALS(8)
    theirs.item_factors = model.item_factors.copy()
    found = evaluate(theirs, *parts, 10, new_users=True, show_progress=False)
    X = theirs.recalculate_user(np.arange(300), sparse.csr_matrix(parts.train.toarray()))
    oracle = evaluate(lambda users: X[users] @ model.item_factors.T, *parts, 10, show_progress=False)
    np.testing.assert_allclose(found.values["ndcg@10"], oracle.values["ndcg@10"])


def test_interactions_are_their_matrices(parts, model):
    of_matrices = evaluate(model, *parts, show_progress=False)
    labelled = [Interactions(part, range(part.shape[0]), range(part.shape[1])) for part in parts]
    assert repr(evaluate(model, *labelled, show_progress=False)) == repr(of_matrices)
    others = Interactions(parts.test, range(1, parts.test.shape[0] + 1), range(parts.test.shape[1]))
    with pytest.raises(ValueError, match="train and test have different users: take both from one split"):
        evaluate(model, labelled[0], others, show_progress=False)


def test_overlapping_parts(parts, model):
    user = np.flatnonzero(np.diff(parts.train.indptr))[2]
    item = parts.train[[user]].indices[0]
    both = parts.test.tolil()
    both[user, item] = 1
    with pytest.raises(ValueError, match=rf"item {item} of user {user} is in both parts.*\(1 such entries\): leave"):
        evaluate(model, parts.train, both, show_progress=False)
    found = evaluate(model, parts.train, both, on_overlap="drop", show_progress=False)
    assert found.n_overlapping == 1
    assert repr(found) == repr(evaluate(model, *parts, show_progress=False))
    with pytest.raises(ValueError, match="test has no entry above 0"):
        evaluate(model, parts.train, parts.train, on_overlap="drop", show_progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be an integer of at least 1, not 0"),
        ({"k": ()}, "k must be one cut-off or several"),
        ({"metrics": ["ndcg", "accuracy"]}, "metrics must be of precision, .*, not 'accuracy'"),
        ({"on_overlap": "ignore"}, "on_overlap must be 'error' or 'drop'"),
        ({"num_threads": -1}, "num_threads must be an integer from 0"),
    ],
)
def test_wrong_options_are_refused(parts, model, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, *parts, **options, show_progress=False)


def nan_for_user_9(users):
    scores = np.zeros((len(users), 120))
    scores[users == 9, 4] = np.nan
    return scores


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (nan_for_user_9, "user 9 has a score that is NaN"),
        (lambda users: np.zeros((len(users), 119)), r"scores must be real numbers of shape \(\d+, 120\)"),
        (lambda users: [["a"] * 10] * len(users), "scores must be real numbers"),
        (lambda users: np.full((len(users), 10), 120), r"the ranking of user 1 has id 120 outside of \[0, 120\)"),
        (lambda users: np.zeros((len(users), 10), int), "the ranking of user 1 has id 0 twice"),
        (lambda users: np.arange(9) + 0 * users[:, None], "the model ranks 9 items, but 10 are looked at"),
        (lambda users: np.arange(120) + 0 * users[:, None], r"ranking of user \d+ has item \d+, which is in the row"),
        (lambda users: np.arange(10), r"ranked must hold integer ids"),
    ],
)
def test_wrong_answers_are_refused(parts, answer, message):
    with pytest.raises(ValueError, match=message):
        evaluate(answer, *parts, 10, show_progress=False)


def test_wrong_models_are_refused(parts, model):
    X, Y = model.user_factors.copy(), model.item_factors.copy()
    with pytest.raises(TypeError, match=r"model must have user_factors and item_factors, .* not int"):
        evaluate(3, *parts, show_progress=False)
    with pytest.raises(NotFittedError, match="the model has no user_factors: fit it first"):
        evaluate(AlternatingLeastSquares(), *parts, show_progress=False)
    with pytest.raises(
        ValueError, match="user_factors has 299 rows, but train and test have 300 users; or pass new_us"
    ):
        evaluate(SimpleNamespace(user_factors=X[1:], item_factors=Y), *parts, show_progress=False)
    with pytest.raises(TypeError, match="new_users=True needs a model with recalculate_user"):
        evaluate(SimpleNamespace(user_factors=X, item_factors=Y), *parts, new_users=True, show_progress=False)
    X[9] = np.nan
    with pytest.raises(ValueError, match="user_factors must be finite, but row 9 is not"):
        evaluate(SimpleNamespace(user_factors=X, item_factors=Y), *parts, show_progress=False)
    X[9], Y[:] = 1e30, -1e30
    with pytest.raises(ValueError, match="user 9 has scores that are NaN or infinite"):
        evaluate(SimpleNamespace(user_factors=X, item_factors=Y), *parts, show_progress=False)
    with pytest.raises(ValueError, match="auc and mpr need the scores of all items, but the model gives ids"):
        evaluate(lambda users: users[:, None], *parts, 1, "auc", show_progress=False)


def test_wrong_parts_are_refused(parts, model):
    with pytest.raises(ValueError, match=r"test has shape \(300, 119\) and train \(300, 120\)"):
        evaluate(model, parts.train, parts.test[:, 1:], show_progress=False)
    with pytest.raises(ValueError, match="test has no entry above 0"):
        evaluate(model, parts.train, -parts.test, show_progress=False)
    with pytest.raises(TypeError, match="test must be a scipy sparse matrix, not ndarray"):
        evaluate(model, parts.train, parts.test.toarray(), show_progress=False)


def test_memory_does_not_grow_with_users(monkeypatch):
    monkeypatch.setattr(rankings, "_SCORES", 1 << 15)
    train, test = (
        sparse.csr_array((np.ones(2000), (np.arange(2000), np.full(2000, at))), (2000, 500)) for at in (1, 2)
    )
    scores, peaks = np.zeros(500), []
    for n in (200, 2000):
        tracemalloc.start()
        evaluate(lambda users: np.tile(scores, (len(users), 1)), train[:n], test[:n], show_progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2000 * 400  # the scores of all of them: 8 MB


@pytest.fixture(scope="module")
def two(parts, model):
    """The model and one with a fraction of its factors, judged alike."""
    worse = SimpleNamespace(user_factors=model.user_factors[:, :2], item_factors=model.item_factors[:, :2])
    return [evaluate(each, *parts, (5, 10), METRICS, show_progress=False) for each in (model, worse)]


def test_interval_of_a_mean_is_that_of_the_central_limit(two):
    table = two[0].table(0.9, show_progress=False).set_index(["metric", "k"])
    assert list(table.index.get_level_values("k").dropna().unique()) == [5, 10]
    for name in ("ndcg@10", "recall@5", "auc"):
        metric, _, k = name.partition("@")
        row = table.loc[(metric, int(k))] if k else table.xs(metric).iloc[0]
        values = two[0].values[name]
        low, high = stats.norm.interval(0.9, values.mean(), stats.sem(values))
        assert row["mean"] == pytest.approx(values.mean())
        assert row["lower"] == pytest.approx(low, abs=0.15 * (high - low))
        assert row["upper"] == pytest.approx(high, abs=0.15 * (high - low))
    assert table.loc["coverage"][["lower", "upper"]].isna().all(axis=None)
    mpr = table.xs("mpr").iloc[0]
    assert mpr["lower"] < two[0]["mpr"] == mpr["mean"] < mpr["upper"]


def test_table_is_the_same_for_the_same_seed(two):
    tables = [two[0].table(random_state=seed, show_progress=False) for seed in (0, 0, 1)]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


def test_p_value_is_that_of_scipy(two):
    few = [Evaluation({"a": each.values["ndcg@10"][:9]}, {}, each.users[:9], 0, 0, {}) for each in two]
    found = compare(*few, n_permutations=20_000, show_progress=False)
    oracle = stats.permutation_test(
        [each.values["a"] for each in few], lambda a, b: np.mean(a - b), permutation_type="samples"
    )  # exact: all 512 exchanges
    assert found["p_value"][0] == pytest.approx(oracle.pvalue, abs=0.02)
    assert found["difference"][0] == pytest.approx(oracle.statistic)


def test_compare(two):
    table = compare(*two, n_permutations=999, show_progress=False).set_index(["metric", "k"])
    row = table.loc[("recall", 10)]
    assert row["difference"] == two[0]["recall@10"] - two[1]["recall@10"] == row["mean_a"] - row["mean_b"]
    assert row["lower"] < row["difference"] < row["upper"]
    assert table["p_value"].between(0.001, 1).all()
    same = compare(two[0], two[0], n_permutations=99, show_progress=False)
    assert (same["p_value"] == 1).all()
    assert (same[["difference", "lower", "upper"]] == 0).all(axis=None)


def test_what_cannot_be_compared(two):
    other = Evaluation({"ndcg@7": np.zeros(len(two[0].users))}, {}, two[0].users, 0, 0, {})
    with pytest.raises(ValueError, match="no metric of users in common"):
        compare(two[0], other)
    with pytest.raises(ValueError, match="a and b judge different users"):
        compare(two[0], Evaluation({}, {}, two[0].users[1:], 0, 0, {}))
    with pytest.raises(KeyError, match="'ndcg@7' was not evaluated; there are precision@5"):
        two[0]["ndcg@7"]
    with pytest.raises(ValueError, match="confidence must be above 0 and below 1, not 1"):
        two[0].table(1)


def test_plot(two, parts, model, tmp_path):
    few = evaluate(model, *parts, (5, 10), ("ndcg", "coverage", "auc"), show_progress=False)
    assert [axes.get_title() for axes in few.plot().axes] == ["ndcg", "coverage"]
    few.plot().savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match="none of these metrics has a cut-off"):
        Evaluation({"auc": two[0].values["auc"]}, {}, two[0].users, 0, 0, {}).plot()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model in a file, and later plays; among them some of a user and of an item that are new."""
    folder = tmp_path_factory.mktemp("evaluate")
    train, test = splits.random_split(datasets.synthetic(150, 120, seed=0), 0.2)
    Recommender(AlternatingLeastSquares(8, iterations=3, random_state=0)).fit(train, show_progress=False).save(
        folder / "model.als"
    )
    new = Interactions.from_arrays(["f" * 40, test.users[0]], [test.items[0], "an artist so far unknown"])
    datasets.write_lastfm_360k(test.add(new), folder / "test.tsv")
    return folder, train, test


def test_command_prints_the_table(files, capsys):
    folder, train, test = files
    command = ["evaluate", str(folder / "model.als"), "--test", str(folder / "test.tsv"), "--metrics", "ndcg", "auc"]
    assert main([*command, "-k", "5", "10", f"--plot={folder / 'plot.png'}", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    model = Recommender(AlternatingLeastSquares(8, iterations=3, random_state=0)).fit(train, show_progress=False).model
    oracle = evaluate(model, train, test, (5, 10), ("ndcg", "auc"), show_progress=False)
    assert {(row["metric"], row["k"]): row["mean"] for row in document["metrics"]} == pytest.approx(
        {("ndcg", 5): oracle["ndcg@5"], ("ndcg", 10): oracle["ndcg@10"], ("auc", None): oracle["auc"]}
    )
    assert document["users"] == len(oracle.users)
    assert document["left_out"] == {"unknown": 2, "overlapping": 0}
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert main([*command, "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["metric", "k", "mean", "lower", "upper"]
    assert len(out.splitlines()) == 5
    assert err == ""


def test_command_names_the_remedy_for_overlap(files, capsys):
    folder, train, _ = files
    datasets.write_lastfm_360k(train, folder / "train.tsv")
    command = ["evaluate", str(folder / "model.als"), "--test", str(folder / "train.tsv"), "--quiet"]
    assert main(command) == 1
    assert "or pass --drop-overlap" in capsys.readouterr().err
    assert main([*command, "--drop-overlap"]) == 1
    assert "test has no entry above 0" in capsys.readouterr().err


def test_real_data_against_plain_counting(shared_data):
    folder = shared_data / "lastfm-360k-first10000"
    path = next(folder.glob("*.tsv*"))
    train, test = splits.random_split(datasets.lastfm_360k(path), 0.2)
    model = AlternatingLeastSquares(16, iterations=2, random_state=0).fit(train, show_progress=False)
    found = evaluate(model, train, test, 20, ("recall",), show_progress=False)
    sample = found.users[:: len(found.users) // 200]
    scores = model.user_factors[sample].astype(np.float64) @ model.item_factors.T.astype(np.float64)
    best = ranked(scores, train.rows(sample))[:, :20]
    for at, (user, items) in enumerate(zip(sample, best, strict=True)):
        wanted = set(test.rows([user]).indices)
        oracle = len(wanted.intersection(items.tolist())) / len(wanted)
        assert found.values["recall@20"][np.searchsorted(found.users, user)] == pytest.approx(oracle), at
