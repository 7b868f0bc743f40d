"""The adjoint method's memory does not grow with the evaluations: Table 1's O(1)."""

import pytest

from experiments.comparison import bench


@pytest.mark.slow
def test_peak_memory_of_a_training_step_does_not_depend_on_the_evaluations():
    loose, tight = (bench.peak_memory(tolerance) for tolerance in (1e-2, 1e-6))
    assert bench.total_evaluations(tight) >= 10 * bench.total_evaluations(loose)
    assert tight["peak_mib"] == pytest.approx(loose["peak_mib"], rel=0.05)
    # The step's own part, without the libraries, whose size could hide its growth; one state kept for each evaluation would
    # more than double it.
    assert tight["peak_mib"] - tight["before_mib"] == pytest.approx(loose["peak_mib"] - loose["before_mib"], rel=0.2)
