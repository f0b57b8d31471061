"""The Recommender, against dense float64 scores, and the close matches of unknown labels, against difflib."""

import datetime
import difflib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet
from scipy import sparse

from alscore import AlternatingLeastSquares, Interactions, NotFittedError, Recommender, datasets, testing
from alscore._data.labels import UnknownLabelError, _close_matches

N_USERS, N_ITEMS = 12, 20
LABELS = {
    "str": ([f"user {id}" for id in range(N_USERS)], [f"Artist {id}" for id in range(N_ITEMS)]),
    "int": (np.arange(N_USERS) * 7 + 1000, np.arange(N_ITEMS) * 3 - 5),
    "category": (
        pd.Categorical([*"lkjihgfedcba"]),
        pd.Categorical([*"abcdefghijklmnopqrst"], [*"tsrqponmlkjihgfedcbau"]),
    ),
    "date": (pd.date_range("2024-02-27", periods=N_USERS), pd.date_range("1999", periods=N_ITEMS, tz="UTC")),
}


def fit(users, items):
    """Fit a small model. User 0 has all items, user 1 all except two. Items 5 to 9 have equal entries."""
    rng = np.random.default_rng(3)
    plays = rng.integers(1, 50, (N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.4)
    plays[:, 6:10] = plays[:, 5:6]
    plays[0], plays[1] = 3, 4
    plays[1, [2, 15]] = 0
    plays[2, 2] = plays[3, 15] = 1
    model = AlternatingLeastSquares(factors=6, iterations=3, num_threads=1, random_state=0)
    return Recommender(model).fit(Interactions(sparse.csr_array(plays), users, items), show_progress=False)


@pytest.fixture(scope="module")
def recommender():
    return fit(*LABELS["str"])


@pytest.mark.parametrize("kind", LABELS)
def test_recommend_equals_dense_ranking(kind):
    users, items = map(pd.Index, LABELS[kind])
    recommender = fit(users, items)
    queries = [4, 11, 2]
    table = recommender.recommend(users[queries], n=4)

    model = recommender.model
    scores = model.user_factors.astype(np.float64) @ model.item_factors.astype(np.float64).T
    scores[recommender.interactions.matrix.toarray() != 0] = -np.inf
    best = np.sort(-scores[queries])[:, :4]
    assert list(table.columns) == ["user", "item", "score", "rank"]
    assert table["user"].dtype == users.dtype
    assert table["item"].dtype == items.dtype
    assert table["user"].tolist() == [users[user] for user in queries for _ in range(4)]
    assert table["rank"].tolist() == [1, 2, 3, 4] * 3
    assert table["score"].dtype == np.float32
    np.testing.assert_allclose(table["score"], -best.ravel(), rtol=1e-4, atol=1e-5)
    # By score, since items 5 to 9 have equal scores.
    ids = recommender.interactions.items.get_indexer(table["item"])
    np.testing.assert_allclose(scores[np.repeat(queries, 4), ids], table["score"], rtol=1e-4, atol=1e-5)
    assert not table.duplicated(["user", "item"]).any()


@pytest.mark.parametrize("container", [list, tuple, np.array, pd.Index, pd.Series])
def test_users_in_any_container(recommender, container):
    users = container(["user 3", "user 1", "user 3"])
    table = recommender.recommend(users, n=2)
    assert table["user"].tolist() == ["user 3", "user 3", "user 1", "user 1", "user 3", "user 3"]
    one = recommender.recommend("user 3", n=2)
    pd.testing.assert_frame_equal(one, table[4:].reset_index(drop=True))


def test_no_padding_rows(recommender):
    table = recommender.recommend(["user 0", "user 1"], n=N_ITEMS + 5)
    assert sorted(table["item"]) == ["Artist 15", "Artist 2"]
    assert table["user"].tolist() == ["user 1"] * 2
    assert table["rank"].tolist() == [1, 2]
    assert np.isfinite(table["score"]).all()


def test_users_and_items_without_entries_get_and_give_no_results():
    plays = np.zeros((3, 4))
    plays[:2, :3] = [[1, 2, 0], [0, 3, 1]]
    model = AlternatingLeastSquares(factors=2, iterations=2, num_threads=1, random_state=0)
    interactions = Interactions(sparse.csr_array(plays), list("abc"), list("wxyz"))
    recommender = Recommender(model).fit(interactions, show_progress=False)
    assert recommender.recommend(["c", "a"])["user"].unique().tolist() == ["a"]
    assert recommender.similar_items(["z", "w"])["item"].unique().tolist() == ["w"]


def test_no_users_give_an_empty_table(recommender):
    table = recommender.recommend([], n=3)
    assert len(table) == 0
    assert list(table) == ["user", "item", "score", "rank"]
    assert table.dtypes.tolist() == recommender.recommend("user 3", n=3).dtypes.tolist()


def test_similar_items_equal_dense_cosine(recommender):
    factors = recommender.model.item_factors.astype(np.float64)
    unit = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    table = recommender.similar_items(["Artist 12", "Artist 0"], n=5)
    assert list(table.columns) == ["item", "similar_item", "score", "rank"]
    assert table["item"].tolist() == ["Artist 12"] * 5 + ["Artist 0"] * 5
    assert table["rank"].tolist() == [1, 2, 3, 4, 5] * 2
    for query, group in zip((12, 0), (table[:5], table[5:]), strict=True):
        cosine = unit @ unit[query]
        np.testing.assert_allclose(group["score"], np.sort(np.delete(cosine, query))[::-1][:5], atol=1e-5)
        ids = recommender.interactions.items.get_indexer(group["similar_item"])
        np.testing.assert_allclose(group["score"], cosine[ids], atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 4, N_ITEMS - 1, N_ITEMS + 9])
def test_similar_items_leave_out_the_item_itself_among_equal_items(recommender, n):
    equals = [f"Artist {id}" for id in range(5, 10)]
    table = recommender.similar_items(equals, n=n)
    assert (table["item"] != table["similar_item"]).all()
    assert table.groupby("item").size().tolist() == [min(n, N_ITEMS - 1)] * 5
    assert table[table["rank"] <= 4]["similar_item"].isin(equals).all()


def test_unknown_users_are_named_with_close_matches(recommender):
    pattern = r"unknown users \(2\): 'USER 33' \(did you mean 'user 3'.*\), 'nobody';"
    with pytest.raises(UnknownLabelError, match=pattern) as caught:
        recommender.recommend(["user 1", "USER 33", "nobody", "nobody"])
    assert caught.value.labels.tolist() == ["USER 33", "nobody"]
    assert isinstance(caught.value, LookupError)
    assert "on_unknown='skip'" in str(caught.value)


def test_unknown_items_are_named_with_close_matches(recommender):
    with pytest.raises(UnknownLabelError, match=r"items \(1\): 'artist 12 ' \(did you mean 'Artist 12'"):
        recommender.similar_items("artist 12 ")


def test_categories_are_looked_up_by_their_labels():
    recommender = fit(*map(pd.CategoricalIndex, LABELS["str"]))
    table = recommender.recommend(pd.Categorical(["user 4"]), n=2)
    assert table["user"].tolist() == ["user 4"] * 2
    with pytest.raises(UnknownLabelError, match=r"users \(1\): 'user 444' \(did you mean 'user 4'"):
        recommender.recommend(pd.Categorical(["user 444"]))


def test_only_the_first_unknown_labels_are_named(recommender):
    with pytest.raises(UnknownLabelError, match=r"unknown users \(1,000\): 'x0', 'x1', 'x2' and 997 more;"):
        recommender.recommend([f"x{number}" for number in range(1000)])


def test_unknown_labels_can_be_skipped(recommender):
    users = ["nobody", "user 5", None, 5]
    table = recommender.recommend(users, on_unknown="skip")
    pd.testing.assert_frame_equal(table, recommender.recommend("user 5"))
    table = recommender.similar_items(["?", "Artist 1"], on_unknown="skip")
    pd.testing.assert_frame_equal(table, recommender.similar_items("Artist 1"))
    assert recommender.recommend("nobody", on_unknown="skip").empty


def test_labels_of_another_type_are_unknown(recommender):
    with pytest.raises(UnknownLabelError, match=r"5; this .* of type string, these are integer"):
        recommender.recommend(["user 1", 5])
    with pytest.raises(UnknownLabelError, match=r"'1007'; .* of type integer, these are string"):
        fit(*LABELS["int"]).recommend("1007")


def test_close_matches_are_those_of_difflib():
    rng = np.random.default_rng(0)
    syllables = ["ra", "di", "o", "head", "The ", "bjö", "rk", "ко", "ло", "坂本", " & ", "x"]
    labels = np.unique(["".join(rng.choice(syllables, rng.integers(1, 6))) for _ in range(3000)]).tolist()
    wrong = ["radioheax", "the xrabjör", "колоo", "坂本坂本xx", "zzzz", ""]
    for label, near in zip(wrong, _close_matches(pd.Index(labels), wrong), strict=True):
        likeness = {x: difflib.SequenceMatcher(None, x.lower(), label.lower()).ratio() for x in labels}
        best = sorted((value for value in likeness.values() if value >= 0.7), reverse=True)[:3]
        assert [likeness[other] for other in near] == best


def test_use_before_fit():
    for use in (Recommender().recommend, Recommender().similar_items):
        with pytest.raises(NotFittedError, match="call fit first"):
            use("user 1")


def test_wrong_arguments_are_refused(recommender):
    with pytest.raises(TypeError, match=r"interactions must be .*Interactions, not csr_array; .*from_pandas"):
        Recommender().fit(sparse.csr_array((2, 2)))
    with pytest.raises(ValueError, match="n must be an integer of at least 1, not 0"):
        recommender.recommend("user 1", n=0)
    with pytest.raises(ValueError, match="n must be an integer of at least 1, not -1"):
        recommender.similar_items("Artist 1", n=-1)
    with pytest.raises(TypeError):
        recommender.recommend("user 1", n=2.5)
    with pytest.raises(ValueError, match="on_unknown must be 'raise' or 'skip', not 'ignore'"):
        recommender.recommend("user 1", on_unknown="ignore")


@pytest.mark.parametrize("labels", [pd.DataFrame({"user": ["user 1"]}), np.array([["user 1"]]), np.array("user 1")])
def test_labels_must_have_one_dimension(recommender, labels):
    message = f"must be a label or a one-dimensional sequence of labels, not a {type(labels).__name__} of"
    for name, use in (
        ("users", recommender.recommend),
        ("users", recommender.similar_users),
        ("items", recommender.similar_items),
        ("allow", lambda labels: recommender.recommend("user 1", allow=labels)),
        ("deny", lambda labels: recommender.similar_items("Artist 1", deny=labels)),
    ):
        with pytest.raises(TypeError, match=f"{name} {message}"):
            use(labels)


# ---- The model and its labels


def test_a_model_fitted_elsewhere(more, tmp_path):
    interactions = more.interactions
    bare = AlternatingLeastSquares().set_params(**more.model.get_params()).fit(interactions, show_progress=False)
    recommender = Recommender(bare, interactions)
    assert recommender.model is bare
    pd.testing.assert_frame_equal(recommender.recommend(n=5), more.recommend(n=5))
    with pytest.raises(ValueError, match="there are 30 user factors for 9 user labels"):
        Recommender(bare, interactions[:9])
    with pytest.raises(ValueError, match="there are 25 item factors for 26 item labels"):
        Recommender(bare, Interactions(sparse.csr_array((30, 26))))
    with pytest.raises(NotFittedError, match="call fit first"):
        Recommender(AlternatingLeastSquares(), interactions)
    with pytest.raises(TypeError, match=r"interactions must be alscore\.Interactions, not csr_array"):
        Recommender(bare, interactions.matrix)

    recommender.save(tmp_path / "labels.als")
    loaded = Recommender.load(tmp_path / "labels.als")
    pd.testing.assert_frame_equal(loaded.recommend(n=5), more.recommend(n=5))
    bare.save(tmp_path / "bare.als")
    with pytest.raises(TypeError, match=r"bare\.als holds a AlternatingLeastSquares, not a Recommender: .*\.load"):
        Recommender.load(tmp_path / "bare.als")


def test_the_given_model_is_not_modified(more):
    given = AlternatingLeastSquares(factors=2, iterations=1, num_threads=1)
    recommender = Recommender(given).fit(more.interactions, show_progress=False)
    assert given.user_factors is given.item_factors is None
    assert recommender.model.get_params() == given.get_params()
    trained = recommender.model
    before = trained.user_factors.tobytes(), trained.item_factors.tobytes()
    recommender.partial_fit(LATER, show_progress=False)
    assert (trained.user_factors.tobytes(), trained.item_factors.tobytes()) == before
    assert len(recommender.model.user_factors) == 31


@pytest.mark.parametrize("side", ["user", "item"])
def test_a_model_with_more_factors_than_labels_is_refused(side, tmp_path):
    recommender = fit_more()
    row = {"user": (1, 25), "item": (1, 30)}[side]
    getattr(recommender.model, f"partial_fit_{side}s")([40], sparse.csr_array(np.ones(row)))
    for use in (
        lambda: recommender.save(tmp_path / "model.als"),
        lambda: recommender.recommend("user 1"),
        lambda: recommender.recommend_iter(),
        lambda: recommender.similar_items("item 1"),
        lambda: recommender.similar_users("user 1"),
        lambda: recommender.fold_in(NEW),
        lambda: recommender.explain("user 1", "item 1"),
        lambda: recommender.partial_fit(LATER),
    ):
        with pytest.raises(ValueError, match=f"41 {side} factors for .* {side} labels: fit the Recommender"):
            use()
    assert os.listdir(tmp_path) == []


def results_during(train, search, n_threads=3):
    """Return all results of `search`, which several threads call again and again until `train` returns."""
    done = threading.Event()

    def run():
        results = {search()}
        while not done.is_set():
            results.add(search())
        return results

    with ThreadPoolExecutor(n_threads) as pool:
        searching = [pool.submit(run) for _ in range(n_threads)]
        try:
            train()
        finally:
            done.set()
        return set().union(*(future.result() for future in searching))


def test_results_during_fit_are_those_of_one_data_set():
    plays = (np.random.default_rng(0).random((200, 32)) < 0.3).astype(float)
    sets = [
        Interactions(sparse.csr_array(plays[:, ::step]), items=[f"{step} {i}" for i in range(32)]) for step in (1, -1)
    ]
    recommender = Recommender(AlternatingLeastSquares(factors=4, iterations=1, num_threads=1, random_state=0))

    def search():
        return tuple(recommender.recommend(n=2)["item"])

    def train():
        for interactions in sets * 25:
            recommender.fit(interactions, show_progress=False)

    expected = {(recommender.fit(interactions, show_progress=False), search())[1] for interactions in sets}
    assert len(expected) == 2
    assert results_during(train, search) <= expected


def test_results_during_partial_fit_are_those_of_one_moment():
    later = [pd.DataFrame({"user": [f"new {number}"], "item": [f"tea {number}"]}) for number in range(15)]
    recommender, twin = fit_more(), fit_more()

    def search(recommender):
        tables = recommender.recommend("user 3", n=40), recommender.similar_items("item 1", n=5)
        return tuple(table.to_csv() for table in tables)

    def train():
        for plays in later:
            recommender.partial_fit(plays, show_progress=False)

    moments = [search(twin)]
    for plays in later:
        moments.append(search(twin.partial_fit(plays, show_progress=False)))
    seen = results_during(train, lambda: search(recommender))
    for at in range(2):  # the two calls of a search may fall into two moments
        assert {one[at] for one in seen} <= {one[at] for one in moments}


def test_threads_may_search_at_the_same_time(more):
    recommender = fit_more()  # it has not prepared any candidates yet
    start = threading.Barrier(8)

    def search(number):
        start.wait()
        return recommender.recommend(USERS[number:], n=5), recommender.similar_items(ITEMS[number], n=5)

    with ThreadPoolExecutor(8) as pool:
        for number, (recommended, similar) in enumerate(pool.map(search, range(8))):
            pd.testing.assert_frame_equal(recommended, more.recommend(USERS[number:], n=5))
            pd.testing.assert_frame_equal(similar, more.similar_items(ITEMS[number], n=5))


def test_fit_passes_arguments_on():
    seen = []
    users, items = LABELS["int"]
    interactions = Interactions(sparse.csr_array(np.eye(N_USERS, N_ITEMS)), users, items)
    recommender = Recommender(AlternatingLeastSquares(factors=2, iterations=2))
    fitted = recommender.fit(interactions, show_progress=False, callback=lambda *args: seen.append(args))
    assert fitted is recommender
    assert recommender.interactions is interactions
    assert [iteration for iteration, *_ in seen] == [0, 1]


def test_interrupted_fit_leaves_a_consistent_model(recommender):
    before = recommender.interactions
    fewer = Interactions(before.matrix[:5], before.users[:5], before.items)

    def interrupt(*_):
        raise KeyboardInterrupt

    refitted = fit(*LABELS["str"])
    with pytest.raises(KeyboardInterrupt):
        refitted.fit(fewer, show_progress=False, callback=interrupt)
    assert refitted.interactions is fewer
    assert len(refitted.recommend("user 2", n=3)) == 3
    one_sweep = AlternatingLeastSquares(**{**refitted.model.get_params(), "iterations": 1})
    assert_same_factors(refitted.model, one_sweep.fit(fewer, show_progress=False))
    refitted.model.set_params(factors=0)
    with pytest.raises(ValueError, match="factors"):
        refitted.fit(before, show_progress=False)
    assert refitted.interactions is fewer


def test_real_plays(shared_data):
    path = shared_data / "lastfm-360k-first10000" / "usersha1-artmbid-artname-plays.tsv.gz"
    interactions = datasets.lastfm_360k(path)
    recommender = Recommender(AlternatingLeastSquares(factors=16, iterations=3, random_state=0))
    recommender.fit(interactions, show_progress=False)
    table = recommender.recommend(interactions.users, n=20)
    assert len(table) == interactions.n_users * 20
    seen = pd.MultiIndex.from_frame(interactions.to_pandas()[["user", "item"]])
    assert not pd.MultiIndex.from_frame(table[["user", "item"]]).isin(seen).any()
    with pytest.raises(UnknownLabelError, match=r"'Radiohed' \(did you mean 'radiohead'"):
        recommender.similar_items("Radiohed")


# ---- Options, against dense scores: here no two items have nearly equal scores


def fit_more(dtype=np.float32, **parameters):
    """Fit a model. User 4 and item 7 have no entries. User 5 has all items except 3, 7 and 11."""
    rng = np.random.default_rng(1)
    plays = rng.integers(1, 20, (30, 25)) * (rng.random((30, 25)) < 0.3)
    plays[5] = 1
    plays[5, [3, 11]] = 0
    plays[4], plays[:, 7] = 0, 0
    model = AlternatingLeastSquares(
        factors=5, iterations=3, num_threads=1, random_state=0, regularization=0.5, dtype=dtype, **parameters
    )
    interactions = Interactions(sparse.csr_array(plays), USERS, ITEMS)
    return Recommender(model).fit(interactions, show_progress=False)


USERS, ITEMS = [f"user {id}" for id in range(30)], [f"item {id}" for id in range(25)]


@pytest.fixture(scope="module")
def more():
    return fit_more()


def noting_searches(recommender, model_class=AlternatingLeastSquares):
    """Return a Recommender of the same factors, and a list to which it adds (number of users, N) of each search."""
    searches = []

    class Noting(model_class):
        def recommend(self, userid, user_items, N=10, **options):
            searches.append((len(userid), N))
            return super().recommend(userid, user_items, N=N, **options)

    model = Noting(**recommender.model.get_params())
    model.user_factors, model.item_factors = recommender.model.user_factors, recommender.model.item_factors
    return Recommender(model, recommender.interactions), searches


def plays_of(recommender):
    return recommender.interactions.matrix.toarray()


def assert_same_factors(model, other):
    assert model.user_factors.tobytes() == other.user_factors.tobytes()
    assert model.item_factors.tobytes() == other.item_factors.tobytes()


def ranking(recommender, users, n, excluded=None, factors=None, index=USERS):
    """Oracle: the recommendations, from float64 factors and a dense mask of the excluded items, a row for each user."""
    X, Y = recommender.model.user_factors, recommender.model.item_factors.astype(np.float64)
    X = np.asarray(X if factors is None else factors, np.float64)
    excluded = plays_of(recommender) != 0 if excluded is None else excluded
    excluded = excluded | ~plays_of(recommender).any(axis=0)
    rows = []
    for label, most in zip(users, np.broadcast_to(n, len(users)), strict=True):
        user = index.index(label)
        if X[user].any():
            ids, scores = testing.exact_top_n(Y[None] @ X[user], most, excluded[user])
            best = zip(ids[0], scores[0], strict=True)
            rows += [(label, ITEMS[id], score, rank) for rank, (id, score) in enumerate(best, 1) if id >= 0]
    return pd.DataFrame(rows, columns=["user", "item", "score", "rank"])


def assert_table(table, expected, dtype=np.float32):
    expected = expected.astype({"score": dtype, "rank": np.int64})
    pd.testing.assert_frame_equal(table, expected, rtol=1e-4, atol=1e-5)


def test_all_users_by_default(more):
    table = more.recommend(n=6)
    assert_table(table, ranking(more, USERS, 6))
    assert table["user"].nunique() == 29
    assert table["user"].tolist().count("user 5") == 2


def test_allow_and_deny(more):
    users, allowed, denied = ["user 9", "user 0"], ["item 2", "item 24", "item 7", "item 13", "item 2"], ["item 13"]
    known, outside, banned = plays_of(more) != 0, ~np.isin(ITEMS, allowed), np.isin(ITEMS, denied)
    for options, excluded in (
        ({"allow": allowed}, known | outside),
        ({"deny": denied}, known | banned),
        ({"deny": "item 13"}, known | banned),
        ({"allow": pd.Index(allowed), "deny": pd.Series(denied)}, known | outside | banned),
        ({"filter_already_liked_items": False}, known & False),
        (
            {"filter_already_liked_items": False, "allow": allowed, "deny": denied},
            outside | banned | np.zeros_like(known),
        ),
    ):
        assert_table(more.recommend(users, 20, **options), ranking(more, users, 20, excluded))
    for options in ({"allow": []}, {"deny": ITEMS}, {"allow": "item 3", "deny": "item 3"}):
        empty = more.recommend(users, **options)
        assert empty.empty
        assert empty.dtypes.equals(more.recommend(users).dtypes)


@pytest.mark.parametrize("option", ["allow", "deny"])
def test_unknown_items_in_allow_and_deny(more, option):
    with pytest.raises(UnknownLabelError, match=r"unknown items \(1\): 'item 99' \(did you mean 'item 9'"):
        more.recommend("user 1", **{option: ["item 3", "item 99"]})
    skipped = more.recommend("user 1", on_unknown="skip", **{option: ["item 3", "item 99"]})
    pd.testing.assert_frame_equal(skipped, more.recommend("user 1", **{option: "item 3"}))


@pytest.mark.parametrize(
    "n",
    [
        [3, 0, 40, 1],
        (3, 0, 40, 1),
        np.uint8([3, 0, 40, 1]),
        pd.array([3, 0, 40, 1], "Int64"),
        {"user 20": 3, "user 2": 0, "user 5": 40, "user 12": 1, "nobody": 7},
        pd.Series([1, 40, 0, 3], ["user 12", "user 5", "user 2", "user 20"]),
    ],
)
def test_n_for_each_user(more, n):
    users = ["user 20", "user 2", "user 5", "user 12"]
    assert_table(more.recommend(users, n), ranking(more, users, [3, 0, 40, 1]))
    if np.ndim(n) == 1 and not isinstance(n, pd.Series):
        users[1] = "nobody"
        skipped = more.recommend(users, n, on_unknown="skip")
        assert_table(skipped, ranking(more, [users[0], *users[2:]], [3, 40, 1]))


def test_n_for_repeated_users(more):
    users = ["user 2", "user 3", "user 2"]
    assert_table(more.recommend(users, [1, 2, 4]), ranking(more, users, [1, 2, 4]))
    assert_table(more.recommend(users, {"user 2": 2, "user 3": 1}), ranking(more, users, [2, 1, 2]))
    assert more.recommend(users, [0, 0, 0]).empty
    assert more.recommend([], []).empty
    assert more.recommend([], {}).empty


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        ([1, 2, 3], ValueError, r"n has shape \(3,\) for 2 users; give one number for each"),
        ([[1, 2]], ValueError, r"n has shape \(1, 2\)"),
        ([1, -2], ValueError, r"n must be at least 0 for each user, not -2"),
        ([1.0, 2.0], TypeError, r"n must be integers, not float64"),
        ({"user 1": 3}, ValueError, r"n has no number for user 'user 2'; .* 0 for none"),
        ({"user 1": 3, "user 2": None}, TypeError, r"n must be integers"),
        (pd.Series([1, 2, 3], ["user 2", "user 1", "user 1"]), ValueError, r"n has several numbers for user 'user 1'"),
        (None, TypeError, "integer"),
        ("10", TypeError, "integer"),
    ],
)
def test_wrong_n_for_each_user_is_refused(more, n, error, message):
    with pytest.raises(error, match=message):
        more.recommend(["user 1", "user 2"], n)


def test_one_large_n_does_not_widen_the_results_of_other_users(more):
    users, n = USERS * 4, np.array([24, *[1, 2, 0, 3, 5] * 23, 1, 1, 9, 1])
    expected = ranking(more, users, n)
    noting, searches = noting_searches(more)
    assert_table(noting.recommend(users, n), expected)
    assert 0 < sum(n_users * most for n_users, most in searches) < 2 * n.sum()
    searches.clear()
    noting.recommend(users, n, deny="item 7")
    assert sorted(most for _, most in searches) == [1, 3, 5, 9, 24]  # a search for each power of 2
    searches.clear()
    assert noting.recommend(["user 1", "user 2"], [0, 0]).empty
    assert searches == []


def test_a_huge_n_returns_all_items(more):
    pd.testing.assert_frame_equal(more.recommend("user 1", n=10**30), more.recommend("user 1", n=25))
    pd.testing.assert_frame_equal(more.recommend(["user 1"], [10**15]), more.recommend("user 1", n=25))
    pd.testing.assert_frame_equal(more.similar_items("item 1", n=10**30), more.similar_items("item 1", n=25))


def test_n_for_each_user_with_tuples_as_labels():
    users = pd.Index([(id, "a") for id in range(N_USERS)], tupleize_cols=False)
    recommender = fit(users, LABELS["str"][1])
    n = {user: id % 3 for id, user in enumerate(users)}
    table = recommender.recommend(n=n)
    pd.testing.assert_frame_equal(table, recommender.recommend(n=pd.Series(n)))
    counts = table["user"].value_counts()
    assert [counts.get(user, 0) for user in users] == [0, *(id % 3 for id in range(1, N_USERS))]


def test_scores_are_optional(more):
    table = more.recommend(["user 1", "user 4", "user 0"], 3, scores=False)
    pd.testing.assert_frame_equal(table, more.recommend(["user 1", "user 0"], 3).drop(columns="score"))


# ---- Users that the model does not know


NEW = pd.DataFrame(
    {
        "user": ["zoe", "zoe", "user 3", "adam", "zoe", "user 3"],
        "item": ["item 3", "item 9", "item 0", "item 20", "item 3", "item 24"],
        "value": [2, 1, 5, 1, 4, 2],
    }
)
NEW_USERS = ["adam", "user 3", "zoe"]


def new_plays():
    dense = np.zeros((3, 25))
    for row in NEW.itertuples():
        dense[NEW_USERS.index(row.user), ITEMS.index(row.item)] += row.value
    return dense


@pytest.mark.parametrize("parameters", [{}, {"confidence": "log", "alpha": 9.0, "solver": "cg"}])
def test_fold_in_equals_dense_solution(dtype, parameters):
    recommender = fit_more(dtype, **parameters)
    before = recommender.model.user_factors.tobytes()
    factors = recommender.fold_in(NEW)
    known = {name: value for name, value in parameters.items() if name != "solver"}
    expected = testing.exact_half_sweep(new_plays(), recommender.model.item_factors, regularization=0.5, **known)
    assert testing.row_errors(factors.to_numpy(), expected).max() < testing.tolerance("half-sweep", dtype)
    assert factors.index.tolist() == NEW_USERS
    assert factors.index.name == "user"
    assert factors.shape == (3, 5)
    assert (factors.dtypes == dtype).all()
    assert recommender.model.user_factors.tobytes() == before
    again = recommender.fold_in(Interactions.from_pandas(NEW, "user", "item", "value"))
    pd.testing.assert_frame_equal(again, factors)


def test_fold_in_does_not_copy_the_solved_factors(more):
    solved = []

    class Keeping(AlternatingLeastSquares):
        def recalculate_user(self, userid, user_items):
            solved.append(super().recalculate_user(userid, user_items))
            return solved[-1]

    recommender, _ = noting_searches(more, Keeping)
    table = recommender.fold_in(NEW)
    assert len(solved) == 1
    assert np.shares_memory(table.to_numpy(), solved[0])
    np.testing.assert_array_equal(table.to_numpy(), solved[0])


def test_fold_in_of_items_in_another_order(more):
    dense = np.random.default_rng(2).integers(0, 3, (6, 25))
    order = np.random.default_rng(3).permutation(25)
    shuffled = Interactions(sparse.csr_array(dense[:, order]), items=[ITEMS[id] for id in order])
    expected = testing.exact_half_sweep(dense, more.model.item_factors, regularization=0.5)
    errors = testing.row_errors(more.fold_in(shuffled).to_numpy(), expected)
    assert errors.max() < testing.tolerance("half-sweep", np.float32)


def test_recommend_to_users_that_the_model_does_not_know(more):
    expected = testing.exact_half_sweep(new_plays(), more.model.item_factors, regularization=0.5)
    excluded = new_plays() != 0
    table = more.recommend(n=6, interactions=NEW)
    assert_table(table, ranking(more, NEW_USERS, 6, excluded, expected, NEW_USERS))
    plays = Interactions.from_pandas(NEW, "user", "item", "value")
    pd.testing.assert_frame_equal(more.recommend(n=6, interactions=plays), table)

    table = more.recommend(["zoe", "adam"], {"adam": 1, "zoe": 2}, interactions=NEW, deny="item 14")
    excluded |= np.isin(ITEMS, "item 14")
    assert_table(table, ranking(more, ["zoe", "adam"], [2, 1], excluded, expected, NEW_USERS))
    table = more.recommend("zoe", 25, interactions=NEW, filter_already_liked_items=False)
    assert_table(table, ranking(more, ["zoe"], 25, new_plays() > 9, expected, NEW_USERS))

    counted = more.recommend("zoe", interactions=NEW[["user", "item"]])
    same = more.recommend("zoe", interactions=NEW.assign(value=1))
    pd.testing.assert_frame_equal(counted, same)
    with pytest.raises(UnknownLabelError, match=r"unknown users \(1\): 'user 1'"):
        more.recommend("user 1", interactions=NEW)


def test_new_entries_of_unknown_items(more):
    strange = pd.concat([NEW, pd.DataFrame({"user": ["zoe", "yan"], "item": ["item 90", "tea"], "value": [9, 9]})])
    for use in (more.fold_in, lambda plays: more.recommend(interactions=plays)):
        with pytest.raises(UnknownLabelError, match=r"unknown items \(2\): 'item 90' .*, 'tea'"):
            use(strange)
    factors = more.fold_in(strange, on_unknown="skip")
    pd.testing.assert_frame_equal(factors.drop(index="yan"), more.fold_in(NEW))
    assert (factors.loc["yan"] == 0).all()
    table = more.recommend(on_unknown="skip", interactions=strange)
    pd.testing.assert_frame_equal(table, more.recommend(interactions=NEW))


def test_new_entries_with_labels_of_another_type():
    recommender = fit(*LABELS["category"])
    plays = pd.DataFrame({"user": [1, 1], "item": ["c", "b"]})
    table = recommender.recommend(n=3, interactions=plays)
    assert table["user"].tolist() == [1] * 3
    assert table["item"].dtype == recommender.interactions.items.dtype
    assert not table["item"].isin(["b", "c"]).any()


@pytest.mark.parametrize(
    ("plays", "error", "message"),
    [
        (NEW.rename(columns={"value": "plays"}), ValueError, "interactions has columns other than .*: plays; choose"),
        (NEW[["item", "value"]], ValueError, r"user='user' is not a column"),
        (NEW.assign(value=np.nan), ValueError, "value: not a finite float32 number"),
        (
            sparse.csr_array((2, 25)),
            TypeError,
            r"must be alscore.Interactions, or a pandas.DataFrame .*, not csr_array",
        ),
    ],
)
def test_wrong_interactions_are_refused(more, plays, error, message):
    for use in (more.fold_in, more.partial_fit, lambda plays: more.recommend(interactions=plays)):
        with pytest.raises(error, match=message):
            use(plays)


# ---- Training with new entries


LATER = pd.DataFrame(
    {
        "user": ["zoe", "user 3", "zoe", "user 3", "user 4", "user 4"],
        "item": ["item 2", "tea", "tea", "item 1", "item 7", "item 1"],
        "value": [3, 1, 2, 5, 4, 1],
    }
)


def test_partial_fit_trains_on_the_sum_of_old_and_new_entries():
    recommender, twin = fit_more(), fit_more()
    dense = np.zeros((31, 26))
    dense[:30, :25] = plays_of(recommender)
    for row in LATER.itertuples():
        dense[[*USERS, "zoe"].index(row.user), [*ITEMS, "tea"].index(row.item)] += row.value
    twin.model.partial_fit(sparse.csr_array(dense), iterations=2, show_progress=False)

    assert recommender.partial_fit(LATER, iterations=2, show_progress=False) is recommender
    np.testing.assert_array_equal(plays_of(recommender), dense)
    assert recommender.interactions.users.tolist() == [*USERS, "zoe"]
    assert recommender.interactions.items.tolist() == [*ITEMS, "tea"]
    for side in ("user_factors", "item_factors"):
        np.testing.assert_array_equal(getattr(recommender.model, side), getattr(twin.model, side))
    assert len(recommender.recommend(["zoe", "user 4"], 3)) == 6
    assert len(recommender.similar_items("tea", 3)) == 3


def test_failed_partial_fit_changes_nothing():
    recommender = fit_more()
    model, interactions = recommender.model, recommender.interactions
    before = model.user_factors, model.item_factors
    with pytest.raises(TypeError, match="users: labels of type integer"):
        recommender.partial_fit(LATER.assign(user=range(6)), show_progress=False)
    with pytest.raises(ValueError, match="iterations"):
        recommender.partial_fit(LATER, iterations=-1, show_progress=False)
    recommender.model.set_params(factors=7)
    with pytest.raises(ValueError, match="factors=7"):
        recommender.partial_fit(LATER, show_progress=False)
    assert (model.user_factors, model.item_factors) == before
    assert recommender.interactions is interactions


def test_interrupted_partial_fit_leaves_a_consistent_model():
    def interrupt(*_):
        raise KeyboardInterrupt

    recommender = fit_more()
    with pytest.raises(KeyboardInterrupt):
        recommender.partial_fit(LATER, iterations=3, show_progress=False, callback=interrupt)
    assert recommender.interactions.shape == (31, 26)
    assert len(recommender.recommend("zoe", n=3)) == 3
    one_sweep = fit_more().model.set_params(warm_start=True, iterations=1)
    assert_same_factors(recommender.model, one_sweep.fit(recommender.interactions, show_progress=False))


def test_warm_start_keeps_ids_and_labels_together():
    recommender = fit_more()
    recommender.model.set_params(warm_start=True)
    known = recommender.interactions
    together = known.add(Interactions.from_pandas(LATER, "user", "item", "value"))
    recommender.fit(together, show_progress=False)
    twin = fit_more().model.set_params(warm_start=True)
    assert_same_factors(recommender.model, twin.fit(together, show_progress=False))
    other_items = Interactions(together.matrix, together.users, together.items[::-1])
    for wrong in (together[::-1], known, known[:9], other_items, Interactions(together.matrix, together.users)):
        with pytest.raises(ValueError, match=r"interactions must start with the .* of the last fit"):
            recommender.fit(wrong, show_progress=False)
    assert recommender.interactions.shape == (31, 26)
    recommender.model.set_params(warm_start=False)
    recommender.fit(known[:9], show_progress=False)
    assert recommender.interactions.n_users == 9


# ---- Many users


@pytest.mark.parametrize("batch_size", [1, 7, 30, 1000])
def test_recommend_iter_is_recommend_in_batches(more, batch_size):
    batches = list(more.recommend_iter(n=4, batch_size=batch_size, deny="item 5"))
    assert len(batches) == -(-30 // batch_size)
    pd.testing.assert_frame_equal(pd.concat(batches, ignore_index=True), more.recommend(n=4, deny="item 5"))
    for start, batch in enumerate(batches):
        part = USERS[start * batch_size : (start + 1) * batch_size]
        assert batch["user"].unique().tolist() == [label for label in part if label != "user 4"]


def test_recommend_iter_of_some_users(more):
    users, n = ["user 8", "nobody", "user 1", "user 8", "user 4"], [2, 9, 0, 3, 1]
    for options in ({"scores": False}, {"interactions": more.interactions[::-1]}):
        options["on_unknown"] = "skip"
        batches = more.recommend_iter(users, n, batch_size=2, **options)
        together = pd.concat(list(batches), ignore_index=True)
        pd.testing.assert_frame_equal(together, more.recommend(users, n, **options))
    assert list(more.recommend_iter(users=[])) == []


def test_recommend_iter_refuses_at_once_and_works_batch_by_batch(more):
    recommender, searches = noting_searches(more)
    with pytest.raises(UnknownLabelError):
        recommender.recommend_iter(users=["user 1", "nobody"])
    for wrong in (0, -3):
        with pytest.raises(ValueError, match=f"batch_size must be an integer of at least 1, not {wrong}"):
            recommender.recommend_iter(batch_size=wrong)
    with pytest.raises(TypeError, match="float"):
        recommender.recommend_iter(batch_size=2.5)
    with pytest.raises(TypeError, match="filter_items"):
        recommender.recommend_iter(filter_items=[])
    batches = recommender.recommend_iter(batch_size=12, deny="item 7")
    assert searches == []
    next(batches)
    assert searches == [(11, 10)]  # user 4 has no entries
    list(batches)
    assert searches == [(11, 10), (12, 10), (6, 10)]


def test_recommend_iter_uses_one_model():
    recommender = fit_more()
    expected = recommender.recommend(n=3)
    batches = recommender.recommend_iter(n=3, batch_size=20)
    first = next(batches)
    recommender.partial_fit(LATER, show_progress=False)
    pd.testing.assert_frame_equal(pd.concat([first, *batches], ignore_index=True), expected)
    assert not recommender.recommend(USERS, n=3).equals(expected)


@pytest.mark.parametrize("kind", LABELS)
def test_recommend_all_writes_what_recommend_returns(kind, tmp_path, capsys):
    recommender, path = fit(*LABELS[kind]), tmp_path / "recs.parquet"
    n_rows = recommender.recommend_all(path, n=3, batch_size=5)
    expected = recommender.recommend(n=3)
    assert n_rows == len(expected) > 0
    pd.testing.assert_frame_equal(pd.read_parquet(path), expected)
    assert parquet.ParquetFile(path).num_row_groups == 3
    assert os.listdir(tmp_path) == ["recs.parquet"]
    assert f"{N_USERS}/{N_USERS}" in capsys.readouterr().err


def test_recommend_all_passes_options_on(more, tmp_path, capsys):
    users, n, path = ["zoe", "adam"], [2, 1], tmp_path / "recs.parquet"
    options = {"interactions": NEW, "deny": "item 5", "scores": False}
    assert more.recommend_all(path, users, n, batch_size=1, show_progress=False, **options) == 3
    pd.testing.assert_frame_equal(pd.read_parquet(path), more.recommend(users, n, **options))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("users", [[], ["user 4"], ["user 4", "user 4", "user 1"]])
def test_recommend_all_with_batches_without_rows(more, tmp_path, users):
    path = tmp_path / "recs.parquet"
    n_rows = more.recommend_all(path, users, 3, batch_size=1, show_progress=False)
    table = pd.read_parquet(path)
    assert n_rows == len(table) == 3 * (len(users) == 3)
    pd.testing.assert_frame_equal(table, more.recommend(users, 3))


@pytest.mark.parametrize("make", [str, lambda id: datetime.date(2024, 1, 1 + id)])
def test_recommend_all_of_labels_of_dtype_object_starts_with_a_batch_without_rows(tmp_path, make):
    """Such labels do not tell their type, so an empty batch cannot give the types of the file."""
    users, items = (pd.Index([make(id) for id in range(n)], dtype=object) for n in (N_USERS, N_ITEMS))
    recommender, path = fit(users, items), tmp_path / "recs.parquet"
    assert recommender.recommend(users[:1]).empty  # user 0 has all items
    n_rows = recommender.recommend_all(path, n=3, batch_size=1, show_progress=False)
    expected = recommender.recommend(n=3)
    table = parquet.read_table(path).to_pydict()
    assert n_rows == len(expected) == len(table["user"]) > 0
    assert table["user"] == expected["user"].tolist()
    assert table["item"] == expected["item"].tolist()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("before", [None, b"what was there"])
def test_interrupted_recommend_all_leaves_the_old_file(more, tmp_path, error, before):
    path = tmp_path / "recs.parquet"
    if before:
        path.write_bytes(before)

    class Interrupted(AlternatingLeastSquares):
        def recommend(self, userid, *args, **options):
            if 29 in userid:
                raise error
            return super().recommend(userid, *args, **options)

    recommender, searches = noting_searches(more, Interrupted)
    with pytest.raises(error):
        recommender.recommend_all(path, batch_size=10, show_progress=False)
    assert len(searches) >= 3
    assert searches[-1] == (10, 10)  # the third batch
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == ({path.name: before} if before else {})


def test_recommend_all_refuses_before_it_writes(more, tmp_path):
    with pytest.raises(FileExistsError):
        more.recommend_all(tmp_path, show_progress=False)
    with pytest.raises(UnknownLabelError):
        more.recommend_all(tmp_path / "recs.parquet", users="nobody")
    with pytest.raises(ValueError, match="batch_size"):
        more.recommend_all(tmp_path / "recs.parquet", batch_size=0)
    tuples = pd.Index([(id, "a") for id in range(N_USERS)], tupleize_cols=False)
    with pytest.raises(TypeError, match=r"users have labels of type mixed that Arrow cannot hold"):
        fit(tuples, LABELS["int"][1]).recommend_all(tmp_path / "recs.parquet")
    assert os.listdir(tmp_path) == []


# ---- Similar users and items, and explanations


@pytest.mark.parametrize("kind", ["user", "item"])
@pytest.mark.parametrize("n", [6, 29])
def test_similar_equals_dense_cosine(more, kind, n):
    labels = {"user": USERS, "item": ITEMS}[kind]
    factors = getattr(more.model, f"{kind}_factors").astype(np.float64)
    lengths = np.linalg.norm(factors, axis=1, keepdims=True)
    cosine = (factors / np.where(lengths > 0, lengths, 1)) @ (factors / np.where(lengths > 0, lengths, 1)).T
    allowed, denied = [labels[id] for id in (1, 20, 9, 13)], [labels[id] for id in (9, 17)]
    search = getattr(more, f"similar_{kind}s")
    queries = [labels[id] for id in (20, 4 if kind == "user" else 7, 0)]
    outside, banned = ~np.isin(labels, allowed), np.isin(labels, denied)
    unknown = ~plays_of(more).any(axis=1 if kind == "user" else 0)
    for options, excluded in (
        ({}, np.zeros(len(labels), bool)),
        ({"allow": allowed}, outside),
        ({"allow": [*allowed, queries[1]]}, outside),
        ({"deny": denied}, banned),
        ({"deny": denied[0]}, np.isin(labels, denied[0])),
        ({"allow": allowed, "deny": denied}, outside | banned),
    ):
        rows = []
        for label in (queries[0], queries[2]):
            query = labels.index(label)
            itself = np.arange(len(labels)) == query
            ids, scores = testing.exact_top_n(cosine[[query]], n, excluded | unknown | itself)
            best = zip(ids[0], scores[0], strict=True)
            rows += [(label, labels[id], score, rank) for rank, (id, score) in enumerate(best, 1) if id >= 0]
        columns = [kind, f"similar_{kind}", "score", "rank"]
        assert_table(search(queries, n, **options), pd.DataFrame(rows, columns=columns))
    for wrong in ({"deny": "nobody"}, {"allow": ["nobody"]}):
        with pytest.raises(UnknownLabelError, match=rf"unknown {kind}s \(1\): 'nobody'"):
            search(queries, **wrong)
    with pytest.raises(UnknownLabelError, match=rf"unknown {kind}s \(1\): None"):
        search(None)
    skipped = search([*queries, "nobody"], on_unknown="skip", deny=["nobody", *denied])
    pd.testing.assert_frame_equal(skipped, search(queries, deny=denied))
    with pytest.raises(ValueError, match="n must be an integer of at least 1, not 0"):
        search(queries, 0)


def contributions(recommender, plays, item, **parameters):
    """Oracle: the contribution of each item of one dense row to the score of `item`."""
    Y = recommender.model.item_factors.astype(np.float64)
    (c,), (p,), (lam,) = testing.dense_problem(plays[None], regularization=0.5, **parameters)
    system = Y.T @ (c[:, None] * Y) + lam * np.eye(Y.shape[1])
    return c * p * (Y @ np.linalg.solve(system, Y[ITEMS.index(item)]))


def test_explain_equals_dense_contributions(more):
    plays, user, item = plays_of(more)[3], "user 3", "item 17"
    expected = pd.Series(contributions(more, plays, item), ITEMS)[plays > 0].sort_values(ascending=False)
    table = more.explain(user, item, n=100)
    assert table.columns.tolist() == ["item", "contribution"]
    assert table["item"].tolist() == expected.index.tolist()
    assert table["item"].dtype == more.interactions.items.dtype
    np.testing.assert_allclose(table["contribution"], expected, rtol=1e-4, atol=1e-6)
    assert table.attrs["score"] == pytest.approx(table["contribution"].sum(), rel=1e-9)
    (x,) = testing.exact_half_sweep(plays[None], more.model.item_factors, regularization=0.5)
    assert table.attrs["score"] == pytest.approx(x @ more.model.item_factors[17], rel=1e-4)
    best = more.explain(user, item, n=3)
    pd.testing.assert_frame_equal(best, table[:3])
    assert best.attrs["score"] == table.attrs["score"]


@pytest.mark.parametrize("label", [["user 3"], {"user 3"}, pd.Series(["user 3"]), np.array(["user 3"])])
def test_explain_takes_one_user_and_one_item(more, label):
    with pytest.raises(TypeError, match="user must be one label, not a"):
        more.explain(label, "item 3")
    with pytest.raises(TypeError, match="item must be one label, not a"):
        more.explain("user 3", label)


def test_explain_to_a_user_that_the_model_does_not_know(more):
    expected = contributions(more, new_plays()[2], "item 5")
    table = more.explain("zoe", "item 5", interactions=NEW)
    assert sorted(table["item"]) == ["item 3", "item 9"]
    for row in table.itertuples():
        assert row.contribution == pytest.approx(expected[ITEMS.index(row.item)], rel=1e-4)
    strange = pd.concat([NEW, pd.DataFrame({"user": ["zoe"], "item": ["tea"], "value": [9]})])
    with pytest.raises(UnknownLabelError, match=r"unknown items \(1\): 'tea'"):
        more.explain("zoe", "item 5", interactions=strange)
    skipped = more.explain("zoe", "item 5", on_unknown="skip", interactions=strange)
    pd.testing.assert_frame_equal(skipped, table)


def test_explain_a_user_without_entries_and_unknown_labels(more):
    empty = more.explain("user 4", "item 3")
    assert empty.empty
    assert empty.attrs["score"] == 0
    assert empty.dtypes.equals(more.explain("user 3", "item 3").dtypes)
    for user, item, message in (
        ("nobody", "item 3", r"unknown users \(1\): 'nobody'"),
        ("user 3", "tea", r"unknown items \(1\): 'tea'"),
    ):
        with pytest.raises(UnknownLabelError, match=message):
            more.explain(user, item)
    with pytest.raises(ValueError, match="n must be an integer of at least 1, not 0"):
        more.explain("user 3", "item 3", n=0)


def test_no_method_can_be_used_before_fit(tmp_path):
    recommender = Recommender()
    for use in (
        recommender.recommend,
        recommender.recommend_iter,
        lambda: recommender.recommend(interactions=NEW),
        lambda: recommender.recommend_all(tmp_path / "recs.parquet"),
        lambda: recommender.partial_fit(NEW),
        lambda: recommender.fold_in(NEW),
        lambda: recommender.similar_users("user 1"),
        lambda: recommender.explain("user 1", "item 1"),
    ):
        with pytest.raises(NotFittedError, match="call fit first"):
            use()
    assert os.listdir(tmp_path) == []
