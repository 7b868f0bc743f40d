"""TensorFlow's private entry points refuse us: the public, slower way gives the same values.

A private function is replaced by one that serves TensorFlow's own modules as ever and refuses, or lies to, solvers_bridge.
"""

import sys

import autograd.numpy as anp
import numpy as np
import pytest
import tensorflow as tf
from autograd import grad
from tensorflow.python import pywrap_tfe
from tensorflow.python.framework import ops

from solvers_bridge import TensorFlowDynamics, odeint, record_solves, tensorflow_primitive
from solvers_bridge import tensorflow as door
from solvers_bridge.dynamics.tensorflow_call import StateGraph

CAPTURED = tf.constant(np.linspace(0.0, 1.0, 6))
Y0, WEIGHTS = np.array([[0.3, -0.7]]), np.array([[0.5, -0.4], [0.9, 0.2]])


def solved():
    """States and gradients of a new TensorFlowDynamics, and the evaluations that they took."""
    dynamics = TensorFlowDynamics(lambda t, y, w: tf.tanh(y @ w) - t * y, "float64")
    with record_solves() as solves:
        states = odeint(dynamics, Y0, [0.0, 0.5, 1.0], WEIGHTS)
        bars = grad(lambda y0, w: anp.sum(odeint(dynamics, y0, [0.0, 0.5, 1.0], w) ** 2), (0, 1))(Y0, WEIGHTS)
    return [states, *bars], [solve.nfe for solve in solves]


@pytest.fixture(scope="module")
def expected():
    return solved()


def instead(monkeypatch, owner, name, to_us):
    """Replace owner.name for callers in solvers_bridge by to_us(original, *args); returns the list of those calls."""
    original, calls = getattr(owner, name), []

    def function(*args, **kwargs):
        if not sys._getframe(1).f_globals["__name__"].startswith("solvers_bridge"):
            return original(*args, **kwargs)
        calls.append(name)
        return to_us(original, *args, **kwargs)

    monkeypatch.setattr(owner, name, function)
    return calls


def refuse(error):
    def to_us(original, *args, **kwargs):
        raise error

    return to_us


def assert_as_expected(expected):
    values, nfe = solved()
    for value, wanted in zip(values, expected[0]):
        np.testing.assert_array_equal(value, wanted)
    assert nfe == expected[1]


@pytest.mark.parametrize(
    "error",
    (TypeError("another signature"), tf.errors.InternalError(None, None, "no")),
    ids=lambda error: type(error).__name__,
)
def test_a_c_entry_point_that_refuses(monkeypatch, expected, error):
    calls = instead(monkeypatch, pywrap_tfe, "TFE_Py_Execute", refuse(error))
    assert_as_expected(expected)
    # Tried once for the graph of func and once for that of its adjoint, and not again.
    assert len(calls) == 2


def test_a_c_entry_point_that_answers_something_else(monkeypatch, expected):
    calls = instead(monkeypatch, pywrap_tfe, "TFE_Py_Execute", lambda execute, *args: [output + 1.0 for output in execute(*args)])
    assert_as_expected(expected)
    assert len(calls) == 2


def test_tensors_that_do_not_share_memory(monkeypatch, expected):
    calls = instead(monkeypatch, np, "shares_memory", lambda *args: False)
    assert_as_expected(expected)
    assert calls


DECAY = TensorFlowDynamics(lambda t, y, _: -y, "float64")


def take_away(monkeypatch, module):
    parent, _, name = module.__name__.rpartition(".")
    monkeypatch.setitem(sys.modules, module.__name__, None)
    monkeypatch.delattr(sys.modules[parent], name)


@pytest.mark.parametrize("module", (ops, pywrap_tfe), ids=lambda module: module.__name__)
def test_private_modules_that_are_gone(monkeypatch, expected, module):
    take_away(monkeypatch, module)
    assert_as_expected(expected)


def test_a_tape_that_cannot_be_asked_is_followed(monkeypatch):
    """Whether anything is being differentiated is not known: the gradient is there, and a solve without a tape is right."""

    def solve_and_differentiate():
        y0, weights = tf.constant(Y0), tf.Variable(WEIGHTS)
        alone = door.odeint(lambda t, y, w: tf.tanh(y @ w) - t * y, y0, [0.0, 0.5, 1.0], weights)
        with tf.GradientTape() as tape:
            states = door.odeint(lambda t, y, w: tf.tanh(y @ w) - t * y, y0, [0.0, 0.5, 1.0], weights)
            loss = tf.reduce_sum(states**2)
        return alone.numpy(), states.numpy(), tape.gradient(loss, weights).numpy()

    wanted = solve_and_differentiate()
    take_away(monkeypatch, pywrap_tfe)
    np.testing.assert_array_equal(odeint(DECAY, tf.constant(Y0), [0.0, 1.0]), odeint(DECAY, Y0, [0.0, 1.0]))
    for value, one in zip(solve_and_differentiate(), wanted):
        np.testing.assert_array_equal(value, one)


def test_primitives_and_functions_where_tapes_cannot_be_asked(monkeypatch):
    take_away(monkeypatch, pywrap_tfe)
    half = tensorflow_primitive(lambda x: 0.5 * tf.reduce_sum(x * x))
    with tf.init_scope():
        np.testing.assert_array_equal(grad(half)(Y0), Y0)
    states = tf.function(lambda y0: door.odeint(DECAY, y0, [0.0, 1.0]))(tf.constant(Y0))
    np.testing.assert_array_equal(states, odeint(DECAY, Y0, [0.0, 1.0]))


@pytest.mark.parametrize("error", (None, AttributeError("gone"), TypeError("another signature")), ids=repr)
def test_a_graph_that_runs_in_its_own_thread(monkeypatch, error):
    """What a solve in the midst of another graph does, with the private call of a session and without."""

    def function(t, z, leaves):
        return t * tf.reshape(tf.nn.conv2d(tf.reshape(z, (1, 2, 3, 1)), leaves[0], 1, "SAME"), (-1,)) + CAPTURED

    if error is not None:
        instead(monkeypatch, tf.compat.v1.Session, "_make_callable_from_options", refuse(error))
    graph = StateGraph(function, 6, [((3, 3, 1, 1), tf.float64)], tf.float64, "CPU:0")
    tz, kernel = tf.constant(np.arange(7.0)), tf.constant(np.arange(9.0).reshape(3, 3, 1, 1))
    np.testing.assert_array_equal(graph.evaluate_in_place(tz, [kernel]), graph.evaluate(tz, [kernel]))
