"""A batch of real digits for measurements that need no training set."""

import numpy as np

from original_repro.datasets import mnist

STATE_SIDE = 6  # of the state that the networks' stem makes of a digit


def digits(batch):
    """The first `batch` images (batch, 28, 28, 1) in [0, 1] of a fixed shuffle of the embedded sample, and their labels."""
    data = mnist.load_sample()
    chosen = np.random.default_rng(0).permutation(len(data.train_labels))[:batch]
    return data.train_images[chosen, ..., None] / np.float32(255), data.train_labels[chosen]
