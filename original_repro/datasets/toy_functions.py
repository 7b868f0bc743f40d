"""The synthetic problems of Augmented Neural ODEs: g in one and more dimensions, a separable control, a slice removed.

g maps the ball |x| <= 0.5 to -1 and the shell 1 <= |x| <= 1.5 to 1 (section 4 of the paper): no flow of R^d followed by a linear
map does that exactly. In one dimension its essence is x -> -x on {-1, 1}, which no flow of the line does.
Settings are those of the authors' public code; what that does not say is named where it is chosen here.
"""

import math
from typing import NamedTuple

import numpy as np

INNER_RADIUS = 0.5
OUTER_RADII = (1.0, 1.5)
SLICE = (0.0, math.pi / 5)  # angles that the paper takes out of the training points


class Points(NamedTuple):
    """x (points, d), the inputs, and y (points, 1), the targets: float32, in no order."""

    x: np.ndarray
    y: np.ndarray


def signs(rng, count, *, flipped):
    """`count` points x = 1 or -1 with equal chances; y = -x if `flipped` (g in one dimension), else y = x (the identity)."""
    _check_counts(count=count)
    x = rng.choice(np.float32([-1.0, 1.0]), (count, 1))
    return Points(x, -x if flipped else x.copy())


def spheres(rng, dim, *, inner=1000, outer=2000):
    """g(x) in `dim` dimensions: `inner` points of the ball to -1 and `outer` of the shell to 1.

    A point has a uniform direction, and the radius low + (high - low) U^(1/dim) with U uniform in [0, 1], as in the public code;
    in a ball that is the uniform distribution.
    """
    _check_counts(dim=dim, inner=inner, outer=outer)
    return _shuffled(rng, _shell(rng, dim, 0.0, INNER_RADIUS, inner), _shell(rng, dim, *OUTER_RADII, outer))


def separable(rng, dim, *, per_class=1500):
    """The control that is linearly separable in the features a flow can reach: `per_class` points of -1 and of 1.

    dim 2, the public code's: x1 uniform in [-1, 1], x2 = sin(pi x1) + 0.1 N(0, 1), 0.7 higher for 1 and lower for -1.
    dim 1: what the paper used is not known; here uniform in [-1.5, -0.5] for -1 and in [0.5, 1.5] for 1.
    """
    _check_counts(dim=dim, per_class=per_class)
    if dim == 1:
        return _shuffled(rng, rng.uniform(-1.5, -0.5, (per_class, 1)), rng.uniform(0.5, 1.5, (per_class, 1)))
    if dim != 2:
        raise ValueError(f"dim must be 1 or 2, got {dim}")

    def band(shift):
        first = rng.uniform(-1.0, 1.0, per_class)
        return np.stack([first, np.sin(math.pi * first) + 0.1 * rng.normal(size=per_class) + shift], -1)

    return _shuffled(rng, band(-0.7), band(0.7))


def without_slice(points, angles=SLICE):
    """(kept, removed): `points` of the plane outside and inside the sector of these angles (low, high) in radians."""
    low, high = angles
    if points.x.shape[1] != 2:
        raise ValueError(f"a slice is cut out of the plane, got points in {points.x.shape[1]} dimensions")
    if not 0 <= low < high <= 2 * math.pi:
        raise ValueError(f"angles must be 0 <= low < high <= 2 pi, got {angles}")
    angle = np.arctan2(points.x[:, 1], points.x[:, 0]) % (2 * math.pi)
    inside = (low <= angle) & (angle <= high)
    return Points(points.x[~inside], points.y[~inside]), Points(points.x[inside], points.y[inside])


def dense_regions(dim, per_region, rng):
    """Points spread over the two regions of g, `per_region` of each, uniform in volume: to judge a trained model on.

    In one dimension they are equally spaced, ends included.
    """
    _check_counts(dim=dim, per_region=per_region)
    if dim == 1:
        radii = np.linspace(*OUTER_RADII, (per_region + 1) // 2)
        left_out = np.concatenate([-radii[::-1], radii])[:per_region, None]
        return _labelled(np.linspace(-INNER_RADIUS, INNER_RADIUS, per_region)[:, None], left_out)
    low, high = OUTER_RADII
    uniform = rng.uniform(0.0, 1.0, (per_region, 1))
    shell = _directions(rng, dim, per_region) * (low**dim + (high**dim - low**dim) * uniform) ** (1 / dim)
    return _labelled(_shell(rng, dim, 0.0, INNER_RADIUS, per_region), shell)


def _shell(rng, dim, low, high, count):
    return _directions(rng, dim, count) * (low + (high - low) * rng.uniform(0.0, 1.0, (count, 1)) ** (1 / dim))


def _directions(rng, dim, count):
    normal = rng.normal(size=(count, dim))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _labelled(negative, positive):
    x = np.concatenate([negative, positive]).astype(np.float32)
    y = np.repeat(np.float32([-1.0, 1.0]), [len(negative), len(positive)])[:, None]
    return Points(x, y)


def _shuffled(rng, negative, positive):
    points = _labelled(negative, positive)
    order = rng.permutation(len(points.x))
    return Points(points.x[order], points.y[order])


def _check_counts(**counts):
    for name, count in counts.items():
        if type(count) is not int or count < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {count!r}")
