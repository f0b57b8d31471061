"""The script behind docs/quality.md: how it reads data, how it chooses models, and its figures."""

import functools
import gzip
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, splits
from alscore.baselines import MostPopular
from alscore.bench import quality
from alscore.testing import exact_half_sweep


@pytest.fixture
def part(plays):
    train, test = splits.leave_k_out(plays, k=0.3)
    return quality.Part(train, train, test)


def figures(scores, train, test, k=20):
    """Return the means of recall and NDCG, computed user by user."""
    recalls, ndcgs = [], []
    for score, seen, held_out in zip(scores, train.toarray() > 0, test.toarray() > 0, strict=True):
        if held_out.any():
            order = [item for item in np.argsort(-score, kind="stable") if not seen[item]][:k]
            hits = held_out[order]
            gains = 1 / np.log2(np.arange(2, k + 2))
            recalls.append(hits.sum() / held_out.sum())
            ndcgs.append(hits @ gains[: len(hits)] / gains[: min(k, held_out.sum())].sum())
    return np.mean(recalls), np.mean(ndcgs)


class Scores:
    """A model with given scores (n_users, n_items), which training does not change."""

    def __init__(self, scores):
        self.user_factors, self.item_factors = scores, np.eye(scores.shape[1], dtype=scores.dtype)

    def fit(self, user_items, show_progress):
        self.fitted = user_items

    def __repr__(self):
        return "Scores()"


def test_figures_are_those_of_each_user(plays, part):
    scores = np.random.default_rng(0).random(plays.shape)
    recall, ndcg, seconds = quality.evaluated(Scores(scores), part, lambda plays: plays)
    np.testing.assert_allclose((recall, ndcg), figures(scores, part.fold_in, part.test), rtol=1e-12)
    assert seconds >= 0


def test_a_test_entry_that_is_also_folded_in_does_not_count(part):
    more = part._replace(test=part.test + part.fold_in)
    popular = MostPopular()
    assert quality.evaluated(popular, more, abs)[:2] == quality.evaluated(popular, part, abs)[:2]


def test_the_model_is_chosen_on_the_validation_part_and_evaluated_on_the_other_parts(plays, part):
    rng = np.random.default_rng(0)
    train, valid = splits.leave_k_out(part.train, k=0.3)
    validation = quality.Part(train, train, valid)
    good_there, good_here = Scores(valid.toarray() + rng.random(plays.shape)), Scores(part.test.toarray())
    methods = [quality.Method("any", [good_here, good_there], lambda plays: plays * 2)]
    (row,) = quality.measure(methods, validation, [part, part])
    expected = figures(good_there.user_factors, part.fold_in, part.test)
    np.testing.assert_allclose((row.recall, row.ndcg), expected, rtol=1e-12)
    assert (row.method, row.parameters) == ("any", "`Scores()`")
    np.testing.assert_array_equal(good_there.fitted.toarray(), 2 * part.train.toarray())


def test_means_are_of_all_parts(plays, part):
    parts = [part, part._replace(test=sparse.csr_array(part.test.toarray() * (np.arange(120) % 2)))]
    scores = np.random.default_rng(0).random(plays.shape)
    (row,) = quality.measure([quality.Method("", [Scores(scores)], abs)], part, parts)
    expected = np.mean([figures(scores, part.fold_in, part.test) for part in parts], axis=0)
    np.testing.assert_allclose((row.recall, row.ndcg), expected, rtol=1e-12)


def test_damped_weights(plays):
    X = plays.toarray() > 0
    users, items = np.maximum(X.sum(axis=1, keepdims=True), 1), np.maximum(X.sum(axis=0), 1)
    weights = np.where(X, users**-0.4 / items**0.2, 0)
    expected = weights / weights[X].mean()
    np.testing.assert_allclose(quality.damped(plays, 0.4, 0.2).toarray(), expected, rtol=1e-6)


def test_irspack_gets_our_objective_and_initial_factors(part):
    model = AlternatingLeastSquares(
        6, regularization=0.3, alpha=0.5, iterations=3, confidence="raw", unobserved_weight=0.2,
        regularization_exponent=0.7, random_state=0, num_threads=1,
    )  # fmt: skip
    weigh = functools.partial(quality.damped, by_user=0.3, by_item=0.1)

    def train(python, folder, settings, n_sweeps):
        """Minimise in float64 what irspack minimises, by its documentation."""
        assert python == "python"
        plays, Y = sparse.load_npz(Path(folder, "plays.npz")).toarray(), np.load(Path(folder, "start.npy"))
        alpha0 = settings["unobserved_weight"]
        confidence = np.where(plays == 0, 0, alpha0 + plays)
        solve = functools.partial(
            exact_half_sweep, confidence="raw", alpha=1.0, unobserved_weight=alpha0,
            regularization=settings["regularization"], regularization_exponent=settings["regularization_exponent"],
        )  # fmt: skip
        for _ in range(n_sweeps):
            X = solve(confidence, Y)
            Y = solve(confidence.T, X)
        for side, factors in (("X", X), ("Y", Y)):
            np.save(Path(folder, f"irspack-cholesky.{side}.npy"), factors)
        return {"version": "0.5", "measured": [{"seconds": 2.0}] * n_sweeps}

    before = part.train.copy()
    quality.irspack("python", model, part, lambda plays: plays, train)
    np.testing.assert_array_equal(part.train.data, before.data)
    row = quality.irspack("python", model, part, weigh, train)
    expected = quality.evaluated(model, part, weigh)
    np.testing.assert_allclose(
        (row.recall, row.ndcg), expected[:2], atol=1e-3
    )  # float32 may change the order of near ties
    assert row.seconds == 6


def test_irspack_must_be_installed(tmp_path, part):
    without = tmp_path / "python"
    without.write_text("#!/bin/sh\nexit 1\n")
    without.chmod(0o755)
    with pytest.raises(ValueError, match="no contender is left"):
        quality.irspack(str(without), AlternatingLeastSquares(4), part, lambda plays: plays)


@pytest.fixture
def folder(tmp_path):
    """Small data sets in the formats of the real ones."""
    rng = np.random.default_rng(0)
    for name in ("movielens-1m-m1", "hetrec2011-lastfm-2k", *(f"epinions-5fold/{fold}" for fold in range(5))):
        (tmp_path / name).mkdir(parents=True)

    def write(name, text):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))

    parts = rng.choice(4, (40, 30), p=[0.5, 0.3, 0.1, 0.1])
    for code, name in enumerate(("train", "valid", "test"), 1):
        lists = (f"{user} {' '.join(map(str, np.flatnonzero(row == code)))}\n" for user, row in enumerate(parts))
        write(f"movielens-1m-m1/{name}.txt.gz", "".join(lists))

    pairs = [f"{100 + user}\t{10 + item}\t1\t11\n" for user, item in np.argwhere(parts > 0)]
    write("epinions-5fold/dataset.tsv.gz", "".join(pairs + pairs[:3]))
    for fold in range(5):
        write(f"epinions-5fold/{fold}/train.tsv.gz", "".join(pairs[fold % 2 :: 2] + pairs[fold % 2 : 9 : 2]))
        write(f"epinions-5fold/{fold}/test.tsv.gz", "".join(pairs[1 - fold % 2 :: 2] + pairs[:1]))

    plays = (f"{1 + user}\t{1 + item}\t{1 + user * item}\r\n" for user, item in np.argwhere(parts > 0))
    write("hetrec2011-lastfm-2k/user_artists.dat.gz", "userID\tartistID\tweight\r\n" + "".join(plays))
    return tmp_path


def test_movielens_parts(folder):
    validation, test = quality.movielens_1m(folder / "movielens-1m-m1")
    assert validation.train is test.train is test.fold_in
    total = (validation.train + validation.test + test.test).toarray()
    assert total.shape == (40, 30)
    assert total.max() == 1
    first = gzip.decompress((folder / "movielens-1m-m1/test.txt.gz").read_bytes()).split(b"\n")[0].split()
    np.testing.assert_array_equal(np.flatnonzero(test.test[[0]].toarray()), [int(item) for item in first[1:]])


def test_epinions_folds_share_codes_and_count_repeats_once(folder):
    validation, folds = quality.epinions(folder / "epinions-5fold")
    assert len(folds) == 5
    assert {part.shape for fold in folds for part in fold[:3]} == {folds[0].train.shape}
    for fold in folds:
        assert set(fold.train.data) == set(fold.test.data) == {1}
    assert (folds[0].train + folds[1].train).max() == 1  # one has the even lines, the other the odd ones
    assert (folds[0].train + folds[1].train).nnz == (folds[0].train + folds[0].test).nnz
    np.testing.assert_array_equal((validation.train + validation.test).toarray(), folds[0].train.toarray())


def test_hetrec_users_to_test_on_are_not_trained_on(folder):
    validation, test = quality.hetrec(folder / "hetrec2011-lastfm-2k")
    assert test.new_users
    assert validation.new_users
    assert test.train.shape[0] + test.fold_in.shape[0] == 40
    assert validation.train.shape[0] + validation.fold_in.shape[0] == test.train.shape[0]
    assert not test.fold_in.multiply(test.test).nnz


def test_tables(folder, capsys):
    small = AlternatingLeastSquares(3, iterations=2, random_state=0)
    quality.main(["--data", str(folder)], quality.Models(small, small, small))
    tables = capsys.readouterr().out.split("### ")[1:]
    assert [table.partition("\n")[0] for table in tables] == ["MovieLens 1M", "Epinions", "Last.fm 2K"]
    for table in tables:
        rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
        methods = [row[0].removeprefix("| ") for row in rows]
        assert methods[:4] == ["most popular", "item-kNN", "item-kNN, BM25 of log(1 + value)", "EASE^R"]
        assert all(0 < float(row[2]) <= 1 and 0 < float(row[3]) <= 1 for row in rows)


def test_most_popular_on_real_movielens(shared_data):
    _, test = quality.movielens_1m(shared_data / "movielens-1m-m1")
    recall, ndcg, _ = quality.evaluated(MostPopular(), test, lambda plays: plays)
    assert (round(recall, 6), round(ndcg, 6)) == (0.116084, 0.117600)


def test_solvers_and_threads_agree_on_real_movielens(shared_data):
    _, test = quality.movielens_1m(shared_data / "movielens-1m-m1")
    model = AlternatingLeastSquares(8, alpha=0.1, iterations=10, unobserved_weight=0.05, random_state=0)
    ways = {"solver": "cholesky", "num_threads": 1}, {"solver": "cholesky", "num_threads": 2}, {"solver": "cg"}
    exact, threaded, cg = (quality.evaluated(model.set_params(**way), test, lambda plays: plays)[:2] for way in ways)
    assert exact == threaded
    np.testing.assert_allclose(cg, exact, atol=5e-4)  # readers of the tables compare three digits
    assert exact[0] > 0.15  # the most popular items have 0.12: a lower figure would say nothing


def test_items_of_real_hetrec_have_several_listeners(shared_data):
    _, test = quality.hetrec(shared_data / "hetrec2011-lastfm-2k")
    users = sparse.vstack([test.train, test.fold_in + test.test])
    assert users.astype(bool).sum(axis=0).min() == 2
