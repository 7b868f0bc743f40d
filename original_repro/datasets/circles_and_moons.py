"""Two Circles and Two Moons: the data of Figure 5, points of the plane near two curves each.

The paper does not say how it drew them. Here, as in the authors' later example and in scikit-learn: circles of radius 1 and
0.5; half circles of radius 1 that reach into each other, moved so that their mean is at the origin. A point lies at a uniformly
distributed angle of either curve with equal chances, plus normal noise. Its density is therefore known, and with it the mean
log-likelihood that no model can exceed but by chance.
"""

import math
from typing import NamedTuple

import numpy as np

NAMES = ("two_circles", "two_moons")
NOISE = 0.06  # standard deviation, in each coordinate


class Split(NamedTuple):
    """Independent draws, float32 arrays of shape (points, 2)."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load(name, *, train=10_000, validation=5_000, test=10_000, seed=0):
    """A Split of the data set `name`, "two_circles" or "two_moons", with so many points; ValueError for other arguments."""
    for what, count in (("train", train), ("validation", validation), ("test", test)):
        if type(count) is not int or count < 1:
            raise ValueError(f"{what} must be a whole number of points from 1, got {count!r}")
    rng = np.random.default_rng(seed)
    return Split(*(draw(name, count, rng) for count in (train, validation, test)))


def draw(name, count, rng):
    """`count` independent points, float32 (count, 2), from a np.random.Generator."""
    _check_name(name)
    which, angle = rng.integers(0, 2, count), rng.uniform(0.0, 1.0, count)
    on_curve = np.where(which[:, None] == 0, _curve(name, 0, angle), _curve(name, 1, angle))
    return (on_curve + NOISE * rng.normal(size=(count, 2))).astype(np.float32)


def log_density(name, x, nodes=2000):
    """Logarithm of the density (per unit of area) of `draw` at x (points, 2), float64 (points,): each curve's noise averaged
    over `nodes` of its points. At least 2,000, a sixth of the noise's deviation apart at most, leave an error below 1e-4."""
    _check_name(name)
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"x must have shape (points, 2), got {x.shape}")
    curve = np.concatenate([_curve(name, which, (np.arange(nodes) + 0.5) / nodes) for which in (0, 1)])
    result = np.empty(len(x))
    for start in range(0, len(x), 500):  # 500 x 4000 distances at a time
        part = x[start : start + 500]
        squares = ((part[:, None] - curve) ** 2).sum(-1) / NOISE**2
        least = squares.min(1)
        result[start : start + 500] = np.log(np.exp(-0.5 * (squares - least[:, None])).mean(1)) - 0.5 * least
    return result - math.log(2 * math.pi * NOISE**2)


def _curve(name, which, fraction):
    """Points (count, 2) of the first or second curve at fractions (count,) in [0, 1] of its length."""
    if name == "two_circles":
        angle = 2 * math.pi * fraction
        return (1.0, 0.5)[which] * np.stack([np.cos(angle), np.sin(angle)], -1)
    angle = math.pi * fraction
    if which == 0:
        return np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], -1)
    return np.stack([0.5 - np.cos(angle), 0.25 - np.sin(angle)], -1)


def _check_name(name):
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
