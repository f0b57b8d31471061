"""Filters against slow filters, the table against definitions, and the plot against counts."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from alscore import Interactions, statistics

QUICK = settings(max_examples=200, deadline=None)
matrices = hnp.arrays(np.int8, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(-1, 2))
least = st.integers(0, 4)


def labelled(dense):
    """Return Interactions with labels u0, u1, … and i0, i1, …, and the position of each entry as its time."""
    n_users, n_items = np.shape(dense)
    users, items = [f"u{user}" for user in range(n_users)], [f"i{item}" for item in range(n_items)]
    interactions = Interactions(sparse.csr_array(dense), users, items)
    interactions.timestamps = np.arange(interactions.nnz)
    return interactions


def slow_filter(dense, min_user, min_item, repeat):
    """Return a dense array of the entries that are left; 0 elsewhere."""
    left = np.array(dense)
    while True:
        before = np.count_nonzero(left)
        for item in range(left.shape[1]):
            if np.count_nonzero(left[:, item]) < min_item:
                left[:, item] = 0
        for user in range(left.shape[0]):
            if np.count_nonzero(left[user]) < min_user:
                left[user] = 0
        if not repeat or np.count_nonzero(left) == before:
            return left


def assert_filtered(interactions, filtered, left, min_user, min_item):
    """Assert that `filtered` has the entries of `left`, a dense array of the shape of `interactions`."""
    before, counts = interactions.matrix.toarray(), left != 0
    users = counts.any(axis=1) | (min_user == 0)
    items = counts.any(axis=0) | (min_item == 0)
    np.testing.assert_array_equal(filtered.matrix.toarray(), left[users][:, items])
    assert list(filtered.users) == list(interactions.users[users])
    assert list(filtered.items) == list(interactions.items[items])
    assert (filtered.matrix.indptr.dtype, filtered.matrix.indices.dtype) == (np.int64, np.int32)
    assert filtered.matrix.has_canonical_format

    stays = left[before != 0] != 0
    np.testing.assert_array_equal(filtered.timestamps, np.flatnonzero(stays))
    report = filtered.report
    assert (report.read, report.kept, report.merged) == (interactions.nnz, filtered.nnz, 0)
    np.testing.assert_array_equal(report.rejected["number"], np.flatnonzero(~stays))
    assert report.read == report.kept + len(report.rejected)


@given(matrices, least, least)
@QUICK
def test_filter(dense, min_user, min_item):
    interactions = labelled(dense)
    left = slow_filter(dense, min_user, min_item, repeat=False)
    if not left.any():
        with pytest.raises(ValueError, match=r"leaves? no entry|has no entries"):
            statistics.filter(interactions, min_user, min_item)
        return
    filtered = statistics.filter(interactions, min_user, min_item)
    assert_filtered(interactions, filtered, left, min_user, min_item)
    assert (np.diff(filtered.matrix.indptr) >= min_user).all()


@given(matrices, st.integers(1, 4))
@QUICK
def test_k_core(dense, k):
    interactions = labelled(dense)
    left = slow_filter(dense, k, k, repeat=True)
    if not left.any():
        with pytest.raises(ValueError, match=r"leaves? no entry|has no entries"):
            statistics.filter(interactions, k_core=k)
        return
    filtered = statistics.filter(interactions, k_core=k)
    assert_filtered(interactions, filtered, left, k, k)
    assert (np.diff(filtered.matrix.indptr) >= k).all()
    assert (np.bincount(filtered.matrix.indices) >= k).all()


def test_items_of_users_left_out_may_have_fewer():
    interactions = labelled([[1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0]])
    filtered = statistics.filter(interactions, min_user=2, min_item=2)
    assert list(filtered.items) == ["i0", "i1", "i2"]
    assert filtered.matrix.toarray().tolist() == [[1, 1, 0], [0, 1, 1]]


def test_the_report_of_a_filter_names_entries_and_reasons():
    dense = [[1, 2, 3, 0], [4, 0, 0, 5], [6, 7, 0, 0]]
    interactions = labelled(dense)
    filtered = statistics.filter(interactions, min_user=2, min_item=2)
    assert (list(filtered.users), list(filtered.items)) == (["u0", "u2"], ["i0", "i1"])
    assert str(filtered.report) == (
        "7 read, 4 kept, 0 merged, 3 rejected\n"
        "  2 × item with fewer than 2 entries: 2, 4\n"
        "  1 × user with fewer than 2 entries: 3"
    )
    # the given interactions are not modified
    assert interactions.matrix.toarray().tolist() == dense
    assert (list(interactions.users), list(interactions.items)) == (["u0", "u1", "u2"], ["i0", "i1", "i2", "i3"])
    np.testing.assert_array_equal(interactions.timestamps, np.arange(7))
    assert interactions.report is None


def test_k_core_repeats():
    """The entries are a path that ends in a square. Each round removes the end of the path; the square remains."""
    dense = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    filtered = statistics.filter(labelled(dense), k_core=2)
    assert (list(filtered.users), list(filtered.items)) == (["u0", "u1"], ["i0", "i1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_user": -1}, "min_user must be an integer of at least 0, not -1"),
        ({"min_item": 1.5}, "min_item must be an integer of at least 0, not 1.5"),
        ({"min_item": None}, "min_item must be an integer of at least 0, not None"),
        ({"k_core": 0}, "k_core must be an integer of at least 1, not 0"),
        ({"k_core": True}, "k_core must be an integer of at least 1, not True"),
        ({"k_core": 2, "min_user": 5}, "k_core cannot be combined with min_user or min_item; leave"),
    ],
)
def test_filter_refuses_bad_values_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        statistics.filter(labelled(np.eye(2)), **arguments)


def values_of(table, of):
    return dict(table.loc[table["of"] == of, ["statistic", "value"]].itertuples(index=False))


def test_summary():
    table = statistics.summary(labelled([[5, 0, 1, 0], [0, 0, 2, 0], [3, -4, 2, 0], [0, 0, 0, 0]]), top=3)
    assert list(table.columns) == ["of", "statistic", "value"]
    assert table["value"].dtype == np.float64
    assert values_of(table, "users") == {"count": 4, "without entries": 1}
    assert values_of(table, "items") == {"count": 4, "without entries": 1}
    assert values_of(table, "entries") == {"count": 6, "below zero": 1, "density": 6 / 16}
    quantiles = ["min", "25%", "50%", "75%", "90%", "99%", "max"]
    for of, mean, expected in (
        ("entries per user", 1.5, [0, 0, 1, 2, 3, 3, 3]),  # 0, 1, 2, 3
        ("entries per item", 1.5, [0, 0, 1, 2, 3, 3, 3]),  # 0, 1, 2, 3
        ("values", 1.5, [-4, 1, 2, 3, 5, 5, 5]),  # -4, 1, 2, 2, 3, 5
    ):
        assert values_of(table, of) == {"mean": mean, **dict(zip(quantiles, expected, strict=True))}
    # likes 0, 0, 2, 3: ((-3)(0) + (-1)(0) + (1)(2) + (3)(3)) / (4 · 5)
    assert values_of(table, "popularity of items") == {"Gini coefficient": pytest.approx(11 / 20)}
    assert list(values_of(table, "most popular items").items()) == [("i2", 3), ("i0", 2), ("i1", 0)]


@given(matrices)
@QUICK
def test_gini_is_half_the_relative_mean_difference(dense):
    popularity = (dense > 0).sum(axis=0).astype(float)
    gini = values_of(statistics.summary(labelled(dense)), "popularity of items")["Gini coefficient"]
    if popularity.any():
        differences = np.abs(popularity[:, None] - popularity)
        assert gini == pytest.approx(differences.mean() / (2 * popularity.mean()), abs=1e-12)
    else:
        assert math.isnan(gini)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 3)])
def test_summary_without_entries(shape):
    table = statistics.summary(Interactions(sparse.csr_array(shape)))
    assert values_of(table, "entries")["count"] == 0
    assert values_of(table, "items") == {"count": shape[1], "without entries": shape[1]}
    assert math.isnan(values_of(table, "values")["mean"])
    assert math.isnan(values_of(table, "values")["99%"])


def test_summary_refuses_a_top_below_0():
    with pytest.raises(ValueError, match="top must be an integer of at least 0, not -1"):
        statistics.summary(labelled(np.eye(2)), top=-1)


def test_summary_of_real_lastfm_2k(shared_data):
    """The readme of the data set states these counts."""
    plays = pd.read_csv(shared_data / "hetrec2011-lastfm-2k" / "user_artists.dat.gz", sep="\t")
    table = statistics.summary(Interactions.from_pandas(plays, "userID", "artistID", "weight"))
    assert values_of(table, "users")["count"] == 1892
    assert values_of(table, "items")["count"] == 17632
    assert values_of(table, "entries")["count"] == 92834
    assert values_of(table, "values")["max"] == 352698
    listeners = plays.groupby("artistID").size().sort_values(ascending=False, kind="stable")[:10]
    assert list(values_of(table, "most popular items").items()) == list(listeners.items())
    assert values_of(table, "entries per user")["50%"] == plays.groupby("userID").size().median()


def test_plot(plays):
    pytest.importorskip("matplotlib")
    figure = statistics.plot(Interactions(plays))
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    counts = plays.toarray() != 0
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    for line, name, lengths in zip(
        axes.lines, ("users", "items"), (counts.sum(axis=1), counts.sum(axis=0)), strict=True
    ):
        expected = [(length, np.count_nonzero(lengths >= length)) for length in sorted(set(lengths) - {0})]
        assert list(map(tuple, line.get_xydata())) == expected
        assert f"{len(lengths)} {name}, {list(lengths).count(0)} of them without entries" in legend
    png = io.BytesIO()
    figure.savefig(png, format="png")
    assert png.getvalue().startswith(b"\x89PNG")


def test_plot_without_entries_is_refused():
    with pytest.raises(ValueError, match="interactions has no entries"):
        statistics.plot(Interactions(sparse.csr_array((2, 3))))


def test_plot_needs_matplotlib_and_no_display(run_python):
    code = """
        import sys
        {before}
        import numpy as np
        from scipy import sparse
        from alscore import Interactions, statistics
        assert "matplotlib" not in sys.modules or {missing}
        statistics.plot(Interactions(sparse.csr_array(np.eye(2))))
        assert "matplotlib.pyplot" not in sys.modules
    """.replace("\n        ", "\n")
    done = run_python(code.format(before="sys.modules['matplotlib'] = None", missing=True))
    assert "plot needs matplotlib: pip install 'alscore[bench]'" in done.stderr
    pytest.importorskip("matplotlib")
    done = run_python(code.format(before="", missing=False))
    assert done.returncode == 0, done.stderr
