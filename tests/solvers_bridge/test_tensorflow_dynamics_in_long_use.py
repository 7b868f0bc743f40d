"""TensorFlowDynamics that are pickled, copied and used for long: graphs are kept, not gathered; float32 and its limits."""

import copy
import pickle
import warnings

import autograd.numpy as anp
import numpy as np
import pytest
import tensorflow as tf
from autograd import grad, hessian_vector_product, make_jvp

from solvers_bridge import GradientWarning, TensorFlowDynamics, odeint, odeint_event, record_solves
from tests.helpers import some_fast

Y0, T, RATE = np.array([1.0, -0.5]), [0.0, 0.4, 1.0], 0.7


def decay(t, y, params):
    return -params * y


def loss(dynamics, **means):
    return lambda rate: anp.sum(odeint(dynamics, Y0, T, rate, **{"method": "dopri5", **means}) ** 2)


# --- Pickled and copied, before and after solves.


def pickled(dynamics):
    return pickle.loads(pickle.dumps(dynamics))


@pytest.mark.parametrize("again", some_fast((pickled, copy.copy, copy.deepcopy), pickled))
def test_after_solves_of_every_order(again):
    dynamics = TensorFlowDynamics(decay, "float64")
    fresh = again(dynamics)
    expected = odeint(dynamics, Y0, T, RATE), grad(loss(dynamics))(RATE)
    grad(grad(loss(dynamics)))(RATE)
    make_jvp(loss(dynamics))(RATE)(1.0)
    odeint(dynamics, Y0, T, RATE, method="bdf", options={"jacobian": "autodiff"})
    for copied in (fresh, again(dynamics), again(again(dynamics))):
        assert copied.dtype == tf.float64 and copied.device == dynamics.device
        np.testing.assert_array_equal(odeint(copied, Y0, T, RATE), expected[0])
        assert grad(loss(copied))(RATE) == expected[1]


@pytest.mark.parametrize("again", (copy.copy, copy.deepcopy))
def test_a_copy_has_graphs_of_its_own(again):
    dynamics = TensorFlowDynamics(decay, "float64")
    odeint(dynamics, Y0, T, RATE)
    copied = again(dynamics)
    assert dynamics._graphs and not copied._graphs
    odeint(copied, np.ones(5), T, RATE)
    assert len(dynamics._graphs) == len(copied._graphs) == 1


def test_inside_what_a_user_pickles():
    model = {"dynamics": TensorFlowDynamics(decay), "weights": [1.0]}
    odeint(model["dynamics"], Y0, T, RATE, rtol=1e-4, atol=1e-4)
    again = pickle.loads(pickle.dumps(model))
    assert again["dynamics"].func is decay and again["dynamics"].dtype == tf.float32


# --- Parameters of another float type.


@pytest.mark.parametrize(
    "dtype, other", (("float64", tf.float32), ("float32", tf.float64), ("float64", tf.float16), ("float64", tf.float64))
)
def test_tensors_of_another_float_type_are_cast(dtype, other):
    dynamics = TensorFlowDynamics(decay, dtype)
    means = {"rtol": 1e-5, "atol": 1e-5}
    for rate in (tf.constant(0.75, other), tf.Variable(0.75, dtype=other), np.array(0.75, other.as_numpy_dtype)):
        np.testing.assert_allclose(odeint(dynamics, Y0, T, rate, **means), odeint(dynamics, Y0, T, 0.75, **means), atol=1e-6)
        bar = grad(lambda y0: anp.sum(odeint(dynamics, y0, T, rate, **means)[-1]))(Y0)
        np.testing.assert_allclose(bar, np.exp(-0.75), rtol=1e-3)


# --- Masks and indices.


def traces_of(dynamics):
    """How many graphs there are, those of derived systems included."""
    return len(dynamics._graphs) + sum(traces_of(derived) for derived in dynamics._derived.values())


@pytest.mark.parametrize(
    "values",
    (
        [np.array([i % 2 == 0, i % 3 == 0]) for i in range(6)],
        [np.array([i, -i]) for i in range(6)],
        [np.array(i) for i in range(6)],
    ),
    ids=("booleans", "integers", "an array of no dimension"),
)
def test_new_values_of_a_mask_make_no_new_graph(values):
    calls = []

    def func(t, y, params):
        calls.append(1)
        return -params["rate"] * y * tf.cast(params["mask"], tf.float64)

    dynamics = TensorFlowDynamics(func, "float64")
    reference = lambda t, y, params: -params["rate"] * y * params["mask"]

    def of(dynamics, mask):
        return lambda rate: anp.sum(odeint(dynamics, Y0, T, {"rate": rate, "mask": mask}, method="dopri5")[-1] ** 2)

    counts = set()
    for mask in values:
        assert grad(of(dynamics, mask))(RATE) == pytest.approx(grad(of(reference, mask))(RATE), rel=1e-9, abs=1e-12)
        counts.add((traces_of(dynamics), len(calls)))
    assert len(counts) == 1 and counts.pop()[0] == 2


def test_masks_in_autograd_dynamics_and_second_derivatives():
    func = lambda t, y, params: -params["rate"] * y**2 * params["mask"]

    def of(dynamics):
        return lambda rate: anp.sum(odeint(dynamics, Y0, T, {"rate": rate, "mask": np.array([True, False])})[-1] ** 2)

    in_tensorflow = TensorFlowDynamics(lambda t, y, p: -p["rate"] * y**2 * tf.cast(p["mask"], tf.float64), "float64")
    assert grad(grad(of(in_tensorflow)))(RATE) == pytest.approx(grad(grad(of(func)))(RATE), rel=1e-6)


# --- float32 and tight tolerances.


def told(**means):
    dynamics = TensorFlowDynamics(decay, means.pop("dtype", "float32"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        odeint(dynamics, Y0, [0.0, 0.1], RATE, **means)
    return [warning for warning in caught if warning.category is GradientWarning]


@pytest.mark.parametrize(
    "means",
    ({"rtol": 1e-8, "atol": 1e-8}, {"rtol": 1e-9}, {"rtol": 1e-4, "atol": 1e-4, "adjoint_rtol": 1e-9, "adjoint_atol": 1e-9}),
    ids=str,
)
def test_tolerances_too_tight_for_float32_are_told_at_once(means):
    """Before any gradient is asked for, at the user's line."""
    (warning,) = told(**means)
    message = str(warning.message)
    assert "tighter than float32 dynamics can be integrated to" in message and "dtype='float64'" in message
    assert warning.filename == __file__


@pytest.mark.parametrize(
    "means",
    (
        {},
        {"rtol": 1.5e-8, "atol": 1.5e-8},
        {"rtol": 1e-9, "atol": 1e-3},
        {"rtol": 1e-3, "atol": 1e-12},
        {"rtol": 1e-12, "atol": 1e-12, "dtype": "float64"},
        {"rtol": 1e-12, "method": "rk4"},
    ),
    ids=str,
)
def test_what_is_not_told(means):
    assert not told(**means)


def test_the_warning_is_shown_once_a_line():
    dynamics = TensorFlowDynamics(decay)
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        for _ in range(3):
            odeint(dynamics, Y0, [0.0, 0.1], RATE, rtol=1e-9, atol=1e-9)
    assert len([warning for warning in caught if warning.category is GradientWarning]) == 1


# --- Forward mode and events through TensorFlow graphs.


def pendulum(lib, stack):
    return lambda t, y, k: stack([y[1], -k * lib.sin(y[0]) - 0.1 * t * y[1]])


@pytest.fixture(scope="module")
def in_tensorflow():
    return TensorFlowDynamics(pendulum(tf, tf.stack), "float64")


in_autograd = pendulum(anp, anp.array)


@pytest.mark.parametrize("method", ("adams", "lsoda", "dopri5"))
def test_forward_mode(method, in_tensorflow):
    def of(dynamics):
        return lambda inputs: odeint(dynamics, *inputs, method=method, rtol=1e-10, atol=1e-10)

    point, direction = (Y0, np.array(T), 2.0), (np.array([0.3, 1.0]), np.array([0.1, -0.4, 0.2]), -0.5)
    value, jvp = make_jvp(of(in_tensorflow))(point)(direction)
    np.testing.assert_allclose(value, of(in_autograd)(point), rtol=1e-12)
    np.testing.assert_allclose(jvp, make_jvp(of(in_autograd))(point)(direction)[1], rtol=1e-8)


@pytest.mark.parametrize("reconstruction", some_fast(("auto", "interpolate"), "interpolate"))
def test_hessian_vector_products(in_tensorflow, reconstruction):
    def of(dynamics):
        means = {"rtol": 1e-9, "atol": 1e-9, "method": "dopri5", "adjoint_options": {"reconstruction": reconstruction}}
        return lambda k: anp.sum(odeint(dynamics, Y0, T, k, **means)[-1] ** 2)

    expected = hessian_vector_product(of(in_autograd))(2.0, 1.0)
    assert hessian_vector_product(of(in_tensorflow))(2.0, 1.0) == pytest.approx(expected, rel=1e-6)
    assert make_jvp(grad(of(in_tensorflow)))(2.0)(1.0)[1] == pytest.approx(expected, rel=1e-6)
    assert grad(lambda k: make_jvp(of(in_tensorflow))(k)(1.0)[1])(2.0) == pytest.approx(expected, rel=1e-6)


def test_events(in_tensorflow):
    def time(dynamics):
        return lambda k: odeint_event(dynamics, Y0, 0.0, lambda t, y, k: y[0], k, method="dopri5", rtol=1e-10, atol=1e-10)[0]

    with record_solves() as solves:
        assert time(in_tensorflow)(2.0) == pytest.approx(time(in_autograd)(2.0), rel=1e-9)
    assert solves
    assert grad(time(in_tensorflow))(2.0) == pytest.approx(grad(time(in_autograd))(2.0), rel=1e-7)
    assert grad(grad(time(in_tensorflow)))(2.0) == pytest.approx(grad(grad(time(in_autograd)))(2.0), rel=1e-5)
