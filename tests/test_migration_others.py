"""Moving over from Spark MLlib, cmfrec and LensKit: what the guides say of their objectives, and the guides' code.

What needs cmfrec or LensKit is tested where they are installed, and does not exist elsewhere:
    pip install . cmfrec==3.5.1.post14 pytest && pytest tests/test_migration_others.py    # or lenskit==2025.8.1
"""

import importlib.util
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, calculate_loss
from alscore.testing import exact_half_sweep, loss, row_errors, row_losses, tolerance

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXACT = tolerance("half-sweep", np.float64)


@pytest.fixture(scope="module")
def counts():
    """Dense, 300 × 120, with an entry in every row and column, ones among them."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.15, (300, 120)) * rng.integers(1, 20, (300, 120))
    counts[np.arange(300), rng.integers(0, 120, 300)] += 1
    counts[rng.integers(0, 300, 120), np.arange(120)] += 1
    return counts.astype(np.float64)


def ratings_of(counts, user, item, value):
    users, items = counts.nonzero()
    return pd.DataFrame({user: users, item: items, value: counts[users, items]})


def blocks(name):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("page", "columns"),
    [
        ("migrating-from-spark.md", ("user", "artist", "plays")),
        ("migrating-from-cmfrec.md", ("UserId", "ItemId", "Value")),
        ("migrating-from-lenskit.md", ("user_id", "item_id", "rating")),
    ],
)
def test_new_code_of_the_guide_runs(page, columns, counts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ratings = ratings_of(counts, *columns)
    ratings[columns[0]] = ratings[columns[0]].map("user {}".format).replace("user 0", "ann")
    ratings.to_parquet("plays.parquet")
    names = {"ratings": ratings}
    exec(next(block for block in blocks(page) if block.startswith("from alscore")), names)
    model = names["model"]
    assert model.get_params()["confidence"] == "linear"
    found = names["recommender"].recommend("ann", n=3)
    assert not set(found["item"]) & set(np.flatnonzero(counts[0]))


def test_two_regularizations_are_one_in_another_scale(counts):
    rng, (a, b) = np.random.default_rng(0), (1.0, 9.0)
    X, Y = rng.standard_normal((300, 8)), rng.standard_normal((120, 8))
    wanted = row_losses(counts, X, Y, regularization=a).sum() + b * (Y**2).sum()
    scale = (a / b) ** 0.25
    assert loss(counts, X * scale, Y / scale, regularization=math.sqrt(a * b)) == pytest.approx(wanted, rel=1e-12)


def test_entries_count_as_in_mllib(counts):
    """Its normal equation, as computeFactors of ALS.scala adds it up."""
    rng, alpha, regularization = np.random.default_rng(0), 0.5, 0.1
    Y = rng.standard_normal((120, 8))
    wanted = []
    for ratings in counts:
        ata, atb, n = Y.T @ Y, np.zeros(8), 0
        for item in np.flatnonzero(ratings):
            c1 = alpha * abs(ratings[item])
            ata += c1 * np.outer(Y[item], Y[item])
            atb += (1 + c1) * Y[item]
            n += 1
        wanted.append(np.linalg.solve(ata + n * regularization * np.eye(8), atb))
    model = AlternatingLeastSquares(
        8, regularization, alpha, regularization_exponent=1, regularization_count="entries", dtype=np.float64
    )
    model.user_factors, model.item_factors = np.zeros((300, 8)), Y
    found = model.recalculate_user(np.arange(300), sparse.csr_array(counts))
    assert row_errors(found, np.array(wanted)).max() < EXACT


if importlib.util.find_spec("cmfrec") is not None:
    from cmfrec import CMF_implicit

    def cmfrec_fit(data, **parameters):
        defaults = {"k": 8, "lambda_": 3.0, "alpha": 0.5, "niter": 50, "use_cg": False, "use_float": False}
        return CMF_implicit(**{**defaults, "verbose": False, "nthreads": 1, **parameters}).fit(data)

    def is_exact(model, counts, scale=1.0, **parameters):
        """Whether its users are what the dense oracle solves on its items."""
        wanted = exact_half_sweep(counts, model.B_ / scale, **{"regularization": 3.0, "alpha": 0.5, **parameters})
        return row_errors(model.A_ * scale, wanted).max() < EXACT

    def test_cmfrec_minimises_the_same(counts):
        assert is_exact(cmfrec_fit(sparse.coo_matrix(counts)), counts)

    def test_cmfrecs_two_regularizations_are_one(counts):
        model = cmfrec_fit(sparse.coo_matrix(counts), lambda_=np.array([0, 0, 1.0, 9.0, 0, 0]))
        assert is_exact(model, counts, scale=(1 / 9) ** 0.25)

    def test_cmfrecs_weight_divides_the_regularization(counts):
        assert is_exact(cmfrec_fit(sparse.coo_matrix(counts), w_main=2.0), counts, regularization=1.5)

    def test_cmfrecs_logarithm_is_taken_before(counts):
        logs = np.where(counts > 0, np.maximum(np.log(np.maximum(counts, 1)), 1e-12), 0)
        assert is_exact(cmfrec_fit(sparse.coo_matrix(counts), apply_log_transf=True), logs)

    def test_cmfrecs_conjugate_gradient_minimises_something_else(counts):
        def objective(**parameters):
            model = cmfrec_fit(sparse.coo_matrix(counts), niter=200, **parameters)
            return calculate_loss(sparse.csr_array(counts), model.A_, model.B_, 3.0, 0.5)

        exact = objective()
        for steps in (3, 100):
            assert objective(use_cg=True, max_cg_steps=steps) > 1.05 * exact

    def test_guide_carries_cmfrecs_model_across(counts):
        ratings = ratings_of(counts, "UserId", "ItemId", "Value").sample(frac=1, random_state=0)
        ratings[["UserId", "ItemId"]] = ratings[["UserId", "ItemId"]].map("label {}".format)
        names = {"ratings": ratings, "theirs": cmfrec_fit(ratings)}
        for block in blocks("migrating-from-cmfrec.md"):
            if "cmfrec import" not in block:
                exec(block.replace('"ann"', '"label 0"'), names)
        user, found = "label 5", names["recommender"].recommend("label 5", n=5)
        seen = ratings.loc[ratings["UserId"] == user, "ItemId"]
        wanted = names["theirs"].topN(user, n=5, exclude=seen.to_numpy())
        assert found["item"].tolist() == wanted.tolist()


if importlib.util.find_spec("lenskit") is not None:
    from lenskit.als import ImplicitMFScorer
    from lenskit.data import from_interactions_df
    from lenskit.training import TrainingOptions

    def lenskit_fit(counts, **parameters):
        ratings = ratings_of(counts, "user_id", "item_id", "rating")
        scorer = ImplicitMFScorer(**{"embedding_size": 8, "epochs": 10, "regularization": 3.0, **parameters})
        scorer.train(from_interactions_df(ratings), TrainingOptions(rng=1))
        return scorer, ratings

    def lenskit_error(counts, scorer, scale=1.0, **parameters):
        """How far its items, in float32, are from what the dense oracle solves on its users."""
        wanted = exact_half_sweep(counts.T, scorer.user_embeddings * scale, regularization=3.0, **parameters)
        return row_errors(scorer.item_embeddings / scale, wanted).max()

    SINGLE = tolerance("half-sweep, strong", np.float32)

    def test_lenskit_minimises_the_same(counts):
        scorer, _ = lenskit_fit(counts, use_ratings=True, weight=0.5)
        assert lenskit_error(counts, scorer, alpha=0.5) < SINGLE

    def test_lenskit_leaves_ratings_out_by_default(counts):
        scorer, _ = lenskit_fit(counts)
        assert lenskit_error(np.sign(counts), scorer, alpha=40.0) < SINGLE

    def test_lenskits_two_regularizations_are_one(counts):
        scorer, _ = lenskit_fit(counts, use_ratings=True, weight=0.5, regularization={"user": 1.0, "item": 9.0})
        assert lenskit_error(counts, scorer, scale=(1 / 9) ** 0.25, alpha=0.5) < SINGLE

    def test_guide_carries_lenskits_model_across(counts):
        scorer, ratings = lenskit_fit(counts, use_ratings=True, weight=40)
        names = {"ratings": ratings, "scorer": scorer}
        for block in blocks("migrating-from-lenskit.md"):
            if "lenskit" not in block:
                exec(block, names)
        found = names["recommender"].recommend(5, n=5, filter_already_liked_items=False)
        scores = scorer.item_embeddings @ scorer.user_embeddings[5]
        np.testing.assert_allclose(found["score"], np.sort(scores)[::-1][:5], rtol=1e-5)
