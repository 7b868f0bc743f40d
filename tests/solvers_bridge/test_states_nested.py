"""States that are any nesting of arrays: what func gets and returns, gradients, tolerances, errors, TensorFlow dynamics."""

from collections import namedtuple

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, make_jvp
from autograd.test_util import check_grads

from solvers_bridge import SolverError, TensorFlowDynamics, odeint
from tests.helpers import ADAPTIVE, FIXED

METHODS = ADAPTIVE + FIXED
T = [0.0, 0.4, 1.0]
Pair = namedtuple("Pair", "position velocity")

Y0 = {"a": np.array([1.0, -0.5]), "b": (np.array([[0.3, 0.1], [0.2, -0.4]]), 0.7), "c": [np.ones(1)]}
MATRIX = np.array([[-0.5, 1.0], [-1.0, -0.2]])


def coupled(t, y, params):
    """Linear, each part driven by another."""
    matrix, rate = params
    block, number = y["b"]
    return {
        "a": anp.dot(matrix, y["a"]) + number,
        "b": (anp.dot(block, matrix) - rate * block, anp.sum(y["a"]) - number),
        "c": [-rate * y["c"][0] + block[0, 0] * anp.sin(t)],
    }


def flat_coupled(t, y, params):
    nested = {"a": y[:2], "b": (anp.reshape(y[2:6], (2, 2)), y[6]), "c": [y[7:]]}
    dy = coupled(t, nested, params)
    return anp.concatenate([dy["a"], anp.reshape(dy["b"][0], -1), anp.reshape(dy["b"][1], 1), dy["c"][0]])


def flat(y):
    """A nesting like Y0, at one time or with a leading axis of times, as rows of 8 numbers."""
    parts = [y["a"], y["b"][0], y["b"][1], y["c"][0]]
    shapes = [(2,), (2, 2), (), (1,)]
    leading = np.shape(parts[0])[:-1]
    return anp.concatenate([anp.reshape(part, (*leading, int(np.prod(shape)))) for part, shape in zip(parts, shapes)], axis=-1)


def means(method):
    return {"method": method, "options": {"step_size": 0.1} if method in FIXED else {}}


@pytest.mark.parametrize("method", METHODS)
def test_a_nesting_is_its_flat_state(method):
    """The same numbers, in the same steps; shapes (len(t), *shape), the first state y0 itself."""
    params = (MATRIX, 0.4)
    states = odeint(coupled, Y0, T, params, **means(method))
    assert list(states) == ["a", "b", "c"] and type(states["b"]) is tuple and type(states["c"]) is list
    assert [np.shape(part) for part in (states["a"], *states["b"], states["c"][0])] == [(3, 2), (3, 2, 2), (3,), (3, 1)]
    np.testing.assert_array_equal(flat(states), odeint(flat_coupled, flat(Y0), T, params, **means(method)))
    np.testing.assert_array_equal(flat(states)[0], flat(Y0))


@pytest.mark.parametrize("method", ["adams", "lsoda", "dopri5", "radau", "rk4"])
def test_gradients_of_a_nesting(method):
    """With respect to a part of y0 and params, through a part of the states; as of the flat problem."""

    def nested(a, matrix, rate):
        states = odeint(coupled, {**Y0, "a": a}, T, (matrix, rate), **means(method))
        return anp.sum(states["b"][0][1:] ** 2) + anp.sum(states["c"][0][-1]) * states["b"][1][1]

    def plain(a, matrix, rate):
        states = odeint(flat_coupled, anp.concatenate([a, flat(Y0)[2:]]), T, (matrix, rate), **means(method))
        return anp.sum(states[1:, 2:6] ** 2) + anp.sum(states[-1, 7:]) * states[1, 6]

    arguments = (Y0["a"], MATRIX, 0.4)
    for got, want in zip(grad(nested, (0, 1, 2))(*arguments), grad(plain, (0, 1, 2))(*arguments)):
        np.testing.assert_allclose(got, want, rtol=1e-9)


def test_second_derivatives_and_forward_mode_of_a_nesting():
    def loss(a):
        states = odeint(coupled, {**Y0, "a": a}, T, (MATRIX, 0.4), rtol=1e-7, atol=1e-7)
        return anp.sum(states["b"][0][-1] ** 2) + anp.sum(states["a"] ** 3)

    check_grads(loss, modes=("rev", "fwd"), order=2)(Y0["a"])


@pytest.mark.parametrize(
    "y0, kind",
    [
        ([np.ones(2), np.ones(2)], list),  # of equal shapes: two arrays, not one of (2, 2)
        ((np.ones(2), np.ones(2)), tuple),
        ((np.ones(2), np.ones(3)), tuple),
        ([np.ones(2), 1.0], list),
        ((np.ones(1), [1.0, 2.0]), tuple),
        (Pair(np.ones(2), np.ones(2)), Pair),
        ({"x": 1.0}, dict),
        ({"x": [1.0, 2.0]}, dict),
        ([{"x": 1.0}, {"x": 2.0}], list),
        ([[np.ones(2)], [np.ones(1)]], list),
    ],
    ids=str,
)
def test_what_is_a_nesting(y0, kind):
    """func sees it as it was given; a list of numbers inside is an array."""
    seen = []

    def func(t, y, params):
        seen.append(y)
        return halved(y)

    states = odeint(func, y0, T)
    assert type(seen[0]) is type(states) is kind
    if kind is Pair:
        np.testing.assert_allclose(states.position, np.exp(-np.array(T) / 2)[:, None] * np.ones(2), rtol=1e-6)
    if kind in (list, tuple):
        assert len(states) == len(y0)


def halved(y):
    """-y/2, nested like y."""
    if isinstance(y, dict):
        return {key: halved(part) for key, part in y.items()}
    if isinstance(y, Pair):
        return Pair(*map(halved, y))
    if isinstance(y, (list, tuple)):
        return type(y)(map(halved, y))
    return -0.5 * y


@pytest.mark.parametrize("y0, shape", [([1.0, 2.0], (2,)), ((1.0, 2.0), (2,)), ([[1.0, 2.0], [3.0, 4.0]], (2, 2)), (1.0, ())])
def test_what_is_one_array(y0, shape):
    assert odeint(lambda t, y, _: -y, y0, T).shape == (3, *shape)


def test_namedtuples_of_numbers_are_arrays_as_they_ever_were():
    assert odeint(lambda t, y, _: -y, Pair(1.0, 2.0), T).shape == (3, 2)


def test_a_func_that_builds_a_list_of_boxes_for_one_array():
    def func(t, y, rate):
        return {"x": [-rate * y["x"][0], y["x"][0]]}

    got = grad(lambda rate: odeint(func, {"x": np.array([1.0, 0.0])}, [0.0, 1.0], rate)["x"][-1, 1])(1.0)
    # x_2 = (1 - exp(-rate)) / rate
    assert got == pytest.approx(2 * np.exp(-1) - 1, rel=1e-6)


# --- Tolerances nested like the state.


@pytest.mark.parametrize("method", ["adams", "lsoda", "dopri5", "radau"])
def test_tolerances_nested_like_the_state(method):
    nested = {"a": np.array([1e-5, 1e-7]), "b": (1e-6, 1e-8), "c": [1e-9]}
    flat_atol = np.array([1e-5, 1e-7, *(4 * [1e-6]), 1e-8, 1e-9])
    got = odeint(coupled, Y0, T, (MATRIX, 0.4), method=method, rtol=1e-5, atol=nested)
    want = odeint(flat_coupled, flat(Y0), T, (MATRIX, 0.4), method=method, rtol=1e-5, atol=flat_atol)
    np.testing.assert_array_equal(flat(got), want)


@pytest.mark.parametrize(
    "atol, match",
    [
        ({"a": 1e-6}, "atol must be nested like y0"),
        ({"a": 1e-6, "b": (1e-6, -1.0), "c": [1e-6]}, "must be positive"),
        (np.array([1e-6, 1e-6]), "numbers and arrays nested like y0"),
        ({"a": np.full(3, 1e-6), "b": (1e-6, 1e-6), "c": [1e-6]}, "does not broadcast"),
    ],
    ids=str,
)
def test_tolerances_nested_otherwise(atol, match):
    with pytest.raises((TypeError, ValueError), match=match):
        odeint(coupled, Y0, T, (MATRIX, 0.4), atol=atol)


# --- Errors that say where.


@pytest.mark.parametrize(
    "y0, kind, match",
    [
        ({}, ValueError, "y0"),
        ({"a": np.ones(2), "b": np.array([])}, ValueError, "number 1.*at least one number"),
        ([np.ones(2), np.array([np.nan])], ValueError, "number 1.*finite"),
        ({"a": np.ones(2), "b": np.array(["x"])}, TypeError, "number 1.*real numbers"),
        ((np.ones(2), 1j * np.ones(1)), TypeError, "number 1.*must be real"),
    ],
    ids=str,
)
def test_bad_nestings(y0, kind, match):
    with pytest.raises(kind, match=match):
        odeint(lambda t, y, _: y, y0, T)


@pytest.mark.parametrize(
    "value, kind, match",
    [
        ({"a": np.ones(2)}, TypeError, r"nested like y0, as a dict of \['a', 'b'\]; got dict of \['a'\]"),
        ([np.ones(2), np.ones(1)], TypeError, "nested like y0.*got list of 2"),
        ({"a": np.ones(2), "b": [np.ones(1), 1.0]}, TypeError, r"func's value\['b'\] must be nested like y0, as a tuple of 1"),
        ({"a": np.ones(3), "b": (np.ones(1),)}, ValueError, r"shape of y, \(2,\), got \(3,\)"),
        (None, TypeError, "got NoneType"),
    ],
    ids=str,
)
@pytest.mark.parametrize("differentiated", [False, True])
def test_funcs_that_return_something_else(value, kind, match, differentiated):
    y0 = {"a": np.ones(2), "b": (np.ones(1),)}

    def end(rate):
        return anp.sum(odeint(lambda t, y, params: value, y0, T, rate)["a"])

    with pytest.raises(kind, match=match):
        (grad(end) if differentiated else end)(1.0)


def test_a_failed_solve_has_its_states_nested():
    def blow_up(t, y, params):
        return {"x": y["x"] ** 2, "z": -y["z"]}

    with pytest.raises(SolverError) as info, np.errstate(all="ignore"):
        odeint(blow_up, {"x": np.ones(1), "z": np.ones((2, 1))}, [0.0, 0.5, 0.8, 2.0])
    np.testing.assert_array_equal(info.value.ts, [0.0, 0.5, 0.8])
    np.testing.assert_allclose(info.value.ys["x"][:, 0], [1.0, 2.0, 5.0], rtol=1e-5)
    assert info.value.ys["z"].shape == (3, 2, 1)


# --- TensorFlow.


def test_tensorflow_dynamics_of_a_nesting():
    """As autograd's: states, gradients, second derivatives, forward mode; and an error that says where."""
    import tensorflow as tf

    def func(t, y, params):
        matrix, rate = params
        block, number = y["b"]
        return {
            "a": tf.linalg.matvec(matrix, y["a"]) + number,
            "b": (block @ matrix - rate * block, tf.reduce_sum(y["a"]) - number),
            "c": [-rate * y["c"][0] + block[0, 0] * tf.sin(t)],
        }

    def loss(dynamics):
        def of_a(a, rate):
            states = odeint(dynamics, {**Y0, "a": a}, T, (MATRIX, rate), rtol=1e-6, atol=1e-6)
            return anp.sum(states["b"][0][-1] ** 2) + anp.sum(states["c"][0][-1]) * states["b"][1][1]

        return of_a

    by_tensorflow, by_autograd = loss(TensorFlowDynamics(func, "float64")), loss(coupled)
    arguments = (Y0["a"], 0.4)
    assert by_tensorflow(*arguments) == pytest.approx(by_autograd(*arguments), rel=1e-10)
    for got, want in zip(grad(by_tensorflow, (0, 1))(*arguments), grad(by_autograd, (0, 1))(*arguments)):
        np.testing.assert_allclose(got, want, rtol=1e-8)
    assert grad(grad(by_tensorflow, 1), 1)(*arguments) == pytest.approx(grad(grad(by_autograd, 1), 1)(*arguments), rel=1e-6)
    forward = [make_jvp(lambda rate: f(Y0["a"], rate))(0.4)(1.0)[1] for f in (by_tensorflow, by_autograd)]
    assert forward[0] == pytest.approx(forward[1], rel=1e-7)

    with pytest.raises(TypeError, match="nested like y0"):
        odeint(TensorFlowDynamics(lambda t, y, params: -y["a"], "float64"), Y0, T)
