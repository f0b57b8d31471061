"""The benchmark on Spark measures what it says. How fast anything is does not matter here."""

import json
import statistics

import numpy as np
import pytest

pytest.importorskip("pyspark")

from pyspark.sql import functions

from alscore import bench, datasets
from alscore.bench import on_spark, presentation
from alscore.cli import main
from alscore.testing import exact_half_sweep, loss


def row(outcome, contender):
    return next(row for row in outcome["results"] if row["contender"] == contender)


def test_both_minimise_the_reported_objective(spark):
    """The last half-sweep (of items, for MLlib of users) is that in dense float64; the objective is that after it."""
    factors = {}
    plays = datasets.synthetic(60, 50, seed=0).matrix
    outcome = bench.spark(
        plays, ["alscore-cholesky", "mllib"], inspect=lambda contender, X, Y: factors.update({contender: (X, Y)}),
        factors=3, iterations=2, repeats=1, blocks=2, regularization=2, users=9,
    )  # fmt: skip
    assert outcome["failed"] == {}
    of_rows = {"regularization": 2, "regularization_exponent": 1, "regularization_count": "entries"}
    dense = plays.toarray()
    assert list(factors) == ["alscore-cholesky", "mllib"]
    for contender, (X, Y) in factors.items():
        last, matrix, fixed = (X, dense, Y) if contender == "mllib" else (Y, dense.T, X)
        np.testing.assert_allclose(last, exact_half_sweep(matrix, fixed, **of_rows), atol=1e-5)
        assert row(outcome, contender)["objective"] == pytest.approx(loss(dense, X, Y, **of_rows))
        (run,) = outcome["runs"][contender]
        seconds = [at["seconds"] for at in run["measured"]]
        assert len(seconds) == 2
        assert row(outcome, contender)["median"] == statistics.median(seconds)
        assert (
            row(outcome, contender)["shuffle_bytes"] > 110 * 3 * 4 / 2
        )  # half of the factors are needed by the other block
        assert row(outcome, contender)["jvm_bytes"] > 1e6
        assert row(outcome, contender)["top_seconds"] == run["top_seconds"] > 0
    assert row(outcome, "alscore-cholesky")["python_bytes"] > 1e7
    n_users, n_items = np.count_nonzero(dense.any(axis=1)), np.count_nonzero(dense.any(axis=0))
    assert outcome["data"] == {"users": n_users, "items": n_items, "entries": plays.nnz}
    needed = sum(2 - 2 * 0.5**n for n in [*np.count_nonzero(dense, axis=0), *np.count_nonzero(dense, axis=1)])
    assert outcome["expected_shuffle_bytes"] == pytest.approx(needed * 3 * 4)


def test_command_on_plays_that_spark_makes(spark, capsys):
    command = ["bench", "spark", "--interactions=20000", "--factors=4", "--iterations=1", "--repeats=1", "--blocks=2"]
    assert main([*command, "--top=0", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["skipped"] == {"mllib": "its ids have 32 bits"}
    assert row(outcome, "alscore-cholesky")["objective"] is None
    assert outcome["data"]["entries"] == pytest.approx(20_000, rel=0.2)
    header, (cells,) = presentation.table(outcome)
    assert dict(zip(header, cells, strict=True))["top-N"] == "-"
    assert any("seconds of an iteration on Apache Spark" in line for line in presentation.above(outcome))


@pytest.mark.parametrize("other", ["--data=plays.tsv", "--scale=1"])
def test_plays_are_made_or_given_not_both(capsys, other):
    assert main(["bench", "spark", "--interactions=20000", other]) == 1
    remedy = f"leave out {other.partition('=')[0]}, or --interactions"
    assert f"--interactions lets Spark make the plays: {remedy}" in capsys.readouterr().err


def test_made_plays(spark):
    """They have Last.fm's proportions and each pair once, and do not depend on the partitions."""
    table = on_spark.made_plays(spark, 100_000).cache()
    assert table.count() == pytest.approx(100_000, rel=0.05)
    assert table.groupBy("user", "item").count().where("count > 1").count() == 0
    n_users, largest_count = (
        table.select("user").distinct().count(),
        table.groupBy("item").count().agg({"count": "max"}).first(),
    )
    assert n_users == 100_000 // 49
    assert largest_count[0] / n_users == pytest.approx(0.2, abs=0.05)
    lowest, median = table.selectExpr("min(plays)", "percentile(plays, 0.5)").first()
    assert lowest >= 1
    assert median == pytest.approx(np.exp(4.54), rel=0.05)
    assert table.where(functions.abs("item") > 2**40).count() > 90_000
    assert table.exceptAll(on_spark.made_plays(spark, 100_000).repartition(7)).count() == 0
    assert on_spark.made_plays(spark, 100_000, seed=1).exceptAll(table).count() > 50_000


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, "needs Java 17 or later, and there is none: install one .*openjdk-17-jre-headless"),
        ('openjdk version "11.0.22" 2024-01-16', "and .*java is Java 11: install one"),
        ('java version "1.8.0_392"', "and .*java is Java 8: install one"),
        ('openjdk version "21" 2023-09-19', ""),
    ],
)
def test_java_is_checked_first(output, message, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if output:
        (tmp_path / "bin").mkdir()
        java = tmp_path / "bin" / "java"
        java.write_text(f"#!/bin/sh\necho '{output}' >&2\n")
        java.chmod(0o755)
    if message:
        with pytest.raises(RuntimeError, match=message):
            on_spark.require_java()
    else:
        on_spark.require_java()


def test_java_on_the_path(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="there is none"):
        on_spark.require_java()


def test_wrong_contender():
    with pytest.raises(ValueError, match=r"no contender is named 'nobody'; there are: alscore-cholesky, .*, mllib"):
        bench.spark(None, ["nobody"])


def test_a_failure_is_reported(spark):
    plays = datasets.synthetic(6, 5, seed=0).matrix
    outcome = bench.spark(plays, ["mllib"], regularization=-1, factors=2, iterations=1, repeats=1, users=2)
    assert "regParam" in outcome["failed"]["mllib"]
    assert outcome["results"] == []
