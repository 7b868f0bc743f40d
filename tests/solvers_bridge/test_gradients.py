"""Gradients with respect to y0, t and params against closed forms and central differences; then derivatives of gradients."""

from functools import cache
from math import prod

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, hessian, jacobian, make_jvp
from autograd.misc.flatten import flatten
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.linalg import expm, expm_frechet

from solvers_bridge import odeint
from tests.helpers import ADAPTIVE, ADAPTIVE_FAMILIES, some_fast

FIXED = ("euler", "midpoint", "rk4")
# (tolerance of the solves, relative error allowed of gradients): the low orders get cheaper ones.
PRECISION = {
    "adams": (1e-11, 1e-7),
    "bdf": (1e-11, 1e-6),
    "lsoda": (1e-11, 1e-7),
    "dopri5": (1e-11, 1e-8),
    "dop853": (1e-12, 1e-9),
    "radau": (1e-9, 1e-7),
}


def means(method):
    tol, _ = PRECISION[method]
    return {"method": method, "rtol": tol, "atol": tol}


def central(f, x, h=1e-4):
    """Gradient of f at x (an array) by central differences of fourth order."""
    x = np.asarray(x, dtype=float)

    def along(e):
        return (8 * (f(x + h * e) - f(x - h * e)) - (f(x + 2 * h * e) - f(x - 2 * h * e))) / (12 * h)

    directions = np.eye(x.size).reshape((x.size,) + x.shape)
    return np.array([along(e) for e in directions]).reshape(x.shape + np.shape(f(x)))


def assert_close(got, want, rtol):
    """Relative to the largest entry of want."""
    want = np.asarray(want)
    assert np.shape(got) == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=rtol * max(1e-3, np.abs(want).max()))


# --- Closed forms: y' = A y.

A = np.array([[-0.5, 1.2, 0.0], [-1.0, -0.2, 0.3], [0.4, 0.0, -0.7]])
Y0 = np.array([1.0, -0.5, 2.0])


def linear(t, y, matrix):
    return anp.dot(matrix, y)


def linear_gradients(matrix, y0, t, weights):
    """Gradients of sum(weights * y(t)) with respect to matrix, y0 and t."""
    matrix_bar, y0_bar, t_bar = np.zeros_like(matrix), np.zeros_like(y0), np.zeros_like(t)
    for i in range(len(t)):
        span, w = t[i] - t[0], weights[i]
        propagator = expm(matrix * span)
        y0_bar += propagator.T @ w
        # <w, L(A, E) y0> over all E is the Frechet derivative of the transpose, along w y0^T.
        matrix_bar += expm_frechet(matrix.T * span, np.outer(w, y0) * span, compute_expm=False)
        t_bar[i] += w @ matrix @ propagator @ y0
        t_bar[0] -= w @ matrix @ propagator @ y0
    return matrix_bar, y0_bar, t_bar


def solved_gradients(matrix, y0, t, weights, **means):
    def loss(args):
        matrix, y0, t = args
        return anp.sum(weights * odeint(linear, y0, t, matrix, **means))

    return grad(loss)((matrix, y0, t))


@pytest.mark.parametrize("t", [[0.0, 1.5], [0.0, 0.2, 0.9, 2.5], [1.0, 0.4, -1.3], [0.7]], ids=str)
@pytest.mark.parametrize("method", ADAPTIVE)
def test_linear_system(method, t):
    t = np.array(t)
    weights = np.random.default_rng(0).normal(size=(len(t), 3))
    got = solved_gradients(A, Y0, t, weights, **means(method))
    for bar, want in zip(got, linear_gradients(A, Y0, t, weights)):
        assert_close(bar, want, PRECISION[method][1])


bounded = st.floats(-1, 1, width=32)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.data(), st.sampled_from(["adams", "lsoda", "dopri5", "dop853"]))
def test_random_linear_systems(data, method):
    """Any matrix, any shape of y, times increasing or decreasing."""
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=2))
    n = prod(shape)
    matrix = data.draw(hnp.arrays(float, (n, n), elements=bounded))
    y0 = data.draw(hnp.arrays(float, shape, elements=bounded))
    gaps = data.draw(st.lists(st.floats(0.01, 1), max_size=3))
    t = data.draw(st.floats(-2, 2)) + data.draw(st.sampled_from([1, -1])) * np.cumsum([0.0, *gaps])
    weights = data.draw(hnp.arrays(float, (len(t), *shape), elements=bounded))

    def func(t, y, matrix):
        return anp.reshape(anp.dot(matrix, anp.reshape(y, -1)), shape)

    def loss(args):
        matrix, y0, t = args
        return anp.sum(weights * odeint(func, y0, t, matrix, method=method, rtol=1e-10, atol=1e-10))

    matrix_bar, y0_bar, t_bar = grad(loss)((matrix, y0, t))
    wanted = linear_gradients(matrix, y0.reshape(n), t, weights.reshape(len(t), n))
    for bar, want in zip((matrix_bar, np.reshape(y0_bar, n), t_bar), wanted):
        np.testing.assert_allclose(bar, want, rtol=1e-6, atol=1e-6)


# --- Central differences: a non-linear problem that depends on time, nested parameters, a state that is a matrix.

PARAMS = {
    "w": [np.array([[0.3, -0.8], [0.5, 0.1]]), np.array([[-0.6, 0.2], [0.9, -0.4]])],
    "rates": (0.7, np.array([0.2, -0.3])),
    "phase": np.array(0.4),
    "power": 2,
}
MATRIX = np.array([[0.5, -0.2], [0.1, 0.8], [-0.4, 0.3]])


def network(t, y, params):
    first, second = params["w"]
    rate, shift = params["rates"]
    hidden = anp.tanh(anp.dot(y, first) + shift * anp.sin(t + params["phase"]))
    return anp.dot(hidden, second) - rate * y ** params["power"]


def scalar(t, y, params):
    return anp.sin(params[0] * t) - params[1] * y**2


PROBLEMS = {
    "nested params, matrix state": (network, MATRIX, PARAMS, [0.1, 0.6, 1.1]),
    "decreasing t": (network, MATRIX, PARAMS, [1.1, 0.6, 0.1]),
    "scalar state": (scalar, 0.4, [1.3, 0.6], [0.0, 0.5, 1.2]),
    "single t": (scalar, 0.4, [1.3, 0.6], [0.5]),
    "t unused": (lambda t, y, p: -p * y**3, np.array([0.5, 1.0]), 0.8, [0.0, 1.0, 1.5]),
    "params unused": (lambda t, y, p: -t * y, np.array([0.5, 1.0]), [np.ones(2), 1.0], [0.0, 1.0, 1.5]),
    "y unused": (lambda t, y, p: p * anp.cos(t) + 0 * y, np.array([0.5, 1.0]), 0.8, [0.0, 1.0, 1.5]),
    "constant func": (lambda t, y, p: np.array([2.0, -1.0]), np.array([0.5, 1.0]), 0.8, [0.0, 1.0, 1.5]),
    "no params": (lambda t, y, p: anp.sin(t * y), np.array([0.5, 1.0]), (), [0.0, 1.0, 1.5]),
}


def weighted(ys):
    """A loss of every output, not linear in them."""
    weights = anp.arange(1.0, 1 + anp.size(ys)) / anp.size(ys)
    return anp.sum(weights * anp.reshape(ys, -1)) + anp.sum(ys**2) / 2


def as_vector(problem, **means):
    """(loss of one vector that holds y0, t and the floating-point params, the vector)."""
    func, y0, params, t = problem
    integers = {"power": params["power"]} if isinstance(params, dict) else {}
    floats = {key: value for key, value in params.items() if key not in integers} if integers else params
    vector, unflatten = flatten((np.asarray(y0, dtype=float), np.array(t), floats))

    def loss(vector):
        y0, t, params = unflatten(vector)
        params = {**params, **integers} if integers else params
        return weighted(odeint(func, y0, t, params, **means))

    return loss, vector


@cache
def reference_gradient(name):
    """Central differences of the loss solved to 13 digits."""
    loss, vector = as_vector(PROBLEMS[name], method="dop853", rtol=1e-13, atol=1e-13)
    return central(loss, vector, h=1e-3)


def precise_gradient(name):
    """The gradient as a function of the vector, itself tested against central differences here, to be differenced again."""
    return grad(as_vector(PROBLEMS[name], method="dop853", rtol=1e-12, atol=1e-12)[0])


@cache
def reference_hessian(name):
    return central(precise_gradient(name), as_vector(PROBLEMS[name])[1], h=1e-2)


@cache
def reference_slope(name, seed):
    """Derivative of the squared norm of the gradient along a random direction, and the direction."""
    _, vector = as_vector(PROBLEMS[name])
    direction = np.random.default_rng(seed).normal(size=vector.size)
    return central(lambda s: np.sum(precise_gradient(name)(vector + s * direction) ** 2), 0.0, h=1e-3), direction


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("method", ADAPTIVE)
def test_against_central_differences(method, name):
    loss, vector = as_vector(PROBLEMS[name], **means(method))
    assert_close(grad(loss)(vector), reference_gradient(name), max(1e-8, PRECISION[method][1]))


@pytest.mark.parametrize("method", ADAPTIVE)
def test_intermediate_output_alone(method):
    """Outputs after the one that the loss looks at get no gradient with respect to their time."""
    t = np.array([0.0, 0.5, 1.0, 1.5])
    t_bar = grad(lambda t: anp.sum(odeint(linear, Y0, t, A, **means(method))[1]))(t)
    slope = np.sum(A @ expm(A * 0.5) @ Y0)
    assert_close(t_bar, [-slope, slope, 0, 0], PRECISION[method][1])


def test_gradients_have_the_structure_and_types_of_params():
    single = {"a": np.ones((2, 1), np.float32), "b": [np.float64(2.0), (1.5, np.array([3, 4]))], "n": 3, "flag": True}

    def func(t, y, p):
        assert p["n"] == 3 and p["flag"] is True
        assert p["b"][1][1].dtype.kind == "i"
        return -y * anp.sum(p["a"]) * p["b"][0] / p["b"][1][0] / p["n"]

    def loss(a, b, y0):
        return anp.sum(odeint(func, y0, [0.0, 1.0], {**single, "a": a, "b": [b, single["b"][1]]}))

    a_bar, b_bar, y0_bar = grad(loss, argnum=(0, 1, 2))(single["a"], 2.0, np.ones(2, np.float32))
    assert a_bar.dtype == np.float32 and a_bar.shape == (2, 1)
    assert y0_bar.dtype == np.float32
    rate = 2 * 2.0 / 1.5 / 3
    np.testing.assert_allclose(a_bar, -2 * np.exp(-rate) * rate / 2 * np.ones((2, 1)), rtol=1e-6)
    np.testing.assert_allclose(b_bar, -2 * np.exp(-rate) * rate / 2.0, rtol=1e-6)


@pytest.mark.parametrize(
    "kwargs",
    (
        {},
        {"method": "rk4", "adjoint_method": "discrete"},
        {"method": "rk4", "adjoint_method": "discrete", "options": {"jump_t": [0.3]}},
        {"method": "dopri5", "adjoint_method": "discrete"},
    ),
    ids=str,
)
def test_gradients_are_of_the_type_of_what_they_belong_to(kwargs):
    """In one state with float64, too; and what is computed stays in double precision."""
    seen = set()

    def func(t, y, p):
        seen.update(getattr(part, "_value", part).dtype for part in y.values())
        return {"a": -p[0] * y["a"], "b": -p[1] * y["b"]}

    def solve(a, b, t, p, q):
        ys = odeint(func, {"a": a, "b": b}, t, (p, q), **kwargs)
        return anp.sum(ys["a"][-1]) + anp.sum(ys["b"][-1])

    double = [np.ones(2), np.ones(1), np.array([0.0, 1.0]), np.array(0.5), np.ones(1)]
    single = [argument.astype(np.float32) for argument in double]
    for i in range(5):
        # One at a time: autograd casts the gradients of several itself.
        bar, expected = grad(solve, i)(*double[:i], single[i], *double[i + 1 :]), grad(solve, i)(*double)
        assert bar.dtype == np.float32 and expected.dtype == np.float64
        np.testing.assert_allclose(bar, expected, rtol=1e-6)
    assert seen == {np.dtype(np.float64)}
    tangent = make_jvp(lambda a: solve(a, *double[1:]))
    assert tangent(single[0])(np.ones(2, np.float32))[1] == pytest.approx(tangent(double[0])(np.ones(2))[1], rel=1e-6)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_gradient_step_works_with_integers_inside_params(method):
    """grad with respect to the whole nesting of floats, the integer exponent closed in beside them."""
    floats = {key: value for key, value in PARAMS.items() if key != "power"}
    bars = grad(lambda p: weighted(odeint(network, MATRIX, [0.0, 1.0], {**p, "power": 2}, method=method)))(floats)
    assert bars.keys() == floats.keys()
    assert isinstance(bars["rates"], tuple) and np.shape(bars["rates"][0]) == ()
    assert all(bar.shape == (2, 2) and np.abs(bar).max() > 1e-3 for bar in bars["w"])


# --- Derivatives of gradients.


# Tolerance of the solves, relative error allowed: a solve inside a solve inside a solve is not cheap.
SECOND_PRECISION = {
    "adams": (1e-8, 1e-5),
    "bdf": (1e-7, 1e-4),
    "lsoda": (1e-8, 1e-5),
    "dopri5": (1e-8, 1e-6),
    "dop853": (1e-10, 1e-7),
    "radau": (1e-6, 1e-5),
}


@pytest.mark.parametrize("method", some_fast(ADAPTIVE, "adams", "lsoda", "dopri5"))
def test_hessian(method):
    """With respect to y0, t and params together."""
    tol, rtol = SECOND_PRECISION[method]
    loss, vector = as_vector(PROBLEMS["scalar state"], method=method, rtol=tol, atol=tol)
    got = hessian(loss)(vector)
    assert_close(got, reference_hessian("scalar state"), rtol)
    assert_close(got, got.T, rtol)


@pytest.mark.parametrize("method", some_fast(ADAPTIVE, *ADAPTIVE_FAMILIES))
def test_gradient_of_a_gradient_norm_over_a_matrix_state(method):
    tol, rtol = SECOND_PRECISION[method]
    problem = PROBLEMS["nested params, matrix state"]
    loss, vector = as_vector(problem, method=method, rtol=tol, atol=tol)
    got = grad(lambda v: anp.sum(grad(loss)(v) ** 2))(vector)
    want, direction = reference_slope("nested params, matrix state", seed=0)
    np.testing.assert_allclose(got @ direction, want, rtol=rtol)


@pytest.mark.parametrize("method", some_fast(["adams", "dop853"], "adams"))
def test_third_order(method):
    """y' = -p y^2 has y(t) = y0 / (1 + p t y0); so d3y/dp3 = -6 t^3 y^4."""

    def end(p):
        return odeint(lambda t, y, p: -p * y**2, 0.8, [0.0, 1.5], p, method=method, rtol=1e-11, atol=1e-11)[-1]

    y = 0.8 / (1 + 0.6 * 1.5 * 0.8)
    np.testing.assert_allclose(grad(grad(grad(end)))(0.6), -6 * 1.5**3 * y**4, rtol=1e-7)


# --- Fixed grids.


@pytest.mark.parametrize("method, step, rtol", [("euler", 2e-3, 1e-2), ("midpoint", 1e-2, 1e-4), ("rk4", 2e-2, 1e-7)])
def test_continuous_adjoint_on_a_fixed_grid(method, step, rtol):
    """As the step goes to zero, so does the difference from the true gradient: order 1, 2, 4."""
    loss, vector = as_vector(PROBLEMS["scalar state"], method=method, options={"step_size": step})
    assert_close(grad(loss)(vector), reference_gradient("scalar state"), rtol)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("method", FIXED)
def test_discrete_gradient_is_that_of_the_discrete_map(method, name):
    """Exact at a step far too large for the true solution."""
    loss, vector = as_vector(PROBLEMS[name], method=method, options={"step_size": 0.21}, adjoint_method="discrete")
    assert_close(grad(loss)(vector), central(loss, vector, h=1e-3), 1e-9)
    continuous, _ = as_vector(PROBLEMS[name], method=method, options={"step_size": 0.21})
    assert continuous(vector) == loss(vector)


@pytest.mark.parametrize("method", FIXED)
def test_continuous_gradient_is_not_that_of_the_discrete_map(method):
    """Otherwise the test above would show nothing."""
    discrete, vector = as_vector(PROBLEMS["scalar state"], method=method, options={"step_size": 0.21}, adjoint_method="discrete")
    continuous, _ = as_vector(PROBLEMS["scalar state"], method=method, options={"step_size": 0.21})
    assert np.abs(grad(discrete)(vector) - grad(continuous)(vector)).max() > 1e-6


@pytest.mark.parametrize("method", FIXED)
def test_discrete_hessian(method):
    loss, vector = as_vector(PROBLEMS["scalar state"], method=method, options={"step_size": 0.21}, adjoint_method="discrete")
    assert_close(hessian(loss)(vector), central(grad(loss), vector, h=1e-3), 1e-8)


@pytest.mark.parametrize("method", ("adams", "rk4"))
def test_jacobian_of_the_states(method):
    """autograd's jacobian calls one VJP after another of the same solve."""
    options = {"step_size": 0.01} if method == "rk4" else {}
    got = jacobian(lambda y0: odeint(linear, y0, [0.0, 0.5, 1.0], A, method=method, rtol=1e-10, atol=1e-10, options=options))(Y0)
    assert_close(got, np.array([expm(A * t) for t in (0.0, 0.5, 1.0)]), 1e-7)


def test_second_derivatives_where_func_has_none_by_t():
    """dy/dt = -r sqrt(t) y: its derivative by t is infinite at 0, and nobody asks for it."""
    means = {"adjoint_options": {"reconstruction": "interpolate"}}

    def loss(rate):
        return odeint(lambda t, y, r: -r * anp.sqrt(t) * y, 1.0, [0.0, 1.0], rate, rtol=1e-9, atol=1e-9, **means)[-1]

    value = np.exp(-0.6 * 2 / 3)
    np.testing.assert_allclose(grad(loss)(0.6), -2 / 3 * value, rtol=1e-6)
    np.testing.assert_allclose(grad(grad(loss))(0.6), 4 / 9 * value, rtol=1e-5)
    np.testing.assert_allclose(make_jvp(grad(loss))(0.6)(1.0)[1], 4 / 9 * value, rtol=1e-5)
