"""Augmented Neural ODEs: fields, models, losses, and the numbers of parameters that were published."""

import functools
import math

import autograd.numpy as anp
import numpy as np
import pytest
import tensorflow as tf
from autograd import grad

from original_repro import augmented, augmented_images
from original_repro.augmented import NeuralOde, ResidualMlp, mlp_field
from original_repro.augmented_images import conv_field, image_ode, init_image_ode
from original_repro.datasets import toy_functions
from original_repro.supervised import Classifier, parameter_count
from original_repro.training import adam, constant, fit, minibatches, tree_leaves, tree_map
from solvers_bridge import record_solves
from tests.helpers import some_fast


def rng(seed=0):
    return np.random.default_rng(seed)


def as_float64(params):
    return tree_map(lambda leaf: np.asarray(leaf, np.float64), params)


def vjp(function, arguments, y_bar):
    leaves = [tf.constant(leaf) for leaf in tf.nest.flatten(arguments)]
    with tf.GradientTape() as tape:
        tape.watch(leaves)
        y = function(*tf.nest.pack_sequence_as(arguments, leaves))
    return [gradient.numpy() for gradient in tape.gradient(y, leaves, output_gradients=tf.constant(y_bar))]


# Numbers of parameters


@pytest.mark.parametrize("dim, extra, count", [(2, 0, 1253), (2, 5, 1583), (2, 1, 1319)])
def test_toy_models_have_the_parameters_of_the_public_code(dim, extra, count):
    params = augmented.init_vector_ode(rng(), dim, 32, extra=extra)
    assert parameter_count(params) == count
    assert {leaf.dtype for leaf in tree_leaves(params)} == {np.dtype(np.float32)}


def test_the_resnet_has_the_parameters_of_the_public_code():
    assert parameter_count(augmented.init_residual_mlp(rng(), 2, 32, 5)) == 813


@pytest.mark.parametrize(
    "shape, classes, filters, extra, published, with_time",
    [
        ((28, 28, 1), 10, 92, 0, 84_395, 85_316),
        ((28, 28, 1), 10, 64, 5, 84_816, 85_462),
        ((32, 32, 3), 10, 125, 0, 172_358, 173_611),
        ((32, 32, 3), 10, 64, 10, 171_799, 172_452),
        # ImageNet's published 366 k and 365 k are those of a head of ten classes.
        ((64, 64, 3), 10, 164, 0, 366_269, None),
        ((64, 64, 3), 10, 64, 5, 365_714, None),
        ((64, 64, 3), 200, 164, 0, None, 2_702_822),
        ((64, 64, 3), 200, 64, 5, None, 6_592_472),
    ],
)
def test_image_models_have_the_published_parameters_without_time_and_the_public_codes_with(
    shape, classes, filters, extra, published, with_time
):
    for expected, time in ((published, False), (with_time, True)):
        if expected is not None:
            params = init_image_ode(rng(), shape, filters, extra=extra, classes=classes, time=time)
            assert parameter_count(params) == expected


def test_parts_of_mnists_models():
    node, anode = (init_image_ode(rng(), (28, 28, 1), k, extra=p, time=False) for k, p in ((92, 0), (64, 5)))
    assert [parameter_count(params[part]) for params in (node, anode) for part in ("field", "head")] == [
        76_545,
        7_850,
        37_766,
        47_050,
    ]


def test_initial_weights_are_uniform_within_the_fan_in_that_counts_time():
    params = augmented.init_mlp_field(rng(), 2, 3000)
    for name, fan_in in (("hidden1", 3), ("output", 3000)):
        bound = 1 / math.sqrt(fan_in)
        values = np.concatenate([leaf.ravel() for leaf in params[name].values()])
        assert 0.99 * bound < np.abs(values).max() <= bound and abs(values.std() - bound / math.sqrt(3)) < 0.02 * bound
    conv = augmented_images.init_conv_field(rng(), 3, 40)
    assert 0.97 / math.sqrt(9 * 41) < np.abs(conv["conv"]["time_weight"]).max() <= 1 / math.sqrt(9 * 41)


# Fields


@pytest.mark.parametrize("activation, act", [("relu", lambda x: np.maximum(x, 0)), ("softplus", lambda x: np.logaddexp(x, 0))])
def test_the_vector_field_takes_time_as_one_more_input_of_its_first_layer(activation, act):
    params, z = as_float64(augmented.init_mlp_field(rng(), 3, 8)), rng(1).normal(size=(5, 3))
    first = np.concatenate([params["hidden1"]["weight"], params["hidden1"]["time_weight"][None]])
    h = act(np.concatenate([z, np.full((5, 1), 0.7)], 1) @ first + params["hidden1"]["bias"])
    h = act(h @ params["hidden2"]["weight"] + params["hidden2"]["bias"])
    expected = h @ params["output"]["weight"] + params["output"]["bias"]
    np.testing.assert_allclose(mlp_field(0.7, tf.constant(z), params, activation=activation), expected, atol=1e-12)


def test_a_field_without_time_is_the_same_at_all_times():
    params, z = augmented.init_mlp_field(rng(), 3, 8, time=False), tf.constant(rng(1).normal(size=(5, 3)).astype(np.float32))
    np.testing.assert_array_equal(mlp_field(0.1, z, params), mlp_field(0.9, z, params))
    images, params = tf.random.stateless_uniform((2, 6, 6, 2), (0, 1)), augmented_images.init_conv_field(rng(), 2, 4, time=False)
    np.testing.assert_array_equal(conv_field(0.1, images, params), conv_field(0.9, images, params))


def naive_conv_field(t, z, params):
    """With time as a channel of its own before each convolution, as the public code has it."""

    def convolve(layer, x):
        weight = layer["weight"]
        weight = weight if len(weight.shape) == 4 else weight[None, None]
        if "time_weight" in layer:
            time_weight = tf.reshape(layer["time_weight"], (*weight.shape[:2], 1, weight.shape[3]))
            weight = tf.concat([time_weight, weight], 2)
            x = tf.concat([tf.ones_like(x[..., :1]) * tf.cast(t, x.dtype), x], -1)
        return tf.nn.conv2d(x, weight, 1, "SAME") + layer["bias"]

    h = tf.nn.relu(convolve(params["expand"], z))
    return convolve(params["contract"], tf.nn.relu(convolve(params["conv"], h)))


@pytest.mark.parametrize("time", [True, False])
@pytest.mark.parametrize("images, winograd", [(1, False), (5, False), (8, False), (5, True), (8, True)])
def test_the_image_field_and_its_gradient_agree_with_the_naive_graph(time, images, winograd):
    params = as_float64(augmented_images.init_conv_field(rng(), 3, 6, time=time))
    z, z_bar = rng(1).normal(size=(2, images, 7, 5, 3))
    arguments = (np.float64(0.3), z, params)
    fast = functools.partial(conv_field, at_once=4, winograd=winograd)
    np.testing.assert_allclose(fast(*arguments), naive_conv_field(*arguments), atol=1e-12)
    if not time:
        fast, naive_field, arguments = functools.partial(fast, 0.3), functools.partial(naive_conv_field, 0.3), arguments[1:]
    else:
        naive_field = naive_conv_field
    for gradient, reference in zip(vjp(fast, arguments, z_bar), vjp(naive_field, arguments, z_bar), strict=True):
        np.testing.assert_allclose(gradient, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("winograd", [False, True])
def test_the_image_field_at_full_size_in_float32(winograd):
    params = augmented_images.init_conv_field(rng(), 6, 64)
    z = rng(1).uniform(size=(3, 28, 28, 6))
    single = conv_field(0.3, tf.constant(z, tf.float32), params, winograd=winograd)
    np.testing.assert_allclose(single, naive_conv_field(0.3, tf.constant(z), as_float64(params)), atol=1e-5)


def test_large_images_of_many_filters_are_convolved_by_rows_and_others_directly():
    def convolutions(*, images=32, side=14, filters=64):
        params = tf.nest.map_structure(tf.constant, augmented_images.init_conv_field(rng(), 1, filters))
        graph = tf.function(conv_field).get_concrete_function(0.0, tf.TensorSpec((images, side, side, 1)), params).graph
        return [node.inputs[1].shape[0] for node in graph.get_operations() if node.type == "Conv2D"]

    by_rows = not tf.config.list_logical_devices("GPU")
    assert convolutions() == ([1] * 9 if by_rows else [3, 3])
    for setting in ({"images": 31}, {"side": 13}, {"filters": 63}):
        assert set(convolutions(**setting)) == {3}


# Augmentation, losses, readouts


@pytest.mark.parametrize("shape", [(4, 2), (4, 5, 5, 3)])
def test_augmentation_appends_channels_of_zeros(shape):
    x = rng().normal(size=shape)
    z = augmented.augment(x, 3)
    np.testing.assert_array_equal(z[..., : shape[-1]], x)
    assert z.shape == (*shape[:-1], shape[-1] + 3) and not z[..., shape[-1] :].any()
    assert augmented.augment(x, 0) is x


def test_losses_are_their_definitions_and_count_right_signs():
    outputs, targets = np.float64([[0.2], [-3.0], [0.9]]), np.float64([[1.0], [-1.0], [-1.0]])
    loss, right = augmented.huber(outputs, targets)
    assert float(loss) == pytest.approx((0.5 * 0.8**2 + 1.5 + 1.4) / 3) and float(right) == 2
    loss, right = augmented.squared_error(outputs, targets)
    assert float(loss) == pytest.approx((0.8**2 + 4 + 1.9**2) / 3) and float(right) == 2


def test_readouts():
    params = augmented.init_vector_ode(rng(), 2, 8, extra=1)
    x = rng(1).normal(size=(4, 2)).astype(np.float32)
    z1 = NeuralOde(mlp_field, extra=1).states(params, x)[-1]
    head = params["head"]
    np.testing.assert_allclose(NeuralOde(mlp_field, extra=1).outputs(params, x), z1 @ head["weight"] + head["bias"], atol=1e-5)
    own = {**params, "head": {"weight": head["weight"][:2], "bias": head["bias"]}}
    expected = z1[:, :2] @ head["weight"][:2] + head["bias"]
    np.testing.assert_allclose(NeuralOde(mlp_field, extra=1, readout="own").outputs(own, x), expected, atol=1e-5)
    bare = augmented.init_vector_ode(rng(), 2, 8, extra=1, outputs=None)
    assert bare.keys() == {"field"}
    np.testing.assert_allclose(NeuralOde(mlp_field, extra=1, readout="none").outputs(bare, x), z1[:, :2], atol=1e-5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: NeuralOde(mlp_field, "absolute"), "loss must be one of huber"),
        (lambda: NeuralOde(mlp_field, readout="some"), "readout must be one of all, own, none"),
        (lambda: NeuralOde(mlp_field, extra=-1), "extra must be a whole number of dimensions from 0"),
        (lambda: ResidualMlp("absolute"), "loss must be one of huber"),
        (lambda: augmented.init_vector_ode(rng(), 2, 0), "hidden must be a whole number from 1"),
        (lambda: augmented.init_vector_ode(rng(), 2, 4, extra=1.0), "extra must be a whole number of dimensions"),
        (lambda: init_image_ode(rng(), (28, 28, 1), 0), "filters must be a whole number from 1"),
        (lambda: augmented_images.halved(np.zeros((1, 7, 8))), "even sides, got 7 x 8"),
    ],
)
def test_arguments_that_make_no_sense_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Models


@pytest.mark.parametrize("solver", [{}, {"adjoint_method": "discrete"}])
@pytest.mark.parametrize("extra", some_fast([0, 2], 2))
def test_gradients_agree_with_differences(extra, solver):
    params = as_float64(augmented.init_vector_ode(rng(), 2, 8, extra=extra))
    field = functools.partial(mlp_field, activation="softplus")  # ReLU has kinks
    model = NeuralOde(field, "squared_error", extra=extra, dtype="float64", rtol=1e-9, atol=1e-9, **solver)
    x, y = rng(1).normal(size=(6, 2)), np.sign(rng(2).normal(size=(6, 1)))
    metrics, grads = model.value_and_grad(params, x, y)
    direction = tree_map(lambda leaf: rng(leaf.size).normal(size=leaf.shape), params)

    def along(step):
        return float(model.loss(tree_map(lambda p, d: p + step * d, params, direction), x, y)[0])

    expected = (along(1e-5) - along(-1e-5)) / 2e-5
    actual = sum(np.sum(g * d) for g, d in zip(tree_leaves(grads), tree_leaves(direction), strict=True))
    assert actual == pytest.approx(expected, rel=1e-5)
    assert metrics["loss"] == pytest.approx(along(0.0)) and 0 <= metrics["accuracy"] <= 1


@pytest.mark.parametrize("readout", ["all", "own", "none"])
def test_head_and_loss_as_one_graph_have_the_gradients_of_autograd(readout):
    params = augmented.init_vector_ode(rng(), 1, 4, extra=1, outputs=None if readout == "none" else 1)
    if readout == "own":
        params["head"]["weight"] = params["head"]["weight"][:1]
    model = NeuralOde(mlp_field, extra=1, readout=readout)
    x, y = rng(1).normal(size=(6, 1)), np.sign(rng(2).normal(size=(6, 1)))
    (metrics, grads), (expected_metrics, expected) = (
        kind.value_and_grad(model, params, x, y) for kind in (NeuralOde, Classifier)
    )
    assert metrics == expected_metrics and grads.keys() == expected.keys()
    for one, other in zip(tree_leaves(grads), tree_leaves(expected), strict=True):
        assert one.dtype == other.dtype and np.abs(one).max() > 0
        np.testing.assert_allclose(one, other, atol=1e-7)


@pytest.mark.slow
def test_the_papers_solver_at_its_tolerance_counts_as_the_public_code_does():
    """dopri5 begins with two evaluations and takes six a step; the public code's counts are 14, 20, 26, 32, 38."""
    params = augmented.init_vector_ode(rng(), 2, 32)
    model = NeuralOde(mlp_field)
    with record_solves() as solves:
        metrics, _ = model.value_and_grad(params, *toy_functions.spheres(rng(), 2, inner=20, outer=40))
    assert [solve.method for solve in solves] == ["dopri5", "dopri5"]
    assert metrics["nfe_forward"] % 6 == metrics["nfe_backward"] % 6 == 2 and 8 <= metrics["nfe_forward"] <= 38


def test_the_resnet_never_moves_a_feature_down_and_answers_as_its_loss_says():
    params = augmented.init_residual_mlp(rng(), 2, 8, 3)
    x, y = toy_functions.spheres(rng(), 2, inner=10, outer=20)
    states = augmented.residual_features(params, tf.constant(x)).numpy()
    assert states.shape == (4, 30, 2) and (np.diff(states, axis=0) >= 0).all() and (np.diff(states, axis=0) > 0).any()
    model = ResidualMlp()
    metrics, grads = model.value_and_grad(params, x, y)
    outputs = model.outputs(params, x)
    assert metrics["accuracy"] == pytest.approx(np.mean(np.sign(outputs) == y))
    numeric = grad(lambda params: anp.mean(model.loss(params, x, y)[0]))(params)
    for one, other in zip(tree_leaves(grads), tree_leaves(numeric), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.slow
def test_a_model_of_images_learns_and_its_controls_have_their_shapes():
    images = rng().uniform(size=(12, 6, 6, 1)).astype(np.float32)
    labels = np.arange(12) % 3
    images[np.arange(12), labels, labels, 0] += 2.0
    for extra, readout in ((0, "all"), (2, "all"), (2, "own")):
        params = init_image_ode(rng(), (6, 6, 1), 4, extra=extra, classes=3, readout=readout)
        model = image_ode(extra=extra, readout=readout)
        assert model.outputs(params, images).shape == (12, 3)
        _, history = fit(
            model.value_and_grad,
            params,
            batches=minibatches((images, labels), 12),
            optimiser=adam(),
            schedule=constant(1e-2),
            epochs=15,
            seed=0,
            progress=False,
        )
        losses = [epoch["train"]["loss"] for epoch in history]
        assert losses[-1] < 0.8 * losses[0] and history[-1]["train"]["nfe_forward"] >= 8
    evaluation = model.evaluate(params, images, labels, batch_size=6)
    assert evaluation["errors"] <= 12 and evaluation["nfe_forward"] >= 8


def test_the_linear_classifier_is_a_linear_classifier():
    params = augmented_images.init_dense(rng(), 4, 3)
    images, labels = rng(1).uniform(size=(5, 2, 2, 1)).astype(np.float32), np.array([0, 1, 2, 0, 1])
    logits = images.reshape(5, 4) @ params["weight"] + params["bias"]
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(5), labels])
    assert augmented_images.LinearClassifier().evaluate(params, images, labels, 5)["loss"] == pytest.approx(expected, rel=1e-5)


def test_halved_images_are_means_of_four_pixels():
    images = np.array([[[0, 2, 8, 8], [4, 6, 8, 9]]], np.uint8)
    np.testing.assert_array_equal(augmented_images.halved(images), [[[3, 8]]])
    assert augmented_images.halved(images).dtype == np.uint8
    assert augmented_images.halved(np.zeros((2, 4, 4, 3), np.float32)).shape == (2, 2, 2, 3)


@pytest.mark.parametrize("extra, reached", [(0, False), (1, True)])
@pytest.mark.slow
def test_one_more_dimension_swaps_two_points_and_none_cannot(extra, reached):
    points = toy_functions.signs(rng(), 64, flipped=True)
    params = augmented.init_vector_ode(rng(1), 1, 16, extra=extra, outputs=None)
    model = NeuralOde(mlp_field, extra=extra, readout="none")
    _, history = fit(
        model.value_and_grad,
        params,
        batches=minibatches(tuple(points), 32),
        optimiser=adam(),
        schedule=constant(1e-2),
        epochs=60,
        seed=0,
        progress=False,
    )
    loss = history[-1]["train"]["loss"]
    assert loss < 0.05 if reached else loss > 0.45
