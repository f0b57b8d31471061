"""The synthetic data set has the promised shape, and the reader reads the file that the writer writes."""

import gzip
import hashlib
import os
import re

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.sparse.linalg import svds

from alscore.datasets import lastfm_360k, synthetic, write_lastfm_360k
from alscore.interactions import Interactions


def genre(label):
    return re.fullmatch(r"\w+ \w+ \((.+) #\d+\)", label)[1]


def test_shape_of_last_fm():
    """Bounds from the facts about the real set, at a tenth of its size."""
    interactions = synthetic(35_887, 29_238)
    matrix = interactions.matrix
    artists = np.diff(matrix.indptr)
    listeners = np.sort(np.bincount(matrix.indices, minlength=interactions.n_items))[::-1]
    assert interactions.shape == (35_887, 29_238)
    assert artists.min() >= 1
    assert 48 < artists.mean() < 50
    assert np.mean((artists >= 40) & (artists <= 55)) > 0.7
    assert 0.15 < listeners[0] / 35_887 < 0.25
    assert 1 <= np.median(listeners) < listeners.mean() / 8
    assert listeners[:790].sum() / matrix.nnz > 0.6
    assert np.all(matrix.data == np.rint(matrix.data))
    assert matrix.data.min() >= 1
    assert matrix.data.max() <= 100_000
    assert 150 < matrix.data.mean(dtype=float) < 250
    assert np.median(matrix.data) < matrix.data.mean(dtype=float) / 1.5
    for labels in (interactions.users, interactions.items):
        assert labels.is_monotonic_increasing
    assert all(re.fullmatch("[0-9a-f]{40}", user) for user in interactions.users)


def test_a_factorisation_finds_the_genres():
    interactions = synthetic(3000, 2000)
    genres = pd.factorize(pd.Series(map(genre, interactions.items)))[0]
    assert genres.max() == 19
    _, strength, factors = svds(interactions.matrix.sign(), k=32, random_state=0)
    factors = factors.T * strength
    factors /= np.linalg.norm(factors, axis=1, keepdims=True)
    similarity = factors @ factors.T
    np.fill_diagonal(similarity, -1)
    nearest = np.argsort(-similarity, axis=1)[:, :10]
    assert np.mean(genres[nearest] == genres[:, None]) > 0.5  # chance would be 0.05


def test_the_number_in_a_label_is_the_rank_in_its_genre():
    interactions = synthetic(3000, 2000)
    listeners = pd.Series(np.bincount(interactions.matrix.indices, minlength=2000), index=interactions.items)
    for _, group in listeners.groupby(genre):
        rank = group.index.str.extract(r"#(\d+)\)$")[0].astype(int).to_numpy()
        assert sorted(rank) == list(range(1, len(rank) + 1))
        assert group.to_numpy()[rank <= 10].min() > group.to_numpy()[rank > 50].max()


def test_seeds():
    first, again, other = synthetic(50, 300, seed=3), synthetic(50, 300, seed=3), synthetic(50, 300, seed=4)
    for name in ("indptr", "indices", "data"):
        assert getattr(first.matrix, name).tobytes() == getattr(again.matrix, name).tobytes()
    assert first.users.equals(again.users)
    assert first.items.equals(again.items)
    assert first.matrix.data.tobytes() != other.matrix.data.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (300, 1), (40, 2), (3, 101)])
def test_small_shapes(shape):
    interactions = synthetic(*shape)
    assert interactions.shape == shape
    assert np.all(np.diff(interactions.matrix.indptr) >= 1)


@pytest.mark.parametrize(("shape", "name"), [((0, 5), "n_users"), ((5, 0), "n_items"), ((5, 2**31), "n_items")])
def test_impossible_shapes_are_refused(shape, name):
    with pytest.raises(ValueError, match=f"{name} must be from 1 to"):
        synthetic(*shape)


@pytest.mark.parametrize("name", ["plays.tsv", "plays.tsv.gz"])
def test_round_trip(tmp_path, name):
    interactions = synthetic(400, 3000)
    write_lastfm_360k(interactions, tmp_path / name)
    again = lastfm_360k(tmp_path / name)
    heard = np.bincount(interactions.matrix.indices, minlength=3000) > 0
    assert list(again.users) == list(interactions.users)
    assert list(again.items) == list(interactions.items[heard])
    np.testing.assert_array_equal(again.matrix.toarray(), interactions.matrix.toarray()[:, heard])
    assert (again.report.merged, len(again.report.rejected)) == (0, 0)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_lines(tmp_path):
    matrix = sparse.csr_array(np.array([[5, 0, 2**24], [0, 0, 0], [7, 9, 0]]))
    user = "AB" * 20
    interactions = Interactions(matrix, [user, "jim", 7], ['"weird al"', "null", "a\rb"])
    write_lastfm_360k(interactions, tmp_path / "plays.tsv")
    lines = [line.split("\t") for line in (tmp_path / "plays.tsv").read_bytes().decode().split("\n")]
    assert lines.pop() == [""]
    assert [(user, name, plays) for user, _, name, plays in lines] == [
        (user, "a\rb", "16777216"),
        (user, '"weird al"', "5"),
        (hashlib.sha1(b"7").hexdigest(), "null", "9"),
        (hashlib.sha1(b"7").hexdigest(), '"weird al"', "7"),
    ]
    assert all(re.fullmatch(r"|[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", mbid) for _, mbid, _, _ in lines)
    assert lines[1][1] == lines[3][1]


def test_some_artists_lack_an_mbid(tmp_path):
    write_lastfm_360k(synthetic(400, 3000), tmp_path / "plays.tsv.gz")
    with gzip.open(tmp_path / "plays.tsv.gz", "rt") as file:
        mbids = {name: mbid for _, mbid, name, _ in (line.split("\t") for line in file)}
    missing = sum(mbid == "" for mbid in mbids.values())
    assert 0.002 < missing / len(mbids) < 0.03
    assert len(set(mbids.values())) == len(mbids) - missing + 1


@pytest.mark.parametrize(
    ("value", "items", "message"),
    [
        (1.5, ["a", "b"], "interactions holds 1.5 at row 1; plays must be whole"),
        (-1, ["a", "b"], "interactions holds -1.0 at row 1"),
        (1e19, ["a", "b"], "at row 1"),
        (1, ["a", "b\tc"], "label 'b\\\\tc' at position 1"),
        (1, ["a\n", "b"], "position 0"),
        (1, ["a", ""], "position 1"),
    ],
)
def test_what_the_format_cannot_express_is_refused(tmp_path, value, items, message):
    path = tmp_path / "plays.tsv"
    path.write_text("before")
    with pytest.raises(ValueError, match=message):
        write_lastfm_360k(Interactions(sparse.csr_array(np.diag([3, value])), items=items), path)
    assert path.read_text() == "before"


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "plays.tsv"
    path.write_text("before")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_lastfm_360k(synthetic(5, 5), path)
    assert [file.name for file in tmp_path.iterdir()] == ["plays.tsv"]
    assert path.read_text() == "before"
