"""The package as a whole: a light import, the public names, and what plug-ins build against."""

import importlib.metadata
import re
from pathlib import Path

import pytest

import alscore
from alscore.solvers import Auto, Cholesky, ConjugateGradient, NonNegative, by_name

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import alscore", ["numpy", "scipy", "pandas", "pyarrow", "tqdm"]),
        ("from alscore import AlternatingLeastSquares, calculate_loss", ["pandas", "pyarrow"]),
        ("from alscore.testing import check_solver", ["pandas", "pyarrow", "tqdm", "pytest", "sklearn"]),
    ],
)
def test_import_is_light(run_python, statement, absent):
    result = run_python(f"import sys; {statement}; print(sorted(set({absent}) & set(sys.modules)))")
    assert result.stdout == "[]\n", result.stderr


@pytest.mark.parametrize("name", alscore.__all__)
def test_every_public_name_has_a_docstring(name):
    assert getattr(alscore, name).__doc__
    assert name in dir(alscore)


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'alscore' has no attribute 'ALS'"):
        alscore.ALS  # noqa: B018


def test_version_is_that_of_the_distribution():
    assert alscore.__version__ == importlib.metadata.version("alscore")


@pytest.mark.parametrize(
    ("name", "solver"),
    [("auto", Auto), ("cholesky", Cholesky), ("cg", ConjugateGradient), ("nonnegative", NonNegative)],
)
def test_builtin_solvers_are_registered(name, solver):
    (entry,) = importlib.metadata.entry_points(group="alscore.solvers", name=name)
    assert entry.load() is solver
    assert by_name(name) is solver


def test_the_files_that_plug_ins_build_against_are_installed():
    include = Path(alscore.get_include())
    assert '#define ALSCORE_SOLVER_CAPSULE "alscore.solver.v1"' in (include / "alscore.h").read_text()
    assert (include.parent / "solver.pxd").is_file()
    assert (include.parent / "py.typed").is_file()


def test_readme_runs_and_keeps_its_promises(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    recommender, train, test = names["recommender"], names["train"], names["test"]

    plays = names["plays"]
    table = recommender.recommend(names["user"], n=5)
    assert list(table) == ["user", "item", "score", "rank"]
    assert list(table["rank"]) == [1, 2, 3, 4, 5]
    assert not table["item"].isin(plays[[0]].to_pandas()["item"]).any()
    assert names["artist"] not in set(recommender.similar_items(names["artist"], n=5)["similar_item"])
    why = recommender.explain(names["user"], names["artist"], n=plays.n_items)
    assert why["contribution"].sum() == pytest.approx(why.attrs["score"])
    new = recommender.recommend(interactions=names["newcomer"], n=5)
    assert set(new["user"]) == {"newcomer"}
    assert not new["item"].isin(names["newcomer"]["item"]).any()

    # The block ends with the recommender that was read from the file. It has the factors of the trained one.
    again = alscore.Recommender(names["model"]).fit(plays, show_progress=False)
    assert again.model.item_factors.tobytes() == recommender.model.item_factors.tobytes()
    ours = alscore.evaluate(names["model"], train, test, k=10)
    popular = alscore.evaluate(alscore.baselines.MostPopular().fit(train), train, test, k=10)
    assert ours["ndcg@10"] > 2 * popular["ndcg@10"] > 0

    # docs/quickstart.md runs the same code and shows the output.
    first_steps = (README.parent / "docs" / "quickstart.md").read_text(encoding="utf-8")
    assert [line for line in block.splitlines() if line not in first_steps] == []
