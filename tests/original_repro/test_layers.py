import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from original_repro import fast_convolutions, layers


def normal(rng, *shape):
    return rng.normal(size=shape)


def group_norm_parameters(rng, channels):
    return {"scale": normal(rng, channels), "shift": normal(rng, channels)}


def as_float64(params):
    return tf.nest.map_structure(lambda leaf: np.asarray(leaf, np.float64), params)


def numpy_group_norm(params, x, groups, epsilon=1e-5):
    y = np.empty_like(x)
    size = x.shape[-1] // groups
    for sample in range(len(x)):
        for first in range(0, x.shape[-1], size):
            block = x[sample, ..., first : first + size]
            y[sample, ..., first : first + size] = (block - block.mean()) / np.sqrt(block.var() + epsilon)
    return y * params["scale"] + params["shift"]


def naive_group_norm(params, x, groups, epsilon=1e-5):
    batch, height, width, channels = x.shape
    grouped = tf.reshape(x, (batch, height, width, groups, channels // groups))
    mean, variance = tf.nn.moments(grouped, (1, 2, 4), keepdims=True)
    normalised = tf.reshape((grouped - mean) / tf.sqrt(variance + epsilon), x.shape)
    return normalised * params["scale"] + params["shift"]


def naive_time_conv(params, t, x):
    weight = tf.concat([params["time_weight"][:, :, None], params["weight"]], 2)
    time_channel = tf.ones_like(x[..., :1]) * tf.cast(t, x.dtype)
    return tf.nn.conv2d(tf.concat([time_channel, x], -1), weight, 1, "SAME") + params["bias"]


def numpy_conv(weight, bias, x, strides, padding):
    x = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    size = len(weight)
    rows, columns = ((length - size) // strides + 1 for length in x.shape[1:3])
    y = np.empty((len(x), rows, columns, weight.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * strides : i * strides + size, j * strides : j * strides + size]
            y[:, i, j] = np.tensordot(window, weight, 3) + bias
    return y


def vjp(function, arguments, y_bar):
    """y_bar^T d function / d arguments, as a flat list of arrays."""
    leaves = [tf.constant(leaf) for leaf in tf.nest.flatten(arguments)]
    with tf.GradientTape() as tape:
        tape.watch(leaves)
        y = function(*tf.nest.pack_sequence_as(arguments, leaves))
    gradients = tape.gradient(y, leaves, output_gradients=tf.constant(y_bar), unconnected_gradients="zero")
    return [gradient.numpy() for gradient in gradients]


def directional_difference(function, arguments, direction, h=1e-5):
    """Central difference of function along direction, a list of arrays like the flattened arguments."""
    leaves = tf.nest.flatten(arguments)

    def shifted(step):
        moved = [leaf + step * d for leaf, d in zip(leaves, direction, strict=True)]
        return np.asarray(function(*tf.nest.pack_sequence_as(arguments, moved)))

    return (shifted(h) - shifted(-h)) / (2 * h)


def assert_vjp_agrees_with_differences(function, arguments, rng, rtol=1e-6):
    y_bar = normal(rng, *np.shape(function(*arguments)))
    gradients = vjp(function, arguments, y_bar)
    direction = [normal(rng, *np.shape(leaf)) for leaf in tf.nest.flatten(arguments)]
    expected = np.sum(y_bar * directional_difference(function, arguments, direction))
    actual = sum(np.sum(g * d) for g, d in zip(gradients, direction, strict=True))
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("relu", [False, True])
@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    groups=st.integers(1, 4),
    group_size=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_group_norm_and_its_gradient_agree_with_the_plain_formula(relu, shape, groups, group_size, seed):
    rng = np.random.default_rng(seed)
    x, params = normal(rng, *shape, groups * group_size), group_norm_parameters(rng, groups * group_size)
    expected = numpy_group_norm(params, x, groups)
    expected = np.maximum(expected, 0) if relu else expected
    np.testing.assert_allclose(layers.group_norm(params, x, groups, relu=relu), expected, atol=1e-9)

    def plain(params, x):
        return tf.nn.relu(naive_group_norm(params, x, groups)) if relu else naive_group_norm(params, x, groups)

    y_bar = normal(rng, *x.shape)
    actual = vjp(lambda params, x: layers.group_norm(params, x, groups, relu=relu), (params, x), y_bar)
    for gradient, reference in zip(actual, vjp(plain, (params, x), y_bar), strict=True):
        np.testing.assert_allclose(gradient, reference, rtol=1e-7, atol=1e-7 * max(1, np.abs(reference).max()))


@pytest.mark.parametrize("relu", [False, True])
def test_group_norm_gradient_agrees_with_finite_differences(relu):
    rng = np.random.default_rng(0)
    x, params = normal(rng, 2, 3, 4, 6), group_norm_parameters(rng, 6)
    assert_vjp_agrees_with_differences(lambda p, x: layers.group_norm(p, x, 3, relu=relu), (params, x), rng)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_gradient_of_group_norm_may_be_differentiated(relu, compiled):
    rng = np.random.default_rng(1)
    x, y_bar, params = normal(rng, 2, 3, 4, 6), normal(rng, 2, 3, 4, 6), group_norm_parameters(rng, 6)

    def gradient(params, x, y_bar):
        with tf.GradientTape() as tape:
            tape.watch((x, params))
            y = layers.group_norm(params, x, 3, relu=relu)
        x_bar, params_bar = tape.gradient(y, (x, params), output_gradients=y_bar)
        return tf.concat([tf.reshape(leaf, [-1]) for leaf in tf.nest.flatten((x_bar, params_bar))], 0)

    def of_arrays(*arguments):
        arguments = tf.nest.map_structure(tf.convert_to_tensor, arguments)
        return (tf.function(gradient) if compiled else gradient)(*arguments)

    assert_vjp_agrees_with_differences(of_arrays, (params, x, y_bar), rng)


def test_group_norm_in_float32_is_as_exact_as_its_input():
    rng = np.random.default_rng(2)
    params = {"scale": np.ones(4, np.float32), "shift": np.zeros(4, np.float32)}
    x = (100 + normal(rng, 3, 6, 6, 4)).astype(np.float32)
    y = layers.group_norm(params, x, 2)
    assert y.dtype == tf.float32
    np.testing.assert_allclose(y, numpy_group_norm(as_float64(params), x.astype(np.float64), 2), atol=5e-5)


def test_group_norm_of_a_constant_is_its_shift():
    params = group_norm_parameters(np.random.default_rng(3), 4)
    y = layers.group_norm(params, np.full((1, 2, 2, 4), 1e3), 2)
    np.testing.assert_allclose(y, np.broadcast_to(params["shift"], y.shape), atol=1e-6)


def test_group_norm_takes_any_batch_in_one_graph():
    params = group_norm_parameters(np.random.default_rng(4), 4)
    graph = tf.function(
        lambda x: layers.group_norm(params, x, 2),
        input_signature=[tf.TensorSpec((None, None, None, 4), tf.float64)],
    )
    for shape in [(0, 2, 3, 4), (1, 2, 3, 4), (5, 1, 1, 4)]:
        x = normal(np.random.default_rng(5), *shape)
        np.testing.assert_allclose(graph(x), numpy_group_norm(params, x, 2), atol=1e-9)


def test_group_norm_refuses_groups_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="6 channels cannot be divided into 4 groups"):
        layers.group_norm(layers.init_group_norm(6), np.zeros((1, 2, 2, 6), np.float32), 4)


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel_size=st.integers(1, 4),
    t=st.floats(-2, 2),
)
def test_time_conv_and_its_gradient_agree_with_t_as_a_channel(shape, channels, kernel_size, t):
    rng = np.random.default_rng(6)
    params = as_float64(layers.init_time_conv(rng, *channels, kernel_size))
    x = normal(rng, *shape, channels[0])
    arguments = (params, np.float64(t), x)
    expected = naive_time_conv(*arguments)
    np.testing.assert_allclose(layers.time_conv(*arguments), expected, atol=1e-12)
    y_bar = normal(rng, *expected.shape)
    for gradient, reference in zip(vjp(layers.time_conv, arguments, y_bar), vjp(naive_time_conv, arguments, y_bar), strict=True):
        np.testing.assert_allclose(gradient, reference, atol=1e-10)


def test_time_conv_in_numpy():
    rng = np.random.default_rng(7)
    params = as_float64(layers.init_time_conv(rng, 2, 3, 3))
    x = normal(rng, 2, 5, 4, 2)
    weight = np.concatenate([params["time_weight"][:, :, None], params["weight"]], 2)
    with_time = np.concatenate([np.full((2, 5, 4, 1), 0.7), x], -1)
    expected = numpy_conv(weight, params["bias"], with_time, 1, 1)
    np.testing.assert_allclose(layers.time_conv(params, 0.7, x), expected, atol=1e-12)


def test_time_conv_gradient_agrees_with_finite_differences():
    rng = np.random.default_rng(8)
    params = as_float64(layers.init_time_conv(rng, 2, 3, 3))
    assert_vjp_agrees_with_differences(layers.time_conv, (params, np.float64(0.3), normal(rng, 2, 4, 4, 2)), rng)


@pytest.mark.parametrize(("strides", "padding", "zeros"), [(1, "VALID", 0), (1, "SAME", 1), (2, 1, 1), (1, 2, 2)])
def test_conv_in_numpy(strides, padding, zeros):
    rng = np.random.default_rng(9)
    params = as_float64(layers.init_conv(rng, 2, 3, 3))
    x = normal(rng, 2, 7, 7, 2)
    expected = numpy_conv(params["weight"], params["bias"], x, strides, zeros)
    np.testing.assert_allclose(layers.conv(params, x, strides=strides, padding=padding), expected, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    sides=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel_size=st.sampled_from([2, 4]),
    padding=st.integers(0, 2),
)
def test_halving_conv_and_its_gradient_agree_with_tensorflows(sides, channels, kernel_size, padding):
    rng = np.random.default_rng(11)
    params = as_float64(layers.init_conv(rng, *channels, kernel_size))
    x = normal(rng, 2, *sides, channels[0])

    def plain(params, x):
        zeros = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
        return tf.nn.conv2d(x, params["weight"], 2, zeros) + params["bias"]

    def halving(params, x):
        return layers.conv(params, x, strides=2, padding=padding)

    expected = plain(params, x)
    np.testing.assert_allclose(halving(params, x), expected, atol=1e-12)
    y_bar = normal(rng, *expected.shape)
    for gradient, reference in zip(vjp(halving, (params, x), y_bar), vjp(plain, (params, x), y_bar), strict=True):
        np.testing.assert_allclose(gradient, reference, atol=1e-12)


def test_gradient_of_halving_conv_may_be_differentiated():
    rng = np.random.default_rng(12)
    params, x, y_bar = as_float64(layers.init_conv(rng, 2, 2, 4)), normal(rng, 2, 7, 6, 2), normal(rng, 2, 3, 3, 2)

    def gradient(weight, x, y_bar):
        with tf.GradientTape() as tape:
            tape.watch((weight, x))
            y = layers.conv({"weight": weight, "bias": params["bias"]}, x, strides=2, padding=1)
        return tf.concat([tf.reshape(leaf, [-1]) for leaf in tape.gradient(y, (weight, x), output_gradients=y_bar)], 0)

    def of_arrays(*arguments):
        return gradient(*map(tf.convert_to_tensor, arguments))

    assert_vjp_agrees_with_differences(of_arrays, (params["weight"], x, y_bar), rng)


def test_halving_conv_takes_images_of_any_size_in_one_graph():
    params = as_float64(layers.init_conv(np.random.default_rng(13), 1, 2, 4))
    graph = tf.function(
        lambda x: layers.conv(params, x, strides=2, padding=1), input_signature=[tf.TensorSpec((None, None, None, 1), tf.float64)]
    )
    for side in (4, 7):
        x = normal(np.random.default_rng(14), 2, side, side, 1)
        np.testing.assert_allclose(graph(x), numpy_conv(params["weight"], params["bias"], x, 2, 1), atol=1e-12)


def winograd(x, weight):
    """winograd_conv of images with their batch first."""
    sides = x.shape[1:3]
    y = fast_convolutions.winograd_conv(fast_convolutions.pixels_first(x), sides, weight)
    return fast_convolutions.images_first(y, sides)


@settings(max_examples=20, deadline=None)
@given(
    sides=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel_size=st.sampled_from([1, 3]),
)
def test_winograd_conv_and_its_gradient_agree_with_the_direct_one(sides, channels, kernel_size):
    rng = np.random.default_rng(15)
    arguments = normal(rng, 3, *sides, channels[0]), normal(rng, kernel_size, kernel_size, *channels)

    def direct(x, weight):
        return tf.nn.conv2d(x, weight, 1, "SAME")

    expected = direct(*arguments)
    np.testing.assert_allclose(winograd(*arguments), expected, atol=1e-11)
    y_bar = normal(rng, *expected.shape)
    for gradient, reference in zip(vjp(winograd, arguments, y_bar), vjp(direct, arguments, y_bar), strict=True):
        np.testing.assert_allclose(gradient, reference, atol=1e-11)


def test_winograd_conv_in_float32_is_good_to_the_stated_digits():
    rng = np.random.default_rng(16)
    x, weight = normal(rng, 8, 6, 6, 64), normal(rng, 3, 3, 64, 64)
    expected = tf.nn.conv2d(x, weight, 1, "SAME")
    actual = winograd(x.astype(np.float32), weight.astype(np.float32))
    error = np.abs(np.asarray(actual, np.float64) - expected).max()
    assert error <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize(("sides", "kernel"), [((7, 6), (3, 3)), ((6, 6), (2, 2)), ((6, 6), (3, 1)), ((5, 5), (5, 5))])
def test_winograd_conv_refuses_what_one_tile_does_not_hold(sides, kernel):
    with pytest.raises(ValueError, match="odd square kernel and static sides of at most"):
        winograd(np.zeros((1, *sides, 2)), np.zeros((*kernel, 2, 2)))


def winograd_rows(x, weight):
    """winograd_rows_conv of images with their batch first."""
    return fast_convolutions.rows_first(fast_convolutions.winograd_rows_conv(fast_convolutions.rows_first(x), weight))


def direct_conv(x, weight):
    return tf.nn.conv2d(x, weight, 1, "SAME")


@pytest.mark.parametrize(
    ("sides", "kernel"),
    [((1, 1), (3, 3)), ((8, 3), (3, 3)), ((9, 5), (3, 3)), ((19, 2), (3, 3)), ((13, 4), (5, 1)), ((11, 3), (1, 2))],
)
def test_winograd_rows_conv_and_its_gradient_agree_with_the_direct_one(sides, kernel):
    rng = np.random.default_rng(18)
    arguments = normal(rng, 3, *sides, 2), normal(rng, *kernel, 2, 4)
    expected = direct_conv(*arguments)
    np.testing.assert_allclose(winograd_rows(*arguments), expected, atol=1e-12)
    y_bar = normal(rng, *expected.shape)
    for gradient, reference in zip(vjp(winograd_rows, arguments, y_bar), vjp(direct_conv, arguments, y_bar), strict=True):
        np.testing.assert_allclose(gradient, reference, atol=1e-11)


@pytest.mark.parametrize("height", [14, 32])  # Tiles of 7 rows, of 8.
def test_winograd_rows_conv_in_float32_is_good_to_the_stated_digits(height):
    rng = np.random.default_rng(19)
    arguments, y_bar = (normal(rng, 4, height, 6, 64), normal(rng, 3, 3, 64, 64)), normal(rng, 4, height, 6, 64)
    in_float32 = [array.astype(np.float32) for array in (*arguments, y_bar)]
    references = [direct_conv(*arguments), *vjp(direct_conv, arguments, y_bar)]
    results = [winograd_rows(*in_float32[:2]), *vjp(winograd_rows, in_float32[:2], in_float32[2])]
    for result, reference in zip(results, references, strict=True):
        assert np.abs(np.asarray(result, np.float64) - reference).max() <= 2e-5 * np.abs(reference).max()


def test_gradient_of_winograd_rows_conv_may_be_differentiated():
    rng = np.random.default_rng(20)
    x, weight, y_bar = normal(rng, 2, 9, 3, 2), normal(rng, 3, 3, 2, 2), normal(rng, 2, 9, 3, 2)

    def gradient(x, weight, y_bar):
        with tf.GradientTape() as tape:
            tape.watch((x, weight))
            y = winograd_rows(x, weight)
        return tf.concat([tf.reshape(leaf, [-1]) for leaf in tape.gradient(y, (x, weight), output_gradients=y_bar)], 0)

    assert_vjp_agrees_with_differences(
        lambda *arguments: gradient(*map(tf.convert_to_tensor, arguments)), (x, weight, y_bar), rng
    )


@pytest.mark.parametrize("kernel", [(2, 3), (11, 1)])
def test_winograd_rows_conv_refuses_kernels_without_tiles(kernel):
    with pytest.raises(ValueError, match="odd height of at most 9 .* got a kernel"):
        winograd_rows(np.zeros((1, 6, 6, 2)), np.zeros((*kernel, 2, 2)))


def test_layers_with_pixels_first_agree_with_those_of_images():
    rng = np.random.default_rng(17)
    params = {"conv": as_float64(layers.init_time_conv(rng, 2, 4, 3)), "norm": as_float64(layers.init_group_norm(4))}
    x, sides = normal(rng, 2, 6, 5, 2), (6, 5)
    expected = layers.group_norm(params["norm"], layers.time_conv(params["conv"], 0.4, x), 2, relu=True)
    y = layers.time_conv_pixels_first(params["conv"], 0.4, fast_convolutions.pixels_first(x), sides)
    y = layers.group_norm_pixels_first(params["norm"], y, 2, relu=True)
    np.testing.assert_allclose(fast_convolutions.images_first(y, sides), expected, atol=1e-12)


def test_dense_is_an_affine_map():
    rng = np.random.default_rng(10)
    params = layers.init_dense(rng, 5, 3)
    x = normal(rng, 4, 5).astype(np.float32)
    np.testing.assert_allclose(layers.dense(params, x), x @ params["weight"] + params["bias"], atol=1e-6)


@pytest.mark.parametrize(
    ("params", "fan_in"),
    [
        (layers.init_conv(np.random.default_rng(0), 64, 64, 3), 64 * 9),
        (layers.init_time_conv(np.random.default_rng(0), 64, 64, 3), 65 * 9),
        (layers.init_dense(np.random.default_rng(0), 64, 1000), 64),
    ],
)
def test_initial_values_are_pytorchs(params, fan_in):
    bound = 1 / np.sqrt(fan_in)
    for leaf in params.values():
        assert leaf.dtype == np.float32
        assert np.abs(leaf).max() <= bound * (1 + 1e-6)
    assert params["weight"].std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert np.abs(params["bias"]).max() > 0.9 * bound


def test_initial_values_follow_the_generator():
    first, again, other = (layers.init_time_conv(np.random.default_rng(seed), 2, 3, 3) for seed in (0, 0, 1))
    for name, leaf in first.items():
        np.testing.assert_array_equal(leaf, again[name])
        assert (leaf != other[name]).any()
