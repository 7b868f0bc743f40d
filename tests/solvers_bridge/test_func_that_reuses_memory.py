"""func may write into its argument, return the same buffer each time, or any sequence of real numbers."""

import numpy as np
import pytest
from autograd import grad

from solvers_bridge import record_solves
from tests.helpers import IMPLICIT, STEPWISE, Y0, T, assert_decays, error_of, every_family, solve

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
