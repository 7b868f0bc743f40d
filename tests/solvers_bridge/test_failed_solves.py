"""Solves that do not reach their end: SolverError says where and why, and the next solve is right."""

import autograd.numpy as anp
import numpy as np
import pytest

from solvers_bridge import SolverError, record_solves
from tests.helpers import FIXED, blow_up, oscillator, refused, solve, with_and_without_steps


@with_and_without_steps
@pytest.mark.parametrize("t", ([0.0, 10.0], [0.0, -10.0], [0.0, 0.001, 10.0]), ids=("forwards", "backwards", "two"))
def test_step_limit(method, steps, t):
    with refused(SolverError, "", method) as info, record_solves(steps=steps):
        solve(oscillator, t=t, method=method, options={"max_num_steps": 20})
    error = info.value
    assert 0 < abs(error.t_reached) < 10 and np.sign(error.t_reached) == np.sign(t[-1])
    assert error.statistics.nfe >= 20 and error.statistics.method == method and error.statistics.direction == "forward"
    assert 0 < error.statistics.steps <= 21 * (len(t) - 1)
    assert str(error.t_reached) in str(error) and method in str(error)


@with_and_without_steps
def test_the_step_limit_is_named_in_the_message(method, steps):
    with refused(SolverError, "max_num_steps", method), record_solves(steps=steps):
        solve(oscillator, t=[0.0, 10.0], method=method, options={"max_num_steps": 20})


@with_and_without_steps
def test_blow_up(method, steps):
    with refused(SolverError, "", method) as info, record_solves(steps=steps):
        solve(blow_up, y0=1.0, t=[0.0, 0.5, 2.0], method=method, options={"max_num_steps": 5000})
    assert 0.5 <= info.value.t_reached <= 1.1 and info.value.statistics.nfe > 10


@pytest.mark.parametrize("method", FIXED)
def test_blow_up_on_a_fixed_grid(method):
    with refused(SolverError, "finite|nan|inf", method), np.errstate(all="ignore"):
        solve(lambda t, y, params: anp.exp(y**2), y0=3.0, t=[0.0, 10.0], method=method, options={"step_size": 0.1})


def test_stiff_problem_under_adams():
    with refused(SolverError, "") as info:
        solve(lambda t, y, params: -1e6 * (y - np.cos(t)), t=[0.0, 10.0], options={"max_num_steps": 500})
    assert info.value.t_reached < 1 and info.value.statistics.nfe > 100
