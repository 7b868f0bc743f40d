"""TensorFlow graphs as dynamics of odeint: states, gradients, devices, and what is refused."""

import gc
import os
import signal
import time
import weakref
from collections import namedtuple

import autograd.numpy as anp
import numpy as np
import pytest
import tensorflow as tf
from autograd import grad
from autograd.core import primitive_vjps

from solvers_bridge import SolverError, TensorFlowDynamics, odeint, record_solves, tensorflow_primitive
from solvers_bridge.dynamics import tensorflow_call
from solvers_bridge.dynamics.native.build import program
from tests.helpers import FIXED, every_family, run_script, some_fast

T = np.array([0.0, 0.3, 1.0])
rng = np.random.default_rng(0)
Y0 = rng.normal(size=(2, 3))
PARAMS = {"layers": [(rng.normal(size=(3, 4)), rng.normal(size=4)), (rng.normal(size=(4, 3)), rng.normal(size=3))], "scale": 0.7}


def network(lib):
    """A two-layer network whose last layer depends on t, in autograd.numpy or TensorFlow."""

    def func(t, y, params):
        (w1, b1), (w2, b2) = params["layers"]
        return params["scale"] * lib.tanh(lib.matmul(lib.tanh(lib.matmul(y, w1) + b1), w2) + b2 * t)

    return func


in_autograd = network(anp)


def solve(func, y0=Y0, t=T, params=PARAMS, method="adams", **kwargs):
    options = {"step_size": 0.1} if method in FIXED else {}
    return odeint(func, y0, t, params, **{"method": method, "rtol": 1e-8, "atol": 1e-8, "options": options, **kwargs})


def loss(func, **kwargs):
    """Of y0, t and the parts of params: a weighted sum of every state."""
    weights = np.random.default_rng(1).normal(size=(3, 2, 3))

    def of(y0, t, w1, b1, w2, b2, scale):
        params = {"layers": [(w1, b1), (w2, b2)], "scale": scale}
        return anp.sum(weights * solve(func, y0, t, params, **kwargs))

    return of


ARGUMENTS = (Y0, T, *PARAMS["layers"][0], *PARAMS["layers"][1], PARAMS["scale"])


def gradients(func, **kwargs):
    """Of loss, with respect to every argument, in one reverse sweep."""
    return grad(loss(func, **kwargs), tuple(range(len(ARGUMENTS))))(*ARGUMENTS)


@pytest.fixture(scope="module")
def in_float64():
    return TensorFlowDynamics(network(tf), dtype="float64")


@pytest.fixture(scope="module")
def in_float32():
    return TensorFlowDynamics(network(tf))


@every_family
def test_states_equal_those_of_autograd_dynamics(method, in_float64):
    ys = solve(in_float64, method=method)
    assert ys.shape == (3, 2, 3) and ys.dtype == np.float64
    np.testing.assert_allclose(ys, solve(in_autograd, method=method), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "kwargs",
    (
        {},
        {"method": "lsoda"},
        {"method": "dopri5"},
        {"method": "rk4"},
        {"adjoint_method": "dop853"},
        {"method": "rk4", "adjoint_method": "discrete"},
        {"method": "euler", "adjoint_method": "discrete"},
        {"adjoint_options": {"norm": "seminorm"}},
        {"adjoint_options": {"restart": "warm"}},
        {"adjoint_options": {"checkpoint": 3}},
    ),
    ids=str,
)
def test_gradients_equal_those_of_autograd_dynamics(kwargs, in_float64):
    for bar, expected in zip(gradients(in_float64, **kwargs), gradients(in_autograd, **kwargs)):
        np.testing.assert_allclose(bar, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tolerance", (1e-3, 1e-5))
def test_float32_graphs_agree_within_their_precision(tolerance, in_float32):
    kwargs = {"rtol": tolerance, "atol": tolerance}
    np.testing.assert_allclose(solve(in_float32, **kwargs), solve(in_autograd, **kwargs), atol=1e-5)
    for bar, expected in zip(gradients(in_float32, **kwargs), gradients(in_autograd, rtol=1e-9, atol=1e-9)):
        np.testing.assert_allclose(bar, expected, atol=30 * tolerance)
        assert np.asarray(bar).dtype == np.float64


def test_gradients_of_float32_parameters_are_float32(in_float32):
    arguments = [np.asarray(argument, np.float32) if index > 1 else argument for index, argument in enumerate(ARGUMENTS)]
    bar = grad(loss(in_float32, rtol=1e-4, atol=1e-4), 2)(*arguments)
    assert bar.dtype == np.float32 and bar.shape == (3, 4)


@pytest.mark.parametrize("shape", ((), (1,), (2, 1, 3)))
def test_any_shape_of_state(shape):
    dynamics = TensorFlowDynamics(lambda t, y, rate: -rate * y, "float64")
    y0 = np.full(shape, 2.0)

    def final(rate, y0):
        return anp.sum(odeint(dynamics, y0, [0.0, 1.0], rate)[-1])

    assert final(0.5, y0) == pytest.approx(y0.sum() * np.exp(-0.5), rel=1e-6)
    assert grad(final)(0.5, y0) == pytest.approx(-y0.sum() * np.exp(-0.5), rel=1e-6)
    np.testing.assert_allclose(grad(final, 1)(0.5, y0), np.full(shape, np.exp(-0.5)), rtol=1e-6)


def test_params_that_play_no_part_have_zero_gradients():
    dynamics = TensorFlowDynamics(lambda t, y, params: -params[0] * y, "float64")
    bars = grad(lambda params: anp.sum(odeint(dynamics, np.ones(2), [0.0, 1.0], params)))([0.5, np.ones((2, 2)), np.zeros(0)])
    np.testing.assert_array_equal(bars[1], np.zeros((2, 2)))
    assert bars[2].shape == (0,)
    constant = TensorFlowDynamics(lambda t, y, params: tf.ones_like(y), "float64")
    np.testing.assert_allclose(grad(lambda y0: anp.sum(odeint(constant, y0, [0.0, 1.0], 3.0)[-1]))(np.ones(2)), [1.0, 1.0])


def test_integer_params_are_constants_of_the_graph():
    dynamics = TensorFlowDynamics(lambda t, y, params: -params["w"] * tf.cast(params["power"], tf.float64) * y, "float64")
    for power in (1, 2):
        assert odeint(dynamics, 1.0, [0.0, 1.0], {"w": 0.5, "power": power})[-1] == pytest.approx(np.exp(-0.5 * power), rel=1e-6)


def test_namedtuple_params():
    Layer = namedtuple("Layer", "w b")
    dynamics = TensorFlowDynamics(lambda t, y, p: -p.w * y + p.b, "float64")
    expected = odeint(lambda t, y, p: -p.w * y + p.b, 1.0, [0.0, 1.0], Layer(0.5, 0.1))
    np.testing.assert_allclose(odeint(dynamics, 1.0, [0.0, 1.0], Layer(0.5, 0.1)), expected, atol=1e-12)


def test_compiled_once_a_shape():
    traces = []

    def func(t, y, params):
        traces.append(tuple(y.shape))
        return -params * y

    dynamics = TensorFlowDynamics(func, "float64")

    def train(shape, steps):
        rate = 0.5
        for _ in range(steps):
            rate -= 0.1 * grad(lambda rate: anp.sum(odeint(dynamics, np.ones(shape), [0.0, 0.5, 1.0], rate)))(rate)

    train((2,), 1)
    first = len(traces)
    # Once to look for convolutions, once with XLA, for the right-hand side and for the augmented system.
    assert 0 < first <= 4
    train((2,), 4)
    assert len(traces) == first
    train((3, 2), 2)
    assert len(traces) == 2 * first and set(traces) == {(2,), (3, 2)}
    train((2,), 1)
    assert len(traces) == 2 * first


def test_graphs_of_images_are_not_compiled_with_xla_on_cpus():
    traces = []

    def func(t, y, params):
        traces.append(t)
        return -params * y * tf.size(tf.image.extract_patches(y[None, :, :, None], *[[1, 1, 1, 1]] * 3, "VALID"), y.dtype)

    odeint(TensorFlowDynamics(func, "float64", "CPU:0"), np.ones((2, 2)), [0.0, 1.0], 0.5)
    assert len(traces) == 1  # without a second time for XLA


@tf.custom_gradient
def sine_of_numpy(x):
    return tf.ensure_shape(tf.numpy_function(np.sin, [x], x.dtype), x.shape), lambda bar: bar * tf.cos(x)


@pytest.mark.parametrize("method", ("adams", "rk4"))
@pytest.mark.parametrize(
    "func, in_autograd",
    (
        (lambda t, y, w: w * sine_of_numpy(y), lambda t, y, w: w * anp.sin(y)),
        (
            lambda t, y, w: w * tf.ensure_shape(tf.py_function(tf.sin, [y], y.dtype), y.shape),
            lambda t, y, w: w * anp.sin(y),
        ),
        (lambda t, y, w: tf.matmul(y, tf.linalg.sqrtm(w * tf.eye(3, dtype=y.dtype))), lambda t, y, w: w**0.5 * y),
    ),
    ids=("numpy_function", "py_function", "sqrtm"),
)
def test_operations_that_xla_does_not_know(func, in_autograd, method):
    def expected(y0, w):
        return anp.sum(solve(in_autograd, y0, T, w, method) ** 2)

    dynamics = TensorFlowDynamics(func, "float64")
    values = (
        solve(dynamics, params=0.7, method=method),
        *grad(lambda *a: anp.sum(solve(dynamics, a[0], T, a[1], method) ** 2), (0, 1))(Y0, 0.7),
    )
    np.testing.assert_allclose(np.sum(values[0] ** 2), expected(Y0, 0.7), rtol=1e-7)
    for value, wanted in zip(values[1:], grad(expected, (0, 1))(Y0, 0.7), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-6)


@pytest.mark.parametrize("method", ("adams", "rk4"))
def test_parameters_are_sent_once_a_solve(method, monkeypatch):
    dynamics = TensorFlowDynamics(lambda t, y, params: -tf.reduce_sum(params) * y, "float64")
    weights = np.full(7, 0.1)

    def run(**kwargs):
        return grad(lambda w: anp.sum(solve(dynamics, np.ones(2), T, w, method, **kwargs)))(weights)

    run(), run(adjoint_method="discrete") if method == "rk4" else None
    sent, constant = [], tf.constant
    monkeypatch.setattr(
        tensorflow_call.tf,
        "constant",
        lambda value, *rest, **kwargs: (sent.append(np.shape(value)), constant(value, *rest, **kwargs))[1],
    )
    with record_solves() as solves:
        run()
    assert sum(record.nfe for record in solves) > 20
    # To the forward solve, and for the whole reverse sweep to the augmented system and to f at the output times.
    assert sent.count((7,)) <= 3
    sent.clear()
    if method == "rk4":
        run(adjoint_method="discrete")
        assert sent.count((7,)) <= 3


@pytest.mark.parametrize(
    "func, kind, match",
    [
        (lambda t, y, p: None, TypeError, r"None.*\(2,\)"),
        (lambda t, y, p: y[:1], ValueError, r"shape.*\(2,\).*\(1,\)"),
        (lambda t, y, p: tf.reduce_sum(y), ValueError, r"shape.*\(2,\).*\(\)"),
        (lambda t, y, p: tf.cast(y, tf.float16), TypeError, "must return float64.*got float16"),
        (lambda t, y, p: tf.cast(y, tf.float32), TypeError, "must return float64.*got float32"),
        (lambda t, y, p: tf.cast(y, tf.int32), TypeError, "must return float64.*got int32"),
        (lambda t, y, p: "dy", (TypeError, ValueError), "must return float64"),
    ],
    ids=("none", "shorter", "scalar", "float16", "float32", "int32", "string"),
)
def test_a_graph_that_returns_something_else(func, kind, match):
    dynamics = TensorFlowDynamics(func, "float64")
    for _ in range(2):
        with pytest.raises(kind, match=f"func.*{match}"):
            solve(dynamics, np.ones(2), T, 1.0)


@pytest.mark.parametrize("method", ("adams", "lsoda", "dopri5"))
def test_a_func_that_raises_while_it_is_traced(method):
    class Peculiar(Exception):
        pass

    def func(t, y, params):
        raise Peculiar("mine")

    with pytest.raises(Peculiar, match="mine"):
        solve(TensorFlowDynamics(func), np.ones(2), T, 1.0, method)


@every_family
def test_a_nan_from_the_graph(method):
    dynamics = TensorFlowDynamics(lambda t, y, params: tf.where(t > 0.5, tf.math.log(-params), -1.0) * y, "float64")
    with pytest.raises(SolverError, match="func returned nan") as info:
        solve(dynamics, np.ones(2), [0.0, 0.2, 0.4, 0.6, 1.0], 1.0, method)
    # A time reached in good order: trial steps beyond 0.5 may meet NaN, and are tried again smaller until they cannot be.
    assert 0.2 < info.value.t_reached <= 0.5 + 1e-6 and info.value.statistics.nfe > 1
    np.testing.assert_allclose(solve(dynamics, np.ones(2), [0.0, 0.4], 1.0, method)[-1], np.exp(-0.4), rtol=1e-5)


@pytest.mark.parametrize(
    "arguments, kind, match",
    [
        (("f",), TypeError, "func must be a function"),
        ((network(tf), "float16"), ValueError, "dtype must be one of float32, float64.*float16"),
        ((network(tf), "int32"), ValueError, "dtype"),
        ((network(tf), "single-ish"), (TypeError, ValueError), "dtype|single-ish"),
        ((network(tf), "float32", "CPU:7"), ValueError, "'CPU:7' is not among.*CPU:0"),
        ((network(tf), "float32", "GPU:5"), ValueError, "'GPU:5' is not among.*CPU:0"),
        ((network(tf), "float32", ""), ValueError, "device"),
        ((network(tf), "float32", 0), TypeError, "device must be a name"),
    ],
)
def test_bad_arguments(arguments, kind, match):
    with pytest.raises(kind, match=match):
        TensorFlowDynamics(*arguments)


@pytest.mark.parametrize("device", ("CPU:0", "cpu:0", "/CPU:0", "/device:CPU:0", None))
def test_spellings_of_a_device(device):
    dynamics = TensorFlowDynamics(lambda t, y, params: -params * y, "float64", device)
    assert odeint(dynamics, 1.0, [0.0, 1.0], 1.0)[-1] == pytest.approx(np.exp(-1), rel=1e-6)


@pytest.mark.slow
def test_another_device_gives_identical_results():
    run_script(
        """
        import numpy as np, tensorflow as tf
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0],
                                                   [tf.config.LogicalDeviceConfiguration()] * 2)
        import autograd.numpy as anp
        from autograd import grad
        from solvers_bridge import TensorFlowDynamics, odeint, tensorflow_primitive
        rng = np.random.default_rng(0)
        filters, dense = 0.3 * rng.normal(size=(3, 3, 2, 2)), 0.3 * rng.normal(size=(4, 4))
        devices = []
        def conv(t, y, w):
            out = tf.tanh(tf.nn.conv2d(y, w, 1, "SAME") + t)
            devices.append(out.device)
            return out
        def plain(t, y, w):
            out = tf.tanh(y @ w + t)
            devices.append(out.device)
            return out
        def product(x, w):
            return {"out": tf.tanh(x @ w)}
        for func, w, y0 in ((plain, dense, rng.normal(size=(5, 4))), (conv, filters, rng.normal(size=(2, 4, 4, 2)))):
            answers = []
            for device in ("CPU:0", "CPU:1"):
                devices.clear()
                dynamics = TensorFlowDynamics(func, "float64", device)
                def loss(w, y0):
                    return anp.sum(odeint(dynamics, y0, [0.0, 0.5, 1.0], w, method="bdf", rtol=1e-6, atol=1e-6)**2)
                answers.append((loss(w, y0), grad(loss)(w, y0), grad(loss, 1)(w, y0)))
                assert devices and all(name.upper().endswith(device) for name in devices), devices
            for one, two in zip(*answers):
                np.testing.assert_array_equal(one, two)
        answers = []
        for device in ("CPU:0", "CPU:1"):
            primitive = tensorflow_primitive(product, device=device)
            answers.append(grad(lambda w: anp.sum(primitive(np.ones((2, 4)), w)["out"]))(dense))
        np.testing.assert_array_equal(*answers)
        stiff = TensorFlowDynamics(lambda t, y, w: -1000.0 * (y - tf.cos(t)), "float64", "CPU:1")
        np.testing.assert_allclose(odeint(stiff, 0.0, [0.0, 1.0], 1.0, method="bdf", options={"jacobian": "autodiff"})[-1],
                                   np.cos(1.0) + np.sin(1.0) / 1000, rtol=1e-5)
        try:
            TensorFlowDynamics(plain, device="CPU:2")
        except ValueError as error:
            assert "CPU:0" in str(error) and "CPU:1" in str(error), error
        else:
            raise AssertionError
        """,
        timeout=150,
    )


def test_gradient_of_a_gradient(in_float64):
    def curvature(func):
        inner = grad(loss(func, method="dopri5", rtol=1e-4, atol=1e-4), 2)
        return grad(lambda w1, y0: anp.sum(inner(y0, T, w1, *ARGUMENTS[3:]) ** 2), 0), grad(
            lambda y0: anp.sum(inner(y0, *ARGUMENTS[1:]))
        )

    (of_w1, of_y0), (w1_expected, y0_expected) = curvature(in_float64), curvature(in_autograd)
    np.testing.assert_allclose(of_w1(ARGUMENTS[2], Y0), w1_expected(ARGUMENTS[2], Y0), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(of_y0(Y0), y0_expected(Y0), rtol=1e-7, atol=1e-7)


def test_a_first_gradient_where_tapes_are_paused():
    dynamics = TensorFlowDynamics(lambda t, y, p: -p * y, "float64")
    means = {"method": "bdf", "options": {"jacobian": "autodiff"}, "rtol": 1e-9, "atol": 1e-9}
    slope = grad(lambda p: odeint(dynamics, 1.0, [0.0, 1.0], p, **means)[-1])
    with tf.init_scope(), record_solves() as before:
        assert slope(0.5) == pytest.approx(-np.exp(-0.5), rel=1e-6)
    with record_solves() as after:
        assert slope(0.5) == pytest.approx(-np.exp(-0.5), rel=1e-6)
    assert [solve.nfe for solve in before] == [solve.nfe for solve in after]


@pytest.mark.parametrize("compiled", (False, True))
def test_a_primitive_where_tapes_are_paused(compiled):
    half = tensorflow_primitive(lambda x: 0.5 * tf.reduce_sum(x * x), compiled=compiled)
    with tf.init_scope():
        np.testing.assert_array_equal(grad(half)(np.array([1.0, 2.0])), [1.0, 2.0])
    np.testing.assert_array_equal(grad(half)(np.array([1.0, 2.0])), [1.0, 2.0])


def test_a_program_is_the_same_where_tapes_are_paused():
    def slope(z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = z**2
        return tape.gradient(value, z, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    specs = [tf.TensorSpec([2], tf.float64)]
    with tf.init_scope():
        here = program(slope, specs)
    assert here.graph == program(slope, specs).graph


def test_an_interrupt_while_a_graph_is_traced():
    def func(t, y, p):
        if not left:
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(200):
            left.append(1)
            time.sleep(0.02)
        return -y

    left, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            odeint(TensorFlowDynamics(func), 1.0, [0.0, 1.0])
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(left) < 200


def test_convolutions_in_the_graph():
    filters, y0 = 0.3 * rng.normal(size=(3, 3, 2, 2)), rng.normal(size=(2, 4, 5, 2))

    def func(t, y, w):
        return tf.nn.conv2d(tf.tanh(y), w, 1, "SAME") + t * tf.reduce_mean(y)

    dynamics = TensorFlowDynamics(func, "float64")

    def reference(t, y, w):
        padded = anp.concatenate([np.zeros((2, 1, 5, 2)), anp.tanh(y), np.zeros((2, 1, 5, 2))], axis=1)
        padded = anp.concatenate([np.zeros((2, 6, 1, 2)), padded, np.zeros((2, 6, 1, 2))], axis=2)
        return sum(anp.matmul(padded[:, i : i + 4, j : j + 5], w[i, j]) for i in range(3) for j in range(3)) + t * anp.mean(y)

    def total(func):
        return lambda w, y0: anp.sum(odeint(func, y0, [0.0, 1.0], w, rtol=1e-7, atol=1e-7)[-1] ** 2)

    np.testing.assert_allclose(total(dynamics)(filters, y0), total(reference)(filters, y0), rtol=1e-9)
    for argument in (0, 1):
        np.testing.assert_allclose(
            grad(total(dynamics), argument)(filters, y0), grad(total(reference), argument)(filters, y0), rtol=1e-9, atol=1e-9
        )


def second(function):
    return grad(lambda y0: anp.sum(grad(function)(y0) ** 2))


@pytest.mark.parametrize("gradient", some_fast([grad, second], second))
def test_gradients_leave_nothing_behind_in_autograd(gradient):
    def use():
        dynamics = TensorFlowDynamics(lambda t, y, params: tf.linalg.matvec(params[0], y), "float64")
        head = tensorflow_primitive(lambda y: tf.reduce_sum(tf.tanh(y)))
        discrete = {"method": "rk4", "adjoint_method": "discrete"}
        gradient(lambda y0: head(odeint(dynamics, y0, [0.0, 1.0], (np.eye(2),), **discrete)[-1]))(np.ones(2))
        return weakref.ref(dynamics)

    use()
    known = len(primitive_vjps)
    kept = use()
    gc.collect()
    assert len(primitive_vjps) == known and kept() is None
