"""TensorFlow graphs as dynamics of odeint, and TensorFlow functions as autograd primitives."""

import gc
import subprocess
import sys
import textwrap
import weakref
from collections import namedtuple
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
import tensorflow as tf
from autograd import grad, jacobian
from autograd.core import primitive_vjps

from solvers_bridge import SolverError, TensorFlowDynamics, odeint, record_solves, tensorflow_graph, tensorflow_primitive

ROOT = Path(__file__).resolve().parents[2]
FIXED = ("euler", "midpoint", "rk4")
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


@pytest.fixture(scope="module")
def in_float64():
    return TensorFlowDynamics(network(tf), dtype="float64")


@pytest.fixture(scope="module")
def in_float32():
    return TensorFlowDynamics(network(tf))


# Dynamics ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ("adams", "bdf", "lsoda", "dopri5", "dop853", "radau", "rk4"))
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
    for argument in range(len(ARGUMENTS)):
        np.testing.assert_allclose(
            grad(loss(in_float64, **kwargs), argument)(*ARGUMENTS),
            grad(loss(in_autograd, **kwargs), argument)(*ARGUMENTS),
            rtol=1e-12,
            atol=1e-12,
            err_msg=argument,
        )


@pytest.mark.parametrize("tolerance", (1e-3, 1e-5))
def test_float32_graphs_agree_within_their_precision(tolerance, in_float32):
    kwargs = {"rtol": tolerance, "atol": tolerance}
    np.testing.assert_allclose(solve(in_float32, **kwargs), solve(in_autograd, **kwargs), atol=1e-5)
    for argument in range(len(ARGUMENTS)):
        bar = grad(loss(in_float32, **kwargs), argument)(*ARGUMENTS)
        expected = grad(loss(in_autograd, rtol=1e-9, atol=1e-9), argument)(*ARGUMENTS)
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


@pytest.mark.parametrize("method", ("adams", "rk4"))
def test_parameters_are_sent_once_a_solve(method, monkeypatch):
    dynamics = TensorFlowDynamics(lambda t, y, params: -tf.reduce_sum(params) * y, "float64")
    weights = np.full(7, 0.1)

    def run(**kwargs):
        return grad(lambda w: anp.sum(solve(dynamics, np.ones(2), T, w, method, **kwargs)))(weights)

    run(), run(adjoint_method="discrete") if method == "rk4" else None
    sent, constant = [], tf.constant
    monkeypatch.setattr(
        tensorflow_graph.tf,
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
@pytest.mark.parametrize("method", ("adams", "rk4"))
def test_a_graph_that_returns_something_else(func, kind, match, method):
    dynamics = TensorFlowDynamics(func, "float64")
    for _ in range(2):
        with pytest.raises(kind, match=f"func.*{match}"):
            solve(dynamics, np.ones(2), T, 1.0, method)


@pytest.mark.parametrize("method", ("adams", "lsoda", "dopri5"))
def test_a_func_that_raises_while_it_is_traced(method):
    class Peculiar(Exception):
        pass

    def func(t, y, params):
        raise Peculiar("mine")

    with pytest.raises(Peculiar, match="mine"):
        solve(TensorFlowDynamics(func), np.ones(2), T, 1.0, method)


@pytest.mark.parametrize("method", ("adams", "lsoda", "dopri5", "radau", "rk4"))
def test_a_nan_from_the_graph(method):
    dynamics = TensorFlowDynamics(lambda t, y, params: tf.where(t > 0.5, tf.math.log(-params), -1.0) * y, "float64")
    with pytest.raises(SolverError, match="func returned nan") as info:
        solve(dynamics, np.ones(2), [0.0, 0.2, 0.4, 0.6, 1.0], 1.0, method)
    assert 0.2 < info.value.t_reached <= 0.5 and info.value.statistics.nfe > 1
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


def test_another_device_gives_identical_results():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
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
        """),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def van_der_pol(lib, stack):
    return lambda t, y, mu: stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])


@pytest.mark.parametrize("method", ("bdf", "lsoda", "radau", "adams"))
def test_jacobians_by_autodiff(method):
    dynamics = TensorFlowDynamics(van_der_pol(tf, tf.stack), "float64")
    kwargs = {"y0": np.array([2.0, 0.0]), "t": np.array([0.0, 2.0]), "params": 30.0, "method": method}
    with record_solves() as solves:
        ys = solve(dynamics, **kwargs, options={"jacobian": "autodiff"})
        np.testing.assert_allclose(ys, solve(van_der_pol(anp, anp.array), **kwargs, options={"jacobian": "autodiff"}), rtol=1e-7)
        np.testing.assert_allclose(ys, solve(dynamics, **kwargs, options={"jacobian": "finite_difference"}), rtol=1e-5)
    assert solves[0].nje > 0 and solves[0].nje == solves[1].nje
    if method != "adams":  # whose steps on a stiff problem are decided by rounding
        assert solves[0].nfe < solves[2].nfe


@pytest.mark.parametrize("method", ("bdf", "lsoda", "radau"))
def test_jacobians_by_autodiff_in_the_reverse_sweep(method):
    def final(func):
        return lambda mu, y0: anp.sum(solve(func, y0, T, mu, method, rtol=1e-6, atol=1e-6, options={"jacobian": "autodiff"})[-1])

    dynamics = TensorFlowDynamics(van_der_pol(tf, tf.stack), "float64")
    for argument in (0, 1):
        bar = grad(final(dynamics), argument)(5.0, np.array([2.0, 0.0]))
        np.testing.assert_allclose(bar, grad(final(van_der_pol(anp, anp.array)), argument)(5.0, np.array([2.0, 0.0])), rtol=1e-4)


def test_gradient_of_a_gradient(in_float64):
    def curvature(func):
        inner = grad(loss(func, method="dopri5", rtol=1e-4, atol=1e-4), 2)
        return grad(lambda w1, y0: anp.sum(inner(y0, T, w1, *ARGUMENTS[3:]) ** 2), 0), grad(
            lambda y0: anp.sum(inner(y0, *ARGUMENTS[1:]))
        )

    (of_w1, of_y0), (w1_expected, y0_expected) = curvature(in_float64), curvature(in_autograd)
    np.testing.assert_allclose(of_w1(ARGUMENTS[2], Y0), w1_expected(ARGUMENTS[2], Y0), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(of_y0(Y0), y0_expected(Y0), rtol=1e-7, atol=1e-7)


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


# Primitives ----------------------------------------------------------------------------------------------------------------------


def central_difference(f, x, h=1e-6):
    x = np.asarray(x, np.float64)
    out = np.empty_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        out[i] = (f(x + step) - f(x - step)) / (2 * h)
    return out


def test_nested_arguments_and_outputs():
    @tensorflow_primitive
    def f(x, params):
        h = tf.tanh(x @ params["w"] + params["b"][0])
        return h, {"sum": tf.reduce_sum(h**2), "parts": [2.0 * x, params["b"][0] ** 2]}

    x, w, b = rng.normal(size=(3, 2)), rng.normal(size=(2, 2)), rng.normal(size=2)
    h, rest = f(x, {"w": w, "b": (b,)})
    np.testing.assert_allclose(h, np.tanh(x @ w + b))
    np.testing.assert_allclose(rest["sum"], np.sum(h**2))
    np.testing.assert_array_equal(rest["parts"][0], 2 * x)
    assert isinstance(h, np.ndarray) and set(rest) == {"sum", "parts"}

    def total(x, w, b):
        h, rest = f(x, {"w": w, "b": (b,)})
        return anp.sum(anp.sin(h)) + rest["sum"] * anp.sum(rest["parts"][0]) + anp.sum(rest["parts"][1])

    for argument in range(3):

        def of(value):
            values = [x, w, b]
            values[argument] = value
            return total(*values)

        np.testing.assert_allclose(
            grad(total, argument)(x, w, b), central_difference(of, (x, w, b)[argument]), rtol=1e-6, atol=1e-7
        )


def test_labels_do_not_retrace():
    traces = []

    @tensorflow_primitive
    def cross_entropy(logits, labels):
        traces.append(labels.dtype)
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

    for batch in range(6):
        logits, labels = rng.normal(size=(5, 3)), np.random.default_rng(batch).integers(0, 3, 5)
        bar = grad(cross_entropy)(logits, labels)
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(bar, (probabilities - np.eye(3)[labels]) / 5, rtol=1e-10, atol=1e-12)
        if batch == 0:
            first = len(traces)
    assert len(traces) == first and traces[0] == tf.int64


def test_second_derivatives():
    f = tensorflow_primitive(lambda x, w: tf.reduce_sum(tf.sin(x * w) * x))
    reference = lambda x, w: anp.sum(anp.sin(x * w) * x)
    x, w = rng.normal(size=4), rng.normal(size=4)
    for outer in (0, 1):
        for inner in (0, 1):

            def second(g):
                return grad(lambda *args: anp.sum(anp.cos(grad(g, inner)(*args))), outer)(x, w)

            np.testing.assert_allclose(second(f), second(reference), rtol=1e-10)

    def third(g):
        return grad(lambda x: anp.sum(grad(lambda x: anp.sum(grad(g)(x, w) ** 2))(x) ** 2))(x)

    np.testing.assert_allclose(third(f), third(reference), rtol=1e-9)


def test_second_derivatives_with_labels():
    f = tensorflow_primitive(lambda logits, labels: tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)))
    logits, labels = rng.normal(size=(2, 3)), np.array([0, 2])
    bar = grad(lambda logits: anp.sum(grad(f)(logits, labels) ** 2))(logits)
    expected = central_difference(lambda logits: np.sum(grad(f)(logits, labels) ** 2), logits)
    np.testing.assert_allclose(bar, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", (np.float32, np.float64))
def test_dtype_casts_and_gradients_come_back(kind):
    seen = []

    def f(x):
        seen.append(x.dtype)
        return tf.reduce_sum(tf.exp(x))

    cast = tensorflow_primitive(f, dtype="float32")
    x = rng.normal(size=3).astype(kind)
    assert cast(x).dtype == np.float32
    bar = grad(cast)(x)
    assert bar.dtype == kind and set(seen) == {tf.float32}
    np.testing.assert_allclose(bar, np.exp(x), rtol=1e-5)
    second = grad(lambda x: anp.sum(grad(cast)(x) ** 2))(x)
    assert second.dtype == kind
    np.testing.assert_allclose(second, 2 * np.exp(2 * x), rtol=1e-5)


def test_dtype_none_keeps_each_arguments_own():
    f = tensorflow_primitive(lambda x, w: (x * 2, w * 3))
    one, two = f(np.ones(2, np.float32), np.ones(2))
    assert one.dtype == np.float32 and two.dtype == np.float64


def test_jacobian_calls_the_vjp_several_times():
    f = tensorflow_primitive(lambda x: tf.stack([x[0] * x[1], tf.sin(x[0]), x[1] ** 2]))
    x = np.array([0.4, 1.3])
    expected = np.array([[1.3, 0.4], [np.cos(0.4), 0.0], [0.0, 2.6]])
    for _ in range(2):
        np.testing.assert_allclose(jacobian(f)(x), expected, rtol=1e-12)


def test_an_argument_used_twice_and_one_not_used():
    f = tensorflow_primitive(lambda x, y, z: x * y)
    np.testing.assert_allclose(grad(lambda x: f(x, x, x))(3.0), 6.0)
    np.testing.assert_allclose(grad(lambda z: f(2.0, 3.0, z))(3.0), 0.0)


def test_an_output_that_is_not_used_or_has_no_gradient():
    f = tensorflow_primitive(lambda x: {"value": x**2, "order": tf.argsort(x), "other": tf.exp(x)})
    x = np.array([1.0, 3.0, 2.0])
    np.testing.assert_array_equal(f(x)["order"], [0, 2, 1])
    np.testing.assert_allclose(grad(lambda x: anp.sum(f(x)["value"]))(x), 2 * x)


def test_an_output_that_is_one_integer():
    f = tensorflow_primitive(lambda x: {"value": x**2, "index": tf.argmax(x)})
    x = np.array([1.0, 3.0, 2.0])
    assert f(x)["index"] == 1
    np.testing.assert_allclose(grad(lambda x: anp.sum(f(x)["value"]))(x), 2 * x)


def test_outputs_of_one_entry_stay_nested():
    f = tensorflow_primitive(lambda x: [x**2])
    out = f(np.ones(2))
    assert isinstance(out, list) and len(out) == 1
    np.testing.assert_allclose(grad(lambda x: anp.sum(f(x)[0]))(np.array([3.0, 4.0])), [6.0, 8.0])


def test_shapes_and_nestings_that_change_between_calls():
    f = tensorflow_primitive(lambda x: {"a": x} if isinstance(x, tf.Tensor) else {"b": (x[0], x[1])})
    assert set(f(np.ones(2))) == {"a"}
    assert set(f([np.ones(2), np.ones(1)])) == {"b"}
    assert set(f(np.ones(3))) == {"a"}


def test_outputs_whose_nesting_depends_on_the_shape():
    g = tensorflow_primitive(lambda x: [x] if x.shape[0] > 2 else [x, x])
    assert [len(g(np.ones(n))) for n in (2, 3, 2)] == [2, 1, 2]
    np.testing.assert_allclose(grad(lambda x: anp.sum(g(x)[-1]))(np.ones(2)), np.ones(2))


def test_inside_odeint_and_around_it():
    encode = tensorflow_primitive(lambda x, w: tf.tanh(x @ w))
    dynamics = TensorFlowDynamics(lambda t, y, w: tf.tanh(y @ w), "float64")
    x, w, v = rng.normal(size=(2, 3)), rng.normal(size=(3, 2)), rng.normal(size=(2, 2))

    def total(encode, dynamics):
        return lambda w, v: anp.sum(odeint(dynamics, encode(x, w), [0.0, 1.0], v)[-1] ** 2)

    plain = total(lambda x, w: anp.tanh(anp.dot(x, w)), lambda t, y, w: anp.tanh(anp.dot(y, w)))
    mixed = total(encode, lambda t, y, w: encode(y, w))
    for argument in (0, 1):
        expected = grad(plain, argument)(w, v)
        np.testing.assert_allclose(grad(total(encode, dynamics), argument)(w, v), expected, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(grad(mixed, argument)(w, v), expected, rtol=1e-9, atol=1e-11)


def test_a_primitive_that_fails():
    with pytest.raises(TypeError, match="fn must be a function"):
        tensorflow_primitive(3)
    with pytest.raises(TypeError, match="nothing returned None"):

        def nothing(x):
            return None

        tensorflow_primitive(nothing)(1.0)
    with pytest.raises(TypeError, match="must be real numbers"):
        tensorflow_primitive(tf.exp)("x")
    with pytest.raises(ValueError, match="CPU:9"):
        tensorflow_primitive(tf.exp, device="CPU:9")

    class Peculiar(Exception):
        pass

    def raises(x):
        raise Peculiar("mine")

    with pytest.raises(Peculiar, match="mine"):
        tensorflow_primitive(raises)(1.0)
    f = tensorflow_primitive(lambda x, y: x @ y)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        f(np.ones((2, 3)), np.ones((2, 3)))
    np.testing.assert_allclose(f(np.ones((2, 3)), np.ones((3, 1))), np.full((2, 1), 3.0))


def test_a_primitive_cannot_compute_in_integers():
    with pytest.raises((TypeError, ValueError), match="dtype"):
        tensorflow_primitive(tf.exp, dtype="int32")


def test_importing_tensorflow_is_left_to_its_first_use():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
        import sys
        import solvers_bridge
        assert "tensorflow" not in sys.modules
        from solvers_bridge import TensorFlowDynamics
        assert "tensorflow" in sys.modules
        """),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("gradient", [grad, lambda function: grad(lambda y0: anp.sum(grad(function)(y0) ** 2))])
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


def test_a_compiled_primitive_is_the_same_function_with_the_same_derivatives():
    def recurrent(weight, inputs):
        def step(i, h):
            return i + 1, tf.tanh(h @ weight + inputs[i])

        return tf.while_loop(lambda i, h: i < 5, step, [0, tf.zeros((2, 3), tf.float64)], maximum_iterations=5)[1]

    rng = np.random.default_rng(0)
    weight, inputs = rng.normal(size=(3, 3)), rng.normal(size=(5, 2, 3))
    plain, compiled = (tensorflow_primitive(recurrent, compiled=way) for way in (False, True))
    np.testing.assert_allclose(compiled(weight, inputs), plain(weight, inputs), rtol=1e-12)
    for argnum in (0, 1):
        gradients = [grad(lambda *arguments: anp.sum(f(*arguments) ** 2), argnum)(weight, inputs) for f in (plain, compiled)]
        np.testing.assert_allclose(*gradients, rtol=1e-9, atol=1e-12)
    cubes = tensorflow_primitive(lambda x: {"cube": x**3, "three": tf.constant(3)}, compiled=True)
    assert grad(grad(lambda x: cubes(x)["cube"]))(2.0) == pytest.approx(12.0)
