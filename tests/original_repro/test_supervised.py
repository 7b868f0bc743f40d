import functools

import numpy as np
import pytest
import tensorflow as tf

from original_repro import supervised


def as_float64(params):
    return tf.nest.map_structure(lambda leaf: np.asarray(leaf, np.float64), params)


@pytest.fixture(scope="module")
def params():
    return supervised.init_odenet(np.random.default_rng(0))


@pytest.fixture(scope="module")
def small_dynamics():
    rng = np.random.default_rng(1)
    dynamics = supervised.init_odenet(rng, channels=6)["dynamics"]
    return tf.nest.map_structure(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), dynamics)


def naive_dynamics(t, z, params, groups):
    """The same layer written as PyTorch's example is: t concatenated to every input, moments over a 5-D view."""

    def norm(p, x):
        batch, height, width, channels = x.shape
        grouped = tf.reshape(x, (batch, height, width, groups, channels // groups))
        mean, variance = tf.nn.moments(grouped, (1, 2, 4), keepdims=True)
        return tf.reshape((grouped - mean) / tf.sqrt(variance + 1e-5), x.shape) * p["scale"] + p["shift"]

    def conv(p, x):
        weight = tf.concat([p["time_weight"][:, :, None], p["weight"]], 2)
        x = tf.concat([tf.ones_like(x[..., :1]) * tf.cast(t, x.dtype), x], -1)
        return tf.nn.conv2d(x, weight, 1, "SAME") + p["bias"]

    h = conv(params["conv1"], tf.nn.relu(norm(params["norm1"], z)))
    h = conv(params["conv2"], tf.nn.relu(norm(params["norm2"], h)))
    return norm(params["norm3"], h)


def vjp(function, arguments, y_bar):
    leaves = [tf.constant(leaf) for leaf in tf.nest.flatten(arguments)]
    with tf.GradientTape() as tape:
        tape.watch(leaves)
        y = function(*tf.nest.pack_sequence_as(arguments, leaves))
    return [gradient.numpy() for gradient in tape.gradient(y, leaves, output_gradients=tf.constant(y_bar))]


def test_odenet_has_the_parameters_of_table_1(params):
    assert supervised.parameter_count(params) == 208_266
    assert supervised.parameter_count(params["stem"]) == 132_096
    assert supervised.parameter_count(params["dynamics"]) == 75_392
    assert {leaf.dtype for leaf in tf.nest.flatten(params)} == {np.dtype(np.float32)}


def test_shapes_from_images_to_logits(params):
    images = np.random.default_rng(2).uniform(size=(5, 28, 28, 1)).astype(np.float32)
    z = supervised.stem(params["stem"], images)
    dz_dt = supervised.conv_dynamics(0.5, z, params["dynamics"])
    logits = supervised.head(params["head"], z)
    assert (z.shape, dz_dt.shape, logits.shape) == ((5, 6, 6, 64), (5, 6, 6, 64), (5, 10))
    assert {z.dtype, dz_dt.dtype, logits.dtype} == {tf.float32}


def test_samples_do_not_see_each_other(params):
    images = np.random.default_rng(3).uniform(size=(3, 28, 28, 1)).astype(np.float32)

    def predict(images):
        z = supervised.stem(params["stem"], images)
        return supervised.head(params["head"], z + supervised.conv_dynamics(0.5, z, params["dynamics"])).numpy()

    np.testing.assert_allclose(predict(images)[1:2], predict(images[1:2]), atol=1e-5)


def test_dynamics_and_gradient_agree_with_the_naive_layer(small_dynamics):
    rng = np.random.default_rng(4)
    z, z_bar = rng.normal(size=(2, 2, 6, 6, 6))
    arguments = (np.float64(0.3), z, small_dynamics)
    fast = functools.partial(supervised.conv_dynamics, groups=3)
    naive = functools.partial(naive_dynamics, groups=3)
    np.testing.assert_allclose(fast(*arguments), naive(*arguments), atol=1e-11)
    for gradient, reference in zip(vjp(fast, arguments, z_bar), vjp(naive, arguments, z_bar), strict=True):
        np.testing.assert_allclose(gradient, reference, rtol=1e-8, atol=1e-8)


def test_dynamics_gradient_agrees_with_finite_differences(small_dynamics):
    rng = np.random.default_rng(5)
    z, z_bar = rng.normal(size=(2, 2, 4, 4, 6))
    arguments = (np.float64(0.3), z, small_dynamics)
    leaves = tf.nest.flatten(arguments)
    direction = [rng.normal(size=np.shape(leaf)) for leaf in leaves]

    def along(step):
        moved = [leaf + step * d for leaf, d in zip(leaves, direction, strict=True)]
        return np.asarray(supervised.conv_dynamics(*tf.nest.pack_sequence_as(arguments, moved), groups=3))

    expected = np.sum(z_bar * (along(1e-6) - along(-1e-6))) / 2e-6
    gradients = vjp(lambda t, z, params: supervised.conv_dynamics(t, z, params, groups=3), arguments, z_bar)
    actual = sum(np.sum(g * d) for g, d in zip(gradients, direction, strict=True))
    assert actual == pytest.approx(expected, rel=1e-5)


def test_full_size_dynamics_in_float32_agree_with_float64(params):
    z = np.random.default_rng(6).normal(size=(4, 6, 6, 64))
    single = supervised.conv_dynamics(0.3, z.astype(np.float32), params["dynamics"])
    double = naive_dynamics(0.3, tf.constant(z), as_float64(params["dynamics"]), 32)
    np.testing.assert_allclose(single, double, atol=2e-5)


def test_head_loss_is_cross_entropy_and_counts_hits(params):
    rng = np.random.default_rng(7)
    z = rng.normal(size=(20, 6, 6, 64)).astype(np.float32)
    labels = rng.integers(10, size=20).astype(np.uint8)
    logits = supervised.head(params["head"], z).numpy().astype(np.float64)
    log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss, correct = supervised.head_loss(params["head"], z, labels)
    assert float(loss) == pytest.approx(-log_probability[np.arange(20), labels].mean(), rel=1e-5)
    assert float(correct) == np.sum(logits.argmax(1) == labels)
    assert (loss.shape, correct.shape, correct.dtype) == ((), (), tf.float32)


def test_a_step_down_the_gradient_lowers_the_loss(params):
    rng = np.random.default_rng(8)
    images, labels = rng.uniform(size=(4, 28, 28, 1)).astype(np.float32), np.array([3, 1, 4, 1])

    def loss(params):
        z = supervised.stem(params["stem"], images)
        z = z + supervised.conv_dynamics(1.0, z, params["dynamics"])
        return supervised.head_loss(params["head"], z, labels)[0]

    tensors = tf.nest.map_structure(tf.constant, params)
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        before = loss(tensors)
    gradients = tape.gradient(before, tensors)
    assert loss(tf.nest.map_structure(lambda p, g: p - 0.01 * g, tensors, gradients)) < before
