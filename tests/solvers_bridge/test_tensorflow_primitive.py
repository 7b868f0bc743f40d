"""TensorFlow functions as autograd primitives: nestings, dtypes, and derivatives of every order."""

import autograd.numpy as anp
import numpy as np
import pytest
import tensorflow as tf
from autograd import grad, jacobian

from solvers_bridge import TensorFlowDynamics, odeint, tensorflow_primitive

rng = np.random.default_rng(0)


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
