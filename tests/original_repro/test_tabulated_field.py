"""The convolutional field of images of one channel by tables has the values and the gradients of the convolutions."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from experiments.augmented import images
from original_repro.augmented_images import conv_field, image_ode, init_conv_field, init_image_ode
from original_repro.tabulated_field import tabulated_conv_field


def made(*, time=True, filters=6, count=5, dtype=np.float64, side=7):
    """(t, z, params, z_bar); `time`: whether the field depends on t."""
    rng = np.random.default_rng(0)
    params = tf.nest.map_structure(lambda array: array.astype(dtype), init_conv_field(rng, 1, filters, time=time))
    z, z_bar = rng.normal(size=(2, count, side, 5, 1)).astype(dtype)
    return dtype(0.3), z, params, z_bar


def value_and_vjp(field, t, z, params, z_bar):
    t, z, params = tf.nest.map_structure(tf.constant, (t, z, params))
    with tf.GradientTape() as tape:
        tape.watch((t, z, params))
        value = field(t, z, params)
    return value, *tf.nest.flatten(tape.gradient(value, (t, z, params), z_bar, unconnected_gradients="zero"))


def assert_equal_to_convolutions(arguments, tolerance=1e-12):
    for graph in (tabulated_conv_field, tf.function(functools.partial(tabulated_conv_field, at_once=2))):
        for mine, its in zip(value_and_vjp(graph, *arguments), value_and_vjp(conv_field, *arguments), strict=True):
            assert mine.shape == its.shape and mine.dtype == its.dtype
            np.testing.assert_allclose(mine, its, rtol=tolerance, atol=tolerance * max(1.0, np.abs(its).max()))


@pytest.mark.parametrize("time", [True, False])
@pytest.mark.parametrize("filters, count, side", [(6, 5, 7), (1, 1, 1), (13, 2, 2)])
def test_values_and_gradients_are_those_of_the_convolutions(time, filters, count, side):
    assert_equal_to_convolutions(made(time=time, filters=filters, count=count, side=side))


def test_at_full_size_in_float32():
    assert_equal_to_convolutions(made(filters=92, count=8, dtype=np.float32, side=14), 2e-5)


@pytest.mark.parametrize("bias", [-0.5, 0.0, 0.5])
def test_filters_that_do_not_look_at_the_pixel(bias):
    """A weight of 0 has no kink: the filter is on everywhere or nowhere. But for bias 0, where ReLU has no derivative."""
    arguments = made()
    expand = arguments[2]["expand"]
    expand["weight"][0, 1:3] = 0.0
    expand["time_weight"][1:3] = 0.0
    expand["bias"][1:3] = bias
    assert_equal_to_convolutions(arguments)


def test_kinks_far_away_and_equal_ones():
    arguments = made()
    expand = arguments[2]["expand"]
    expand["weight"][0, 0] = 1e-300
    expand["weight"][0, 1], expand["weight"][0, 2] = 1e-30, -1e-30
    for layer in ("weight", "time_weight", "bias"):
        expand[layer][..., 4] = expand[layer][..., 3]
    assert_equal_to_convolutions(arguments)


def test_on_a_kink_the_derivative_is_that_of_its_right_side():
    _, z, params, z_bar = made(time=False, filters=1, count=1, side=1)
    params["expand"]["weight"][:], params["expand"]["bias"][:] = 2.0, -1.0
    on, right = (value_and_vjp(tabulated_conv_field, 0.0, np.full_like(z, at), params, z_bar) for at in (0.5, 0.5 + 1e-9))
    np.testing.assert_allclose(on[0], right[0], atol=1e-8)
    np.testing.assert_allclose(on[2], right[2], atol=1e-12)
    assert np.any(on[2] != 0) == np.any(right[2] != 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["z", "expand", "conv", "contract"])
def test_what_is_not_finite_is_seen(bad, where):
    t, z, params, _ = made(dtype=np.float32)
    if where == "z":
        z[1, 2, 3, 0] = bad
    else:
        params[where]["weight"].flat[0] = bad
    assert not np.all(np.isfinite(tabulated_conv_field(t, tf.constant(z), params)))


def test_other_images_and_second_derivatives_are_refused():
    t, z, params, _ = made()
    with pytest.raises(ValueError, match=r"images of one channel, got z of shape \(5, 7, 5, 2\)"):
        tabulated_conv_field(t, np.concatenate([z, z], -1), params)
    z = tf.constant(z)
    with tf.GradientTape() as outer:
        outer.watch(z)
        with tf.GradientTape() as inner:
            inner.watch(z)
            total = tf.reduce_sum(tabulated_conv_field(t, z, params) ** 2)
        slope = inner.gradient(total, z)
    with pytest.raises(NotImplementedError, match="differentiated once; use conv_field"):
        outer.gradient(slope, z)


def test_a_model_has_the_same_loss_gradient_and_evaluations():
    rng = np.random.default_rng(1)
    params, x, labels = init_image_ode(rng, (6, 6, 1), 8, classes=3), rng.uniform(size=(9, 6, 6, 1)), rng.integers(0, 3, 9)
    found = []
    for field in (conv_field, tabulated_conv_field):
        model = image_ode(field=field, rtol=1e-6, atol=1e-6, dtype="float64")
        found.append(model.value_and_grad(tf.nest.map_structure(np.float64, params), x, labels))
    (metrics, grads), (expected, by_convolutions) = found
    assert metrics["loss"] == pytest.approx(expected["loss"], rel=1e-9)
    assert metrics["nfe_forward"] == expected["nfe_forward"] and metrics["nfe_backward"] == expected["nfe_backward"]
    for mine, its in zip(tf.nest.flatten(grads), tf.nest.flatten(by_convolutions), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "shape, extra, expected", [((6, 6, 1), 0, tabulated_conv_field), ((6, 6, 1), 2, conv_field), ((6, 6, 3), 0, conv_field)]
)
def test_experiments_take_tables_for_states_of_one_channel(shape, extra, expected):
    model, _ = images.model_of(images.task(filters=4, extra=extra), shape)
    assert model.field is expected


def test_without_numba_experiments_take_convolutions(monkeypatch):
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    model, _ = images.model_of(images.task(filters=4, extra=0), (6, 6, 1))
    assert model.field is conv_field
