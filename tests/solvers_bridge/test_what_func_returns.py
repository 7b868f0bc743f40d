"""func returns something of another shape or kind, or not finite, or a value traced by closure: an error that says so."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.tracer import isbox

from solvers_bridge import SolverError
from tests.helpers import FAMILIES, FIXED, Y0, Calls, decay, every_family, refused, solve

BAD_RETURNS = {
    "shorter": (lambda t, y, p: -y[:1], ValueError, r"shape.*\(2,\).*\(1,\)"),
    "longer": (lambda t, y, p: anp.concatenate([y, y]), ValueError, r"shape.*\(2,\).*\(4,\)"),
    "scalar": (lambda t, y, p: -y[0], ValueError, r"shape.*\(2,\).*\(\)"),
    "column": (lambda t, y, p: -anp.reshape(y, (2, 1)), ValueError, r"shape.*\(2,\).*\(2, 1\)"),
    "complex": (lambda t, y, p: y + 1j, TypeError, "real.*complex"),
    "none": (lambda t, y, p: None, TypeError, r"None.*\(2,\)"),
    "string": (lambda t, y, p: "dy", TypeError, "real"),
    "strings": (lambda t, y, p: ["1", "2"], TypeError, "real"),
    "ragged": (lambda t, y, p: [[1.0], [1.0, 2.0]], ValueError, r"shape \(2,\)"),
    "objects": (lambda t, y, p: np.array([1.0, None]), TypeError, "real"),
    "dict": (lambda t, y, p: {"dy": y}, TypeError, "real"),
    "function": (lambda t, y, p: decay, TypeError, "real"),
}


@pytest.mark.parametrize(
    "method, name, at",
    [*(("adams", name, at) for name in BAD_RETURNS for at in (0, 7)), *((method, "shorter", 7) for method in FAMILIES[1:])],
)
def test_func_returns_something_else(method, name, at):
    then, kind, match = BAD_RETURNS[name]
    with refused(kind, f"func.*{match}", method):
        solve(Calls(at, then), t=np.linspace(0, 1, 9), method=method)


@pytest.mark.parametrize("method", ("adams", "rk4"))
@pytest.mark.parametrize("name", ("shorter", "complex", "none", "ragged"))
def test_func_returns_something_else_in_the_reverse_sweep(method, name):
    then, kind, match = BAD_RETURNS[name]
    with refused(kind, f"func.*{match}", method):
        grad(lambda y0: anp.sum(solve(lambda t, y, p: (then if isbox(y) else decay)(t, y, p), y0, method=method)))(Y0)


@every_family
@pytest.mark.parametrize("value, at", ((np.nan, 0), (np.nan, 1), (np.nan, 8), (np.inf, 8), (-np.inf, 8)))
def test_func_returns_what_is_not_finite(method, value, at):
    func = Calls(at, lambda t, y, params: np.array([0.0, value]))
    with refused(SolverError, rf"func returned {value} in 1 of 2 components.*index 1.*t = ", method) as info:
        solve(func, t=np.linspace(0, 1, 12), method=method)
    error = info.value
    assert error.statistics.nfe == func.count >= at + 1 and error.statistics.method == method
    assert 0 <= error.t_reached <= 1


@every_family
@pytest.mark.parametrize("backwards", (False, True))
def test_nan_from_a_certain_time_on(method, backwards):
    def func(t, y, params):
        return -y if abs(t) < 0.6 else y * np.nan

    with refused(SolverError, "func returned nan", method) as info:
        solve(func, t=np.linspace(0, -1 if backwards else 1, 11), method=method)
    assert 0.3 < abs(info.value.t_reached) <= 0.6 and info.value.statistics.nfe > 1
    assert np.sign(info.value.t_reached) == (-1 if backwards else 1)


@every_family
def test_nan_in_the_reverse_sweep(method):
    with refused(SolverError, "nan", method) as info:
        grad(lambda y0: anp.sum(solve(lambda t, y, p: y * np.nan if isbox(y) else -y, y0, method=method)))(Y0)
    assert info.value.statistics.direction == "backward"


@every_family
def test_a_traced_value_by_closure_is_an_error_or_right(method):
    def loss(rate):
        return solve(lambda t, y, params: -rate * y, y0=rate * Y0, method=method)[-1, 0]

    with refused(TypeError, "func used a value that is being differentiated.*params", method):
        grad(loss)(1.0)


@pytest.mark.parametrize("method", FIXED)
def test_a_traced_value_by_closure_with_the_discrete_adjoint_is_an_error_or_right(method):
    def loss(rate):
        return solve(lambda t, y, params: -rate * y, method=method, options={"step_size": 0.01}, adjoint_method="discrete")[-1, 0]

    try:
        rate_bar = grad(loss)(1.0)
    except TypeError as error:
        assert "params" in str(error)
    else:
        np.testing.assert_allclose(rate_bar, -np.exp(-1), rtol=1e-2)
