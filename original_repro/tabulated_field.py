"""The convolutional field of images of one channel by tables: `augmented_images.conv_field`'s values, in a fraction of the time.

After the first 1 x 1 convolution and its ReLU a pixel's k numbers are piecewise linear in its one value, with one kink a filter.
So is what the pixel adds, through the 3 x 3 convolution, to itself and its neighbours: nine vectors of k numbers, linear between
two kinks. A table of slope and intercept of each, of (k + 1) * 9 * 2 * k numbers, depends on t and the parameters alone; with it
a pixel costs 9 k products where the convolution has 9 k^2. The gradient takes the same way back, into the table, and through the
table into the parameters. This is exact: results differ by rounding.

It is for Neural ODEs on grey images; the zeros of an augmented one are further channels. The loops over pixels are compiled by
Numba, which setup.cfg has among the extra `fast`.
"""

import numpy as np
import tensorflow as tf

from original_repro.augmented import bias_at
from original_repro.augmented_images import time_and_bias
from original_repro.compiled_loops import compiled

# Images that are computed together; parts wait for nothing of each other, so that cores can share them.
IMAGES_AT_ONCE = 64
FILTERS_AT_ONCE = 32


def tabulated_conv_field(t, z, params, *, at_once=IMAGES_AT_ONCE):
    """dz/dt as `conv_field`'s, by tables: z (images, height, width, 1) with static shape, scalar t; same shape as z.

    params are those of `init_conv_field` for one channel; `at_once` images are one part of the graph. On a kink the derivative by
    z is that of its right side. Raises ValueError for more channels, NotImplementedError where it is differentiated twice.
    """
    if z.shape[-1] != 1:
        raise ValueError(f"tabulated_conv_field is for images of one channel, got z of shape {tuple(z.shape)}; use conv_field")
    kinks, table = _kinks_and_table(t, z.dtype, params)
    image = tf.broadcast_to(time_and_bias(params["conv"], t, z), (*z.shape[1:3], table.shape[-1]))
    contract = params["contract"]["weight"][:, 0]
    # Filters that are 0, so that none are left over by the processor's instructions for many.
    table, image, contract = (
        tf.pad(array, [(0, 0)] * (len(array.shape) - 1) + [(0, -array.shape[-1] % FILTERS_AT_ONCE)])
        for array in (table, image, contract)
    )
    intervals = tf.reshape(tf.searchsorted(kinks, tf.reshape(z, (-1,)), side="right"), z.shape[:3])
    margin = [(0, 0), (1, 1), (1, 1)]
    # What lies beyond the border is in an interval of its own, whose lines are 0.
    intervals, values = tf.pad(intervals, margin, constant_values=table.shape[0] - 1), tf.pad(z[..., 0], margin)
    parts = [
        _field_of_part(values[start : start + at_once], intervals[start : start + at_once], table, image, contract)
        for start in range(0, z.shape[0], at_once)
    ]
    return tf.concat(parts, 0)[..., None] + bias_at(params["contract"], t, z.dtype)


def _kinks_and_table(t, dtype, params):
    """Where filters begin or cease, rising (k,), and lines (k + 2, 9, 2, k), slopes and intercepts of k numbers under nine taps.

    Those of the k + 1 intervals below, between and above the kinks, then lines of zeros.
    """
    weight, bias = params["expand"]["weight"][0], bias_at(params["expand"], t, dtype)
    # A filter that does not look at the pixel has no kink; any place will do.
    looks = weight != 0
    kink = tf.stop_gradient(tf.where(looks, -bias / tf.where(looks, weight, 1), 0))
    kinks = tf.sort(kink)
    crossed = tf.pad(kinks, [(1, 0)], constant_values=-np.inf)[:, None] >= kink
    active = tf.cast(tf.where(looks, crossed == (weight > 0), bias > 0), dtype)
    kernel = params["conv"]["weight"]
    flat = tf.reshape(tf.transpose(kernel, (2, 0, 1, 3)), (kernel.shape[2], -1))
    lines = [tf.reshape(tf.matmul(active * line, flat), (-1, 9, kernel.shape[3])) for line in (weight, bias)]
    return kinks, tf.pad(tf.stack(lines, 2), [(0, 1), (0, 0), (0, 0), (0, 0)])


@tf.custom_gradient
def _field_of_part(values, intervals, table, image, contract):
    """The field of some images less its last bias, (images, height, width), from values and intervals with their margins.

    table as of `_kinks_and_table`; image (height, width, k) is added before the last ReLU, contract (k,) follows it.
    """
    arguments = (values, intervals, table, image, contract)
    field = tf.numpy_function(_evaluate, arguments, values.dtype, stateful=False)
    field.set_shape((values.shape[0], *image.shape[:2]))

    def backward(field_bar):
        values_bar, table_bar, image_bar, contract_bar = _pulled_back(field_bar, *arguments)
        return values_bar, None, table_bar, image_bar, contract_bar

    return field, backward


@tf.custom_gradient
def _pulled_back(field_bar, values, intervals, table, image, contract):
    """The gradients of `_field_of_part` by its arguments but the intervals."""
    bars = tf.numpy_function(
        _differentiate, (field_bar, values, intervals, table, image, contract), [values.dtype] * 4, stateful=False
    )
    for bar, like in zip(bars, (values, table, image, contract), strict=True):
        bar.set_shape(like.shape)

    def refuse(*_):
        raise NotImplementedError("tabulated_conv_field can be differentiated once; use conv_field for second derivatives")

    return bars, refuse


@compiled
def _convolve(values, intervals, table, image, n, row, column, h):
    """Into h (k,): the convolution at a pixel of image n, with what `image` adds; in `values` its neighbours begin there."""
    filters = h.shape[0]
    added = image[row, column]
    for o in range(filters):
        h[o] = added[o]
    for i in range(3):
        # Three taps in one loop: h is loaded and stored once for them.
        left, middle, right = values[n, row + i, column], values[n, row + i, column + 1], values[n, row + i, column + 2]
        of_left = table[intervals[n, row + i, column], 3 * i]
        of_middle = table[intervals[n, row + i, column + 1], 3 * i + 1]
        of_right = table[intervals[n, row + i, column + 2], 3 * i + 2]
        for o in range(filters):
            h[o] += (
                (of_left[0, o] * left + of_left[1, o])
                + (of_middle[0, o] * middle + of_middle[1, o])
                + (of_right[0, o] * right + of_right[1, o])
            )


@compiled
def _evaluate(values, intervals, table, image, contract):
    """`_field_of_part`'s result; NaN stays NaN."""
    images, (height, width, filters) = values.shape[0], image.shape
    zero = values.dtype.type(0)
    field, h = np.empty((images, height, width), values.dtype), np.empty_like(contract)
    for n in range(images):
        for row in range(height):
            for column in range(width):
                _convolve(values, intervals, table, image, n, row, column, h)
                total = zero
                for o in range(filters):
                    total += contract[o] * (zero if h[o] < zero else h[o])
                field[n, row, column] = total
    return field


@compiled
def _differentiate(field_bar, values, intervals, table, image, contract):
    """(values_bar, table_bar, image_bar, contract_bar) from field_bar (images, height, width); convolves anew."""
    images, (height, width, filters) = values.shape[0], image.shape
    zero = values.dtype.type(0)
    values_bar, table_bar = np.zeros_like(values), np.zeros_like(table)
    image_bar, contract_bar, h = np.zeros_like(image), np.zeros_like(contract), np.empty_like(contract)
    for n in range(images):
        for row in range(height):
            for column in range(width):
                _convolve(values, intervals, table, image, n, row, column, h)
                bar, added_bar = field_bar[n, row, column], image_bar[row, column]
                for o in range(filters):
                    contract_bar[o] += bar * (zero if h[o] < zero else h[o])
                    h[o] = bar * contract[o] if h[o] > zero else zero
                    added_bar[o] += h[o]
                for i in range(3):
                    for j in range(3):
                        value, interval = values[n, row + i, column + j], intervals[n, row + i, column + j]
                        slope = table[interval, 3 * i + j, 0]
                        slope_bar, intercept_bar = table_bar[interval, 3 * i + j, 0], table_bar[interval, 3 * i + j, 1]
                        total = zero
                        for o in range(filters):
                            total += slope[o] * h[o]
                            slope_bar[o] += value * h[o]
                            intercept_bar[o] += h[o]
                        values_bar[n, row + i, column + j] += total
    return values_bar, table_bar, image_bar, contract_bar
