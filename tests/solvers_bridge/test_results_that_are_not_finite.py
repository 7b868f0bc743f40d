"""States and derivatives that overflow: an error that says where, never an array that holds them."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

from solvers_bridge import SolverError, odeint, record_solves
from tests.helpers import refused

HUGE = 1e308


@pytest.mark.parametrize("method", ("euler", "midpoint", "rk4"))
@pytest.mark.parametrize("t", ([0.0, 1.0], [0.0, 0.5, 1.0], [0.0, -1.0]), ids=str)
def test_an_end_state_that_is_not_finite(method, t):
    """Every derivative is finite; the last step leaves the range of float64."""
    slope = np.copysign(HUGE, t[-1])
    with np.errstate(all="ignore"), refused(SolverError, "state that is not finite", method) as info:
        odeint(lambda t, y, params: np.full(2, slope), [HUGE, 0.0], t, method=method)
    error = info.value
    assert error.statistics.method == method and error.statistics.direction == "forward"
    assert error.statistics.steps == len(t) - 1
    assert 0 <= abs(error.t_reached) <= 1


def test_an_end_state_of_the_reverse_sweep_that_is_not_finite():
    def func(t, y, rate):
        return rate * 1e200 * (1.0 + 0.0 * y)

    # dL/drate is 1e200 times a cotangent of 1e200.
    with np.errstate(all="ignore"), refused(SolverError, "not finite|inf", "rk4") as info:
        grad(lambda rate: 1e200 * odeint(func, 1.0, [0.0, 1.0], rate, method="rk4")[-1])(1e-200)
    assert info.value.statistics.direction == "backward"


@pytest.mark.parametrize("method", ("adams", "lsoda", "dopri5", "rk4"))
def test_states_whose_squares_overflow_are_fine(method):
    options = {"step_size": 0.05} if method == "rk4" else {}
    y0 = np.array([1e200, -1e200])
    ys = odeint(lambda t, y, params: -y, y0, [0.0, 1.0], method=method, rtol=1e-6, options=options)
    np.testing.assert_allclose(ys[-1], np.exp(-1) * y0, rtol=1e-4)


@pytest.mark.parametrize("method", ("euler", "midpoint", "rk4"))
@pytest.mark.parametrize("value", (np.nan, np.inf))
def test_the_discrete_adjoint_stops_at_what_is_not_finite(method, value):
    def func(t, y, params):
        return -y * anp.where(t > 0.55, value, 1.0)

    def solve(y0):
        return odeint(func, y0, [0.0, 0.3, 1.0], method=method, options={"step_size": 0.1}, adjoint_method="discrete")

    for call in (solve, grad(lambda y0: anp.sum(solve(y0)))):
        with refused(SolverError, "func returned.*not finite", method) as info, record_solves() as solves:
            call(np.ones(2))
        error = info.value
        assert 0.5 <= error.t_reached <= 0.7
        assert error.statistics is solves[0] and (solves[0].method, solves[0].direction) == (method, "forward")
        assert solves[0].nfe > solves[0].steps - 1 >= 4


@pytest.mark.parametrize("method", ("adams", "bdf", "lsoda", "dopri5"))
def test_a_wall_of_nan_ends_a_solve_long_before_its_step_limit(method):
    with np.errstate(all="ignore"), refused(SolverError, "func returned nan", method) as info, record_solves() as solves:
        odeint(lambda t, y, params: -y * (np.nan if t > 0.3 else 1.0), [1.0, 2.0], [0.0, 1.0], method=method)
    assert 0.2 < info.value.t_reached <= 0.3 and solves[0].nfe < 10_000
