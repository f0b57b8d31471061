"""The package as a whole: a light import, the public names, and what plug-ins build against."""

import importlib.metadata
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import alscore
from alscore import Interactions, datasets

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import alscore", ["numpy", "scipy", "pandas", "pyarrow", "tqdm"]),
        ("from alscore import AlternatingLeastSquares, calculate_loss", ["pandas", "pyarrow", "tqdm"]),
        ("from alscore.testing import check_solver", ["pandas", "pyarrow", "tqdm", "pytest", "sklearn"]),
    ],
)
def test_import_is_light(run_python, statement, absent):
    result = run_python(f"import sys; {statement}; print(sorted(set({absent}) & set(sys.modules)))")
    assert result.stdout == "[]\n", result.stderr


@pytest.mark.parametrize("name", alscore.__all__)
def test_public_name_resolves(name):
    assert getattr(alscore, name).__doc__
    assert name in dir(alscore)


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'alscore' has no attribute 'ALS'"):
        alscore.ALS  # noqa: B018


def test_version_is_that_of_the_distribution():
    assert alscore.__version__ == importlib.metadata.version("alscore")


def test_builtin_solvers_are_registered():
    entries = importlib.metadata.entry_points(group="alscore.solvers")
    assert {"auto", "cg", "cholesky"} <= entries.names


def test_what_plug_ins_build_against_is_installed():
    include = Path(alscore.get_include())
    assert '#define ALSCORE_SOLVER_CAPSULE "alscore.solver.v1"' in (include / "alscore.h").read_text()
    assert (include.parent / "solver.pxd").is_file()
    assert (include.parent / "py.typed").is_file()


def test_readme_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plays = datasets.synthetic(300, 200, seed=0)
    datasets.write_lastfm_360k(plays, "plays.tsv.gz")
    names = {"AlternatingLeastSquares": alscore.AlternatingLeastSquares, "itemid": 3, "userid": 5}
    names["user_items"] = sparse.csr_matrix(plays.matrix)  # scipy 1.13 has no single rows of a csr_array
    names["df"] = pd.DataFrame({"user": ["new", "new"], "item": plays.items[:2], "value": [3, 1]})
    names["new_plays"] = Interactions.from_arrays(["new"], ["new artist"])
    times = np.linspace(1.22e9, 1.24e9, plays.nnz).astype(np.int64)  # August 2008 to April 2009
    timed = Interactions(plays.matrix, plays.users, plays.items, timestamps=times)
    monkeypatch.setattr(datasets, "fetch", {"lastfm-1k": timed}.__getitem__)
    monkeypatch.setattr(datasets, "lastfm_1k", lambda plays: plays)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    blocks = [block for block in blocks if "alscore.spark" not in block]  # which test_spark.py runs
    assert len(blocks) == 5
    for block in blocks:
        block = block.replace("lastfm-dataset-360K.tar.gz", "plays.tsv.gz").replace("radiohead", plays.items[0])
        block = block.replace("n_trials=30", "n_trials=1")
        exec(compile(block, "README.md", "exec"), names)
    assert names["ids"].shape == (10,)
    assert Path("lastfm.als").is_file()
    assert Path("recommendations.parquet").is_file()
    assert names["search"].best_score_ > 0
    assert names["ours"].mean("ndcg@10") > names["popular"].mean("ndcg@10") > 0
    assert names["fold_in"].n_users == 100
    assert Path("plays.als").is_file()
