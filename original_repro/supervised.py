"""The ODE-Net of Table 1 (section 3 of the paper) as TensorFlow functions: stem, dynamics, head.

The architecture is that of the authors' later example: 208,266 parameters, in NHWC layout.
"""

import math

import tensorflow as tf

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
