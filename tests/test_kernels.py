"""The kernel sets: the choice of one, and that all of them train the same model."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from alscore import AlternatingLeastSquares
from alscore._core import kernel_table
from alscore.testing import tolerance

SHOW = "from alscore._core import kernel_table; print(kernel_table.isa(), *kernel_table.available())"


def test_use_switches_to_each_available_set(isa):
    assert kernel_table.isa() == isa


def test_every_processor_runs_the_generic_set():
    assert kernel_table.available()[-1] == "generic"


def test_unknown_set_is_refused_with_the_choices():
    before = kernel_table.isa()
    with pytest.raises(ValueError, match=r"'sse9' is not available here.*generic"):
        kernel_table.use("sse9")
    assert kernel_table.isa() == before


def test_best_set_is_the_default(run_python):
    used, *available = run_python(SHOW).stdout.split()
    assert used == available[0]


def test_environment_chooses_the_set(run_python):
    assert run_python(SHOW, ALSCORE_ISA="generic").stdout.split()[0] == "generic"


def test_unknown_set_in_the_environment_is_refused(run_python):
    result = run_python(SHOW, ALSCORE_ISA="sse9")
    assert result.returncode != 0
    assert "ALSCORE_ISA: kernel set 'sse9' is not available" in result.stderr


def test_sets_train_the_same_model(solver, dtype, plays):
    before, scores = kernel_table.isa(), {}
    for isa in kernel_table.available():
        kernel_table.use(isa)
        model = AlternatingLeastSquares(
            factors=17, solver=solver, dtype=dtype, iterations=5, num_threads=1, random_state=0
        ).fit(plays, show_progress=False)
        scores[isa] = model.user_factors.astype(np.float64) @ model.item_factors.T.astype(np.float64)
    kernel_table.use(before)
    for isa, other in scores.items():
        difference = np.linalg.norm(other - scores["generic"]) / np.linalg.norm(scores["generic"])
        assert difference <= tolerance("fit", dtype), isa


HERE = Path(__file__).parent
COMPILERS = {  # flags, and the emulator that runs the program
    "gcc": (["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"], []),
    "clang": (["-O2"], []),
    "aarch64-linux-gnu-gcc": (["-O3", "-static"], ["qemu-aarch64"]),
}


@pytest.fixture(scope="module", params=COMPILERS)
def compiler(request, tmp_path_factory):
    """A command that compiles and links a program with the kernels, and the emulator that runs it."""
    flags, emulator = COMPILERS[request.param]
    if missing := [tool for tool in (request.param, *emulator) if not shutil.which(tool)]:
        if os.environ.get("ALSCORE_REQUIRE_COMPILERS"):
            pytest.fail(f"ALSCORE_REQUIRE_COMPILERS is set, but there is no {missing[0]}")
        pytest.skip(f"no {missing[0]}")
    source = HERE.parent / "src_c"
    folder = tmp_path_factory.mktemp("kernels")
    command = [request.param, "-std=gnu11", "-fno-math-errno", "-Wall", "-Werror", f"-I{source}", *flags]
    run(*command, "-c", *source.glob("*.c"), folder=folder)
    return [*command, *folder.glob("*.o")], emulator


def run(*command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("precision", [32, 64])
def test_every_kernel_equals_plain_loops(compiler, precision, tmp_path):
    """tests/kernels_check.c, on this processor and on an emulated one."""
    command, emulator = compiler
    run(*command, f"-DPRECISION={precision}", HERE / "kernels_check.c", "-o", "check", "-lm", folder=tmp_path)
    sets = run(*emulator, tmp_path / "check", folder=tmp_path).split()
    assert sets == (["neon", "generic"] if emulator else kernel_table.available())
