"""NaN in trial steps, floating-point errors that the caller has turned to exceptions, and the least tolerances."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

from solvers_bridge import SolverError, odeint
from tests.helpers import ADAPTIVE, FAMILIES, FIXED, every_adaptive, some_fast

every_method = pytest.mark.parametrize("method", ADAPTIVE + FIXED)


def decay(t, y, rate):
    return -rate * y


def draining(t, y, params):
    """y' = -sqrt(y), y(0) = 1: y = (1 - t/2)^2, and NaN wherever a step comes to y < 0."""
    with np.errstate(invalid="ignore"):
        return -anp.sqrt(y)


# --- NaN in trial steps is left to the integrator.


@every_adaptive
@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-6])
def test_nan_in_a_trial_step(method, tol):
    end = odeint(draining, [1.0], [0.0, 1.8], method=method, rtol=tol, atol=tol)[-1, 0]
    assert end == pytest.approx(0.01, abs=10 * tol)


@every_adaptive
def test_nan_in_a_trial_step_of_a_reverse_solve(method):
    """dy(T)/dy0 = sqrt(y(T) / y0)."""
    y0_bar = grad(lambda y0: odeint(draining, y0, [0.0, 1.8], method=method, rtol=1e-6, atol=1e-8)[-1, 0])(np.ones(1))
    np.testing.assert_allclose(y0_bar, [0.1], rtol=1e-2)


@every_adaptive
def test_nan_that_no_smaller_step_avoids(method):
    """At t = 1 on every path: said, with the time reached in good order, and what was reached."""

    def func(t, y, params):
        return -y if t <= 1 else np.nan * y

    with pytest.raises(SolverError, match="func returned nan in 1 of 1 components") as info:
        odeint(func, [1.0], [0.0, 0.5, 2.0], method=method)
    assert 0.5 <= info.value.t_reached <= 1 + 1e-6
    np.testing.assert_array_equal(info.value.ts, [0.0, 0.5])
    np.testing.assert_allclose(info.value.ys[:, 0], np.exp([0.0, -0.5]), rtol=1e-5)


# --- numpy.seterr(all="raise") is for the caller's own arithmetic.


@pytest.mark.parametrize("method", some_fast((*ADAPTIVE, *FIXED), *FAMILIES))
@pytest.mark.parametrize("size", some_fast([1e200, 1e-200], 1e200))
@pytest.mark.parametrize("reconstruction", ["auto", "solve", "interpolate"])
def test_seterr_raise(method, size, reconstruction):
    # LSODA's guess of a first step overflows to one of no length, with which it goes on as long as it may.
    options = {"step_size": 0.1} if method in FIXED else {"max_num_steps": 2000}

    def end(rate):
        atol = 1e-8 * min(size, 1.0) if size > 1e-100 else 1e-140
        means = {"method": method, "atol": atol, "options": options, "adjoint_options": {"reconstruction": reconstruction}}
        return odeint(decay, [size], [0.0, 1.0], rate, **means)[-1, 0]

    with np.errstate(all="raise"):
        value, slope = end(0.5), grad(end)(0.5)
    rel = {"euler": 0.1, "midpoint": 1e-2}.get(method, 1e-5)
    if size == 1e200:
        assert value == pytest.approx(size * np.exp(-0.5), rel=rel)
        assert slope == pytest.approx(-size * np.exp(-0.5), rel=rel)
    else:
        assert 0 < value < 1e-190 and -1e-130 < slope <= 0


@every_method
def test_the_callers_own_floating_point_errors_come_through(method):
    def func(t, y, params):
        return np.array([1e308]) * 10.0 * (t + 1)

    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        odeint(func, [1.0], [0.0, 1.0], method=method)
    with np.errstate(all="ignore"), pytest.raises(SolverError, match="func returned inf"):
        odeint(func, [1.0], [0.0, 1.0], method=method)


# --- The least absolute tolerances.


@every_adaptive
@pytest.mark.parametrize("atol", [1e-100, 1e-150])
@pytest.mark.parametrize("reconstruction", ["auto", "interpolate"])
def test_the_least_atol(method, atol, reconstruction):
    """A component at zero stays there; gradients, which begin at zero, come out as with any atol."""

    def end(rate):
        adjoint_options = {"reconstruction": reconstruction}
        return anp.sum(odeint(decay, [1.0, 0.0], [0.0, 1.0], rate, method=method, atol=atol, adjoint_options=adjoint_options)[-1])

    assert end(0.5) == pytest.approx(np.exp(-0.5), rel=1e-6)
    if (method, reconstruction, atol) == ("radau", "interpolate", 1e-150):
        with pytest.raises(SolverError, match="step size"):  # SciPy's Radau finds no first step, and says so
            grad(end)(0.5)
        return
    assert grad(end)(0.5) == pytest.approx(-np.exp(-0.5), rel=1e-6)


@every_adaptive
@pytest.mark.parametrize(
    "atol, match", [(0.0, "atol must be positive.*1e-100 say"), (1e-155, "at least 1e-150"), (1e-300, "at least")]
)
def test_smaller_ones_are_refused(method, atol, match):
    """Squares of them vanish inside the integrators, with LSODA's first step, which then returned its start as a success."""
    for name in ("atol", "adjoint_atol"):
        with pytest.raises(ValueError, match=match):
            odeint(decay, [1.0, 0.0], [0.0, 1.0], 0.5, method=method, **{name: atol})
