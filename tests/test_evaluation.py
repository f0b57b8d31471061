"""`evaluate` against rankings made by sorting: all kinds of model, wrong input, statistics of the result."""

import itertools
import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares as ImplicitALS
from scipy import sparse, stats

from alscore import AlternatingLeastSquares, Interactions, Recommender, datasets, evaluate, metrics, splits
from alscore.cli import main
from alscore.metrics.evaluation import METRICS, Evaluation, compare, evaluate_held_out
from alscore.metrics.rankings import HeldOut, RankingOptions
from alscore.retrieval.factor_model import NotFittedError

DEFAULTS = ("ndcg", "recall", "precision", "map", "mrr", "coverage")  # metrics of `evaluate` by default
CUTOFFS = (3, 10, 200)  # 200: more than there are items


@pytest.fixture(scope="module")
def parts(plays):
    return splits.random_split(plays, 0.3)


@pytest.fixture(scope="module")
def model(parts):
    return AlternatingLeastSquares(8, iterations=3, random_state=0).fit(parts.train, show_progress=False)


def ranked(scores, train):
    """Rank by sorting: seen items get -1 at the end. Ties: lower id first."""
    scores = np.where(train.toarray() != 0, -np.inf, scores.astype(np.float64))
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.where(np.isneginf(np.take_along_axis(scores, order, axis=1)), -1, order)


def expected(scores, train, test):
    """Every metric, by the functions that take rankings and scores."""
    order = ranked(scores, train)
    users = np.flatnonzero((test > 0).sum(axis=1))
    values, catalogue = {}, {}
    for name, k in itertools.product(METRICS, CUTOFFS):
        if name in ("coverage", "gini"):
            catalogue[f"{name}@{k}"] = getattr(metrics, name)(order[users], test.shape[1], k)
        elif name in ("auc", "mpr"):
            values[name] = getattr(metrics, name)(scores, test, train)[users]
        else:
            values[f"{name}@{k}"] = getattr(metrics, name)(
                order, train if name in ("novelty", "diversity") else test, k
            )[users]
    return users, values, catalogue


def assert_as_expected(found, scores, train, test):
    users, values, catalogue = expected(scores, train, test)
    np.testing.assert_array_equal(found.users, users)
    assert found.n_users_without_test == test.shape[0] - len(users) > 0
    assert found.values.keys() == values.keys()
    for name, oracle in values.items():
        np.testing.assert_allclose(found.values[name], oracle, atol=1e-12, err_msg=name)
        if name != "mpr":
            assert found[name] == found.mean(name) == pytest.approx(oracle.mean())
    assert found.catalogue == pytest.approx(catalogue)
    assert found["gini@3"] == found.catalogue["gini@3"]


def evaluate_in_batches(model, train, test, k, metrics, **sizes):
    """`evaluate` with other sizes of batches than its own."""
    options = RankingOptions(num_threads=0, show_progress=False, **sizes)
    return evaluate_held_out(model, HeldOut.of(train, test), k, metrics, options)


@pytest.mark.parametrize("batch", [64, 4096])
def test_kinds_of_model(parts, model, batch):
    sizes = {"batch_users": batch, "batch_scores": batch * parts.train.shape[1]}
    scores = model.user_factors @ model.item_factors.T
    order = ranked(scores, parts.train)
    scores_of_row = {row.tobytes(): scores[at] for at, row in enumerate(parts.train.toarray())}
    kinds = {
        "ours": model,
        "factors": SimpleNamespace(user_factors=model.user_factors, item_factors=model.item_factors),
        "scores": SimpleNamespace(
            scores=lambda rows: np.array([scores_of_row[row.tobytes()] for row in rows.toarray()])
        ),
        "function to scores": lambda users: scores[users],
        "function to ids": lambda users: order[users],
    }
    for kind, each in kinds.items():
        names = [name for name in METRICS if kind != "function to ids" or name not in ("auc", "mpr")]
        found = evaluate_in_batches(each, *parts, CUTOFFS, names, **sizes)
        whole = evaluate(each, *parts, CUTOFFS, names, show_progress=False)
        assert repr(found) == repr(whole)
        assert found.test_checksum == whole.test_checksum
        if kind == "function to ids":
            found = Evaluation(found.values | {name: expected(scores, *parts)[1][name] for name in ("auc", "mpr")},
                               *list(vars(found).values())[1:])  # fmt: skip
        assert_as_expected(found, scores, *parts)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ties_rank_the_lower_id_first(parts, dtype):
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
        assert {name: values.tobytes() for name, values in other.values.items()} == {
            name: values.tobytes() for name, values in one.values.items()
        }


def test_mean_percentile_rank_weights_entries_as_in_its_paper(parts, model):
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
        ({"k": 10.0}, "k must be an integer of at least 1, not 10.0"),
        ({"k": [5, "a"]}, "k must be an integer of at least 1, not 'a'"),
        ({"metrics": 5}, "metrics must be one name or a list of names, not 5"),
        ({"metrics": ()}, r"metrics must be one name or a list of names, not \(\)"),
        ({"metrics": ["ndcg", "accuracy"]}, "metrics must be one of precision, .*, not 'accuracy'"),
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
    ("model", "message"),
    [
        (nan_for_user_9, "user 9 has a score that is NaN"),
        (lambda users: np.zeros((len(users), 119)), r"scores must be real numbers of shape \(\d+, 120\)"),
        (lambda users: [["a"] * 10] * len(users), "scores must be real numbers"),
        (lambda users: np.full((len(users), 10), 120), r"the ranking of user 1 has id 120 outside of \[0, 120\)"),
        (lambda users: np.zeros((len(users), 10), int), "the ranking of user 1 has id 0 twice: leave out [a-z ]+$"),
        (lambda users: np.zeros((len(users), 120), int), "has id 0 twice.*; integers are ids: give scores as floats"),
        (lambda users: np.arange(9) + 0 * users[:, None], "the model ranks 9 items, but k needs 10"),
        (lambda users: np.arange(120) + 0 * users[:, None], r"ranking of user \d+ has item \d+, which is in the row"),
        (lambda users: np.arange(10), r"ranked must hold integer ids"),
    ],
)
def test_wrong_results_of_a_model_are_refused(parts, model, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, *parts, 10, show_progress=False)


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
    with pytest.raises(ValueError, match="auc and mpr need the scores of all items, but the model gives ids"):
        evaluate(lambda users: users[:, None], *parts, 1, "auc", show_progress=False)


@pytest.mark.parametrize("metrics", ["ndcg", "auc"])
@pytest.mark.parametrize("of_item_7", [[1e30, -1e30], [1e30, 1e30], [-1e30, -1e30]], ids=["nan", "inf", "-inf"])
def test_factors_whose_scores_overflow_are_refused(parts, of_item_7, metrics):
    X, Y = np.ones((300, 2), "f4"), np.full((120, 2), 1e-3, "f4")
    X[9], Y[7] = 1e30, of_item_7
    with pytest.raises(ValueError, match="user 9 may have scores that are NaN or infinite in float32: train the model"):
        evaluate(SimpleNamespace(user_factors=X, item_factors=Y), *parts, 10, metrics, show_progress=False)


def test_folded_in_factors_that_are_nan_are_refused(parts, model):
    broken = SimpleNamespace(
        item_factors=model.item_factors, recalculate_user=lambda users, rows: np.full((len(users), 8), np.nan, "f4")
    )
    with pytest.raises(ValueError, match="user 1 may have scores that are NaN"):
        evaluate(broken, *parts, new_users=True, show_progress=False)


def test_integers_of_a_method_are_scores(parts):
    scores = np.random.default_rng(0).integers(-9, 9, 120)
    whole = SimpleNamespace(scores=lambda rows: np.tile(scores, (rows.shape[0], 1)))
    found = evaluate(whole, *parts, CUTOFFS, METRICS, show_progress=False)
    assert_as_expected(found, np.tile(scores.astype(np.float64), (300, 1)), *parts)


def test_batches_grow_once_a_function_returns_ids(parts):
    lengths = []

    def empty(users):
        lengths.append(len(users))
        return np.full((len(users), 10), -1)

    found = evaluate_in_batches(empty, *parts, [10], ["ndcg"], batch_scores=7 * parts.train.shape[1])
    assert lengths == [7, len(found.users) - 7]
    assert not found.values["ndcg@10"].any()


def test_recommender_without_interactions_is_its_model(parts, model):
    assert str(evaluate(Recommender(model), *parts)) == str(evaluate(model, *parts))
    with pytest.raises(NotFittedError):
        evaluate(Recommender(), *parts)


def test_a_model_may_have_an_attribute_interactions(parts, model):
    own = SimpleNamespace(user_factors=model.user_factors, item_factors=model.item_factors)
    own.model, own.interactions = None, datasets.synthetic(5, 5)
    assert str(evaluate(own, *parts)) == str(evaluate(model, *parts))


def test_recommender_is_its_model(parts, model):
    labelled = [Interactions(part, range(300), range(120)) for part in parts]
    recommender = Recommender(AlternatingLeastSquares(8, iterations=3, random_state=0)).fit(
        labelled[0], show_progress=False
    )
    found = evaluate(recommender, *labelled, 10, METRICS, show_progress=False)
    assert repr(found) == repr(evaluate(model, *parts, 10, METRICS, show_progress=False))
    others = [Interactions(part, range(300), range(1, 121)) for part in parts]
    with pytest.raises(ValueError, match="model and train have different items"):
        evaluate(recommender, *others, show_progress=False)


def test_wrong_parts_are_refused(parts, model):
    with pytest.raises(ValueError, match=r"test has shape \(300, 119\) and train \(300, 120\)"):
        evaluate(model, parts.train, parts.test[:, 1:], show_progress=False)
    with pytest.raises(ValueError, match="test has no entry above 0"):
        evaluate(model, parts.train, -parts.test, show_progress=False)
    with pytest.raises(TypeError, match="test must be a scipy sparse matrix, not ndarray"):
        evaluate(model, parts.train, parts.test.toarray(), show_progress=False)


def test_memory_does_not_grow_with_users():
    train, test = (
        sparse.csr_array((np.ones(2000), (np.arange(2000), np.full(2000, at))), (2000, 500)) for at in (1, 2)
    )
    scores, peaks = np.zeros(500), []
    for n in (200, 2000):
        tracemalloc.start()
        evaluate_in_batches(lambda users: np.tile(scores, (len(users), 1)), train[:n], test[:n], (10, 20, 50), DEFAULTS,
                            batch_scores=1 << 15)  # fmt: skip
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2000 * 400  # the scores of all users: 8 MB


def test_memory_does_not_grow_with_users_of_factors():
    train, test = (
        sparse.csr_array((np.ones(8000), (np.arange(8000), np.full(8000, at))), (8000, 500)) for at in (1, 2)
    )
    X, Y, peaks = np.ones((8000, 1), "f4"), np.ones((500, 1), "f4"), []
    for n in (800, 8000):
        tracemalloc.start()
        evaluate_in_batches(SimpleNamespace(user_factors=X[:n], item_factors=Y), train[:n], test[:n], [200], ["ndcg"],
                            batch_users=64)  # fmt: skip
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 8000 * 200  # the ranked ids of all users: 6.4 MB


@pytest.fixture(scope="module")
def two(parts, model):
    """Evaluations of the model and of a model with two of its factors, on the same data."""
    worse = SimpleNamespace(user_factors=model.user_factors[:, :2], item_factors=model.item_factors[:, :2])
    return [evaluate(each, *parts, (5, 10), METRICS, show_progress=False) for each in (model, worse)]


def test_interval_of_a_mean_agrees_with_the_central_limit_theorem(two):
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


def test_p_value_agrees_with_scipy(two):
    few = [Evaluation({"a": each.values["ndcg@10"][:9]}, {}, each.users[:9], 0, 0, {}, 0) for each in two]
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


@pytest.fixture(scope="module")
def weighted():
    """Two evaluations of nine users whose weights are from 1 to 50."""
    rng = np.random.default_rng(1)
    weights = {"mpr": np.array([50.0, 1, 2, 30, 1, 1, 4, 1, 9])}
    return [Evaluation({"mpr": rng.random(9)}, {}, np.arange(9), 0, 0, weights, 0) for _ in range(2)]


def test_p_value_of_weighted_users_agrees_with_scipy(weighted):
    a, b = (each.values["mpr"] * each.weights["mpr"] for each in weighted)
    oracle = stats.permutation_test([a, b], lambda a, b: np.mean(a - b), permutation_type="samples")  # exact
    found = compare(*weighted, n_permutations=20_000, show_progress=False)
    assert found["p_value"][0] == pytest.approx(oracle.pvalue, abs=0.02)
    plain = stats.permutation_test(
        [each.values["mpr"] for each in weighted], lambda a, b: np.mean(a - b), permutation_type="samples"
    )
    assert abs(plain.pvalue - oracle.pvalue) > 0.1  # the weights make a difference


def test_interval_of_weighted_users_agrees_with_weighted_means(weighted):
    values, weights = weighted[0].values["mpr"], weighted[0].weights["mpr"]
    sample = np.random.default_rng(1).integers(9, size=(20_000, 9))
    oracle = np.quantile(np.average(values[sample], axis=1, weights=weights[sample]), [0.025, 0.975])
    row = weighted[0].table(n_resamples=20_000, show_progress=False).iloc[0]
    assert (row["lower"], row["upper"]) == pytest.approx(tuple(oracle), abs=0.02)


def test_evaluations_that_cannot_be_compared_are_refused(two, parts, model):
    fewer = parts.test.copy()
    fewer.data[fewer.indptr[:-1][np.diff(fewer.indptr) > 1]] = 0
    with pytest.raises(ValueError, match="a and b have different test items"):
        compare(two[0], evaluate(model, parts.train, fewer, show_progress=False))
    other = Evaluation({"ndcg@7": np.zeros(len(two[0].users))}, {}, two[0].users, 0, 0, {}, two[0].test_checksum)
    with pytest.raises(ValueError, match="no metric of users in common"):
        compare(two[0], other)
    with pytest.raises(ValueError, match="a and b have different users"):
        compare(two[0], Evaluation({}, {}, two[0].users[1:], 0, 0, {}, 0))
    with pytest.raises(KeyError, match="'ndcg@7' was not evaluated; evaluated: precision@5"):
        two[0]["ndcg@7"]
    with pytest.raises(ValueError, match="confidence must be above 0 and below 1, not 1"):
        two[0].table(1)


def test_plot(two, parts, model, tmp_path):
    few = evaluate(model, *parts, (5, 10), ("ndcg", "coverage", "auc"), show_progress=False)
    table = few.table(0.5, show_progress=False)
    panels = few.plot(table).axes
    assert [axes.get_title() for axes in panels] == ["ndcg", "coverage"]
    for axes in panels:
        curve = axes.lines[0].get_xydata()
        assert curve.tolist() == [[k, few[f"{axes.get_title()}@{k}"]] for k in (5, 10)]
    band = panels[0].collections[0].get_paths()[0].vertices[:, 1]
    assert set(table[["lower", "upper"]].iloc[:2].to_numpy().ravel()) <= set(band)
    few.plot(show_progress=False).savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match="auc and mpr have no cut-off to draw them over"):
        Evaluation({"auc": two[0].values["auc"]}, {}, two[0].users, 0, 0, {}, 0).plot()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model and later plays. One user and one item of the plays are unknown to the model."""
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
    assert (document["users"], document["users_without_test"]) == (len(oracle.users), oracle.n_users_without_test)
    assert document["left_out"] == {"unknown": 2, "overlapping": 0}
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert main([*command, "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["metric", "k", "mean", "lower", "upper"]
    assert len(out.splitlines()) == 5
    assert err == "alscore: left out 2 plays of users or items unknown to the model\n"
    assert main(command) == 0
    others = train.n_users - len(oracle.users)
    assert f"{len(oracle.users)} users evaluated; {others} others have no test plays" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["model.als", "test.tsv"])
def test_command_does_not_replace_what_it_reads(files, name, capsys):
    folder, _, _ = files
    before = (folder / name).read_bytes()
    command = ["evaluate", str(folder / "model.als"), "--test", str(folder / "test.tsv"), "--quiet"]
    assert main([*command, f"--plot={folder / name}"]) == 1
    assert f"{name} is the file to read: give the plot another name" in capsys.readouterr().err
    assert (folder / name).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics=accuracy"], "metrics must be one of precision, "),
        (["--metrics=auc", "--plot=plot.png"], "auc and mpr have no cut-off to draw them over"),
    ],
)
def test_command_refuses_wrong_metrics_before_it_reads(options, message, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "none.als"), "--test", str(tmp_path / "none.tsv"), *options]) == 1
    assert message in capsys.readouterr().err


def test_command_refuses_plays_that_are_all_unknown(files, tmp_path, capsys):
    folder, _, _ = files
    datasets.write_lastfm_360k(Interactions.from_arrays(["f" * 40] * 2, ["a", "b"]), tmp_path / "new.tsv")
    assert main(["evaluate", str(folder / "model.als"), "--test", str(tmp_path / "new.tsv"), "--quiet"]) == 1
    assert (
        "none of the 2 plays has a user and an item that the model knows; use the same --items"
        in capsys.readouterr().err
    )


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
        test_items = set(test.rows([user]).indices)
        oracle = len(test_items.intersection(items.tolist())) / len(test_items)
        assert found.values["recall@20"][np.searchsorted(found.users, user)] == pytest.approx(oracle), at


def test_progress_bars_count_users_and_draws(parts, model, monkeypatch, capsys):
    monkeypatch.setattr("tqdm.std.time", itertools.count(step=3).__next__)  # progress bars appear after two seconds
    quiet = evaluate(model, *parts, k=5, show_progress=False)
    quiet.table(show_progress=False)
    compare(quiet, quiet, show_progress=False)
    assert capsys.readouterr() == ("", "")
    found = evaluate(model, *parts, k=5)
    n_users = len(found.users)
    assert f"{n_users}/{n_users}" in capsys.readouterr().err
    found.table(n_resamples=321)
    assert "321/321" in capsys.readouterr().err
    compare(found, found, n_permutations=123)
    assert "123/123" in capsys.readouterr().err
