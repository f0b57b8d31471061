"""A user's program for mypy only: the calls of the README, and the types of their results. Nothing here runs."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import alscore
from alscore import (
    AlternatingLeastSquares,
    Evaluation,
    Interactions,
    NotFittedError,
    NotPositiveDefiniteError,
    Recommender,
    UnknownLabelError,
    baselines,
    calculate_loss,
    compare,
    datasets,
    evaluate,
    export,
    load,
    metrics,
    splits,
    tuning,
    weighting,
)
from alscore.solvers import Auto, Cholesky, ConjugateGradient, HalfSweep, NonNegative
from alscore.testing import check_solver


def read(path: Path, df: pd.DataFrame) -> Interactions:
    plays = datasets.lastfm_360k(path)
    plays = Interactions.from_pandas(df, user="user", item="artist", value="plays")
    plays = Interactions.from_table("plays.parquet", user="user", item="artist", value="plays")
    plays = Interactions.from_arrays([1, 2], ["a", "b"], [1.0, 2.0])
    plays = datasets.synthetic(20_000, 15_000)
    print(plays.report, plays.shape, plays.n_users, plays.nnz / 2)
    if plays.report is not None:
        assert_type(plays.report.rejected, pd.DataFrame)
    plays = plays.filter(k_core=5)
    assert_type(plays.summary(), pd.DataFrame)
    plays.plot().savefig("degrees.png")
    plays.save("plays.als")
    assert_type(Interactions.load("plays.als"), Interactions)
    return plays[plays.users == "alice"].add(plays)


def train(plays: Interactions, df: pd.DataFrame) -> Recommender:
    model = AlternatingLeastSquares(factors=128, regularization=30, confidence="log", random_state=0, dtype="float64")
    model.set_params(solver=ConjugateGradient(steps=5))
    for solver in ("cg", Cholesky(), Auto(), NonNegative(), Mine()):
        model.set_params(solver=solver)
    recommender = Recommender(model).fit(plays, show_progress=False)
    try:
        assert_type(recommender.recommend(plays.users[:3], n=10), pd.DataFrame)
        recommender.recommend("alice", n=[3], deny=["radiohead"], scores=False)
        recommender.recommend(interactions=df, deny="radiohead")
        recommender.similar_items("radiohead", n=10)
        recommender.similar_users(["alice", "bob"])
        recommender.explain(plays.users[0], "radiohead")
    except (UnknownLabelError, NotFittedError, NotPositiveDefiniteError):
        pass
    recommender.partial_fit(plays).partial_fit(df)
    assert_type(recommender.recommend_all("recommendations.parquet", n=50), int)
    for table in recommender.recommend_iter(batch_size=1000):
        assert_type(table, pd.DataFrame)
    recommender.save("lastfm.als")
    load("lastfm.als").recommend("alice")
    assert_type(Recommender.load("lastfm.als"), Recommender)
    export.to_parquet(recommender, "item", "artists.parquet")
    export.export_ann(recommender, "faiss", "artists.faiss").recall(recommender)
    return recommender


def like_implicit(user_items: Any, userid: int) -> float:
    model = AlternatingLeastSquares(factors=64, confidence="raw").fit(user_items, callback=lambda *_: None)
    assert_type(model, AlternatingLeastSquares)
    ids, scores = model.recommend(userid, user_items[userid], N=10)
    assert_type(ids, NDArray[np.int32])
    print(scores.max(), ids.tolist())
    ids, scores = model.similar_items(np.array([1, 2]), N=10)
    ids, scores = model.similar_users([1, 2])
    score, contributions, weights = model.explain(userid, user_items, 3)
    model.explain(userid, user_items, 4, user_weights=weights)
    model.partial_fit_users([userid], user_items[[userid]]).partial_fit(user_items, show_progress=False)
    print(model.recalculate_user(userid, user_items[userid]) @ model.item_factors[3], score, contributions[0][1])
    model.user_factors = np.zeros((3, 64), np.float32)
    return calculate_loss(user_items, model.user_factors, model.item_factors, regularization=0.1)


def evaluated(plays: Interactions, user_items: Any) -> Evaluation:
    recent = weighting.time_decay(plays, half_life=90 * 86_400)
    weighting.bm25(user_items)
    train, test = splits.time_split(recent, at="2009-01-01")
    train, fold_in, test, *_ = splits.user_split(plays, test=100)
    evaluate(AlternatingLeastSquares().fit(train), fold_in, test, new_users=True)
    matrices = splits.random_split(user_items, 0.2)
    AlternatingLeastSquares().fit(matrices.train, validation=matrices)

    train, test = splits.leave_k_out(plays, 0.2)
    validation = splits.leave_k_out(train, 0.2, random_state=1)
    tuned = tuning.tune(validation, "ndcg@10", n_trials=30, storage="study.db", space={"alpha": [1, 2]})
    assert_type(tuned.table(), pd.DataFrame)
    ours = evaluate(tuned.model().fit(train), train, test, k=(10, 50), metrics=("ndcg", "recall", "coverage"))
    assert_type(ours["ndcg@10"], float)
    popular = evaluate(baselines.MostPopular().fit(train), train, test, k=10)
    evaluate(lambda users: np.zeros((len(users), 10)), train, test)
    assert_type(compare(ours, popular), pd.DataFrame)
    assert_type(metrics.ndcg([[3, 1]], test, 10), NDArray[np.float64])
    ours.plot(ours.table()).savefig("metrics.png")
    return ours


class Mine:
    """A solver in Python."""

    def sweep(self, half_sweep: HalfSweep, out: NDArray[np.floating]) -> None:
        for row, columns, weight, target, diagonal in half_sweep.rows():
            Y = half_sweep.factors[columns].astype(np.float64)
            out[row] = np.linalg.solve(np.diag(diagonal) + Y.T @ (weight[:, None] * Y), Y.T @ target)


check_solver(Mine())
print(alscore.get_include(), alscore.__version__)
