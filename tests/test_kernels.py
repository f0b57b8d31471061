"""The kernel sets: which one is in use, and that all of them train the same model."""

import numpy as np
import pytest

from alscore import AlternatingLeastSquares, _kernels
from alscore.testing import tolerance

SHOW = "from alscore import _kernels; print(_kernels.isa(), *_kernels.available())"


def test_use_switches_to_each_available_set(isa):
    assert _kernels.isa() == isa


def test_every_processor_runs_the_generic_set():
    assert _kernels.available()[-1] == "generic"


def test_unknown_set_is_refused_with_the_choices():
    before = _kernels.isa()
    with pytest.raises(ValueError, match=r"'sse9' is not available here.*generic"):
        _kernels.use("sse9")
    assert _kernels.isa() == before


def test_best_set_is_the_default(run_python):
    used, *available = run_python(SHOW).stdout.split()
    assert used == available[0]


def test_environment_chooses_the_set(run_python):
    assert run_python(SHOW, ALSCORE_ISA="generic").stdout.split()[0] == "generic"


def test_unknown_set_in_the_environment_is_refused(run_python):
    result = run_python(SHOW, ALSCORE_ISA="sse9")
    assert result.returncode != 0
    assert "kernel set 'sse9' is not available" in result.stderr


def test_sets_train_the_same_model(solver, dtype, plays):
    before, scores = _kernels.isa(), {}
    for isa in _kernels.available():
        _kernels.use(isa)
        model = AlternatingLeastSquares(
            factors=17, solver=solver, dtype=dtype, iterations=5, num_threads=1, random_state=0
        ).fit(plays, show_progress=False)
        scores[isa] = model.user_factors.astype(np.float64) @ model.item_factors.T.astype(np.float64)
    _kernels.use(before)
    for isa, other in scores.items():
        difference = np.linalg.norm(other - scores["generic"]) / np.linalg.norm(scores["generic"])
        assert difference <= tolerance("fit", dtype), isa
