"""The adjoint method's memory does not grow with the evaluations: Table 1's O(1)."""

import numpy as np
import pytest

from experiments.comparison import bench_memory
from experiments.harness.memory import resident_peak


@pytest.mark.slow
def test_peak_memory_of_a_training_step_does_not_depend_on_the_evaluations():
    loose, tight = (bench_memory.peak_memory(tolerance) for tolerance in (1e-2, 1e-6))
    assert bench_memory.total_evaluations(tight) >= 10 * bench_memory.total_evaluations(loose)
    assert tight["peak_mib"] == pytest.approx(loose["peak_mib"], rel=0.05)
    # The step's own part, without the libraries, whose size could hide its growth; one state kept for each evaluation would
    # more than double it.
    assert tight["peak_mib"] - tight["before_mib"] == pytest.approx(loose["peak_mib"] - loose["before_mib"], rel=0.2)


@pytest.mark.slow
def test_memory_is_measured_in_a_process_that_knows_nothing_of_this_one():
    ballast = np.ones(2**27)  # 1 GiB, which ru_maxrss would hand on
    measured = bench_memory.peak_memory(1e-2, batch=2, channels=4)
    assert ballast.nbytes / 2**20 <= resident_peak()
    assert 50 < measured["before_mib"] < measured["peak_mib"]
    assert measured["nfe_forward"] > 2 and measured["nfe_backward"] > 2
