"""TensorFlow layers as functions of a dict of arrays, in NHWC layout, with PyTorch's default initialisation.

Every function takes (params, input, ...) and computes in the input's dtype, float32 or float64. At the sizes of the
paper's ODE-Net every pass over the activations costs a noticeable part of a convolution, so the layers take few.
"""

import functools
import math
from fractions import Fraction

import numpy as np
import tensorflow as tf

# Where Winograd's algorithm evaluates polynomials, in the order of taking them; infinity is one more. Small fractions lose
# the fewest digits.
WINOGRAD_POINTS = tuple(map(Fraction, ("0", "1", "-1", "1/2", "-1/2", "2", "-2")))


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
        return tf.nn.bias_add(_halving_conv(x, params["weight"], padding), params["bias"])
    if isinstance(padding, int):
        padding = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    return tf.nn.bias_add(tf.nn.conv2d(x, params["weight"], strides, padding), params["bias"])


def _halving_conv(x, weight, padding):
    """Convolution of stride 2 with an even kernel size, whose derivatives take half the time of TensorFlow's own.

    Squares of 2 x 2 pixels taken as one pixel of four times the channels make it a convolution of stride 1 and half the size.
    Its derivative by the weight is a few matrix products, that by x a convolution of stride 1. x has static sides.
    """
    half, channels_in, channels_out = weight.shape[0] // 2, *weight.shape[2:]
    sides = [(side + 2 * padding) // 2 - half + 1 for side in x.shape[1:3]]
    # What lies beyond is under no kernel.
    used = [2 * (side + half - 1) for side in sides]
    margins = [(padding, side - padding - length) for side, length in zip(used, x.shape[1:3], strict=True)]

    def fit(x, margins):
        x = tf.pad(x, [(0, 0), *((max(before, 0), max(after, 0)) for before, after in margins), (0, 0)])
        (top, bottom), (left, right) = ((max(-before, 0), max(-after, 0)) for before, after in margins)
        return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]

    @tf.custom_gradient
    def convolve(x, weight):
        def backward(y_bar):
            squares = tf.nn.space_to_depth(fit(x, margins), 2)
            flat = tf.reshape(y_bar, (-1, channels_out))
            products = [
                tf.matmul(
                    tf.reshape(squares[:, i : i + sides[0], j : j + sides[1]], (-1, 4 * channels_in)), flat, transpose_a=True
                )
                for i in range(half)
                for j in range(half)
            ]
            weight_bar = tf.reshape(tf.stack(products), (half, half, 2, 2, channels_in, channels_out))
            weight_bar = tf.reshape(tf.transpose(weight_bar, (0, 2, 1, 3, 4, 5)), weight.shape)
            kernel = tf.reshape(weight, (half, 2, half, 2, channels_in, channels_out))
            kernel = tf.reshape(tf.transpose(kernel, (0, 2, 5, 1, 3, 4)), (half, half, channels_out, 4 * channels_in))
            full = [(0, 0), (half - 1, half - 1), (half - 1, half - 1), (0, 0)]
            x_bar = tf.nn.depth_to_space(tf.nn.conv2d(y_bar, tf.reverse(kernel, (0, 1)), 1, full), 2)
            return fit(x_bar, [(-before, -after) for before, after in margins]), weight_bar

        return tf.nn.conv2d(x, weight, 2, [(0, 0), (padding, padding), (padding, padding), (0, 0)]), backward

    return convolve(x, weight)


def time_conv(params, t, x, *, winograd=False):
    """Convolution, stride 1, of x with the scalar t as one more input channel: x (batch, height, width, channels_in).

    t is zero-padded like any channel, so a border sees fewer of its taps. By linearity it contributes
    t * conv(1, time_weight), one (height, width, channels_out) image for the batch, added with the bias.
    `winograd` is for the convolution of x, see `winograd_conv`.
    """
    convolve = winograd_conv if winograd else _direct_conv
    y = convolve(x, params["weight"])
    kernel_size = params["time_weight"].shape[0]
    _, height, width, _ = tf.unstack(tf.shape(x))
    ones = tf.ones((1, height, width, 1), x.dtype)
    taps = tf.image.extract_patches(ones, [1, kernel_size, kernel_size, 1], [1] * 4, [1] * 4, "SAME")[0]
    image = tf.tensordot(taps, tf.reshape(params["time_weight"], (kernel_size**2, -1)), 1)
    return y + (tf.cast(t, x.dtype) * image + params["bias"])


def _direct_conv(x, weight):
    return tf.nn.conv2d(x, weight, 1, "SAME")


def winograd_conv(x, weight):
    """The convolution tf.nn.conv2d(x, weight, 1, "SAME") of small images, by matrix products alone (Winograd 1980).

    x (batch, height, width, channels_in) with static sides that make at most 8 with the kernel's, less 1; weight (size, size,
    channels_in, channels_out) with odd size. An image is one tile: in each direction its polynomial and the kernel's are
    evaluated at some points, multiplied there, and interpolated. At 6 x 6 pixels and size 3 that is 64 products a pair of
    channels, where the direct way has 324; so are the derivatives. In float32 the result is good to about 1e-5 of its
    largest value, the direct one to 1e-6. Raises ValueError for other sizes.
    """
    size = weight.shape[0]
    height, width = x.shape[1:3]
    most = len(WINOGRAD_POINTS) + 2 - size
    if size % 2 == 0 or weight.shape[1] != size or not all(side and side <= most for side in (height, width)):
        raise ValueError(
            f"winograd_conv needs an odd square kernel and static sides of at most {most} with this one,"
            f" got a kernel {tuple(weight.shape[:2])} and an image {(height, width)}"
        )
    rows, columns = _winograd_matrices(height, size), _winograd_matrices(width, size)
    to_image, to_points, kernel_to_points = (tf.constant(np.kron(*pair), x.dtype) for pair in zip(rows, columns, strict=True))
    channels_in, channels_out = weight.shape[2:]
    points = to_points.shape[0]
    pixels_first = tf.transpose(tf.reshape(x, (-1, height * width, channels_in)), (1, 0, 2))
    values = tf.matmul(to_points, tf.reshape(pixels_first, (height * width, -1)))
    kernel_values = tf.matmul(kernel_to_points, tf.reshape(weight, (size**2, -1)))
    products = tf.matmul(
        tf.reshape(values, (points, -1, channels_in)), tf.reshape(kernel_values, (points, channels_in, channels_out))
    )
    y = tf.matmul(to_image, tf.reshape(products, (points, -1)))
    y = tf.transpose(tf.reshape(y, (height * width, -1, channels_out)), (1, 0, 2))
    return tf.reshape(y, (-1, height, width, channels_out))


@functools.lru_cache
def _winograd_matrices(outputs, size):
    """(A, B, G) with A ((G g) * (B x)) the correlation of x (outputs,), zero-padded by size // 2, with g (size,); float64.

    Toom and Cook's multiplication of polynomials, transposed: exact in rational numbers.
    """
    finite = WINOGRAD_POINTS[: outputs + size - 2]
    scales = [math.prod(point - other for other in finite if other != point) for point in finite]
    to_image = [[point**i for point in finite] + [Fraction(i == outputs - 1)] for i in range(outputs)]
    kernel_to_points = [[point**i / scale for i in range(size)] for point, scale in zip(finite, scales, strict=True)]
    kernel_to_points.append([Fraction(i == size - 1) for i in range(size)])
    to_points = [_coefficients([other for other in finite if other != point]) + [Fraction(0)] for point in finite]
    to_points.append(_coefficients(finite))
    padding = size // 2
    return (
        np.array(to_image, float),
        np.array(to_points, float)[:, padding : padding + outputs],
        np.array(kernel_to_points, float),
    )


def _coefficients(roots):
    """Coefficients of the polynomial with leading coefficient 1 and these roots, lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        coefficients = [
            low - root * high for low, high in zip([Fraction(0), *coefficients], [*coefficients, Fraction(0)], strict=True)
        ]
    return coefficients


def dense(params, x):
    """Affine map: x (batch, features_in) -> (batch, features_out)."""
    return tf.matmul(x, params["weight"]) + params["bias"]


def group_norm(params, x, groups=32, *, epsilon=1e-5, relu=False):
    """Group normalisation (Wu and He 2018) of x (batch, height, width, channels), then ReLU if `relu`; same shape.

    Neighbouring channels form a group. Each group of each sample is brought to mean 0 and variance 1 (biased, plus
    `epsilon`) over pixels and channels, then scaled and shifted by channel. May be differentiated more than once.
    Raises ValueError if the number of channels is not a multiple of `groups`.
    """
    if x.shape[-1] % groups:
        raise ValueError(f"{x.shape[-1]} channels cannot be divided into {groups} groups")
    batch, height, width, _ = tf.unstack(tf.shape(x))
    y = _group_norm(tf.reshape(x, (batch, height * width, x.shape[-1])), params["scale"], params["shift"], groups, epsilon, relu)
    return tf.reshape(y, tf.shape(x))


def _group_norm(x, scale, shift, groups, epsilon, relu):
    """`group_norm` of x (batch, pixels, channels), with its derivative by hand.

    With m the mean and r the inverse deviation of a group, y = relu(a x + b), where a = r scale and b = shift - a m
    depend on sample and channel only. For y_bar masked by the ReLU, xhat = r (x - m) and <.> the mean over a group,
        x_bar = r (scale y_bar - <scale y_bar> - xhat <scale y_bar xhat>) = a y_bar - c x - d,
    and both means follow from the sums over pixels of y_bar and of y_bar x, so that one product with x serves all.
    """
    group_size = x.shape[-1] // groups
    group = np.arange(x.shape[-1]) // group_size
    pool = tf.cast(group[:, None] == group, x.dtype) / tf.cast(tf.shape(x)[1] * group_size, x.dtype)

    def group_mean(sums):
        return tf.matmul(sums, pool)

    @tf.custom_gradient
    def normalise(x, scale, shift):
        mean = group_mean(tf.reduce_sum(x, 1))
        deviations = tf.math.squared_difference(x, mean[:, None])
        inverse = tf.math.rsqrt(group_mean(tf.reduce_sum(deviations, 1)) + epsilon)
        slope = inverse * scale
        y = x * slope[:, None] + (shift - slope * mean)[:, None]
        if relu:
            y = tf.nn.relu(y)

        def backward(y_bar):
            if relu:
                y_bar = tf.raw_ops.ReluGrad(gradients=y_bar, features=y)
            shift_bar = tf.reduce_sum(y_bar, 1)
            scale_bar = inverse * (tf.reduce_sum(y_bar * x, 1) - mean * shift_bar)
            curvature = inverse**2 * group_mean(scale * scale_bar)
            offset = inverse * group_mean(scale * shift_bar) - curvature * mean
            x_bar = y_bar * slope[:, None] - x * curvature[:, None] - offset[:, None]
            return x_bar, tf.reduce_sum(scale_bar, 0), tf.reduce_sum(shift_bar, 0)

        return y, backward

    return normalise(x, scale, shift)


def _uniform(rng, bound, shape):
    return rng.uniform(-bound, bound, shape).astype(np.float32)
