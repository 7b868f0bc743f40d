"""first_step, max_step and max_num_steps where they are harmless, in either direction of time."""

import numpy as np
import pytest

from solvers_bridge import record_solves
from tests.helpers import assert_decays, every_adaptive_family, solve, with_and_without_steps


@every_adaptive_family
def test_a_limit_that_suffices(method):
    assert_decays(solve(method=method, options={"max_num_steps": 300}), method=method)


@with_and_without_steps
@pytest.mark.parametrize("t", ([1.0, 0.5, 0.0], [0.0, -3.0], [0.0, 2.0]))
@pytest.mark.parametrize("first_step", (1e-3, 100.0))
def test_first_step_is_a_size_in_either_direction(method, steps, t, first_step):
    with record_solves(steps=steps):
        assert_decays(solve(t=t, method=method, options={"first_step": first_step}), t=t, method=method)


@every_adaptive_family
@pytest.mark.parametrize("t", ([1.0, 0.0], [0.0, 1.0]))
def test_max_step_is_kept_in_either_direction(method, t):
    with record_solves(steps=True) as solves:
        assert_decays(solve(t=t, method=method, options={"max_step": 0.02}), t=t, method=method)
    assert max(np.abs(solves[0].step_sizes)) <= 0.02 * (1 + 1e-9) and solves[0].steps >= 50
