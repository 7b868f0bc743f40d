"""Forward mode (make_jvp) through the tangent system: against finite differences, reverse mode, and mixed with it."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, hessian_vector_product, make_jvp

from solvers_bridge import odeint, record_solves
from tests.helpers import ADAPTIVE, FIXED, some_fast

Y0, T = {"a": np.array([0.8, -0.3]), "b": 0.5}, np.array([0.1, 0.7, 1.5])
PARAMS = (np.array([[0.2, 1.0], [-1.1, 0.1]]), [0.7, np.array([3, 1])])
DIRECTION = ({"a": np.array([0.3, -1.0]), "b": 0.7}, np.array([0.4, -0.2, 0.9]), np.array([[0.5, -0.3], [0.2, 1.0]]), -0.6)


def func(t, y, params):
    """Nonlinear, depends on t, has integers among its parameters."""
    matrix, (rate, powers) = params
    return {"a": anp.tanh(anp.dot(matrix, y["a"])) * powers - rate * t * y["a"], "b": -(y["b"] ** 2) * rate + anp.sin(y["a"][0])}


def solve(y0, t, matrix, rate, method="dop853", **means):
    options = {"step_size": 0.05} if method in FIXED else {}
    means = {"rtol": 1e-9, "atol": 1e-9, "options": options, **means}
    ys = odeint(func, y0, t, (matrix, [rate, PARAMS[1][1]]), method=method, **means)
    return anp.concatenate([anp.reshape(ys["a"], -1), ys["b"]])


ARGUMENTS = (Y0, T, PARAMS[0], PARAMS[1][0])


def moved(h, only=range(4)):
    def move(value, direction):
        if isinstance(value, dict):
            return {key: move(value[key], direction[key]) for key in value}
        return value + h * direction

    return [move(value, direction) if i in only else value for i, (value, direction) in enumerate(zip(ARGUMENTS, DIRECTION))]


def central_difference(method, only=range(4), h=1e-4):
    return (solve(*moved(h, only), method) - solve(*moved(-h, only), method)) / (2 * h)


@pytest.mark.parametrize("only", ((0,), (1,), (2,), (3,), (0, 1, 2, 3)), ids=str)
def test_with_respect_to_each_argument(only):
    def along(*values):
        arguments = list(ARGUMENTS)
        for i, value in zip(only, values):
            arguments[i] = value
        return solve(*arguments)

    values, directions = [ARGUMENTS[i] for i in only], tuple(DIRECTION[i] for i in only)
    _, jvp = make_jvp(lambda inputs: along(*inputs))(tuple(values))(directions)
    np.testing.assert_allclose(jvp, central_difference("dop853", only), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", some_fast((*ADAPTIVE, *FIXED), *ADAPTIVE[:-1], *FIXED))
def test_every_method(method):
    """The value is that of a plain call; the tangent that of the method's own states, to its tolerance."""
    value, jvp = make_jvp(lambda inputs: solve(*inputs, method))(ARGUMENTS)(DIRECTION)
    np.testing.assert_array_equal(value, solve(*ARGUMENTS, method))
    # With respect to t, on a fixed grid, that of the flow rather than that of the steps.
    error = {"euler": 0.2, "midpoint": 5e-3, "rk4": 1e-4, "radau": 1e-5}.get(method, 1e-6)
    np.testing.assert_allclose(jvp, central_difference("dop853"), rtol=0, atol=error)


@pytest.mark.parametrize("method", some_fast(("adams", "lsoda", "dopri5", "radau"), "adams", "lsoda", "dopri5"))
def test_agrees_with_reverse_mode_backwards_in_time(method):
    weights = np.linspace(-1, 1, 9)

    def loss(y0, t, matrix, rate):
        return anp.sum(weights * solve(y0, t[::-1], matrix, rate, method))

    bars = grad(loss, (0, 1, 2, 3))(*ARGUMENTS)
    _, jvp = make_jvp(lambda inputs: loss(*inputs))(ARGUMENTS)(DIRECTION)
    pairs = zip((bars[0]["a"], bars[0]["b"], *bars[1:]), (DIRECTION[0]["a"], DIRECTION[0]["b"], *DIRECTION[1:]))
    assert jvp == pytest.approx(sum(np.sum(bar * direction) for bar, direction in pairs), rel=1e-6)


def test_the_tangent_is_one_solve_of_twice_the_size():
    with record_solves() as solves:
        make_jvp(lambda y0: solve(y0, *ARGUMENTS[1:]))(Y0)(DIRECTION[0])
    assert [(solve.direction, solve.size) for solve in solves] == [("forward", 3), ("forward", 6)]


def test_tolerances_of_each_component_and_a_jacobian_of_the_user():
    """Both belong to y, and are made to fit the tangent system."""

    def final(rate, **means):
        return odeint(lambda t, y, rate: -rate * y, np.array([1.0, 2.0]), [0.0, 1.5], rate, **means)[-1]

    for means in (
        {"method": "adams", "atol": np.array([1e-8, 1e-10])},
        {"method": "bdf", "options": {"jacobian": lambda t, y, rate: -rate * np.eye(2)}},
        {"method": "bdf", "options": {"jacobian": "autodiff", "bands": (0, 0)}},
        {"method": "lsoda", "options": {"jacobian": "finite_difference"}},
    ):
        _, jvp = make_jvp(lambda rate: final(rate, **means))(0.7)(1.0)
        np.testing.assert_allclose(jvp, -1.5 * np.exp(-1.05) * np.array([1.0, 2.0]), rtol=1e-5)


# --- Forward over reverse, and reverse over forward: products with the Hessian.


def of_rate(method, **means):
    def loss(rate):
        ys = odeint(
            lambda t, y, k: -anp.sin(k * y), np.array([1.1, 0.4]), T, rate, method=method, rtol=1e-10, atol=1e-10, **means
        )
        return anp.sum(ys[-1] ** 2)

    return loss


RATE, V = np.array([0.9, 1.4]), np.array([1.0, -0.5])


def hessian_times_v(loss, h=1e-4):
    return (grad(loss)(RATE + h * V) - grad(loss)(RATE - h * V)) / (2 * h)


WAYS = ({}, {"adjoint_options": {"reconstruction": "solve"}}, {"adjoint_options": {"reconstruction": "interpolate"}})


@pytest.mark.parametrize(
    "method, means",
    some_fast(
        [(method, means) for method in ("adams", "lsoda", "dopri5") for means in WAYS],
        ("adams", WAYS[0]),
        *(("dopri5", means) for means in WAYS),
    ),
    ids=str,
)
def test_hessian_vector_products_agree(method, means):
    loss = of_rate(method, **means)
    expected = hessian_times_v(of_rate("dop853"))
    _, forward_over_reverse = make_jvp(grad(loss))(RATE)(V)
    reverse_over_forward = grad(lambda rate: make_jvp(loss)(rate)(V)[1])(RATE)
    for product in (forward_over_reverse, reverse_over_forward, hessian_vector_product(loss)(RATE, V)):
        np.testing.assert_allclose(product, expected, rtol=1e-5)


def test_forward_over_forward():
    loss = of_rate("adams")
    twice = make_jvp(lambda rate: make_jvp(loss)(rate)(V)[1])(RATE)(V)[1]
    assert twice == pytest.approx(V @ hessian_times_v(loss), rel=1e-5)


@pytest.mark.parametrize("method", ("dopri5", "rk4"))
def test_forward_mode_of_discrete_gradients(method):
    """The tangent system does not go through the steps: it is that of the flow."""
    options = {"step_size": 0.02} if method == "rk4" else {}

    def final(rate):
        means = {"method": method, "options": options, "adjoint_method": "discrete"}
        return odeint(lambda t, y, k: -k * y, 1.0, [0.0, 1.0], rate, **means)[-1]

    assert make_jvp(final)(0.7)(1.0)[1] == pytest.approx(-np.exp(-0.7), rel=1e-6)


@pytest.mark.parametrize("only", some_fast(("y0", "t", "both"), "both"))
def test_hessian_vector_products_with_respect_to_y0_and_t(only):
    """Where z(t) is known from the forward solve, the gradient is one primitive, with a forward rule of its own."""

    def loss(y0, t, reconstruction="interpolate"):
        means = {"method": "dopri5", "rtol": 1e-10, "atol": 1e-10, "adjoint_options": {"reconstruction": reconstruction}}
        return anp.sum(odeint(lambda t, y, k: -anp.sin(k * t * y), y0, t, RATE, **means) ** 2)

    def of(vector, **means):
        y0, t = (vector[:2], T) if only == "y0" else (Y, vector[-3:])
        return loss(vector[:2], vector[2:], **means) if only == "both" else loss(y0, t, **means)

    Y, x, v = np.array([1.1, 0.4]), np.array([1.1, 0.4, *T]), np.array([0.3, 1.0, -0.2, 0.5, 0.4])
    x, v = {"y0": (x[:2], v[:2]), "t": (x[2:], v[2:]), "both": (x, v)}[only]
    h = 1e-4
    expected = (grad(of)(x + h * v) - grad(of)(x - h * v)) / (2 * h)
    np.testing.assert_allclose(make_jvp(grad(of))(x)(v)[1], expected, rtol=1e-4, atol=1e-6)
