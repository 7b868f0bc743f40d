import functools

import numpy as np
import pytest
import tensorflow as tf

from original_repro import supervised
from original_repro.datasets.images import ImageFormat
from original_repro.datasets.mnist import FORMAT


def as_float64(params):
    return tf.nest.map_structure(lambda leaf: np.asarray(leaf, np.float64), params)


@pytest.fixture(scope="module")
def params():
    return supervised.init_odenet(np.random.default_rng(0), FORMAT)


@pytest.fixture(scope="module")
def small_dynamics():
    rng = np.random.default_rng(1)
    dynamics = supervised.init_odenet(rng, FORMAT, channels=6)["dynamics"]
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


@pytest.mark.parametrize(
    "init, count, reported",
    [
        (supervised.init_odenet, 208_266, 0.22e6),
        (supervised.init_resnet, 576_778, 0.60e6),
        (supervised.init_mlp, 238_510, 0.24e6),
    ],
)
def test_networks_have_the_parameters_of_table_1(init, count, reported):
    """The paper gives no list of layers; this is the authors' later, public architecture. The RK-Net's are the ODE-Net's."""
    params = init(np.random.default_rng(0), FORMAT)
    assert supervised.parameter_count(params) == count == pytest.approx(reported, rel=0.06)
    assert {leaf.dtype for leaf in tf.nest.flatten(params)} == {np.dtype(np.float32)}


def test_parameters_of_the_odenet_by_part(params):
    assert supervised.parameter_count(params["stem"]) == 132_096
    assert supervised.parameter_count(params["dynamics"]) == 75_392


def test_shapes_from_images_to_logits(params):
    images = np.random.default_rng(2).uniform(size=(5, 28, 28, 1)).astype(np.float32)
    z = supervised.stem(params["stem"], images, FORMAT)
    dz_dt = supervised.conv_dynamics(0.5, z, params["dynamics"])
    logits = supervised.head(params["head"], z)
    assert (z.shape, dz_dt.shape, logits.shape) == ((5, 6, 6, 64), (5, 6, 6, 64), (5, 10))
    assert {z.dtype, dz_dt.dtype, logits.dtype} == {tf.float32}


def test_samples_do_not_see_each_other(params):
    images = np.random.default_rng(3).uniform(size=(3, 28, 28, 1)).astype(np.float32)

    def predict(images):
        z = supervised.stem(params["stem"], images, FORMAT)
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
        z = supervised.stem(params["stem"], images, FORMAT)
        z = z + supervised.conv_dynamics(1.0, z, params["dynamics"])
        return supervised.head_loss(params["head"], z, labels)[0]

    tensors = tf.nest.map_structure(tf.constant, params)
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        before = loss(tensors)
    gradients = tape.gradient(before, tensors)
    assert loss(tf.nest.map_structure(lambda p, g: p - 0.01 * g, tensors, gradients)) < before


def rknet_loss(params, images, labels, steps=2):
    """The RK-Net with the textbook's Runge-Kutta method, in TensorFlow."""
    z = supervised.stem(params["stem"], images, FORMAT, groups=2)
    f = functools.partial(supervised.conv_dynamics, params=params["dynamics"], groups=2)
    h = 1 / steps
    for t in np.arange(steps) * h:
        k1 = f(t, z)
        k2 = f(t + h / 2, z + h / 2 * k1)
        k3 = f(t + h / 2, z + h / 2 * k2)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + f(t + h, z + h * k3))
    return supervised.head_loss(params["head"], z, labels, groups=2)


RKNET = supervised.RkNet(FORMAT, groups=2)


@pytest.mark.parametrize(
    "net, init, loss",
    [
        (RKNET, functools.partial(supervised.init_odenet, channels=4), rknet_loss),
        pytest.param(
            supervised.RkNet(FORMAT, steps=1, groups=2),
            functools.partial(supervised.init_odenet, channels=4),
            functools.partial(rknet_loss, steps=1),
            marks=pytest.mark.slow,
        ),
        (
            supervised.ResNet(FORMAT, groups=2),
            functools.partial(supervised.init_resnet, channels=4, blocks=2),
            functools.partial(supervised.resnet_loss, image_format=FORMAT, groups=2),
        ),
        (
            supervised.Mlp(FORMAT),
            functools.partial(supervised.init_mlp, hidden=7),
            functools.partial(supervised.mlp_loss, image_format=FORMAT),
        ),
    ],
    ids=["rknet", "rknet of one step", "resnet", "mlp"],
)
def test_loss_and_gradient_agree_with_finite_differences_in_float64(net, init, loss):
    rng = np.random.default_rng(9)
    params = tf.nest.map_structure(lambda leaf: (leaf + 0.1 * rng.normal(size=leaf.shape)).astype(np.float32), init(rng, FORMAT))
    images, labels = rng.uniform(size=(5, 28, 28, 1)).astype(np.float32), np.array([3, 1, 4, 1, 5], np.uint8)
    direction = tf.nest.map_structure(lambda leaf: rng.normal(size=leaf.shape), params)

    def along(step):
        moved = tf.nest.map_structure(lambda leaf, d: leaf + step * d, as_float64(params), direction)
        value, correct = loss(moved, images.astype(np.float64), labels)
        return float(value), float(correct)

    metrics, grads = net.value_and_grad(params, images, labels)
    assert metrics["loss"] == pytest.approx(along(0.0)[0], rel=1e-5)
    assert metrics["accuracy"] == along(0.0)[1] / 5
    assert metrics["loss"] == pytest.approx(float(net.loss(params, images, labels)[0]), rel=1e-5)
    assert {leaf.dtype for leaf in tf.nest.flatten(grads)} == {np.dtype(np.float32)}
    slope = sum(np.sum(g * d) for g, d in zip(tf.nest.flatten(grads), tf.nest.flatten(direction), strict=True))
    assert slope == pytest.approx((along(1e-6)[0] - along(-1e-6)[0]) / 2e-6, rel=1e-3)


def test_rknet_counts_the_evaluations_of_both_ways(monkeypatch):
    # Five images, as above: its graphs are there.
    net, params = RKNET, supervised.init_odenet(np.random.default_rng(10), FORMAT, channels=4)
    augmented, times = net.dynamics.augmented, []

    def counted(shape, structure):
        system = augmented(shape, structure)
        bind = system.bind

        def counting_bind(*arguments):
            products = bind(*arguments)
            return lambda t, s: times.append(float(t)) or products(t, s)

        monkeypatch.setattr(system, "bind", counting_bind)
        return system

    monkeypatch.setattr(net.dynamics, "augmented", counted)
    metrics, _ = net.value_and_grad(params, np.zeros((5, 28, 28, 1), np.float32), np.arange(5))
    assert times == [1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.0]
    assert metrics["nfe_forward"] == metrics["nfe_backward"] == len(times)


@pytest.mark.parametrize(
    "net, init, evaluations",
    [
        (
            supervised.RkNet(FORMAT, steps=3, groups=2),
            functools.partial(supervised.init_odenet, channels=4),
            {"nfe_forward": 12.0},
        ),
        (supervised.Mlp(FORMAT), supervised.init_mlp, {}),
    ],
    ids=["rknet", "mlp"],
)
def test_evaluation_goes_over_all_examples(net, init, evaluations):
    rng = np.random.default_rng(11)
    params, images, labels = init(rng, FORMAT), rng.uniform(size=(6, 28, 28, 1)).astype(np.float32), rng.integers(10, size=6)
    loss, correct = net.loss(params, images, labels)
    evaluation = net.evaluate(params, images, labels, batch_size=2)
    assert evaluation == {
        "loss": pytest.approx(float(loss), rel=1e-5),
        "errors": 6 - int(correct),
        "error_rate": 1 - int(correct) / 6,
        **evaluations,
    }
    with pytest.raises(ValueError, match="batch_size must divide the 6 examples, got 4"):
        net.evaluate(params, images, labels, batch_size=4)


COLOURED = ImageFormat(12, 10, 3, classes=4, mean=(0.5, 0.4, 0.3), deviation=(0.2, 0.3, 0.25))


@pytest.mark.parametrize(
    "network, init",
    [
        pytest.param(
            functools.partial(supervised.OdeNet, groups=2, method="dop853", rtol=1e-8, atol=1e-8),
            functools.partial(supervised.init_odenet, channels=4),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            functools.partial(supervised.RkNet, groups=2),
            functools.partial(supervised.init_odenet, channels=4),
            marks=pytest.mark.slow,
        ),
        (functools.partial(supervised.ResNet, groups=2), functools.partial(supervised.init_resnet, channels=4, blocks=1)),
        (supervised.Mlp, functools.partial(supervised.init_mlp, hidden=5)),
    ],
    ids=["odenet", "rknet", "resnet", "mlp"],
)
def test_images_of_other_sizes_channels_and_classes(network, init):
    """A network of images standardised by channel is that of the standardised ones with mean 0 and deviation 1."""
    rng = np.random.default_rng(12)
    params, images, labels = init(rng, COLOURED), rng.uniform(size=(4, *COLOURED.shape)).astype(np.float32), np.arange(4)
    metrics, gradient = network(COLOURED).value_and_grad(params, images, labels)
    standardised = ((images - COLOURED.mean) / COLOURED.deviation).astype(np.float32)
    other, other_gradient = network(ImageFormat(12, 10, 3, classes=4)).value_and_grad(params, standardised, labels)
    assert metrics["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for one, two, leaf in zip(*map(tf.nest.flatten, (gradient, other_gradient, params)), strict=True):
        assert one.shape == leaf.shape
        np.testing.assert_allclose(one, two, rtol=1e-2, atol=1e-4)


def test_states_too_large_for_winograd_are_solved_the_direct_way():
    large, rng = ImageFormat(32, 32, 3, classes=10), np.random.default_rng(13)
    params, images = supervised.init_odenet(rng, large, channels=4), rng.uniform(size=(2, *large.shape)).astype(np.float32)
    losses = [
        supervised.OdeNet(large, groups=2, winograd=winograd).loss(params, images, np.array([0, 9]))[0]
        for winograd in (True, False)
    ]
    assert losses[0] == losses[1] and np.isfinite(losses[0])


def test_formats_that_make_no_network_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="image_format must have sides of at least 6 pixels"):
        supervised.init_resnet(rng, ImageFormat(5, 28, 1, classes=10))
    for make in (lambda: supervised.OdeNet("adams"), lambda: supervised.Mlp(10), lambda: supervised.init_mlp(rng, (28, 28, 1))):
        with pytest.raises(TypeError, match="image_format must be an ImageFormat"):
            make()
