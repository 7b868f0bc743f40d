"""The ODE-Net of Table 1 in TensorFlow 1.8: graphs, placeholders, one Session; layers as a user of 2018 wrote them.

The architecture is that of the authors' later example, in NHWC layout. Group norm is tf.nn.moments on a five-dimensional view, t
is one more channel of the input, and TensorFlow's gradients are those of tf.gradients.
"""
import math
from collections import OrderedDict

import numpy as np
import tensorflow as tf

from generator import uniform

PIXEL_MEAN, PIXEL_DEVIATION = 0.1307, 0.3081
GROUPS, EPSILON = 32, 1e-5
CHANNELS, CLASSES, SIDE = 64, 10, 6

# part: (name of a leaf, shape, fan-in), in the order in which solvers_bridge meets them; fan-in 0: a norm, near 1 and 0.
NORM = [("scale", (CHANNELS,), 0), ("shift", (CHANNELS,), 0)]


def conv_leaves(size, channels_in):
    fan_in = size * size * channels_in
    return [("weight", (size, size, channels_in, CHANNELS), fan_in), ("bias", (CHANNELS,), fan_in)]


def time_conv_leaves():
    fan_in = 9 * (CHANNELS + 1)
    return [("weight", (3, 3, CHANNELS, CHANNELS), fan_in), ("time_weight", (3, 3, CHANNELS), fan_in),
            ("bias", (CHANNELS,), fan_in)]


LEAVES = OrderedDict([
    ("stem", [("conv1", conv_leaves(3, 1)), ("norm1", NORM), ("conv2", conv_leaves(4, CHANNELS)), ("norm2", NORM),
              ("conv3", conv_leaves(4, CHANNELS))]),
    ("dynamics", [("norm1", NORM), ("conv1", time_conv_leaves()), ("norm2", NORM), ("conv2", time_conv_leaves()),
                  ("norm3", NORM)]),
    ("head", [("norm", NORM), ("dense", [("weight", (CHANNELS, CLASSES), CHANNELS), ("bias", (CLASSES,), CHANNELS)])]),
])


def parameter_names(part):
    """["conv1/weight", ...] of a part: "stem", "dynamics" or "head"."""
    return ["%s/%s" % (layer, leaf) for layer, leaves in LEAVES[part] for leaf, _, _ in leaves]


def parameters(part, seed):
    """List of float32 arrays: leaf i from uniform(seed + i), times 1/sqrt(fan-in), or for a norm 1 + 0.1 u and 0.1 u."""
    arrays = []
    leaves = [leaf for _, leaves in LEAVES[part] for leaf in leaves]
    for i, (name, shape, fan_in) in enumerate(leaves):
        u = uniform(seed + i, shape)
        value = u / math.sqrt(fan_in) if fan_in else 0.1 * u + (1.0 if name == "scale" else 0.0)
        arrays.append(value.astype(np.float32))
    return arrays


def conv(x, weight, bias, stride=1, padding="SAME", zeros=0):
    if zeros:
        x = tf.pad(x, [[0, 0], [zeros, zeros], [zeros, zeros], [0, 0]])
    return tf.nn.bias_add(tf.nn.conv2d(x, weight, [1, stride, stride, 1], padding), bias)


def time_conv(x, t, weight, time_weight, bias):
    weight = tf.concat([tf.expand_dims(time_weight, 2), weight], 2)
    return conv(tf.concat([t * tf.ones_like(x[..., :1]), x], 3), weight, bias)


def group_norm(x, scale, shift):
    shape = x.shape.as_list()
    grouped = tf.reshape(x, shape[:3] + [GROUPS, shape[3] // GROUPS])
    mean, variance = tf.nn.moments(grouped, [1, 2, 4], keep_dims=True)
    return tf.reshape((grouped - mean) / tf.sqrt(variance + EPSILON), shape) * scale + shift


def stem(images, p):
    x = conv((images - PIXEL_MEAN) / PIXEL_DEVIATION, p["conv1/weight"], p["conv1/bias"], padding="VALID")
    x = tf.nn.relu(group_norm(x, p["norm1/scale"], p["norm1/shift"]))
    x = conv(x, p["conv2/weight"], p["conv2/bias"], stride=2, padding="VALID", zeros=1)
    x = tf.nn.relu(group_norm(x, p["norm2/scale"], p["norm2/shift"]))
    return conv(x, p["conv3/weight"], p["conv3/bias"], stride=2, padding="VALID", zeros=1)


def dynamics(z, t, p):
    h = tf.nn.relu(group_norm(z, p["norm1/scale"], p["norm1/shift"]))
    h = time_conv(h, t, p["conv1/weight"], p["conv1/time_weight"], p["conv1/bias"])
    h = tf.nn.relu(group_norm(h, p["norm2/scale"], p["norm2/shift"]))
    h = time_conv(h, t, p["conv2/weight"], p["conv2/time_weight"], p["conv2/bias"])
    return group_norm(h, p["norm3/scale"], p["norm3/shift"])


def head(z, p):
    z = tf.nn.relu(group_norm(z, p["norm/scale"], p["norm/shift"]))
    return tf.matmul(tf.reduce_mean(z, [1, 2]), p["dense/weight"]) + p["dense/bias"]


def placeholders(part):
    return [tf.placeholder(tf.float32, shape) for _, leaves in LEAVES[part] for _, shape, _ in leaves]


class Graphs(object):
    """The callables of one Session, for a batch: arrays in, arrays out. One thread, so that sums have one order."""

    def __init__(self, batch):
        self.state_shape = (batch, SIDE, SIDE, CHANNELS)
        session = tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1))
        z, a = (tf.placeholder(tf.float32, self.state_shape) for _ in range(2))
        t = tf.placeholder(tf.float32, ())

        theta = placeholders("dynamics")
        f = dynamics(z, t, dict(zip(parameter_names("dynamics"), theta)))
        self.f = session.make_callable(f, [z, t] + theta)
        vjp_z, vjp_t, vjp_theta = grouped_gradients(f, z, t, theta, -a)
        self.augmented = session.make_callable([f, vjp_z, vjp_t] + vjp_theta, [z, a, t] + theta)

        images, phi = tf.placeholder(tf.float32, (batch, 28, 28, 1)), placeholders("stem")
        z0 = stem(images, dict(zip(parameter_names("stem"), phi)))
        self.stem = session.make_callable(z0, [images] + phi)
        self.stem_vjp = session.make_callable(tf.gradients(z0, phi, grad_ys=a), [a, images] + phi)

        labels, psi = tf.placeholder(tf.int64, (batch,)), placeholders("head")
        logits = head(z, dict(zip(parameter_names("head"), psi)))
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        self.head = session.make_callable([logits, loss], [z, labels] + psi)
        self.head_vjp = session.make_callable(tf.gradients(loss, [z] + psi), [z, labels] + psi)

    def flat_dynamics(self, theta):
        """(f(z, t), augmented(s, t)) on flat float64 vectors, as the solvers want them; see appendix_d."""
        n = int(np.prod(self.state_shape))

        def f(z, t):
            return self.f(z.reshape(self.state_shape), t, *theta).reshape(-1).astype(np.float64)

        def augmented(s, t):
            z, a = (part.reshape(self.state_shape) for part in (s[:n], s[n:2 * n]))
            answer = self.augmented(z, a, t, *theta)
            dz_dt, vjp_z, vjp_t, vjp_theta = answer[0], answer[1], answer[2], answer[3:]
            return np.concatenate([part.reshape(-1) for part in [dz_dt, vjp_z] + vjp_theta + [vjp_t]]).astype(np.float64)

        return f, augmented


def grouped_gradients(f, z, t, theta, bar):
    gradients = tf.gradients(f, [z, t] + theta, grad_ys=bar)
    return gradients[0], gradients[1], gradients[2:]
