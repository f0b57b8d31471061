"""`ranking_scorer` against plain Python and scikit-learn, in its searches; `tune` against Optuna and retraining."""

import itertools
import json
import math
import pickle
import shlex
import signal
import sys
from fractions import Fraction

import numpy as np
import optuna
import pytest
import sklearn.exceptions
from scipy import sparse, stats
from sklearn.base import clone
from sklearn.metrics import ndcg_score
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.utils.validation import check_is_fitted

from alscore import (
    AlternatingLeastSquares,
    Interactions,
    NotFittedError,
    Recommender,
    datasets,
    evaluate,
    load,
    splits,
    testing,
    tuning,
)
from alscore.cli import main
from alscore.solvers import Auto, Cholesky
from alscore.tuning import ranking_scorer, tune

MODEL = AlternatingLeastSquares(factors=8, iterations=3, num_threads=1, dtype=np.float64, random_state=0)


class Recorder:
    """A fitted model that records the rows that it folds in."""

    def __init__(self, model):
        self.model, self.item_factors = model, model.item_factors

    def score(self, scorer, dense):
        """Return the score, and the rows of `dense` as they were folded in. Rows that are not folded in stay."""
        self.rest = dense.copy()
        return scorer(self, sparse.csr_array(dense)), self.rest

    def recalculate_user(self, userid, user_items):
        self.rest[userid] = user_items.toarray()
        return self.model.recalculate_user(userid, user_items)


@pytest.fixture(scope="module")
def ratings(plays):
    """`plays` with a fifth of the entries as dislikes. Ten users have 0 to 9 entries."""
    dense = plays.toarray()
    rng = np.random.default_rng(1)
    dense *= np.where(rng.random(dense.shape) < 0.2, -1, 1)
    for user in range(10, 20):
        dense[user, np.flatnonzero(dense[user])[user - 10 :]] = 0
    return dense


@pytest.fixture(scope="module")
def recorder(ratings):
    return Recorder(clone(MODEL).fit(sparse.csr_array(ratings[100:]), show_progress=False))


def user_scores(metric, ranked, test_items, k):
    """The definitions of the metrics, for one user."""
    gains = [1 / math.log2(place + 1) for place in range(1, k + 1)]
    hits = [item in test_items for item in ranked]
    if metric == "recall":
        return sum(hits) / len(test_items)
    if metric == "precision":
        return sum(hits) / k
    return sum(gain for gain, hit in zip(gains, hits, strict=True) if hit) / sum(gains[: len(test_items)])


@pytest.mark.parametrize("k", [1, 10, 150])  # 150: more than there are items
@pytest.mark.parametrize("metric", ["ndcg", "recall", "precision"])
def test_score_equals_plain_python_on_oracle_fold_ins(ratings, recorder, metric, k):
    test = ratings[:100]
    score, rest = recorder.score(ranking_scorer(metric, k=k, held_out=0.3), test)
    Y = recorder.item_factors
    X = testing.exact_half_sweep(rest, Y, regularization=MODEL.regularization)
    ranked, _ = testing.exact_top_n(X @ Y.T, k, rest != 0)
    test_items = [set(np.flatnonzero(row)) for row in test - rest]
    expected = [
        user_scores(metric, items.tolist(), hits, k) for items, hits in zip(ranked, test_items, strict=True) if hits
    ]
    assert 50 < len(expected) < 100
    assert 0 < score == pytest.approx(np.mean(expected), rel=1e-9)


def test_ndcg_equals_scikit_learns(ratings, recorder):
    test = ratings[:100]
    score, rest = recorder.score(ranking_scorer("ndcg", k=7), test)
    Y = recorder.item_factors
    predicted = np.where(rest != 0, -1e9, testing.exact_half_sweep(rest, Y, regularization=MODEL.regularization) @ Y.T)
    test_items = test - rest > 0
    users = test_items.any(axis=1)
    assert score == pytest.approx(ndcg_score(test_items[users], predicted[users], k=7), rel=1e-9)
    default = recorder.model.score(sparse.csr_array(test))  # holds out the same items
    assert default == pytest.approx(ndcg_score(test_items[users], predicted[users], k=10), rel=1e-9)


@pytest.mark.parametrize("held_out", [0.01, 0.2, 0.5, 1 - 2**-53])
def test_a_share_of_the_likes_is_held_out(ratings, recorder, held_out):
    _, rest = recorder.score(ranking_scorer(held_out=held_out), ratings)
    test_items, share = ratings != rest, Fraction(str(held_out))
    assert (rest[test_items] == 0).all()
    assert (ratings[test_items] > 0).all()
    for n_held_out, n_liked in zip(test_items.sum(axis=1), (ratings > 0).sum(axis=1), strict=True):
        assert n_held_out == (0 if n_liked < 2 else min(max(1, math.floor(share * int(n_liked))), n_liked - 1))


def test_the_seed_decides_which_items_are_held_out(ratings, recorder):
    def test_items(seed):
        return ratings != recorder.score(ranking_scorer(random_state=seed), ratings)[1]

    assert (test_items(0) == test_items(0)).all()
    assert (test_items(0) != test_items(1)).any()
    # all items of a user are equally likely: 6 of 30 in each of 300 draws
    row = np.pad(np.ones((1, 30)), ((0, 0), (0, ratings.shape[1] - 30)))
    draws = np.zeros(30)
    for seed in range(300):
        draws += (row != recorder.score(ranking_scorer(random_state=seed), row)[1])[0, :30]
    assert draws.sum() == 300 * 6
    assert stats.chisquare(draws).pvalue > 1e-4


@pytest.fixture(scope="module")
def tastes():
    """160 users with 8 of the 12 items of one of 8 kinds, and 2 other items. 8 factors can separate the kinds."""
    rng = np.random.default_rng(0)
    dense = np.zeros((160, 96))
    for user, row in enumerate(dense):
        row[rng.choice(96, 2, replace=False)] = 1
        row[12 * (user % 8) + rng.choice(12, 8, replace=False)] = 1
    return Interactions(sparse.csr_array(dense), [f"user {code}" for code in range(160)])


def search(X, scoring=None, **options):
    grid = {"factors": [1, 8], "regularization": [0.1, 1e5]}
    model = AlternatingLeastSquares(iterations=5, alpha=10, num_threads=1, random_state=0)
    found = GridSearchCV(model, grid, scoring=scoring, cv=3, error_score="raise", **options)
    return found.fit(X, show_progress=False)


@pytest.mark.parametrize("form", ["Interactions", "csr_array", "csr_matrix", "coo_array"])
def test_grid_search_finds_the_structure(tastes, form):
    found = search(tastes if form == "Interactions" else getattr(sparse, form)(tastes.matrix.toarray()))
    assert found.best_params_ == {"factors": 8, "regularization": 0.1}
    assert found.best_score_ > 0.5  # random scores: 2 held-out items of 88
    assert found.cv_results_["mean_test_score"][0] < 0.4
    refit = clone(found.best_estimator_).fit(tastes, show_progress=False)
    np.testing.assert_array_equal(found.best_estimator_.item_factors, refit.item_factors)


def test_grid_search_without_scoring_uses_the_default_scorer(tastes):
    found, expected = search(tastes), search(tastes, scoring=ranking_scorer())
    np.testing.assert_array_equal(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])


def test_grid_search_in_processes_gives_the_same(tastes):
    alone, together = search(tastes, n_jobs=1), search(tastes, n_jobs=2)
    np.testing.assert_array_equal(alone.cv_results_["mean_test_score"], together.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(alone.best_estimator_.user_factors, together.best_estimator_.user_factors)


def test_randomized_search(tastes):
    space = {"factors": [4, 8], "alpha": stats.loguniform(1, 100)}
    found = RandomizedSearchCV(MODEL, space, n_iter=3, scoring=ranking_scorer("recall"), cv=2, random_state=0)
    found.fit(tastes, show_progress=False)
    assert found.best_score_ > 0.5
    assert MODEL.item_factors is None  # only clones were fitted


def test_unfitted_model(tastes):
    with pytest.raises(NotFittedError, match="has no item_factors"):
        ranking_scorer()(clone(MODEL), tastes)
    with pytest.raises(NotFittedError, match="has no item_factors"):
        MODEL.score(tastes)


def test_scikit_learn_knows_which_models_are_fitted(tastes):
    model = clone(MODEL)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        check_is_fitted(model)
    check_is_fitted(model.fit(tastes, show_progress=False))
    check_is_fitted(pickle.loads(pickle.dumps(model)))
    model.user_factors = None
    with pytest.raises(sklearn.exceptions.NotFittedError):
        check_is_fitted(model)


@pytest.mark.parametrize("row", [[0, 0, 0], [0, 3, 0], [-1, 3, -1]])
def test_users_with_fewer_than_two_likes_are_refused(row):
    plays = sparse.csr_array(np.array([row, row]))
    with pytest.raises(ValueError, match="no user with two positive entries"):
        ranking_scorer()(clone(MODEL).fit(plays, show_progress=False), plays)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"metric": "auc"}, "metric must be one of .*ndcg.* and a cut-off of at least 1, .*not 'auc@10'"),
        ({"k": 0}, "a cut-off of at least 1, .*not 'ndcg@0'"),
        ({"k": 2.5}, "a cut-off of at least 1, .*not 'ndcg@2.5'"),
        ({"held_out": 0}, "held_out must be above 0 and below 1, not 0"),
        ({"held_out": 1.0}, "held_out must be above 0 and below 1, not 1.0"),
        ({"held_out": math.nan}, "held_out must be above 0 and below 1, not nan"),
        ({"random_state": None}, "random_state must be an integer of at least 0, not None"),
        ({"random_state": -1}, "random_state must be an integer of at least 0, not -1"),
    ],
)
def test_parameters_are_checked_at_once(parameters, message):
    with pytest.raises(ValueError, match=message):
        ranking_scorer(**parameters)


# Optuna's search


BASE = AlternatingLeastSquares(iterations=6, num_threads=1, random_state=0)
FEW = {"factors": [2, 4, 8], "regularization": (0.1, 100), "regularization_exponent": (0.0, 1.0)}


@pytest.fixture(scope="module")
def split(plays):
    return splits.leave_k_out(plays, 0.3)


@pytest.fixture(scope="module")
def found(split):
    return search_few(split, 12)


def search_few(split, n_trials, **options):
    return tune(split, n_trials=n_trials, **{"space": FEW, "model": BASE, "show_progress": False, **options})


def same_trials(found, other):
    columns = [name for name in found.table() if name not in ("trial", "seconds")]
    return found.table()[columns].equals(other.table()[columns])


def retrained(found, split, trial):
    """Yield the score of a trial's parameters after each sweep. Every model is trained from the start."""
    for n in range(1, 7):
        model = clone(BASE).set_params(**trial.params, iterations=n).fit(split[0], show_progress=False)
        known, test = split[1:3] if len(split) == 5 else split
        yield evaluate(model, known, test, 10, ["ndcg"], new_users=len(split) == 5)["ndcg@10"]


def test_trials_are_scored_after_each_sweep_and_stop_below_the_median(found, split):
    table = found.table()
    assert 0 < table["pruned"].sum() < 8
    bests = []  # best score up to each sweep, of the trials so far
    for trial in found.study.trials:
        scores = list(retrained(found, split, trial))[: len(trial.intermediate_values)]
        assert list(trial.intermediate_values.values()) == scores
        row = table[table["trial"] == trial.number].iloc[0]
        assert row["ndcg@10"] == max(scores)
        assert row["iterations"] == 1 + np.argmax(scores)
        assert {name: row[name] for name in FEW} == trial.params
        # Optuna's rule: after five trials, stop a trial that is worse than half of the complete ones at that sweep
        below = [
            len(bests) >= 5 and max(scores[: n + 1]) < np.median([b[n] for b in bests]) for n in range(len(scores))
        ]
        assert below == [False] * (len(scores) - 1) + [row["pruned"]]
        if not row["pruned"]:
            assert len(scores) == 6
            bests.append(scores)


def test_the_best_trial_can_be_trained_again(found, split):
    table = found.table()
    assert found.best_value == table["ndcg@10"].max() == table["ndcg@10"][0]
    assert found.best_params == {name: table[name][0] for name in (*FEW, "iterations")}
    assert found.best_params["iterations"] < 6
    assert table["ndcg@10"].is_monotonic_decreasing
    model = found.model().fit(split.train, show_progress=False)
    assert evaluate(model, *split, 10, ["ndcg"])["ndcg@10"] == found.best_value
    assert BASE.item_factors is None


def test_ranges_are_kept(found):
    table = found.table()
    assert set(table["factors"]) <= {2, 4, 8}
    assert table["regularization"].between(0.1, 100).all()
    assert table["regularization_exponent"].between(0, 1).all()
    logarithmic = {name: getattr(kind, "log", None) for name, kind in found.study.trials[0].distributions.items()}
    assert logarithmic == {"factors": None, "regularization": True, "regularization_exponent": False}


def test_default_space_in_an_interactions(plays):
    labels = [f"user {code}" for code in range(plays.shape[0])], [f"item {code}" for code in range(plays.shape[1])]
    found = tune(splits.leave_k_out(Interactions(plays, *labels), 0.3), "recall@5", 2, show_progress=False)
    assert found.study.trials[0].params.keys() == tuning.SPACE.keys()
    assert found.table()["recall@5"].between(0, 1).all()
    assert found.model().random_state == 0


def test_new_users(plays):
    split = splits.user_split(plays, 0.3, k=0.4)
    found = search_few(split, 1)
    trial = found.study.trials[0]
    assert list(trial.intermediate_values.values()) == list(retrained(found, split, trial))


def test_search_finds_the_structure(tastes):
    space = {"factors": [1, 8], "regularization": (0.1, 1e5)}
    found = search_few(splits.leave_k_out(tastes, 0.2), 8, space=space)
    assert found.best_params["factors"] == 8
    assert found.best_params["regularization"] < 100


def test_equal_seeds_give_equal_trials(found, split):
    assert same_trials(found, search_few(split, 12, model=clone(BASE).set_params(num_threads=2)))
    assert not same_trials(found, search_few(split, 12, random_state=1))


def test_search_continues_from_its_file(found, split, tmp_path):
    path = tmp_path / "study.db"
    assert len(search_few(split, 3, storage=path).table()) == 3
    more_threads = clone(BASE).set_params(num_threads=2)
    assert same_trials(search_few(split, 12, storage=str(path), model=more_threads), found)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    stored = optuna.load_study(study_name="alscore", storage=storage)
    assert len(stored.trials) == 12
    assert stored.best_value == found.best_value
    assert stored.best_params == {name: found.best_params[name] for name in FEW}
    storage.engine.dispose()  # otherwise Python 3.13 warns of the open connection
    assert same_trials(search_few(split, 5, storage=path), found)  # all trials have ended


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"metric": "recall@10"}, r"its metric differs \(stored: ndcg@10; now: recall@10\);"),
        ({"space": {"factors": [2]}}, r"its space differs \(stored: 'factors': .*; now: 'factors': \[2\]\);"),
        ({"space": dict(reversed(FEW.items()))}, "its space has another order;"),
        ({"model": None}, r"its model differs \(stored: .*; now: -\);"),
        (
            {"metric": "recall@10", "model": clone(BASE).set_params(solver=Auto())},
            r"its metric differs \(.*\), its model differs \(stored: -; now: solver=Auto\(.*\)\);",
        ),
    ],
)
def test_file_of_another_search_is_refused(split, tmp_path, change, difference):
    path = tmp_path / "study.db"
    search_few(split, 1, storage=path)
    with pytest.raises(ValueError, match=rf"study.db belongs to another search: {difference} give another file"):
        search_few(split, 1, storage=path, **change)


@pytest.mark.parametrize("change", ["values", "rows"])
def test_file_of_other_data_is_refused(tmp_path, change):
    train = np.array([[1, 1, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]])
    other = {"values": 2 * train, "rows": np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]])}[change]
    test = sparse.csr_array(np.array([[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]]))
    search_few((sparse.csr_array(train), test), 1, storage=tmp_path / "study.db")
    with pytest.raises(ValueError, match="another search: it has other data; give another file"):
        search_few((sparse.csr_array(other), test), 1, storage=tmp_path / "study.db")


def test_file_needs_a_solver_with_a_repr_of_its_own(split, tmp_path):
    class Mine:
        def sweep(self, half_sweep, out):
            raise AssertionError("the search must be refused before the first trial")

    with pytest.raises(ValueError, match=r"storage: the solver <.*Mine object at 0x.* has no repr of its own"):
        search_few(split, 1, model=clone(BASE).set_params(solver=Mine()), storage=tmp_path / "study.db")
    with pytest.raises(ValueError, match=r'storage: the solver <capsule object ".*" at 0x.* has no repr of its own'):
        search_few(split, 1, model=clone(BASE).set_params(solver=Cholesky().capsule()), storage=tmp_path / "study.db")
    assert not (tmp_path / "study.db").exists()


def test_file_that_cannot_be_made(split, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        search_few(split, 1, storage=tmp_path / "nowhere" / "study.db")
    (tmp_path / "notes.txt").write_text("not to be lost")
    with pytest.raises(ValueError, match=r"storage must be an SQLite file, or a new one, not .*notes.txt"):
        search_few(split, 1, storage=tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "not to be lost"


@pytest.fixture
def interrupt(monkeypatch):
    """Return a function `after(n)`: Ctrl-C is pressed while a model is evaluated for the n-th time."""

    def after(n):
        counts = itertools.count(1)

        def counted(*arguments, **options):
            if next(counts) == n:
                signal.raise_signal(signal.SIGINT)
            return evaluate(*arguments, **options)

        monkeypatch.setattr("alscore.metrics.validation.evaluate", counted)

    return after


def test_interrupt_keeps_the_trials_that_have_ended(found, split, tmp_path, interrupt):
    interrupt(15)
    kept = search_few(split, 12, storage=tmp_path / "study.db")
    assert len(kept.table()) == 2
    assert [trial.state.name for trial in kept.study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert kept.best_value == kept.table()["ndcg@10"].max()
    assert same_trials(search_few(split, 12, storage=tmp_path / "study.db"), found)


def test_interrupt_of_the_first_trial(split, interrupt):
    interrupt(3)
    with pytest.raises(KeyboardInterrupt):
        search_few(split, 12)


def test_trials_that_cannot_be_solved_are_pruned(split, tmp_path):
    """Raw confidence below the weight of unobserved pairs: the systems are not positive definite."""
    space = {"unobserved_weight": [0.5, 1e6]}
    model = clone(BASE).set_params(confidence="raw", regularization=0.0)
    table = search_few(split, 8, space=space, model=model).table()
    assert table["ndcg@10"].isna().equals(table["unobserved_weight"] == 1e6)
    assert table["pruned"][table["unobserved_weight"] == 1e6].all()
    assert 0 < table["ndcg@10"].isna().sum() < 8
    wrong = {"space": {"unobserved_weight": [1e6]}, "model": model, "storage": tmp_path / "study.db"}
    with pytest.raises(ValueError, match=r"no trial of 2 could be trained: .*positive definite"):
        search_few(split, 2, **wrong)
    with pytest.raises(ValueError, match="no trial of 2 has a score: all trials in storage were stopped"):
        search_few(split, 2, **wrong)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "auc"}, ValueError, "metric must be one of .* not 'auc'"),
        ({"metric": "ndcg"}, ValueError, "metric must be one of .* such as 'ndcg@10', not 'ndcg'"),
        ({"metric": "gini@10"}, ValueError, "metric must be one of .* not 'gini@10'"),
        ({"n_trials": 0}, ValueError, "n_trials must be an integer of at least 1, not 0"),
        ({"random_state": -1}, ValueError, "random_state must be an integer of at least 0, not -1"),
        (
            {"model": AlternatingLeastSquares(random_state=np.random.default_rng())},
            ValueError,
            "random_state of the model must be an integer",
        ),
        ({"model": Recommender()}, TypeError, "model must be an AlternatingLeastSquares, not Recommender"),
        ({"space": {}}, ValueError, "space must be a dict of at least one parameter"),
        ({"space": "abc"}, ValueError, "space must be a dict of at least one parameter, not 'abc'"),
        (
            {"space": {"calculate_training_loss": (0, 1)}},
            ValueError,
            r"space\['calculate_training_loss'\] must be a list of choices, not \(0, 1\)",
        ),
        ({"space": {"random_state": (0, 40)}}, ValueError, r"space\['random_state'\] must be a list of choices"),
        (
            {"space": {"lambda": (1, 2)}},
            ValueError,
            "space has 'lambda', which is not a parameter of the model; parameters: factors, ",
        ),
        ({"space": {"alpha": (2, 1)}}, ValueError, r"space\['alpha'\] must be a tuple \(low, high\) of numbers, or"),
        ({"space": {"alpha": (1, math.inf)}}, ValueError, r"space\['alpha'\] must be .* not \(1, inf\)"),
        ({"space": {"alpha": (math.nan, 1)}}, ValueError, r"space\['alpha'\] must be .* not \(nan, 1\)"),
        ({"space": {"alpha": 1}}, ValueError, r"space\['alpha'\] must be .* not 1"),
        ({"space": {"alpha": []}}, ValueError, r"space\['alpha'\] must be .* not \[\]"),
        ({"space": {"alpha": ("a", "b")}}, ValueError, r"space\['alpha'\] must be .* a list of choices"),
        ({"space": {"factors": (1.5, 4)}}, ValueError, r"space\['factors'\] must be a tuple .* of integers, or"),
        ({"space": {"alpha": [-1.0]}}, ValueError, "alpha must be"),
        ({"space": {"iterations": [0]}}, ValueError, "iterations must be an integer of at least 1, not 0"),
        ({"split": None}, TypeError, "must be .*a Split or a UserSplit, not NoneType"),
        ({"split": (sparse.eye_array(3), sparse.csr_array((3, 3)))}, ValueError, "test has no entry above 0"),
        (
            {"split": splits.UserSplit(sparse.eye_array(3), sparse.csr_array((2, 4)), sparse.eye_array(2, 4), [], [])},
            ValueError,
            r"user_items has shape \(3, 3\) and the parts of validation \(2, 4\): take all of them from one split",
        ),
        (
            {"split": (sparse.eye_array(3), sparse.eye_array(3))},
            ValueError,
            r"item 0 of user 0 is in both parts.* \(3 such entries\): leave them out of one part$",
        ),
    ],
)
def test_wrong_input(split, options, error, message):
    with pytest.raises(error, match=message):
        search_few(**{"split": split, "n_trials": 1, **options})


def test_optuna_that_is_missing(split, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'alscore\[tune\]'"):
        search_few(split, 1)


def test_nothing_is_printed_without_progress(split, tmp_path, capfd):
    before = optuna.logging.get_verbosity()
    for n_trials in (1, 2):
        search_few(split, n_trials, storage=tmp_path / "study.db")
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def test_progress_bar_shows_trials_and_the_best(split, capsys):
    found = search_few(split, 2, show_progress=True)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert f"ndcg@10={found.best_value:.4f}" in shown


def test_plot_has_a_panel_for_each_parameter(found):
    panels = found.plot().axes
    table = found.table()
    assert [axes.get_xlabel() for axes in panels] == list(FEW)
    assert [axes.get_xscale() for axes in panels] == ["linear", "log", "linear"]
    for axes, name in zip(panels, FEW, strict=True):
        pruned, complete, best = (line.get_xydata() for line in axes.lines)
        drawn = np.concatenate([complete, pruned])
        np.testing.assert_array_equal(np.sort(drawn[:, 0]), np.sort(table[name]))
        np.testing.assert_array_equal(best, [[table[name][0], found.best_value]])


def test_plot_needs_matplotlib(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'alscore\[bench\]'"):
        found.plot()


# The command


@pytest.fixture(scope="module")
def plays_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tune the") / "plays.tsv"  # the space must be quoted
    datasets.write_lastfm_360k(datasets.synthetic(150, 120, seed=0), path)
    return path


def test_command_of_every_parameter_trains_that_model(plays_file, tmp_path):
    model = AlternatingLeastSquares(
        factors=5, regularization=1 / 3, alpha=2.0, iterations=2, solver="cholesky", dtype=np.float64, confidence="log",
        unobserved_weight=0.1, regularization_exponent=1e-7, tol=1e-9, num_threads=1, random_state=9, epsilon=3.0,
    )  # fmt: skip
    found = tune(
        splits.leave_k_out(datasets.lastfm_360k(plays_file), 0.2), n_trials=1, space={"alpha": [2.0]}, model=model,
        show_progress=False,
    )  # fmt: skip
    words = shlex.split(found.command(plays_file, tmp_path / "model.als"))
    assert words[0] == "alscore"
    assert main([*words[1:], "--quiet"]) == 0
    assert repr(load(tmp_path / "model.als").model) == repr(found.model())


def test_command_takes_no_objects(split):
    found = search_few(split, 1, model=clone(BASE).set_params(solver=Cholesky()))
    with pytest.raises(ValueError, match=r"solver=.* cannot be given on a command line: use a name"):
        found.command("plays.tsv")


def test_tune_prints_a_command_that_runs(plays_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--study=study.db", "--plot=plot.png", "--iterations=3", "--threads=1", "--items=mbid", "--seed=3"]
    command_line = ["tune", str(plays_file), *options, "--metric=recall@20"]
    assert main([*command_line, "--trials=2"]) == 0
    assert "the best of 2 trials" in capsys.readouterr().out
    assert main([*command_line, "--trials=3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    split = splits.leave_k_out(datasets.lastfm_360k(plays_file, items="mbid"), 0.2)
    options = {"model": AlternatingLeastSquares(iterations=3, num_threads=1), "storage": "study.db", "random_state": 3}
    found = tune(split, "recall@20", 3, **options, show_progress=False)
    best, *_ = found.table().itertuples(index=False)
    assert [f"{best[0]}", f"{best[1]:.4g}", "False"] in [line.split()[:3] for line in out.splitlines()]
    assert "the best of 3 trials" in out
    command = out.splitlines()[-1]
    assert main(shlex.split(command)[1:]) == 0
    trained = load("model.als")
    assert repr(trained.model) == repr(found.model())
    assert trained.interactions.items.equals(split.train.items)


def test_tune_that_is_interrupted_shows_the_trials_that_have_ended(plays_file, interrupt, capsys):
    interrupt(5)
    assert main(["tune", str(plays_file), "--iterations=3", "--trials=4", "--threads=1"]) == 130
    out, err = capsys.readouterr()
    assert "the best of 1 trials" in out
    assert err == "alscore: interrupted after 1 of 4 trials\n"


def test_tune_searches_the_given_values(plays_file, capsys):
    options = ["--factors=2,4", "--alpha=3", "--confidence=log,raw", "--solver=cg", "--iterations=2", "--threads=1"]
    assert main(["tune", str(plays_file), *options, "--trials=2", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    model = AlternatingLeastSquares(alpha=3.0, solver="cg", iterations=2, num_threads=1)
    space = {name: values for name, values in tuning.SPACE.items() if name != "alpha"}
    space |= {"factors": (2, 4), "confidence": ["log", "raw"]}
    split = splits.leave_k_out(datasets.lastfm_360k(plays_file), 0.2)
    found = tune(split, n_trials=2, space=space, model=model, show_progress=False)
    rows = found.table().drop(columns="seconds").to_dict("records")
    for trial, row in zip(document["trials"], rows, strict=True):
        assert {name: trial[name] for name in row} == pytest.approx(row)
    assert document["command"] == f"{found.command(plays_file)} --items name"


def test_tune_says_what_a_range_is(plays_file, capsys):
    with pytest.raises(SystemExit):
        main(["tune", str(plays_file), "--factors=2,x"])
    assert "argument --factors: must be int or a range LOW,HIGH, not '2,x'" in capsys.readouterr().err


def test_tune_fails_before_it_reads(tmp_path, monkeypatch, capsys):
    missing = str(tmp_path / "none.tsv")
    assert main(["tune", missing, "--metric=auc"]) == 1
    assert "metric must be one of" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", missing]) == 1
    assert "pip install 'alscore[tune]'" in capsys.readouterr().err


def test_tune_does_not_draw_over_its_study(plays_file, tmp_path, capsys):
    study = tmp_path / "study.db"
    study.write_text("trials")
    assert main(["tune", str(plays_file), f"--study={study}", f"--plot={tmp_path}/./study.db"]) == 1
    assert "is the study: give the plot another name" in capsys.readouterr().err
    assert study.read_text() == "trials"


@pytest.mark.parametrize("option", ["--study", "--plot"])
def test_tune_does_not_overwrite_the_plays(plays_file, option, capsys):
    assert main(["tune", str(plays_file), f"{option}={plays_file}"]) == 1
    assert "is the file to read" in capsys.readouterr().err
