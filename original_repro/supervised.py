"""The four networks of Table 1 (section 3 of the paper): ODE-Net, RK-Net, ResNet and a perceptron with one hidden layer.

Each is for images of any size, number of channels and of classes, which an `ImageFormat` tells it; MNIST's is `mnist.FORMAT`.

ODE-Net and RK-Net are stem, dynamics and head in TensorFlow, joined by odeint under autograd; the other two are one TensorFlow
graph each. The paper gives numbers of parameters (0.22, 0.22, 0.60 and 0.24 million) but no list of layers; the architecture is
that of the authors' later example, in NHWC layout: for MNIST 208,266, 208,266, 576,778 and 238,510 parameters.
"""

import math

import numpy as np
import tensorflow as tf
from autograd import value_and_grad
from autograd.tracer import getval

from original_repro.datasets.images import ImageFormat
from original_repro.fast_convolutions import images_first, pixels_first, winograd_fits
from original_repro.layers import (
    conv,
    dense,
    group_norm,
    group_norm_pixels_first,
    init_conv,
    init_dense,
    init_group_norm,
    init_time_conv,
    time_conv,
    time_conv_pixels_first,
)
from original_repro.training import tree_leaves
from solvers_bridge import TensorFlowDynamics, odeint, record_solves, tensorflow_primitive

# Images that are evaluated at once; their number is a multiple of it.
EVALUATION_BATCH = 250
# Of the convolutions in the dynamics.
KERNEL_SIZE = 3
# The stem makes one pixel of these.
LEAST_SIDE = 6


def init_odenet(rng, image_format, *, channels=64):
    """Parameters of the ODE-Net, float32: {"stem": ..., "dynamics": ..., "head": ...}; `rng`: np.random.Generator."""
    return {
        "stem": init_stem(rng, image_format, channels),
        "dynamics": {
            "norm1": init_group_norm(channels),
            "conv1": init_time_conv(rng, channels, channels, KERNEL_SIZE),
            "norm2": init_group_norm(channels),
            "conv2": init_time_conv(rng, channels, channels, KERNEL_SIZE),
            "norm3": init_group_norm(channels),
        },
        "head": init_head(rng, channels, image_format.classes),
    }


def init_resnet(rng, image_format, *, channels=64, blocks=6):
    """Parameters of the ResNet, float32: {"stem": ..., "blocks": a list, "head": ...}; `rng`: np.random.Generator."""
    return {
        "stem": init_stem(rng, image_format, channels),
        "blocks": [init_residual_block(rng, channels) for _ in range(blocks)],
        "head": init_head(rng, channels, image_format.classes),
    }


def init_mlp(rng, image_format, *, hidden=300):
    """Parameters of the perceptron with one hidden layer, float32: {"hidden": ..., "output": ...}; `rng`: np.random.Generator."""
    _check_format(image_format)
    return {
        "hidden": init_dense(rng, math.prod(image_format.shape), hidden),
        "output": init_dense(rng, hidden, image_format.classes),
    }


def init_stem(rng, image_format, channels):
    """Parameters of `stem`, float32. ValueError for images with a side of less than 6 pixels."""
    _check_format(image_format)
    if min(image_format.height, image_format.width) < LEAST_SIDE:
        raise ValueError(f"image_format must have sides of at least {LEAST_SIDE} pixels; got {image_format}")
    return {
        "conv1": init_conv(rng, image_format.channels, channels, 3),
        "norm1": init_group_norm(channels),
        "conv2": init_conv(rng, channels, channels, 4),
        "norm2": init_group_norm(channels),
        "conv3": init_conv(rng, channels, channels, 4),
    }


def init_residual_block(rng, channels):
    """Parameters of `residual_block`, float32: convolutions without bias, as in the authors' example."""
    return {
        "norm1": init_group_norm(channels),
        "conv1": {"weight": init_conv(rng, channels, channels, 3)["weight"]},
        "norm2": init_group_norm(channels),
        "conv2": {"weight": init_conv(rng, channels, channels, 3)["weight"]},
    }


def init_head(rng, channels, classes):
    """Parameters of `head`, float32."""
    return {"norm": init_group_norm(channels), "dense": init_dense(rng, channels, classes)}


def standardised(images, image_format):
    """Images in [0, 1] -> mean 0 and variance 1 over the training images; same shape."""
    return (images - tf.constant(image_format.mean, images.dtype)) / tf.constant(image_format.deviation, images.dtype)


def stem(params, images, image_format, *, groups=32):
    """Images (batch, height, width, ...) in [0, 1] -> state z(0) (batch, (height - 2) // 4, (width - 2) // 4, channels)."""
    x = conv(params["conv1"], standardised(images, image_format), padding="VALID")
    x = conv(params["conv2"], group_norm(params["norm1"], x, groups, relu=True), strides=2, padding=1)
    return conv(params["conv3"], group_norm(params["norm2"], x, groups, relu=True), strides=2, padding=1)


def conv_dynamics(t, z, params, *, groups=32, winograd=False):
    """dz/dt of the ODE-Net: scalar t, z (batch, height, width, channels); same shape as z.

    `winograd` computes the convolutions the faster way for small images, see `fast_convolutions.winograd_conv`.
    """
    if winograd:
        return _conv_dynamics_pixels_first(t, z, params, groups)
    h = time_conv(params["conv1"], t, group_norm(params["norm1"], z, groups, relu=True))
    h = time_conv(params["conv2"], t, group_norm(params["norm2"], h, groups, relu=True))
    return group_norm(params["norm3"], h, groups)


def _conv_dynamics_pixels_first(t, z, params, groups):
    sides = tuple(z.shape[1:3])
    h = group_norm_pixels_first(params["norm1"], pixels_first(z), groups, relu=True)
    h = group_norm_pixels_first(params["norm2"], time_conv_pixels_first(params["conv1"], t, h, sides), groups, relu=True)
    h = group_norm_pixels_first(params["norm3"], time_conv_pixels_first(params["conv2"], t, h, sides), groups)
    return images_first(h, sides)


def residual_block(params, z, *, groups=32):
    """z + f(z), a block of full pre-activation (He et al. 2016b): z (batch, height, width, channels); same shape."""
    h = tf.nn.conv2d(group_norm(params["norm1"], z, groups, relu=True), params["conv1"]["weight"], 1, "SAME")
    h = tf.nn.conv2d(group_norm(params["norm2"], h, groups, relu=True), params["conv2"]["weight"], 1, "SAME")
    return z + h


def head(params, z, *, groups=32):
    """State z(1) (batch, height, width, channels) -> logits (batch, classes)."""
    z = group_norm(params["norm"], z, groups, relu=True)
    return dense(params["dense"], tf.reduce_mean(z, (1, 2)))


def head_loss(params, z, labels, *, groups=32):
    """`cross_entropy` of the head at z (batch, height, width, channels), with labels (batch,) integers."""
    return cross_entropy(head(params, z, groups=groups), labels)


def cross_entropy(logits, labels):
    """Mean softmax cross-entropy in nats, and the number of correct predictions as a float of the logits' dtype.

    logits (batch, classes); labels (batch,) integers.
    """
    labels = tf.cast(labels, tf.int64)
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    return loss, tf.reduce_sum(tf.cast(tf.argmax(logits, -1) == labels, logits.dtype))


def resnet_loss(params, images, labels, image_format, *, groups=32):
    """`cross_entropy` of the ResNet on images (batch, height, width, channels) in [0, 1], labels (batch,) integers."""
    z = stem(params["stem"], images, image_format, groups=groups)
    for block in params["blocks"]:
        z = residual_block(block, z, groups=groups)
    return head_loss(params["head"], z, labels, groups=groups)


def mlp_loss(params, images, labels, image_format):
    """`cross_entropy` of the perceptron on images (batch, height, width, channels) in [0, 1], labels (batch,) integers."""
    x = tf.reshape(standardised(images, image_format), (-1, math.prod(image_format.shape)))
    return cross_entropy(dense(params["output"], tf.nn.relu(dense(params["hidden"], x))), labels)


def parameter_count(params):
    """Number of scalars in a nesting of dicts, lists and tuples of arrays."""
    return sum(math.prod(leaf.shape) for leaf in tree_leaves(params))


class Classifier:
    """A network as a function of `params`: what training and evaluation need, from the `loss` of a subclass.

    The object holds the compiled graphs; keep it for the whole of a training. Images are (batch, height, width, channels) with
    values in [0, 1], labels integers (batch,).
    """

    def loss(self, params, images, labels):
        """(mean cross-entropy in nats, number of correct predictions)."""
        raise NotImplementedError

    def value_and_grad(self, params, images, labels):
        """(metrics, gradient) for `training.fit`: loss and accuracy; with an ODE, evaluations nfe_forward, nfe_backward."""
        correct = []

        def mean_loss(params):
            loss, batch_correct = self.loss(params, images, labels)
            correct.append(getval(batch_correct))
            return loss

        with record_solves() as solves:
            loss, grads = value_and_grad(mean_loss)(params)
        return self.metrics(loss, correct[0], len(labels), solves), grads

    @staticmethod
    def metrics(loss, correct, examples, solves):
        """Those of `value_and_grad`, from a batch's mean loss, correct predictions, size and solves."""
        return {
            "loss": float(loss),
            "accuracy": float(correct) / examples,
            **{
                f"nfe_{way}": sum(solve.nfe for solve in solves if solve.direction == way)
                for way in ("forward", "backward")
                if solves
            },
        }

    def evaluate(self, params, images, labels, batch_size=EVALUATION_BATCH):
        """{"loss", "errors", "error_rate"} and, with an ODE, "nfe_forward" over all examples; batch_size divides their number."""
        if len(labels) % batch_size:
            raise ValueError(f"batch_size must divide the {len(labels)} examples, got {batch_size}")
        losses, correct = [], 0
        with record_solves() as solves:
            for start in range(0, len(labels), batch_size):
                loss, batch_correct = self.loss(params, images[start : start + batch_size], labels[start : start + batch_size])
                losses.append(float(loss))
                correct += int(batch_correct)
        errors = len(labels) - correct
        return {
            "loss": float(np.mean(losses)),
            "errors": errors,
            "error_rate": errors / len(labels),
            **({"nfe_forward": float(np.mean([solve.nfe for solve in solves]))} if solves else {}),
        }


class OdeNet(Classifier):
    """Stem, one ODESolve over t in [0, 1], head; parameters of `init_odenet`, whatever solves the ODE.

    method, rtol, atol and further solver settings are those of `solvers_bridge.odeint`; the paper's tolerance for
    classification is 1e-3. A batch is solved as one ODE of dimension batch * height * width * channels (section 6).
    `winograd` computes the dynamics faster, to 1e-5 where the direct way is good to 1e-6: of no account above that tolerance. It
    is for states of at most 6 x 6 pixels, and of no effect on larger ones.
    """

    def __init__(
        self, image_format, method="adams", rtol=1e-3, atol=1e-3, *, groups=32, winograd=True, device=None, **solver_settings
    ):
        _check_format(image_format)
        self.solver = {"method": method, "rtol": rtol, "atol": atol, **solver_settings}
        self.stem = tensorflow_primitive(
            lambda params, images: stem(params, images, image_format, groups=groups), "float32", device
        )

        def dynamics(t, z, params):
            fast = winograd and winograd_fits(z.shape[1:3], KERNEL_SIZE)
            return conv_dynamics(t, z, params, groups=groups, winograd=fast)

        self.dynamics = TensorFlowDynamics(dynamics, "float32", device)
        self.head_loss = tensorflow_primitive(
            lambda params, z, labels: head_loss(params, z, labels, groups=groups), "float32", device
        )

    def loss(self, params, images, labels):
        z0 = self.stem(params["stem"], images)
        z1 = odeint(self.dynamics, z0, [0.0, 1.0], params["dynamics"], **self.solver)[-1]
        return self.head_loss(params["head"], z1, labels)


class RkNet(OdeNet):
    """The ODE-Net with gradients backpropagated through `steps` steps of the classical Runge-Kutta method (order 4).

    Its memory grows with the 4 * steps evaluations, where the adjoint method's does not.
    """

    def __init__(self, image_format, steps=2, *, groups=32, device=None):
        super().__init__(
            image_format, "rk4", groups=groups, device=device, options={"step_size": 1 / steps}, adjoint_method="discrete"
        )

    def value_and_grad(self, params, images, labels):
        metrics, grads = super().value_and_grad(params, images, labels)
        # One vector-Jacobian product for each evaluation, outside any solve that would count them.
        return {**metrics, "nfe_backward": metrics["nfe_forward"]}, grads


class GraphClassifier(Classifier):
    """A network without an ODE: `network_loss(params, images, labels)`, in TensorFlow, as its loss.

    autograd differentiates `loss` as every Classifier's; but here value_and_grad is a single graph, which TensorFlow can
    optimise as a whole.
    """

    def __init__(self, network_loss, device=None):
        self.loss = tensorflow_primitive(network_loss, "float32", device)

        @tf.function
        def graph(params, images, labels):
            with tf.device(device), tf.GradientTape() as tape:
                params, images = tf.nest.map_structure(lambda array: tf.cast(array, tf.float32), (params, images))
                tape.watch(params)
                loss, correct = network_loss(params, images, labels)
            return loss, correct, tape.gradient(loss, params)

        self.graph = graph

    def value_and_grad(self, params, images, labels):
        loss, correct, grads = self.graph(params, images, labels)
        return (
            {"loss": float(loss), "accuracy": float(correct) / len(labels)},
            tf.nest.map_structure(lambda gradient: gradient.numpy(), grads),
        )


class ResNet(GraphClassifier):
    """Stem, residual blocks, head; parameters of `init_resnet`."""

    def __init__(self, image_format, *, groups=32, device=None):
        _check_format(image_format)
        super().__init__(lambda params, images, labels: resnet_loss(params, images, labels, image_format, groups=groups), device)


class Mlp(GraphClassifier):
    """The perceptron with one hidden layer of rectified linear units; parameters of `init_mlp`."""

    def __init__(self, image_format, *, device=None):
        _check_format(image_format)
        super().__init__(lambda params, images, labels: mlp_loss(params, images, labels, image_format), device)


def _check_format(image_format):
    if not isinstance(image_format, ImageFormat):
        raise TypeError(f"image_format must be an ImageFormat, such as mnist.FORMAT; got {image_format!r:.80}")
