"""func may write into its argument, return the same buffer each time, or any sequence of real numbers."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, make_jvp
from autograd.tracer import isbox

from solvers_bridge import record_solves
from tests.helpers import FIXED, IMPLICIT, STEPWISE, Y0, T, assert_decays, error_of, every_family, solve

buffer = np.empty(2)


def writes_item(t, y, params):
    y[0], y[1] = -y[0], -y[1]
    return y


def writes_in_place(t, y, params):
    np.negative(y, out=y)
    return y.copy()


def writes_after_use(t, y, params):
    dy = -y
    y[:] = np.nan
    return dy


def same_buffer(t, y, params):
    np.negative(y, out=buffer)
    return buffer


USUAL = (
    writes_item,
    writes_in_place,
    writes_after_use,
    same_buffer,
    lambda t, y, params: [-y[0], -y[1]],
    lambda t, y, params: (-y).tolist(),
    lambda t, y, params: np.stack([-y, -y])[::-1][0],
    lambda t, y, params: np.ma.masked_array(-y),
)


@pytest.mark.parametrize("func", USUAL, ids=("item", "in_place", "after_use", "buffer", "list", "floats", "strided", "masked"))
@pytest.mark.parametrize("method, steps", (*STEPWISE, ("midpoint", False), ("rk4", False)))
def test_func_may_reuse_memory_and_return_sequences(method, func, steps):
    with record_solves(steps=steps):
        assert_decays(solve(func, method=method), method=method)
    np.testing.assert_array_equal(Y0, [1.0, 2.0])


@pytest.mark.parametrize(
    "method, jacobian",
    [
        (method, jacobian)
        for method in IMPLICIT
        for jacobian in ("diagonal", "finite_difference")
        if (method, jacobian) != ("radau", "diagonal")
    ],
)
@pytest.mark.parametrize("func", (writes_item, writes_after_use, same_buffer))
def test_func_may_reuse_memory_under_finite_differences(method, func, jacobian):
    assert_decays(solve(func, method=method, options={"jacobian": jacobian}))


@every_family
def test_func_returns_its_input(method):
    assert_decays(solve(lambda t, y, params: y, t=-T, method=method), t=T, method=method)
    assert_decays(solve(lambda t, y, params: y, y0=Y0[:, None], t=-T, method=method), Y0[:, None], T, method)


@every_family
def test_func_returns_single_precision_or_integers(method):
    single = solve(lambda t, y, params: np.float32(-y), method=method, rtol=1e-4, atol=1e-4)
    assert single.dtype == np.float64
    np.testing.assert_allclose(single, np.exp(-T)[:, None] * Y0, rtol=3e-3)
    np.testing.assert_allclose(
        solve(lambda t, y, params: np.array([1, -2]), method=method), Y0 + T[:, None] * [1, -2], rtol=1e-7, atol=1e-7
    )
    np.testing.assert_allclose(solve(lambda t, y, params: 3, y0=1.0, method=method), 1 + 3 * T, rtol=1e-7)


@pytest.mark.parametrize("method", ("adams", "rk4"))
def test_gradient_of_func_that_returns_a_list(method):
    def loss(y0):
        return solve(lambda t, y, params: [-y[0], -y[1]], y0, method=method)[-1, 1]

    np.testing.assert_allclose(grad(loss)(Y0), [0, np.exp(-1)], rtol=error_of(method), atol=1e-9)


@pytest.mark.parametrize("func", (writes_item, writes_in_place, writes_after_use, same_buffer))
@pytest.mark.parametrize("method", (*FIXED, "rk4_38"))
def test_func_may_reuse_memory_in_a_traced_fixed_grid(method, func):
    """adjoint_method="discrete", in a plain call: the same states as without it, to rounding, and the first of them y0."""
    means = {"method": method, "options": {"step_size": 0.1}}
    with record_solves(dense=True) as solves:
        states = solve(func, adjoint_method="discrete", **means)
    np.testing.assert_array_equal(states[0], Y0)
    np.testing.assert_allclose(states, solve(**means), rtol=1e-12)
    # The interpolant asks func at the ends of steps, in between.
    np.testing.assert_allclose(solves[0].dense_output(0.5), states[1], rtol=1e-12)


@pytest.mark.parametrize("method", ("midpoint", "rk4"))
def test_gradients_where_func_writes_into_what_nobody_traces(method):
    """With respect to params and t, y comes as a bare array at first."""

    def writes(t, y, k):
        if not isbox(y):
            y *= 0.5
            return -2.0 * k * y
        return -k * y

    def loss(k, t, func):
        means = {"method": method, "options": {"step_size": 0.1}, "adjoint_method": "discrete"}
        return anp.sum(solve(func, t=t, params=k, **means)[1:])

    clean = lambda t, y, k: -k * y
    for argnum in (0, 1):
        bars = grad(loss, argnum)(1.0, T, writes)
        np.testing.assert_allclose(bars, grad(loss, argnum)(1.0, T, clean), rtol=1e-12)


def test_tangents_of_times_where_func_writes():
    """dL/dt in forward mode asks for slopes at states that nobody traces."""

    def writes(t, y, params):
        if isbox(y):
            return -(y**2)
        y *= 0.5
        return -4.0 * y**2

    states, along = make_jvp(lambda t: solve(writes, t=t, method="dopri5"))(T)(np.ones(3))
    np.testing.assert_allclose(states, Y0 / (1 + T[:, None] * Y0), rtol=1e-6)
    # Of a func that does not depend on t, the solution moves with its times.
    np.testing.assert_allclose(along, np.zeros((3, 2)), atol=1e-6)
