"""Augmented Neural ODEs of images: the convolutional field, on the pixels themselves and channels of zeros appended to them.

1 x 1 convolution, ReLU, 3 x 3 convolution, ReLU, 1 x 1 convolution, with time as one more constant channel before each; no norm,
no pooling. The final state, flattened, goes to one linear layer. The paper's totals of parameters are, to the unit, those of the
field without time channels; its public code has time channels, and so they are the default here.
"""

import functools
import math

import numpy as np
import tensorflow as tf

from original_repro.augmented import NeuralOde, check_counts, check_extra, init_time_dense, time_dense
from original_repro.fast_convolutions import rows_first, winograd_rows_conv
from original_repro.layers import dense, init_conv, init_dense, init_time_conv
from original_repro.supervised import GraphClassifier, cross_entropy

# Images that are computed together. Independent parts keep all cores busy where a single convolution would wait for its threads.
IMAGES_AT_ONCE, IMAGES_AT_ONCE_BY_ROWS = 16, 32
# From where on Winograd's algorithm was seen to win, on one core: more with more filters, and hardly at smaller sizes.
LEAST_HEIGHT, LEAST_PIXELS, LEAST_FILTERS = 14, 32 * 14 * 14, 64


def init_conv_field(rng, channels, filters, *, time=True):
    """Parameters of `conv_field` with `filters` between the convolutions; `time`: whether it depends on t."""
    check_counts(channels=channels, filters=filters)
    one_by_one = init_time_dense if time else init_dense
    return {
        "expand": one_by_one(rng, channels, filters),
        "conv": (init_time_conv if time else init_conv)(rng, filters, filters, 3),
        "contract": one_by_one(rng, filters, channels),
    }


def conv_field(t, z, params, *, at_once=None, winograd=None):
    """dz/dt of z (images, height, width, channels) with static shape: scalar t; same shape as z.

    A 1 x 1 convolution is a matrix product over channels, and t enters it with the bias. In the 3 x 3 one t is zero-padded like
    any channel, so it contributes one image for all: t times the sum of the weights that each pixel sees.
    `at_once` images are one part of the graph, and parts wait for nothing of each other; the values are the same for any number.
    winograd: whether the 3 x 3 convolution is `fast_convolutions.winograd_rows_conv`; None: where that is known to be faster.
    """
    if winograd is None:
        winograd = _rows_are_faster(z.shape, params["conv"]["weight"].shape)
    at_once = at_once or (IMAGES_AT_ONCE_BY_ROWS if winograd else IMAGES_AT_ONCE)
    image = time_and_bias(params["conv"], t, z)
    part = _by_rows if winograd else _directly
    parts = [part(t, z[start : start + at_once], params, image) for start in range(0, z.shape[0], at_once)]
    return tf.concat(parts, 0)


def _rows_are_faster(shape, kernel):
    """Whether winograd_rows_conv is faster with a kernel of that shape, on images (images, height, width, channels) of `shape`.

    Measured on processors alone: cuDNN chooses algorithms of its own.
    """
    large = shape[1] >= LEAST_HEIGHT and math.prod(shape[:3]) >= LEAST_PIXELS and min(kernel[2:]) >= LEAST_FILTERS
    return large and not tf.config.list_logical_devices("GPU")


def _directly(t, z, params, image):
    return _conv_field_of_part(t, z, params, image, lambda x, weight: tf.nn.conv2d(x, weight, 1, "SAME"))


def _by_rows(t, z, params, image):
    image = image[:, None] if len(image.shape) > 1 else image
    return rows_first(_conv_field_of_part(t, rows_first(z), params, image, winograd_rows_conv))


def _conv_field_of_part(t, z, params, image, convolve):
    """The field of some of the images, whose axes are in the order that `convolve` takes; `image` fits to it."""
    filters = params["conv"]["weight"].shape[-1]
    h = tf.nn.relu(time_dense(params["expand"], t, tf.reshape(z, (-1, z.shape[-1]))))
    h = convolve(tf.reshape(h, (*z.shape[:-1], filters)), params["conv"]["weight"])
    h = tf.nn.relu(h + image)
    return tf.reshape(time_dense(params["contract"], t, tf.reshape(h, (-1, filters))), z.shape)


def time_and_bias(params, t, z):
    """What the 3 x 3 convolution adds to each of z: the bias (filters,), and with time an image (height, width, filters)."""
    if "time_weight" not in params:
        return params["bias"]
    height, width = z.shape[1:3]
    weight = tf.reshape(params["time_weight"], (9, -1))
    seen = tf.reshape(tf.matmul(tf.constant(_pixels_seen(height, width), z.dtype), weight), (height, width, -1))
    return tf.cast(t, z.dtype) * seen + params["bias"]


@functools.lru_cache
def _pixels_seen(height, width):
    """(height * width, 9): which of the nine pixels under a 3 x 3 kernel lie inside the image, 1 or 0."""
    inside = np.pad(np.ones((height, width)), 1)
    return np.stack([inside[i : i + height, j : j + width] for i in range(3) for j in range(3)], -1).reshape(-1, 9)


def init_image_ode(rng, shape, filters, *, extra=0, classes=10, time=True, readout="all"):
    """Parameters of `image_ode` for images of `shape` (height, width, channels); `readout` as there."""
    height, width, channels = shape
    check_counts(height=height, width=width, channels=channels, filters=filters, classes=classes)
    check_extra(extra)
    read = channels + extra if readout == "all" else channels
    return {
        "field": init_conv_field(rng, channels + extra, filters, time=time),
        "head": init_dense(rng, height * width * read, classes),
    }


def image_ode(*, field=conv_field, extra=0, readout="all", **settings):
    """A `NeuralOde` of images in [0, 1] (images, height, width, channels) by `conv_field`; labels (images,) integers.

    field: one that takes the same parameters, such as `tabulated_field.tabulated_conv_field`. readout "own" reads the images' own
    channels only, the control for what a larger head does. Settings are those of NeuralOde.
    """
    return NeuralOde(field, "cross_entropy", extra=extra, readout=readout, **settings)


class LinearClassifier(GraphClassifier):
    """One linear layer on the pixels, the control for what an ODE adds; parameters of `layers.init_dense`."""

    def __init__(self, *, device=None):
        super().__init__(_linear_loss, device)


def _linear_loss(params, images, labels):
    return cross_entropy(dense(params, tf.reshape(images, (images.shape[0], -1))), labels)


def halved(images):
    """Images (images, height, width, ...) with even sides at half their size: means of 2 x 2 pixels, in the type of `images`."""
    count, height, width, *rest = images.shape
    if height % 2 or width % 2:
        raise ValueError(f"images must have even sides, got {height} x {width}")
    means = images.reshape(count, height // 2, 2, width // 2, 2, *rest).mean((2, 4))
    return np.rint(means).astype(images.dtype) if images.dtype.kind in "ui" else means
