"""The ODE-Net of Table 1 (section 3 of the paper): stem, dynamics and head in TensorFlow, joined by odeint under autograd.

The architecture is that of the authors' later example: 208,266 parameters, in NHWC layout.
"""

import math

import numpy as np
import tensorflow as tf
from autograd import value_and_grad
from autograd.tracer import getval

from original_repro.layers import (
    conv,
    dense,
    group_norm,
    init_conv,
    init_dense,
    init_group_norm,
    init_time_conv,
    time_conv,
)
from solvers_bridge import TensorFlowDynamics, odeint, record_solves, tensorflow_primitive

# Mean and standard deviation of the pixels of MNIST's training images.
PIXEL_MEAN, PIXEL_DEVIATION = 0.1307, 0.3081


def init_odenet(rng, *, channels=64, classes=10):
    """Parameters of the ODE-Net, float32: {"stem": ..., "dynamics": ..., "head": ...}; `rng`: np.random.Generator."""
    return {
        "stem": {
            "conv1": init_conv(rng, 1, channels, 3),
            "norm1": init_group_norm(channels),
            "conv2": init_conv(rng, channels, channels, 4),
            "norm2": init_group_norm(channels),
            "conv3": init_conv(rng, channels, channels, 4),
        },
        "dynamics": {
            "norm1": init_group_norm(channels),
            "conv1": init_time_conv(rng, channels, channels, 3),
            "norm2": init_group_norm(channels),
            "conv2": init_time_conv(rng, channels, channels, 3),
            "norm3": init_group_norm(channels),
        },
        "head": {"norm": init_group_norm(channels), "dense": init_dense(rng, channels, classes)},
    }


def stem(params, images, *, groups=32):
    """Images (batch, 28, 28, 1) in [0, 1] -> state z(0) (batch, 6, 6, channels), downsampled twice."""
    x = conv(params["conv1"], (images - PIXEL_MEAN) / PIXEL_DEVIATION, padding="VALID")
    x = conv(params["conv2"], group_norm(params["norm1"], x, groups, relu=True), strides=2, padding=1)
    return conv(params["conv3"], group_norm(params["norm2"], x, groups, relu=True), strides=2, padding=1)


def conv_dynamics(t, z, params, *, groups=32):
    """dz/dt of the ODE-Net: scalar t, z (batch, height, width, channels); same shape as z."""
    h = time_conv(params["conv1"], t, group_norm(params["norm1"], z, groups, relu=True))
    h = time_conv(params["conv2"], t, group_norm(params["norm2"], h, groups, relu=True))
    return group_norm(params["norm3"], h, groups)


def head(params, z, *, groups=32):
    """State z(1) (batch, height, width, channels) -> logits (batch, classes)."""
    z = group_norm(params["norm"], z, groups, relu=True)
    return dense(params["dense"], tf.reduce_mean(z, (1, 2)))


def head_loss(params, z, labels, *, groups=32):
    """Mean softmax cross-entropy in nats, and the number of correct predictions as a float of z's dtype.

    z (batch, height, width, channels); labels (batch,) integers.
    """
    logits = head(params, z, groups=groups)
    labels = tf.cast(labels, tf.int64)
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    return loss, tf.reduce_sum(tf.cast(tf.argmax(logits, -1) == labels, z.dtype))


def parameter_count(params):
    """Number of scalars in a nesting of dicts, lists and tuples of arrays."""
    return sum(math.prod(leaf.shape) for leaf in tf.nest.flatten(params))


class OdeNet:
    """Stem, one ODESolve over t in [0, 1], head: a classifier as a function of `params`, whatever solves the ODE.

    method, rtol, atol and further solver settings are those of `solvers_bridge.odeint`; the paper's tolerance for
    classification is 1e-3. A batch is solved as one ODE of dimension batch * height * width * channels (section 6).
    The object holds the compiled graphs; keep it for the whole of a training.
    """

    def __init__(self, method="adams", rtol=1e-3, atol=1e-3, *, groups=32, device=None, **solver_settings):
        self.solver = {"method": method, "rtol": rtol, "atol": atol, **solver_settings}
        self.stem = tensorflow_primitive(lambda params, images: stem(params, images, groups=groups), "float32", device)
        self.dynamics = TensorFlowDynamics(lambda t, z, params: conv_dynamics(t, z, params, groups=groups), "float32", device)
        self.head_loss = tensorflow_primitive(
            lambda params, z, labels: head_loss(params, z, labels, groups=groups), "float32", device)

    def loss(self, params, images, labels):
        """(mean cross-entropy in nats, number of correct predictions) of images (batch, 28, 28, 1) in [0, 1], labels (batch,)."""
        z0 = self.stem(params["stem"], images)
        z1 = odeint(self.dynamics, z0, [0.0, 1.0], params["dynamics"], **self.solver)[-1]
        return self.head_loss(params["head"], z1, labels)

    def value_and_grad(self, params, images, labels):
        """(metrics, gradient) for `training.fit`: loss, accuracy, and evaluations of the dynamics forward and backward."""
        correct = []

        def mean_loss(params):
            loss, batch_correct = self.loss(params, images, labels)
            correct.append(getval(batch_correct))
            return loss

        with record_solves() as solves:
            loss, grads = value_and_grad(mean_loss)(params)
        return {"loss": float(loss), "accuracy": float(correct[0]) / len(labels),
                **{f"nfe_{way}": sum(solve.nfe for solve in solves if solve.direction == way)
                   for way in ("forward", "backward")}}, grads

    def evaluate(self, params, images, labels, batch_size=250):
        """{"loss", "errors", "error_rate", "nfe_forward"} over all examples, in batches that divide their number."""
        if len(labels) % batch_size:
            raise ValueError(f"batch_size must divide the {len(labels)} examples, got {batch_size}")
        losses, correct = [], 0
        with record_solves() as solves:
            for start in range(0, len(labels), batch_size):
                loss, batch_correct = self.loss(params, images[start:start + batch_size], labels[start:start + batch_size])
                losses.append(float(loss))
                correct += int(batch_correct)
        errors = len(labels) - correct
        return {"loss": float(np.mean(losses)), "errors": errors, "error_rate": errors / len(labels),
                "nfe_forward": float(np.mean([solve.nfe for solve in solves]))}
