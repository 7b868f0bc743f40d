"""Batches: what each step of `fit` works on, be it a part of a data set or drawn anew, by one mechanism.

An epoch takes `count` indices in an order of its own, `batch_size` of them a step, and `make` turns a step's indices into its
batch. Everything random, that order and what `make` draws, comes from the run's one generator, whose state a checkpoint keeps
with the order and the place in it: a run that goes on from there sees the batches that it would have seen.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .checks import check_at_least_one


class Batches(NamedTuple):
    """The batches of an epoch, for `fit`; made by `minibatches`, `index_batches` or `drawn_batches`.

    make: (indices, rng) -> the batch, a tuple of arrays, from int64 indices (batch_size,) below count, or fewer where the last
        batch is an odd one that is not dropped.
    count, batch_size, drop_last: indices an epoch; a step; whether an odd last batch is left out.
    data, arrays: by which a checkpoint knows the data: a list of str, JSON's types only, and what is digested, a tuple.
    numbered: whether the number of the step, 0 at the first, follows a batch's arrays.
    """

    make: Callable
    count: int
    batch_size: int
    drop_last: bool
    data: list
    arrays: tuple = ()
    numbered: bool = False

    @property
    def steps(self):
        """Steps an epoch."""
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def parts(self, order):
        """The order (count,) of an epoch's indices, cut into those of its steps."""
        return [order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(self.steps)]


def minibatches(data, batch_size, *, drop_last=True, augment=None):
    """The examples of a data set, each once an epoch (all but an odd rest, if `drop_last`).

    data: a tuple of arrays; their leading axis is the examples.
    augment(batch, rng): -> the batch for the model, of as many arrays as that wants.

    Raises TypeError and ValueError for what is no data, or would leave no batch.
    """
    if type(data) not in (tuple, list) or not data:
        raise TypeError(f"data must be a tuple of arrays; got {type(data).__name__}")
    data = tuple(np.asarray(array) for array in data)
    if any(array.ndim == 0 or len(array) != len(data[0]) for array in data):
        raise ValueError(f"data must be arrays with one entry an example; got shapes {[array.shape for array in data]}")
    check_at_least_one("batch_size", batch_size)
    if drop_last and batch_size > len(data[0]) or not len(data[0]):
        raise ValueError(
            f"batch_size must be at most the {len(data[0])} examples where the last batch is dropped; got {batch_size}"
        )

    def make(indices, rng):
        batch = tuple(array[indices] for array in data)
        return batch if augment is None else augment(batch, rng)

    return Batches(make, len(data[0]), batch_size, drop_last, [f"{array.dtype} {array.shape}" for array in data], data)


def index_batches(make, examples, batch_size, steps):
    """`steps` batches an epoch, whatever the number of examples: each is taken as often as any other, to within once.

    make(indices, rng): -> the batch of these examples, a tuple of arrays.
    """
    for name, value in (("examples", examples), ("batch_size", batch_size), ("steps", steps)):
        check_at_least_one(name, value)
    count = steps * batch_size
    return Batches(lambda indices, rng: make(indices % examples, rng), count, batch_size, True, [f"int64 ({count},)"])


def drawn_batches(draw, steps, data=(), *, numbered=False):
    """`steps` batches an epoch of no data set; draw(rng): -> a batch, a tuple of arrays.

    data: arrays that it draws from, if a checkpoint is to know them. numbered: as of `Batches`.
    """
    check_at_least_one("steps", steps)
    return Batches(lambda indices, rng: draw(rng), steps, 1, True, [f"int64 ({steps},)"], tuple(data), numbered)


def random_crops(images, rng, padding=4):
    """Images of shape (batch, height, width, ...) moved by up to `padding` pixels each way, each by its own draw.

    The same as padding with zeros on all sides and cutting the original size out at random: the paper's augmentation.
    """
    images = np.asarray(images)
    if images.ndim < 3:
        raise ValueError(f"images must have shape (batch, height, width, ...); got {images.shape}")
    if padding < 0:
        raise ValueError(f"padding must be at least 0; got {padding}")
    count, height, width = images.shape[:3]
    margins = [(0, 0), (padding, padding), (padding, padding)] + [(0, 0)] * (images.ndim - 3)
    top, left = rng.integers(0, 2 * padding + 1, size=(2, count))
    rows = top[:, None, None] + np.arange(height)[:, None]
    columns = left[:, None, None] + np.arange(width)
    return np.pad(images, margins)[np.arange(count)[:, None, None], rows, columns]
