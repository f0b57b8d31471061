"""Moving over from implicit: its tutorial with our import, its own results beside ours, and the code of the guide."""

import copy
import csv
import importlib.util
import inspect
import re
from pathlib import Path

import implicit.als
import numpy as np
import pandas as pd
import pytest
from implicit.cpu.als import AlternatingLeastSquares as ImplicitALS
from scipy import sparse

from alscore import AlternatingLeastSquares
from alscore.testing import row_losses, tolerance

# implicit warns where any BLAS in the process may use threads, those that other tests have loaded included.
pytestmark = pytest.mark.filterwarnings("ignore:OpenBLAS is configured:RuntimeWarning")

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "migrating-from-implicit.md"


def assert_best(found, scores, n, atol):
    """`found` are n best columns of the dense `scores` with their scores, whichever of equal ones."""
    ids, found_scores = (np.atleast_2d(array) for array in found)
    assert all(len(set(row)) == n for row in ids.tolist())
    np.testing.assert_allclose(found_scores, -np.sort(-scores, axis=1)[:, :n], rtol=0, atol=atol)
    np.testing.assert_allclose(np.take_along_axis(scores, ids, axis=1), found_scores, rtol=0, atol=atol)


# implicit's tutorial on artists: weight the plays, train, recommend for a user, look for similar artists


@pytest.fixture(scope="module")
def listening(shared_data):
    """Names of 17,632 artists, and how often each of 1,892 users played them: (artists, users)."""
    folder = shared_data / "hetrec2011-lastfm-2k"
    table = pd.read_csv(folder / "user_artists.dat.gz", sep="\t")
    names = pd.read_csv(
        folder / "artists.dat.gz", sep="\t", quoting=csv.QUOTE_NONE, usecols=["id", "name"], index_col="id"
    )
    users, user = np.unique(table["userID"], return_inverse=True)
    artists, artist = np.unique(table["artistID"], return_inverse=True)
    plays = (table["weight"].to_numpy(np.float64), (artist, user))
    return names.loc[artists, "name"].tolist(), sparse.csr_array(plays, shape=(len(artists), len(users)))


def bm25_weight(artist_user_plays, K1, B):
    plays = artist_user_plays.tocoo()
    idf, length = np.log(plays.shape[0] / (1 + np.bincount(plays.col))), plays.sum(axis=1)
    saturation = K1 * (1 - B + B * length / length.mean())
    weights = plays.data * (K1 + 1) / (saturation[plays.row] + plays.data) * idf[plays.col]
    return sparse.coo_array((weights, (plays.row, plays.col)), shape=plays.shape)


@pytest.fixture(scope="module")
def tutorial(listening):
    _, artist_user_plays = listening
    artist_user_plays = bm25_weight(artist_user_plays, K1=100, B=0.8)
    user_plays = artist_user_plays.T.tocsr()
    model = AlternatingLeastSquares(
        factors=64, regularization=0.05, alpha=2.0, calculate_training_loss=True, random_state=0
    )
    model.fit(user_plays, show_progress=False)
    return model, user_plays


@pytest.mark.parametrize("artist", ["The Beatles", "Radiohead", "Lady Gaga", "Metallica", "Depeche Mode"])
def test_similar_artists_have_the_same_real_listeners(tutorial, listening, artist):
    model, _ = tutorial
    artists, plays = listening
    itemid = artists.index(artist)
    ids, scores = model.similar_items(itemid, N=11)
    assert ids[0] == itemid
    assert scores[0] == pytest.approx(1)
    heard = (plays > 0).astype(float)
    listeners = heard.sum(axis=1)
    cosine = (heard @ heard[[itemid]].T).toarray()[:, 0] / np.sqrt(listeners * listeners[itemid])
    nearest = np.argsort(-cosine)[:51]
    assert np.isin(ids[1:], nearest).sum() >= 8, [artists[i] for i in ids]


def test_recommendations_from_real_plays_are_the_highest_scores(tutorial):
    model, user_plays = tutorial
    userids = np.arange(100, 200)
    scores = model.user_factors[userids].astype(np.float64) @ model.item_factors.T.astype(np.float64)
    lengths = [np.linalg.norm(factors, axis=1).max() for factors in (model.user_factors, model.item_factors)]
    atol = tolerance("score", np.float32) * np.prod(lengths)
    found = model.recommend(userids, user_plays[userids], N=10, filter_already_liked_items=False)
    assert_best(found, scores, 10, atol)
    liked = user_plays[userids].toarray() != 0
    found = model.recommend(userids, user_plays[userids])
    assert not np.take_along_axis(liked, found[0], axis=1).any()
    assert_best(found, np.where(liked, -np.inf, scores), 10, atol)


def test_training_loss_on_real_plays_is_the_objective(tutorial):
    model, user_plays = tutorial
    X, Y = model.user_factors, model.item_factors
    parameters = {"regularization": 0.05, "alpha": 2.0}
    objective = 0.05 * (Y.astype(np.float64) ** 2).sum() + sum(
        row_losses(user_plays[start : start + 100].toarray(), X[start : start + 100], Y, **parameters).sum()
        for start in range(0, len(X), 100)
    )
    # of the factors as stored, whose last rotation rounded them
    assert model.training_loss[-1] == pytest.approx(objective, rel=tolerance("descent", np.float32))


def test_real_artists_held_out_are_found_better_than_by_popularity(listening):
    _, plays = listening
    plays = plays.tocoo()
    held_out = np.random.default_rng(0).random(plays.nnz) < 0.2
    kept, test = (
        sparse.csr_array((plays.data[part], (plays.row[part], plays.col[part])), shape=plays.shape)
        for part in (~held_out, held_out)
    )
    user_plays = bm25_weight(kept, K1=100, B=0.8).T.tocsr()
    users = np.flatnonzero((test > 0).sum(axis=0))[::3]
    seen, relevant = (matrix[users].toarray() != 0 for matrix in (user_plays, test.T.tocsr()))

    def recall(ids):
        hits = np.take_along_axis(relevant, ids, axis=1).sum(axis=1)
        return np.mean(hits / np.minimum(relevant.sum(axis=1), ids.shape[1]))

    model = AlternatingLeastSquares(factors=64, regularization=0.05, alpha=2.0, random_state=0)
    ids, _ = model.fit(user_plays, show_progress=False).recommend(users, user_plays[users], N=20)
    listeners = (kept > 0).sum(axis=1)
    popular = np.argsort(-np.where(seen, -1, listeners), axis=1, kind="stable")[:, :20]
    assert recall(ids) > 1.5 * recall(popular)


# implicit itself, from the same start with the same weights: exact solvers, in float64


@pytest.fixture(scope="module")
def both(tutorial):
    _, user_plays = tutorial
    user_plays = sparse.csr_matrix(user_plays.astype(np.float32))
    n_users, n_items = user_plays.shape
    start = np.zeros((n_users, 16)), 0.01 * np.random.default_rng(0).random((n_items, 16))
    parameters = {"factors": 16, "regularization": 0.05, "alpha": 2.0, "iterations": 3, "dtype": np.float64}
    theirs = ImplicitALS(use_cg=False, num_threads=1, **parameters)
    theirs.user_factors, theirs.item_factors = (factors.copy() for factors in start)
    theirs.fit(user_plays, show_progress=False)
    ours = AlternatingLeastSquares(solver="cholesky", confidence="raw", warm_start=True, **parameters)
    ours.user_factors, ours.item_factors = start
    ours.fit(user_plays, show_progress=False)
    return ours, theirs, user_plays


SAME = 1e-6  # float64 is better by far; float32, which weights are stored in on both sides, would not be


def test_training_on_real_plays_gives_implicits_scores(both):
    scores, wanted = (model.user_factors[::10] @ model.item_factors.T for model in both[:2])
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=SAME)


@pytest.mark.parametrize("options", [{}, {"recalculate_user": True}, {"filter_already_liked_items": False}])
@pytest.mark.parametrize("choice", [{}, {"items": list(range(0, 15_000, 3))}, {"filter_items": [70, 88, 283]}])
def test_recommendations_from_real_plays_are_implicits(both, options, choice):
    ours, theirs, user_plays = both
    userids = np.array([5, 1000, 17, 5])
    found = ours.recommend(userids, user_plays[userids], N=20, **options, **choice)
    wanted = theirs.recommend(userids, user_plays[userids], N=20, **options, **choice)
    np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=SAME)
    scores = theirs.user_factors[userids] @ theirs.item_factors.T
    if "recalculate_user" in options:
        scores = theirs.recalculate_user(userids, user_plays[userids]) @ theirs.item_factors.T
    np.testing.assert_allclose(np.take_along_axis(scores, found[0], axis=1), wanted[1], rtol=0, atol=SAME)


@pytest.mark.parametrize(("side", "ids"), [("item", [46, 7, 1500]), ("user", [46, 7, 1500])])
def test_similar_by_real_plays_are_implicits(both, side, ids):
    ours, theirs, _ = both
    found, wanted = (getattr(model, f"similar_{side}s")(ids, N=20) for model in (ours, theirs))
    np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=SAME)
    factors = getattr(theirs, f"{side}_factors")
    unit = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    assert_best(found, unit[ids] @ unit.T, 20, SAME)


def test_explanations_of_real_plays_are_implicits(both):
    ours, theirs, user_plays = both
    weights = {ours: None, theirs: None}
    for itemid in (46, 283):
        (score, listed, weights[ours]), (their_score, theirs_listed, weights[theirs]) = (
            model.explain(17, user_plays, itemid, weights[model], N=60) for model in (ours, theirs)
        )
        assert score == pytest.approx(their_score, abs=SAME)
        np.testing.assert_allclose([c for _, c in listed], [c for _, c in theirs_listed], rtol=0, atol=SAME)
        assert dict(listed) == pytest.approx(dict(theirs_listed), abs=SAME)  # artists of one listener are equal


@pytest.mark.parametrize("side", ["user", "item"])
def test_real_rows_folded_in_give_implicits_scores(both, side):
    ours, theirs, user_plays = both
    rows = user_plays[[3, 1800]] if side == "user" else user_plays.T.tocsr()[[3, 1800]]
    other = {"user": "item", "item": "user"}[side]
    found, wanted = (
        getattr(model, f"recalculate_{side}")([3, 1800], rows) @ getattr(model, f"{other}_factors").T
        for model in (ours, theirs)
    )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=SAME)


@pytest.mark.parametrize("side", ["user", "item"])
def test_models_grow_as_implicits(plays, side):
    """Ids beyond the model, with a gap before them."""
    rows = sparse.csr_matrix(plays if side == "user" else plays.T)[[4, 6]]
    ids = [rows.shape[1] * 3, 9]
    scores = []
    for make in (ImplicitALS, AlternatingLeastSquares):
        model = make(factors=4, dtype=np.float64, regularization=0.1)
        rng = np.random.default_rng(0)
        model.user_factors, model.item_factors = rng.standard_normal((300, 4)), rng.standard_normal((120, 4))
        if make is AlternatingLeastSquares:
            model.confidence = "raw"
        getattr(model, f"partial_fit_{side}s")(ids, rows)
        scores.append(model.user_factors @ model.item_factors.T)
    np.testing.assert_allclose(scores[1], scores[0], rtol=0, atol=SAME)


# What is to be written otherwise, as the guide says


def test_mask_of_implicits_filter_items_is_ids_here(both):
    ours, theirs, user_plays = both
    mask = np.random.default_rng(0).random(user_plays.shape[1]) < 0.5
    found = ours.recommend(17, user_plays[17], N=20, filter_items=np.flatnonzero(mask))
    wanted = theirs.recommend(17, user_plays[17], N=20, filter_items=mask)
    np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=SAME)
    assert not mask[found[0]].any()
    with pytest.raises(TypeError, match="ids to filter must be integer ids, not bool"):
        ours.recommend(17, user_plays[17], filter_items=mask)


def test_row_of_factors_that_is_assigned_there_is_a_partial_fit_here(both):
    ours, theirs = (copy.deepcopy(model) for model in both[:2])
    row = both[2][5]  # of another user
    theirs.user_factors[17] = theirs.recalculate_user(17, row)
    ours.partial_fit_users(17, row)
    scores, wanted = (model.user_factors[15:20] @ model.item_factors.T for model in (ours, theirs))
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=SAME)
    with pytest.raises(ValueError, match="read-only"):
        ours.user_factors[17] = 0


# Confidence


@pytest.mark.parametrize("confidence", ["raw", "linear"])
def test_confidence_is_implicits(plays, confidence):
    """Likes and dislikes, of confidence below 1 too."""
    rng = np.random.default_rng(0)
    rows = sparse.csr_matrix(plays[:30])
    rows.data = rows.data * rng.choice([0.01, 1, -0.01, -1], rows.nnz).astype(np.float32)
    ours = AlternatingLeastSquares(factors=6, regularization=0.1, alpha=3.0, confidence=confidence, dtype=np.float64)
    theirs = ImplicitALS(factors=6, regularization=0.1, alpha=3.0, dtype=np.float64)
    for model in (ours, theirs):
        model.user_factors, model.item_factors = np.zeros((1, 6)), np.random.default_rng(1).standard_normal((120, 6))
    found = ours.recalculate_user(np.arange(30), rows)
    if confidence == "linear":
        theirs.alpha = 1.0
        rows.data = np.sign(rows.data) * (1 + 3 * np.abs(rows.data))
    np.testing.assert_allclose(found, theirs.recalculate_user(np.arange(30), rows), atol=SAME)


def test_stored_zero_of_implicit_is_a_tiny_number(plays):
    row = sparse.csr_matrix(plays[[4]])
    row.data[::2] = 0
    ours = AlternatingLeastSquares(factors=6, regularization=0.1, confidence="raw", dtype=np.float64)
    theirs = ImplicitALS(factors=6, regularization=0.1, dtype=np.float64)
    for model in (ours, theirs):
        model.user_factors, model.item_factors = np.zeros((1, 6)), np.random.default_rng(1).standard_normal((120, 6))
    wanted = theirs.recalculate_user(4, row)
    assert np.abs(ours.recalculate_user(4, row) - wanted).max() > 0.001
    row.data[::2] = 1e-6
    np.testing.assert_allclose(ours.recalculate_user(4, row), wanted, atol=1e-5)


# Signatures


@pytest.mark.parametrize(
    "method",
    [
        "fit",
        "recommend",
        "similar_items",
        "similar_users",
        "recalculate_user",
        "recalculate_item",
        "partial_fit_users",
        "partial_fit_items",
        "explain",
    ],
)
def test_methods_take_implicits_arguments(method):
    ours, theirs = (
        [(p.name, p.kind, p.default) for p in inspect.signature(getattr(cls, method)).parameters.values()]
        for cls in (AlternatingLeastSquares, ImplicitALS)
    )
    added = {"fit": [("validation", inspect.Parameter.KEYWORD_ONLY, None)]}
    assert ours == theirs + added.get(method, [])


def test_constructor_has_implicits_defaults():
    ours, theirs = (
        {name: p.default for name, p in inspect.signature(make).parameters.items()}
        for make in (AlternatingLeastSquares, implicit.als.AlternatingLeastSquares)
    )
    missing = ("use_native", "use_cg", "use_gpu")
    assert [theirs.pop(name) for name in missing[:2]] == [True, True]
    assert theirs.pop("use_gpu") in (True, False)
    assert {name: ours[name] for name in theirs} == theirs
    assert list(ours)[:3] == list(theirs)[:3]


# The guide's code, in its order


# RecTools 0.19 asks for numpy < 2 before Python 3.13, so no extra of ours can bring it. Without it the last tests of
# this file do not exist, and are not reported as skipped either. To run them, on Python 3.13:
#     pip install . rectools==0.19.0 pytest && pytest tests/test_migration.py
RECTOOLS = importlib.util.find_spec("rectools") is not None


@pytest.fixture
def guide(plays, tmp_path, monkeypatch):
    """The names that the guide's code defines, run in a folder with a model that implicit saved."""
    monkeypatch.chdir(tmp_path)
    names = {"user_items": sparse.csr_matrix(plays)[4:]}
    saved = ImplicitALS(factors=8, iterations=2, regularization=0.1, alpha=2.0, random_state=0)
    saved.fit(names["user_items"], show_progress=False)
    saved.save("implicit.npz")
    for code in re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        if RECTOOLS or "rectools" not in code:
            exec(code, names)
    return names | {"saved_by_implicit": saved}


def test_guide_carries_models_across(guide):
    user_items, userids = guide["user_items"], np.arange(20)
    wanted = guide["saved_by_implicit"].recommend(userids, user_items[userids], N=5, recalculate_user=True)
    for model in (guide["model"], guide["theirs"]):
        found = model.recommend(userids, user_items[userids], N=5, recalculate_user=True)
        np.testing.assert_allclose(found[1], wanted[1], atol=1e-4)
        assert (found[0] == wanted[0]).mean() > 0.95  # but for near ties


def test_guide_makes_ours_a_subclass_for_rectools(guide):
    assert not issubclass(AlternatingLeastSquares, ImplicitALS)
    model = guide["RecToolsALS"](factors=8)
    assert isinstance(model, ImplicitALS)
    assert isinstance(model, AlternatingLeastSquares)


if RECTOOLS:
    from rectools.dataset import Dataset
    from rectools.models import ImplicitALSWrapperModel

    @pytest.fixture
    def wrapped(plays, guide):
        """RecTools' data set, its wrapper of our model, and our model alone; without and with explicit features."""
        users, items = plays.nonzero()
        table = pd.DataFrame({"user_id": users, "item_id": items, "weight": plays.data, "datetime": "2020-01-01"})
        kinds = pd.DataFrame({"id": np.unique(users), "feature": "kind", "value": np.unique(users) % 2})
        parameters = {"factors": 6, "iterations": 2, "confidence": "log", "solver": "cholesky", "random_state": 0}
        return (
            (Dataset.construct(table), Dataset.construct(table, kinds, cat_user_features=["kind"])),
            ImplicitALSWrapperModel(guide["RecToolsALS"](warm_start=True, **parameters)),
            AlternatingLeastSquares(**parameters),
        )

    def test_rectools_recommends_from_our_model(wrapped):
        (dataset, _), wrapper, model = wrapped
        users, user_items = dataset.user_id_map.external_ids, dataset.get_user_item_matrix()
        found = wrapper.fit(dataset).recommend(users, dataset, k=5, filter_viewed=True)
        ids, scores = model.fit(user_items, show_progress=False).recommend(np.arange(len(users)), user_items, N=5)
        np.testing.assert_array_equal(found["item_id"], dataset.item_id_map.convert_to_external(ids.ravel()))
        np.testing.assert_allclose(found["score"], scores.ravel(), atol=1e-5)

    def test_rectools_goes_on_from_our_model(wrapped):
        (dataset, _), wrapper, model = wrapped
        wrapper.fit_partial(dataset, 1).fit_partial(dataset, 1)
        model.fit(dataset.get_user_item_matrix(), show_progress=False)
        X, Y = wrapper.get_vectors()
        np.testing.assert_allclose(X @ Y.T, model.user_factors @ model.item_factors.T, atol=1e-4)

    @pytest.mark.filterwarnings("ignore:Converting sparse features to dense")
    def test_rectools_adds_features_to_our_factors(wrapped):
        (_, dataset), wrapper, model = wrapped
        X, Y = wrapper.fit(dataset).get_vectors()
        model.fit(dataset.get_user_item_matrix(), show_progress=False)
        assert X.shape[1] == Y.shape[1] == 8
        np.testing.assert_array_equal(X[:, :6], model.user_factors)
        np.testing.assert_array_equal(Y[:, :6], model.item_factors)
