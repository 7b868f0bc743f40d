"""The convolutional field of augmented images in tiles: `augmented_images.conv_field`'s values, in less time.

The 3 x 3 convolution is Winograd's in both directions, F(4 x 4, 3 x 3) of Lavin and Gray (2016): 36 products where the direct way
has 144. TensorFlow's operations would write and read all tiles at all points once more for each sum before and after; here one
image after the other goes through 1 x 1 convolution, sums, products and 1 x 1 convolution within the processor's cache. The loops
are compiled by Numba, which setup.cfg has among the extra `fast`; the products are BLAS's. In float32 values and gradients are
good to 2e-5 of the largest.
"""

import numpy as np
import tensorflow as tf

from original_repro.augmented import bias_at
from original_repro.augmented_images import time_and_bias
from original_repro.compiled_loops import compiled
from original_repro.fast_convolutions import WINOGRAD_POINTS, winograd_matrices

# Images that are computed together; parts wait for nothing of each other, so that cores can share them.
IMAGES_AT_ONCE = 32
TILE, KERNEL, POINTS = 4, 3, 6
KERNEL_TO_POINTS = winograd_matrices(TILE, KERNEL, WINOGRAD_POINTS)[2]


def tiled_conv_field(t, z, params, *, at_once=IMAGES_AT_ONCE):
    """dz/dt as `conv_field`'s, in tiles: z (images, height, width, channels) with static shape, scalar t; same shape as z.

    params are those of `init_conv_field`; `at_once` images are one part of the graph. Raises NotImplementedError where it is
    differentiated twice.
    """
    conv, contract = params["conv"], params["contract"]["weight"]
    image = tf.broadcast_to(time_and_bias(conv, t, z), (*z.shape[1:3], conv["weight"].shape[-1]))
    to_points = tf.constant(np.kron(KERNEL_TO_POINTS, KERNEL_TO_POINTS), z.dtype)
    kernels = tf.matmul(to_points, tf.reshape(conv["weight"], (KERNEL**2, -1)))
    kernels = tf.reshape(kernels, (POINTS**2, *conv["weight"].shape[2:]))
    expand = tf.concat([params["expand"]["weight"], bias_at(params["expand"], t, z.dtype)[None]], 0)
    parts = [
        _field_of_part(z[start : start + at_once], expand, kernels, image, contract) for start in range(0, z.shape[0], at_once)
    ]
    return tf.concat(parts, 0) + bias_at(params["contract"], t, z.dtype)


@tf.custom_gradient
def _field_of_part(z, expand, kernels, image, contract):
    """The field of some images less its last bias, of the shape of z (images, height, width, channels).

    expand (channels + 1, k) is the first 1 x 1 convolution with its bias as the last row, kernels (36, k, k) are the 3 x 3 one at
    Winograd's points; image (height, width, k) is added before the last ReLU, contract (k, channels) follows it.
    """
    field, activations = tf.numpy_function(_evaluate, (z, expand, kernels, image, contract), [z.dtype] * 2, stateful=False)
    field.set_shape(z.shape)

    def backward(field_bar):
        bars = _pulled_back(field_bar, z, expand, kernels, activations, contract)
        for bar, argument in zip(bars, (z, expand, kernels, image, contract), strict=True):
            bar.set_shape(argument.shape)
        return bars

    return field, backward


@tf.custom_gradient
def _pulled_back(*arguments):
    """The gradients of `_field_of_part` by its arguments, as `_differentiate`'s."""

    def refuse(*_):
        raise NotImplementedError("tiled_conv_field can be differentiated once; use conv_field for second derivatives")

    return tf.numpy_function(_differentiate, arguments, [arguments[0].dtype] * 5, stateful=False), refuse


@compiled
def _evaluate(z, expand, kernels, image, contract):
    """`_field_of_part`'s result, and what the last ReLU gave, (images, rows, columns, filters) in whole tiles; NaN stays NaN."""
    images, height, width, channels = z.shape
    x, h, values, products = _scratch(z, len(contract))
    convolved = np.empty((images, len(x) - 2, x.shape[1] - 2, len(contract)), z.dtype)
    added, of_tiles = np.zeros_like(convolved[0]), np.empty((*convolved.shape[1:3], channels), z.dtype)
    added[:height, :width] = image
    field = np.empty_like(z)
    for n in range(images):
        x[1 : height + 1, 1 : width + 1, :channels] = z[n]
        np.dot(_flat(x), expand, _flat(h))
        _relu(h)
        _to_points(_tile_to_points, h, values)
        for p in range(POINTS**2):
            np.dot(values[p], kernels[p], products[p])
        _from_points(_points_to_tile, products, added, convolved[n])
        _relu(convolved[n])
        np.dot(_flat(convolved[n]), contract, _flat(of_tiles))
        field[n] = of_tiles[:height, :width]
    return field, convolved


@compiled
def _differentiate(field_bar, z, expand, kernels, convolved, contract):
    """The gradients of `_field_of_part` by its arguments, from field_bar like z, and `convolved`, `_evaluate`'s second result."""
    images, height, width, channels = z.shape
    x, h, values, products = _scratch(z, len(contract))
    from_filters, from_kernels = np.ascontiguousarray(contract.T), kernels.transpose(0, 2, 1).copy()
    x_bar, h_bar, none = np.empty_like(x), np.empty_like(h), np.zeros_like(h)
    convolved_bar, kernel_bar = np.empty_like(convolved[0]), np.empty_like(kernels[0])
    of_tiles = np.zeros((*convolved.shape[1:3], channels), z.dtype)
    z_bar, image_bar = np.empty_like(z), np.zeros_like(convolved_bar)
    expand_bar, kernels_bar, contract_bar = np.zeros_like(expand), np.zeros_like(kernels), np.zeros_like(contract)
    for n in range(images):
        of_tiles[:height, :width] = field_bar[n]
        contract_bar += np.dot(_flat(convolved[n]).T, _flat(of_tiles))
        np.dot(_flat(of_tiles), from_filters, _flat(convolved_bar))
        _where_positive(convolved_bar, convolved[n])
        _add(image_bar, convolved_bar)
        _to_points(_points_to_tile_backward, convolved_bar, products)
        x[1 : height + 1, 1 : width + 1, :channels] = z[n]
        np.dot(_flat(x), expand, _flat(h))
        _relu(h)
        _to_points(_tile_to_points, h, values)
        for p in range(POINTS**2):
            _add(kernels_bar[p], np.dot(values[p].T, products[p], kernel_bar))
            np.dot(products[p], from_kernels[p], values[p])
        _from_points(_tile_to_points_backward, values, none, h_bar)
        _where_positive(h_bar, h)
        expand_bar += np.dot(_flat(x).T, _flat(h_bar))
        np.dot(_flat(h_bar), expand.T, _flat(x_bar))
        z_bar[n] = x_bar[1 : height + 1, 1 : width + 1, :channels]
    return z_bar, expand_bar, kernels_bar, image_bar[:height, :width].copy(), contract_bar


@compiled
def _scratch(z, filters):
    """(x, h, values, products) for one image of z, whose sides are filled up to whole tiles.

    x (rows, columns, channels + 1) has ones as its last channel, for the bias, and zeros around the image, 1 at least;
    h (rows, columns, filters) is as large. values and products (36, tiles, filters) are at Winograd's points.
    """
    _, height, width, channels = z.shape
    down, across = -(-height // TILE), -(-width // TILE)
    x = np.zeros((TILE * down + 2, TILE * across + 2, channels + 1), z.dtype)
    x[1 : height + 1, 1 : width + 1, channels] = 1
    h = np.empty((*x.shape[:2], filters), z.dtype)
    values = np.empty((POINTS**2, down * across, filters), z.dtype)
    return x, h, values, np.empty_like(values)


@compiled
def _flat(image):
    """(rows, columns, k) as a matrix of pixels."""
    return image.reshape(-1, image.shape[2])


@compiled
def _relu(x):
    x, zero = x.reshape(-1), x.dtype.type(0)
    for o in range(len(x)):
        x[o] = zero if x[o] < zero else x[o]


@compiled
def _add(total, x):
    total, x = total.reshape(-1), x.reshape(-1)
    for o in range(len(x)):
        total[o] += x[o]


@compiled
def _where_positive(x_bar, x):
    """The derivative of ReLU, whose results are x, applied to x_bar."""
    x_bar, x, zero = x_bar.reshape(-1), x.reshape(-1), x.dtype.type(0)
    for o in range(len(x)):
        x_bar[o] = x_bar[o] if x[o] > zero else zero


@compiled
def _to_points(transform, image, points):
    """From image (rows, columns, k) to points (36, tiles, k): `transform` down the columns, then along the rows."""
    columns, filters = image.shape[1:]
    lines, rows = image.reshape(len(image), -1), np.empty((POINTS, 1, columns * filters), image.dtype)
    across = columns // TILE
    for down in range(len(image) // TILE):
        transform(lines, TILE * down, rows, 0)
        for i in range(POINTS):
            pixels = rows[i].reshape(columns, filters)
            for tile in range(across):
                transform(pixels, TILE * tile, points[POINTS * i : POINTS * (i + 1)], down * across + tile)


@compiled
def _from_points(transform, points, added, image):
    """From points (36, tiles, k) to image (rows, columns, k): `transform` along the rows, then down the columns, and `added`."""
    columns, filters = image.shape[1:]
    lines, rows = image.reshape(len(image), -1), np.empty((POINTS, 1, columns * filters), image.dtype)
    across = columns // TILE
    lines[:] = added.reshape(len(image), -1)
    for down in range(len(image) // TILE):
        rows[:] = 0
        for i in range(POINTS):
            pixels = rows[i].reshape(columns, filters)
            for tile in range(across):
                transform(points[POINTS * i : POINTS * (i + 1)], down * across + tile, pixels, TILE * tile)
        transform(rows, 0, lines, TILE * down)


# Winograd's sums in one direction, for the points 0, 1, -1, 1/2, -1/2 and infinity, and their transposes. Pixels are rows of a
# matrix, from `first` on, and points rows of another, at [i, at]; every column is for itself.


@compiled
def _tile_to_points(pixels, first, points, at):
    """Six pixels, a tile and its margin, at the points."""
    x0, x1, x2 = pixels[first], pixels[first + 1], pixels[first + 2]
    x3, x4, x5 = pixels[first + 3], pixels[first + 4], pixels[first + 5]
    y0, y1, y2, y3, y4, y5 = points[0, at], points[1, at], points[2, at], points[3, at], points[4, at], points[5, at]
    half, fourth, more = pixels.dtype.type(0.5), pixels.dtype.type(0.25), pixels.dtype.type(1.25)
    for o in range(len(x0)):
        even, odd = x4[o] - fourth * x2[o], x3[o] - fourth * x1[o]
        even_at_half, odd_at_half = x4[o] - x2[o], half * (x3[o] - x1[o])
        y0[o] = fourth * x0[o] - more * x2[o] + x4[o]
        y1[o] = even + odd
        y2[o] = even - odd
        y3[o] = even_at_half + odd_at_half
        y4[o] = even_at_half - odd_at_half
        y5[o] = fourth * x1[o] - more * x3[o] + x5[o]


@compiled
def _tile_to_points_backward(points, at, pixels, first):
    """The transpose of `_tile_to_points`, added to six pixels."""
    y0, y1, y2, y3, y4, y5 = points[0, at], points[1, at], points[2, at], points[3, at], points[4, at], points[5, at]
    x0, x1, x2 = pixels[first], pixels[first + 1], pixels[first + 2]
    x3, x4, x5 = pixels[first + 3], pixels[first + 4], pixels[first + 5]
    half, fourth, more = pixels.dtype.type(0.5), pixels.dtype.type(0.25), pixels.dtype.type(1.25)
    for o in range(len(x0)):
        even, odd = y1[o] + y2[o], y1[o] - y2[o]
        even_at_half, odd_at_half = y3[o] + y4[o], half * (y3[o] - y4[o])
        x0[o] += fourth * y0[o]
        x1[o] += fourth * (y5[o] - odd) - odd_at_half
        x2[o] -= more * y0[o] + fourth * even + even_at_half
        x3[o] += odd + odd_at_half - more * y5[o]
        x4[o] += y0[o] + even + even_at_half
        x5[o] += y5[o]


@compiled
def _points_to_tile(points, at, pixels, first):
    """Products at the points, added to the four pixels of a tile."""
    y0, y1, y2, y3, y4, y5 = points[0, at], points[1, at], points[2, at], points[3, at], points[4, at], points[5, at]
    x0, x1, x2, x3 = pixels[first], pixels[first + 1], pixels[first + 2], pixels[first + 3]
    half, fourth, eighth = pixels.dtype.type(0.5), pixels.dtype.type(0.25), pixels.dtype.type(0.125)
    for o in range(len(x0)):
        even, odd = y1[o] + y2[o], y1[o] - y2[o]
        even_at_half, odd_at_half = y3[o] + y4[o], y3[o] - y4[o]
        x0[o] += y0[o] + even + even_at_half
        x1[o] += odd + half * odd_at_half
        x2[o] += even + fourth * even_at_half
        x3[o] += odd + eighth * odd_at_half + y5[o]


@compiled
def _points_to_tile_backward(pixels, first, points, at):
    """The transpose of `_points_to_tile`, of the four pixels of a tile."""
    x0, x1, x2, x3 = pixels[first], pixels[first + 1], pixels[first + 2], pixels[first + 3]
    y0, y1, y2, y3, y4, y5 = points[0, at], points[1, at], points[2, at], points[3, at], points[4, at], points[5, at]
    half, fourth, eighth = pixels.dtype.type(0.5), pixels.dtype.type(0.25), pixels.dtype.type(0.125)
    for o in range(len(x0)):
        even, odd = x0[o] + x2[o], x1[o] + x3[o]
        even_at_half, odd_at_half = x0[o] + fourth * x2[o], half * x1[o] + eighth * x3[o]
        y0[o] = x0[o]
        y1[o] = even + odd
        y2[o] = even - odd
        y3[o] = even_at_half + odd_at_half
        y4[o] = even_at_half - odd_at_half
        y5[o] = x3[o]
