"""Every public name of version 0.1.0 has its old import path. Names and modules that moved give a warning."""

import importlib
import pickle
import sys

import numpy as np
import pytest

import alscore
from alscore.retrieval.factors import Factors
from alscore.tuning import ranking_scorer

NAMES = {
    "alscore": """AlternatingLeastSquares Evaluation FormatError Interactions NotFittedError NotPositiveDefiniteError
        Recommender UnknownLabelError baselines calculate_loss compare datasets evaluate export get_include load metrics
        solvers splits statistics testing tuning weighting""",
    "alscore.als": "AlternatingLeastSquares NotFittedError",
    "alscore.baselines": "EASE ItemKNN MostPopular",
    "alscore.cli": "main",
    "alscore.datasets": """fetch hetrec_lastfm_2k hetrec_lastfm_2k_table lastfm_1k lastfm_1k_events lastfm_1k_profiles
        lastfm_360k lastfm_360k_profiles movielens synthetic write_lastfm_360k""",
    "alscore.export": "AnnIndex export_ann to_arrow to_npz to_parquet",
    "alscore.interactions": "Interactions Report canonical_csr",
    "alscore.metrics": """AUC_at_k auc coverage diversity gini hit_rate map mean_average_precision_at_k mpr mrr ndcg
        ndcg_at_k ndcg_graded normalized_precision novelty precision precision_at_k ranking_metrics_at_k recall""",
    "alscore.persistence": "FormatError load save",
    "alscore.recommender": "Recommender UnknownLabelError",
    "alscore.retrieval": "Candidates top_n",
    "alscore.solvers": """Auto Cholesky CompiledSolver ConjugateGradient HalfSweep NonNegative NotPositiveDefiniteError
        by_name described is_nonnegative keeps_basis registered resolve starts_warm""",
    "alscore.spark": "ALS ALSModel initial_factors",
    "alscore.splits": """Split UserSplit hide_share leave_k_out leave_last_k_out random_split time_split user_split""",
    "alscore.statistics": "filter plot summary",
    "alscore.testing": """TOLERANCES check_solver dense_problem exact_half_sweep exact_top_n loss random_problem
        row_errors row_losses run_half_sweep tolerance""",
    "alscore.tuning": "SPACE Tuned Validator parsed ranking_scorer tune validator",
    "alscore.weighting": "bm25 clip log normalize tfidf time_decay",
    "alscore.kernels": "__pyx_capi__",
}
MOVED_MODULES = {
    "alscore.bench.report": "plot table",
    "alscore.bench.training": "converge sweep",
    "alscore.canonical": "canonical_csr",
    "alscore.evaluation": "Evaluation METRICS compare evaluate",
    "alscore.explain": "UserWeights",
    "alscore.factor_model": "FactorModel Factors NotFittedError",
    "alscore.fold_in": "FoldIn",
    "alscore.half_sweeps": "Side principal_axes zero_factors",
    "alscore.objective": "Objective calculate_loss penalty",
    "alscore.rankings": "Batch overlap ranked_ids relevant",
    "alscore.spark.training": "Settings train",
}
RENAMED = {
    "alscore.testing": {"half_sweep": "exact_half_sweep", "top_n": "exact_top_n"},
    "alscore.retrieval": {"codes": "checked_ids"},
}


def pairs(names):
    return [(module, name) for module, listed in names.items() for name in listed.split()]


@pytest.mark.parametrize(("module", "name"), pairs(NAMES))
def test_a_public_name_has_its_old_import_path(module, name):
    if module.startswith("alscore.spark"):
        pytest.importorskip("pyspark")
    assert hasattr(importlib.import_module(module), name)


def test_the_package_has_these_names_only():
    assert sorted(alscore.__all__) == sorted(NAMES["alscore"].split())


@pytest.mark.parametrize("module", MOVED_MODULES)
def test_a_module_that_moved_warns_and_has_its_old_names(module, monkeypatch):
    if module.startswith("alscore.spark"):
        pytest.importorskip("pyspark")
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.warns(DeprecationWarning, match=rf"{module} is now alscore\.\w+"):
        old = importlib.import_module(module)
    for name in MOVED_MODULES[module].split():
        value = vars(old)[name]
        assert len(value) > 0 if isinstance(value, tuple) else value.__doc__
        homes = [importlib.import_module(home) for home in alscore._support.moved.NEW_MODULES[module]]
        assert any(getattr(home, name, None) is value for home in homes)


def test_a_pickle_of_factors_of_version_0_1_0_opens(monkeypatch):
    monkeypatch.delitem(sys.modules, "alscore.factor_model", raising=False)
    pickled = b"calscore.factor_model\nFactors\n"  # the opcode GLOBAL, by which such a pickle names the class
    arguments = pickle.dumps((np.ones((3, 2), np.float32), "item_factors"), protocol=0)[:-1]
    with pytest.warns(DeprecationWarning, match="factor_model is now"):
        factors = pickle.loads(pickled + arguments + b"R.")
    assert type(factors) is Factors
    assert factors.name == "item_factors"
    np.testing.assert_array_equal(factors.array, np.ones((3, 2), np.float32), strict=True)


def test_a_pickle_of_a_scorer_of_version_0_1_0_opens():
    assert pickle.loads(b"calscore.tuning\n_score\n.") is ranking_scorer().func


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in RENAMED.items() for name in names])
def test_a_name_that_changed_warns(module, name):
    new = RENAMED[module][name]
    with pytest.warns(DeprecationWarning, match=rf"{name} is now {new}"):
        assert getattr(importlib.import_module(module), name) is getattr(importlib.import_module(module), new)


@pytest.mark.parametrize("module", RENAMED)
def test_a_name_that_never_existed_is_not_an_attribute(module):
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(importlib.import_module(module), "nothing")  # noqa: B009
