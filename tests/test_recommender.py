"""Labels in, labels out, against dense float64 scores and plain difflib."""

import difflib

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, Interactions, NotFittedError, Recommender, datasets
from alscore.recommender import UnknownLabelError, _close_matches

N_USERS, N_ITEMS = 12, 20
LABELS = {
    "str": ([f"user {code}" for code in range(N_USERS)], [f"Artist {code}" for code in range(N_ITEMS)]),
    "int": (np.arange(N_USERS) * 7 + 1000, np.arange(N_ITEMS) * 3 - 5),
    "date": (pd.date_range("2024-02-27", periods=N_USERS), pd.date_range("1999", periods=N_ITEMS, tz="UTC")),
}


def fit(users, items):
    """A small model. User 0 has played everything, user 1 all but two; items 5 to 9 have equal plays."""
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
    asked = [4, 11, 2]
    table = recommender.recommend(users[asked], n=4)

    model = recommender.model
    scores = model.user_factors.astype(np.float64) @ model.item_factors.astype(np.float64).T
    scores[recommender.interactions.matrix.toarray() != 0] = -np.inf
    best = np.sort(-scores[asked])[:, :4]
    assert list(table.columns) == ["user", "item", "score", "rank"]
    assert table["user"].dtype == users.dtype
    assert table["item"].dtype == items.dtype
    assert table["user"].tolist() == [users[user] for user in asked for _ in range(4)]
    assert table["rank"].tolist() == [1, 2, 3, 4] * 3
    assert table["score"].dtype == np.float32
    np.testing.assert_allclose(table["score"], -best.ravel(), rtol=1e-4, atol=1e-5)
    # by score, since nothing tells items 5 to 9 apart
    found = recommender.interactions.items.get_indexer(table["item"])
    np.testing.assert_allclose(scores[np.repeat(asked, 4), found], table["score"], rtol=1e-4, atol=1e-5)
    assert not table.duplicated(["user", "item"]).any()


@pytest.mark.parametrize("container", [list, tuple, np.array, pd.Index, pd.Series])
def test_users_in_any_container(recommender, container):
    asked = container(["user 3", "user 1", "user 3"])
    table = recommender.recommend(asked, n=2)
    assert table["user"].tolist() == ["user 3", "user 3", "user 1", "user 1", "user 3", "user 3"]
    one = recommender.recommend("user 3", n=2)
    pd.testing.assert_frame_equal(one, table[4:].reset_index(drop=True))


def test_no_padding_rows(recommender):
    table = recommender.recommend(["user 0", "user 1"], n=N_ITEMS + 5)
    assert sorted(table["item"]) == ["Artist 15", "Artist 2"]
    assert table["user"].tolist() == ["user 1"] * 2
    assert table["rank"].tolist() == [1, 2]
    assert np.isfinite(table["score"]).all()


def test_nothing_is_said_of_those_without_plays():
    plays = np.zeros((3, 4))
    plays[:2, :3] = [[1, 2, 0], [0, 3, 1]]
    model = AlternatingLeastSquares(factors=2, iterations=2, num_threads=1, random_state=0)
    interactions = Interactions(sparse.csr_array(plays), list("abc"), list("wxyz"))
    recommender = Recommender(model).fit(interactions, show_progress=False)
    assert recommender.recommend(["c", "a"])["user"].unique().tolist() == ["a"]
    assert recommender.similar_items(["z", "w"])["item"].unique().tolist() == ["w"]


def test_nobody_asked(recommender):
    table = recommender.recommend([], n=3)
    assert len(table) == 0
    assert table.dtypes.tolist() == recommender.recommend("user 3", n=3).dtypes.tolist()


def test_similar_items_equal_dense_cosine(recommender):
    factors = recommender.model.item_factors.astype(np.float64)
    unit = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    table = recommender.similar_items(["Artist 12", "Artist 0"], n=5)
    assert list(table.columns) == ["item", "similar_item", "score", "rank"]
    assert table["item"].tolist() == ["Artist 12"] * 5 + ["Artist 0"] * 5
    assert table["rank"].tolist() == [1, 2, 3, 4, 5] * 2
    for code, group in zip((12, 0), (table[:5], table[5:]), strict=True):
        cosine = unit @ unit[code]
        np.testing.assert_allclose(group["score"], np.sort(np.delete(cosine, code))[::-1][:5], atol=1e-5)
        found = recommender.interactions.items.get_indexer(group["similar_item"])
        np.testing.assert_allclose(group["score"], cosine[found], atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 4, N_ITEMS - 1, N_ITEMS + 9])
def test_similar_items_leave_out_the_item_among_its_equals(recommender, n):
    equals = [f"Artist {code}" for code in range(5, 10)]
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


def test_categories_are_their_labels():
    recommender = fit(*map(pd.CategoricalIndex, LABELS["str"]))
    found = recommender.recommend(pd.Categorical(["user 4"]), n=2)
    assert found["user"].tolist() == ["user 4"] * 2
    with pytest.raises(UnknownLabelError, match=r"users \(1\): 'user 444' \(did you mean 'user 4'"):
        recommender.recommend(pd.Categorical(["user 444"]))


def test_only_the_first_unknown_are_named(recommender):
    with pytest.raises(UnknownLabelError, match=r"unknown users \(1,000\): 'x0', 'x1', 'x2' and 997 more;"):
        recommender.recommend([f"x{number}" for number in range(1000)])


def test_unknown_labels_can_be_skipped(recommender):
    asked = ["nobody", "user 5", None, 5]
    table = recommender.recommend(asked, on_unknown="skip")
    pd.testing.assert_frame_equal(table, recommender.recommend("user 5"))
    table = recommender.similar_items(["?", "Artist 1"], on_unknown="skip")
    pd.testing.assert_frame_equal(table, recommender.similar_items("Artist 1"))
    assert recommender.recommend("nobody", on_unknown="skip").empty


def test_labels_of_another_type(recommender):
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


def test_not_fitted():
    for ask in (Recommender().recommend, Recommender().similar_items):
        with pytest.raises(NotFittedError, match="call fit first"):
            ask("user 1")


def test_wrong_arguments(recommender):
    with pytest.raises(TypeError, match=r"interactions must be .*Interactions, not csr_array; .*from_pandas"):
        Recommender().fit(sparse.csr_array((2, 2)))
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        recommender.recommend("user 1", n=0)
    with pytest.raises(ValueError, match="n must be at least 1, not -1"):
        recommender.similar_items("Artist 1", n=-1)
    with pytest.raises(TypeError):
        recommender.recommend("user 1", n=2.5)
    with pytest.raises(ValueError, match="on_unknown must be 'raise' or 'skip', not 'ignore'"):
        recommender.recommend("user 1", on_unknown="ignore")


def test_fit_passes_arguments_on():
    seen = []
    users, items = LABELS["int"]
    interactions = Interactions(sparse.csr_array(np.eye(N_USERS, N_ITEMS)), users, items)
    recommender = Recommender(AlternatingLeastSquares(factors=2, iterations=2))
    fitted = recommender.fit(interactions, show_progress=False, callback=lambda *args: seen.append(args))
    assert fitted is recommender
    assert recommender.interactions is interactions
    assert len(seen) == 2


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
