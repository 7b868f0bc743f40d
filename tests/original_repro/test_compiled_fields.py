"""The convolutional field by tables, and in tiles, has the values and the gradients of the convolutions."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from experiments.augmented import images
from original_repro.augmented_images import conv_field, image_ode, init_conv_field, init_image_ode
from original_repro.tabulated_field import tabulated_conv_field
from original_repro.tiled_field import tiled_conv_field

FIELDS = {"tables": (tabulated_conv_field, 1), "tiles": (tiled_conv_field, 3)}
each_field = pytest.mark.parametrize("field, channels", FIELDS.values(), ids=FIELDS)


def made(channels=1, *, time=True, filters=6, count=5, dtype=np.float64, sides=(7, 5)):
    """(t, z, params, z_bar); `time`: whether the field depends on t."""
    rng = np.random.default_rng(0)
    params = tf.nest.map_structure(lambda array: array.astype(dtype), init_conv_field(rng, channels, filters, time=time))
    z, z_bar = rng.normal(size=(2, count, *sides, channels)).astype(dtype)
    return dtype(0.3), z, params, z_bar


def value_and_vjp(field, t, z, params, z_bar):
    t, z, params = tf.nest.map_structure(tf.convert_to_tensor, (t, z, params))
    with tf.GradientTape() as tape:
        tape.watch((t, z, params))
        value = field(t, z, params)
    return value, *tf.nest.flatten(tape.gradient(value, (t, z, params), z_bar, unconnected_gradients="zero"))


def assert_equal_to_convolutions(field, arguments, tolerance=1e-12):
    for graph in (field, tf.function(functools.partial(field, at_once=2))):
        for mine, its in zip(value_and_vjp(graph, *arguments), value_and_vjp(conv_field, *arguments), strict=True):
            assert mine.shape == its.shape and mine.dtype == its.dtype
            np.testing.assert_allclose(mine, its, rtol=tolerance, atol=tolerance * max(1.0, np.abs(its).max()))


@each_field
@pytest.mark.parametrize("time", [True, False])
@pytest.mark.parametrize("filters, count, sides", [(6, 5, (7, 5)), (1, 1, (1, 1)), (13, 2, (2, 8)), (4, 3, (4, 9))])
def test_values_and_gradients_are_those_of_the_convolutions(field, channels, time, filters, count, sides):
    assert_equal_to_convolutions(field, made(channels, time=time, filters=filters, count=count, sides=sides))


@pytest.mark.parametrize("channels", [1, 2, 13])
def test_tiles_are_for_any_number_of_channels(channels):
    assert_equal_to_convolutions(tiled_conv_field, made(channels))


@pytest.mark.parametrize("field, channels, filters", [(tabulated_conv_field, 1, 92), (tiled_conv_field, 6, 64)])
def test_at_full_size_in_float32(field, channels, filters):
    arguments = made(channels, filters=filters, count=4, dtype=np.float32, sides=(14, 14))
    exact = value_and_vjp(conv_field, *tf.nest.map_structure(np.float64, arguments))
    for mine, its in zip(value_and_vjp(field, *arguments), exact, strict=True):
        np.testing.assert_allclose(mine, its, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(its).max()))


@pytest.mark.parametrize("bias", [-0.5, 0.0, 0.5])
def test_tables_of_filters_that_do_not_look_at_the_pixel(bias):
    """A weight of 0 has no kink: the filter is on everywhere or nowhere. But for bias 0, where ReLU has no derivative."""
    arguments = made()
    expand = arguments[2]["expand"]
    expand["weight"][0, 1:3] = 0.0
    expand["time_weight"][1:3] = 0.0
    expand["bias"][1:3] = bias
    assert_equal_to_convolutions(tabulated_conv_field, arguments)


def test_tables_with_kinks_far_away_and_equal_ones():
    arguments = made()
    expand = arguments[2]["expand"]
    expand["weight"][0, 0] = 1e-300
    expand["weight"][0, 1], expand["weight"][0, 2] = 1e-30, -1e-30
    for layer in ("weight", "time_weight", "bias"):
        expand[layer][..., 4] = expand[layer][..., 3]
    assert_equal_to_convolutions(tabulated_conv_field, arguments)


def test_on_a_kink_of_tables_the_derivative_is_that_of_its_right_side():
    _, z, params, z_bar = made(time=False, filters=1, count=1, sides=(1, 5))
    params["expand"]["weight"][:], params["expand"]["bias"][:] = 2.0, -1.0
    on, right = (value_and_vjp(tabulated_conv_field, 0.0, np.full_like(z, at), params, z_bar) for at in (0.5, 0.5 + 1e-9))
    np.testing.assert_allclose(on[0], right[0], atol=1e-8)
    np.testing.assert_allclose(on[2], right[2], atol=1e-12)
    assert np.any(on[2] != 0) == np.any(right[2] != 0)


@each_field
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["z", "expand", "conv", "contract"])
def test_what_is_not_finite_is_seen(field, channels, bad, where):
    t, z, params, _ = made(channels, dtype=np.float32)
    if where == "z":
        z[1, 2, 3, 0] = bad
    else:
        params[where]["weight"].flat[0] = bad
    assert not np.all(np.isfinite(field(t, tf.constant(z), params)))


@each_field
def test_second_derivatives_are_refused(field, channels):
    t, z, params, _ = made(channels)
    z = tf.constant(z)
    with tf.GradientTape() as outer:
        outer.watch(z)
        with tf.GradientTape() as inner:
            inner.watch(z)
            total = tf.reduce_sum(field(t, z, params) ** 2)
        slope = inner.gradient(total, z)
    with pytest.raises(NotImplementedError, match="differentiated once; use conv_field"):
        outer.gradient(slope, z)


def test_tables_refuse_further_channels():
    t, z, params, _ = made()
    with pytest.raises(ValueError, match=r"images of one channel, got z of shape \(5, 7, 5, 2\)"):
        tabulated_conv_field(t, np.concatenate([z, z], -1), params)


@pytest.mark.parametrize("field, extra", [(tabulated_conv_field, 0), (tiled_conv_field, 2)])
def test_a_model_has_the_same_loss_gradient_and_evaluations(field, extra):
    rng = np.random.default_rng(1)
    params = init_image_ode(rng, (6, 6, 1), 8, extra=extra, classes=3)
    x, labels = rng.uniform(size=(9, 6, 6, 1)), rng.integers(0, 3, 9)
    found = []
    for which in (conv_field, field):
        model = image_ode(field=which, extra=extra, rtol=1e-6, atol=1e-6, dtype="float64")
        found.append(model.value_and_grad(tf.nest.map_structure(np.float64, params), x, labels))
    (metrics, grads), (expected, by_convolutions) = found
    assert metrics["loss"] == pytest.approx(expected["loss"], rel=1e-9)
    assert metrics["nfe_forward"] == expected["nfe_forward"] and metrics["nfe_backward"] == expected["nfe_backward"]
    for mine, its in zip(tf.nest.flatten(grads), tf.nest.flatten(by_convolutions), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("missing", [None, "Numba", "processor alone"])
@pytest.mark.parametrize(
    "shape, extra, expected",
    [((6, 6, 1), 0, tabulated_conv_field), ((6, 6, 1), 2, tiled_conv_field), ((6, 6, 3), 0, tiled_conv_field)],
)
def test_experiments_take_tables_or_tiles_on_a_processor_with_numba(monkeypatch, missing, shape, extra, expected):
    if missing == "Numba":
        monkeypatch.setattr(images, "find_spec", lambda name: None)
    elif missing:
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a GPU"])
    model, _ = images.model_of(images.task(filters=4, extra=extra), shape)
    assert model.field is (conv_field if missing else expected)


@each_field
def test_parts_wait_for_nothing_of_each_other(field, channels):
    """TensorFlow runs what it takes for stateful one after the other."""
    arguments = tf.nest.map_structure(tf.constant, made(channels))

    @tf.function
    def graph(t, z, params, z_bar):
        return value_and_vjp(functools.partial(field, at_once=1), t, z, params, z_bar)

    operations = graph.get_concrete_function(*arguments).graph.get_operations()
    loops = [operation for operation in operations if operation.type.startswith("PyFunc")]
    assert len(loops) == 10 and not any(loop.control_inputs for loop in loops)
