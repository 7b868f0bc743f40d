"""Convolutions in TensorFlow that are faster than TensorFlow's own at the sizes of the paper's ODE-Net, with equal results."""

import functools
import math
from fractions import Fraction

import numpy as np
import tensorflow as tf

# Where Winograd's algorithm evaluates polynomials, in the order of taking them; infinity is one more. Small fractions lose
# the fewest digits.
WINOGRAD_POINTS = tuple(map(Fraction, ("0", "1", "-1", "1/2", "-1/2", "2", "-2")))
# Along one direction alone, where less is lost, two more.
WINOGRAD_ROW_POINTS = (*WINOGRAD_POINTS, Fraction(3, 4), Fraction(-3, 4))


def halving_conv(x, weight, padding):
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


def winograd_conv(x, sides, weight):
    """The convolution tf.nn.conv2d(x, weight, 1, "SAME") of small images, by matrix products alone (Winograd 1980).

    x (height * width, batch, channels_in), see `pixels_first`, with sides = (height, width) that make at most 8 with the
    kernel's, less 1; weight (size, size, channels_in, channels_out) with odd size; returns (height * width, batch, channels_out).
    So laid out, nothing is transposed between the products. An image is one tile: in each direction its polynomial and the
    kernel's are evaluated at some points, multiplied there, and interpolated. At 6 x 6 pixels and size 3 that is 64 products a
    pair of channels, where the direct way has 324; so are the derivatives. In float32 the result is good to about 1e-5 of its
    largest value, the direct one to 1e-6. Raises ValueError for other sizes.
    """
    size = weight.shape[0]
    if size % 2 == 0 or weight.shape[1] != size or not winograd_fits(sides, size):
        raise ValueError(
            f"winograd_conv needs an odd square kernel and static sides of at most {_most_pixels(size)} with this one,"
            f" got a kernel {tuple(weight.shape[:2])} and an image {tuple(sides)}"
        )
    rows, columns = (_one_tile(side, size) for side in sides)
    to_image, to_points, kernel_to_points = (tf.constant(np.kron(*pair), x.dtype) for pair in zip(rows, columns, strict=True))
    channels_in, channels_out = weight.shape[2:]
    points, pixels = to_points.shape[0], math.prod(sides)
    values = tf.matmul(to_points, tf.reshape(x, (pixels, -1)))
    kernel_values = tf.matmul(kernel_to_points, tf.reshape(weight, (size**2, -1)))
    products = tf.matmul(
        tf.reshape(values, (points, -1, channels_in)), tf.reshape(kernel_values, (points, channels_in, channels_out))
    )
    return tf.reshape(tf.matmul(to_image, tf.reshape(products, (points, -1))), (pixels, -1, channels_out))


def winograd_rows_conv(x, weight):
    """The convolution tf.nn.conv2d(x, weight, 1, "SAME") of images of any size, by Winograd's algorithm down the columns only.

    x (height, batch, width, channels_in), see `rows_first`, with static height; weight (size, width of the kernel, channels_in,
    channels_out) with odd size; returns (height, batch, width, channels_out). The rows are cut into tiles of equal height, at
    most 8 with size 3, each evaluated at its height + size - 1 points; what belongs to one point is convolved along the rows by
    TensorFlow. At size 3 and 7 rows a tile that is 3.9 products an output and pair of channels, where the direct way has 9.
    (Tiles in both directions have fewer still, but twice as many of the sums before and after, and they lose the square of
    the digits.) In float32 the result and its derivatives are good to 2e-5 of their largest
    value, the direct one's to 1e-6. Raises ValueError for other sizes.
    """
    size, height = weight.shape[0], x.shape[0]
    if size % 2 == 0 or size > len(WINOGRAD_ROW_POINTS) or height is None:
        raise ValueError(
            f"winograd_rows_conv needs a kernel of an odd height of at most {len(WINOGRAD_ROW_POINTS)} and a static height of the"
            f" image, got a kernel {tuple(weight.shape[:2])} and an image of height {height}"
        )
    to_image, to_points, kernel_to_points = (tf.constant(matrix, x.dtype) for matrix in _winograd_row_matrices(height, size))
    points = kernel_to_points.shape[0]
    values = tf.matmul(to_points, tf.reshape(x, (height, -1)))
    # Of a point, the rows of all tiles and images are one high image to a convolution along them: so its derivatives are fastest.
    values = tf.reshape(values, (points, 1, -1, *x.shape[2:]))
    kernels = tf.reshape(tf.matmul(kernel_to_points, tf.reshape(weight, (size, -1))), (points, 1, *weight.shape[1:]))
    products = [
        tf.nn.conv2d(rows, kernel, 1, "SAME") for rows, kernel in zip(tf.unstack(values), tf.unstack(kernels), strict=True)
    ]
    products = tf.reshape(tf.stack(products), (to_points.shape[0], -1))
    return tf.reshape(tf.matmul(to_image, products), (height, -1, x.shape[2], weight.shape[3]))


def rows_first(x):
    """(batch, height, width, channels) <-> (height, batch, width, channels)."""
    return tf.transpose(x, (1, 0, 2, 3))


def pixels_first(x):
    """(batch, height, width, channels) with static sides -> (height * width, batch, channels)."""
    return tf.transpose(tf.reshape(x, (-1, math.prod(x.shape[1:3]), x.shape[3])), (1, 0, 2))


def images_first(x, sides):
    """(height * width, batch, channels), sides = (height, width) -> (batch, height, width, channels)."""
    return tf.reshape(tf.transpose(x, (1, 0, 2)), (-1, *sides, x.shape[2]))


def winograd_fits(sides, size):
    """Whether `winograd_conv` takes images of these sides, with a kernel of this size; a side that is None is not known."""
    return all(side and side <= _most_pixels(size) for side in sides)


def _most_pixels(size):
    return len(WINOGRAD_POINTS) + 2 - size


@functools.lru_cache
def _one_tile(outputs, size):
    """`winograd_matrices` for x (outputs,), zero-padded by size // 2; float64."""
    to_image, to_points, kernel_to_points = winograd_matrices(outputs, size, WINOGRAD_POINTS)
    padding = size // 2
    return to_image, to_points[:, padding : padding + outputs], kernel_to_points


@functools.lru_cache
def _winograd_row_matrices(height, size):
    """(A, B, G) with A (repeated G g * (B x)) the correlation of x (height,), zero-padded, with g (size,); float64.

    Rows of B, and columns of A, are the points' values in the first tile and all others, for one point after the other.
    """
    tiles = -(-height // (len(WINOGRAD_ROW_POINTS) + 2 - size))
    outputs, padding = -(-height // tiles), size // 2
    tile_to_image, tile_to_points, kernel_to_points = winograd_matrices(outputs, size, WINOGRAD_ROW_POINTS)
    points = len(kernel_to_points)
    to_image, to_points = np.zeros((tiles * outputs, points, tiles)), np.zeros((points, tiles, tiles * outputs + size - 1))
    for tile in range(tiles):
        first = tile * outputs
        to_image[first : first + outputs, :, tile] = tile_to_image
        to_points[:, tile, first : first + len(tile_to_points)] = tile_to_points
    return (
        to_image[:height].reshape(height, -1),
        to_points[:, :, padding : padding + height].reshape(-1, height),
        kernel_to_points,
    )


def winograd_matrices(outputs, size, points):
    """(A, B, G) with A ((G g) * (B x)) the correlation of x (outputs + size - 1,) with g (size,); float64.

    Toom and Cook's multiplication of polynomials, transposed: exact in rational numbers. The points are the first of `points`,
    and infinity.
    """
    finite = points[: outputs + size - 2]
    scales = [math.prod(point - other for other in finite if other != point) for point in finite]
    to_image = [[point**i for point in finite] + [Fraction(i == outputs - 1)] for i in range(outputs)]
    kernel_to_points = [[point**i / scale for i in range(size)] for point, scale in zip(finite, scales, strict=True)]
    kernel_to_points.append([Fraction(i == size - 1) for i in range(size)])
    to_points = [_coefficients([other for other in finite if other != point]) + [Fraction(0)] for point in finite]
    to_points.append(_coefficients(finite))
    return tuple(np.array(matrix, float) for matrix in (to_image, to_points, kernel_to_points))


def _coefficients(roots):
    """Coefficients of the polynomial with leading coefficient 1 and these roots, lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        coefficients = [
            low - root * high for low, high in zip([Fraction(0), *coefficients], [*coefficients, Fraction(0)], strict=True)
        ]
    return coefficients
