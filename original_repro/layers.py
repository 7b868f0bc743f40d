"""TensorFlow layers as functions of a dict of arrays, in NHWC layout, with PyTorch's default initialisation.

Every function takes (params, input, ...) and computes in the input's dtype, float32 or float64. At the sizes of the
paper's ODE-Net every pass over the activations costs a noticeable part of a convolution, so the layers take few.
"""

import math

import numpy as np
import tensorflow as tf

from .fast_convolutions import halving_conv, winograd_conv


def init_conv(rng, channels_in, channels_out, kernel_size):
    """Parameters of `conv`: weight (kernel_size, kernel_size, channels_in, channels_out), bias (channels_out,).

    float32, U(-b, b) with b = 1/sqrt(fan_in), PyTorch's default; `rng` is a np.random.Generator.
    """
    bound = 1 / math.sqrt(kernel_size**2 * channels_in)
    return {
        "weight": _uniform(rng, bound, (kernel_size, kernel_size, channels_in, channels_out)),
        "bias": _uniform(rng, bound, (channels_out,)),
    }


def init_time_conv(rng, channels_in, channels_out, kernel_size):
    """Parameters of `time_conv`: those of `conv` and time_weight (kernel_size, kernel_size, channels_out), float32.

    Together the weights of a convolution of channels_in + 1 channels, which the fan-in counts.
    """
    bound = 1 / math.sqrt(kernel_size**2 * (channels_in + 1))
    return {
        "weight": _uniform(rng, bound, (kernel_size, kernel_size, channels_in, channels_out)),
        "time_weight": _uniform(rng, bound, (kernel_size, kernel_size, channels_out)),
        "bias": _uniform(rng, bound, (channels_out,)),
    }


def init_dense(rng, features_in, features_out):
    """Parameters of `dense`: weight (features_in, features_out), bias (features_out,), float32; as `init_conv`."""
    bound = 1 / math.sqrt(features_in)
    return {
        "weight": _uniform(rng, bound, (features_in, features_out)),
        "bias": _uniform(rng, bound, (features_out,)),
    }


def init_group_norm(channels):
    """Parameters of `group_norm`: scale (channels,) of ones, shift (channels,) of zeros, float32."""
    return {"scale": np.ones(channels, np.float32), "shift": np.zeros(channels, np.float32)}


def conv(params, x, *, strides=1, padding="SAME"):
    """Two-dimensional convolution with bias: x (batch, height, width, channels_in) -> (batch, h, w, channels_out).

    `padding` is "SAME", "VALID" or an integer, the number of zeros on each side, as PyTorch counts.
    """
    halving = strides == 2 and params["weight"].shape[0] % 2 == 0 and None not in x.shape[1:3]
    if halving and isinstance(padding, int):
        return tf.nn.bias_add(halving_conv(x, params["weight"], padding), params["bias"])
    if isinstance(padding, int):
        padding = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    return tf.nn.bias_add(tf.nn.conv2d(x, params["weight"], strides, padding), params["bias"])


def time_conv(params, t, x):
    """Convolution, stride 1, of x with the scalar t as one more input channel: x (batch, height, width, channels_in).

    t is zero-padded like any channel, so a border sees fewer of its taps. By linearity it contributes
    t * conv(1, time_weight), one (height, width, channels_out) image for the batch, added with the bias.
    """
    y = tf.nn.conv2d(x, params["weight"], 1, "SAME")
    return y + _share_of_time(params, t, tf.unstack(tf.shape(x))[1:3], x.dtype)


def time_conv_pixels_first(params, t, x, sides):
    """`time_conv` by Winograd's algorithm, of x (height * width, batch, channels_in), sides = (height, width)."""
    share = _share_of_time(params, t, sides, x.dtype)
    return winograd_conv(x, sides, params["weight"]) + tf.reshape(share, (x.shape[0], 1, -1))


def _share_of_time(params, t, sides, dtype):
    """What t and the bias add to the convolution of an image: (height, width, channels_out)."""
    kernel_size = params["time_weight"].shape[0]
    ones = tf.ones((1, *sides, 1), dtype)
    taps = tf.image.extract_patches(ones, [1, kernel_size, kernel_size, 1], [1] * 4, [1] * 4, "SAME")[0]
    image = tf.tensordot(taps, tf.reshape(params["time_weight"], (kernel_size**2, -1)), 1)
    return tf.cast(t, dtype) * image + params["bias"]


def dense(params, x):
    """Affine map: x (batch, features_in) -> (batch, features_out)."""
    return tf.matmul(x, params["weight"]) + params["bias"]


def group_norm(params, x, groups=32, *, epsilon=1e-5, relu=False):
    """Group normalisation (Wu and He 2018) of x (batch, height, width, channels), then ReLU if `relu`; same shape.

    Neighbouring channels form a group. Each group of each sample is brought to mean 0 and variance 1 (biased, plus
    `epsilon`) over pixels and channels, then scaled and shifted by channel. May be differentiated more than once.
    Raises ValueError if the number of channels is not a multiple of `groups`.
    """
    batch, height, width, _ = tf.unstack(tf.shape(x))
    y = _group_norm(params, tf.reshape(x, (batch, height * width, x.shape[-1])), 1, groups, epsilon, relu)
    return tf.reshape(y, tf.shape(x))


def group_norm_pixels_first(params, x, groups=32, *, epsilon=1e-5, relu=False):
    """`group_norm` of x (height * width, batch, channels)."""
    return _group_norm(params, x, 0, groups, epsilon, relu)


def _group_norm(params, x, axis, groups, epsilon, relu):
    """`group_norm` of x (batch, pixels, channels) in any order of the first two, axis being that of pixels; derivative by hand.

    With m the mean and r the inverse deviation of a group, y = relu(a x + b), where a = r scale and b = shift - a m
    depend on sample and channel only. For y_bar masked by the ReLU, xhat = r (x - m) and <.> the mean over a group,
        x_bar = r (scale y_bar - <scale y_bar> - xhat <scale y_bar xhat>) = a y_bar - c x - d,
    and both means follow from the sums over pixels of y_bar and of y_bar x, so that one product with x serves all.
    """
    if x.shape[-1] % groups:
        raise ValueError(f"{x.shape[-1]} channels cannot be divided into {groups} groups")
    group_size = x.shape[-1] // groups
    group = np.arange(x.shape[-1]) // group_size
    pool = tf.cast(group[:, None] == group, x.dtype) / tf.cast(tf.shape(x)[axis] * group_size, x.dtype)

    def group_mean(sums):
        return tf.matmul(sums, pool)

    def over_pixels(values):
        return tf.expand_dims(values, axis)

    @tf.custom_gradient
    def normalise(x, scale, shift):
        mean = group_mean(tf.reduce_sum(x, axis))
        deviations = tf.math.squared_difference(x, over_pixels(mean))
        inverse = tf.math.rsqrt(group_mean(tf.reduce_sum(deviations, axis)) + epsilon)
        slope = inverse * scale
        y = x * over_pixels(slope) + over_pixels(shift - slope * mean)
        if relu:
            y = tf.nn.relu(y)

        def backward(y_bar):
            if relu:
                y_bar = tf.raw_ops.ReluGrad(gradients=y_bar, features=y)
            shift_bar = tf.reduce_sum(y_bar, axis)
            scale_bar = inverse * (tf.reduce_sum(y_bar * x, axis) - mean * shift_bar)
            curvature = inverse**2 * group_mean(scale * scale_bar)
            offset = inverse * group_mean(scale * shift_bar) - curvature * mean
            x_bar = y_bar * over_pixels(slope) - x * over_pixels(curvature) - over_pixels(offset)
            return x_bar, tf.reduce_sum(scale_bar, 0), tf.reduce_sum(shift_bar, 0)

        return y, backward

    return normalise(x, params["scale"], params["shift"])


def _uniform(rng, bound, shape):
    return rng.uniform(-bound, bound, shape).astype(np.float32)
