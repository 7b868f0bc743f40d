"""Bi-directional spirals, observed at irregular times with noise: the time series of section 5 of the paper.

The paper: 1000 two-dimensional spirals, each starting at a different point, half of them clockwise and half counter-clockwise,
100 equally spaced time steps, Gaussian noise; then n of the 100 points drawn without replacement from each spiral. It gives
neither the spirals' shape nor the noise. Chosen here: Archimedean spirals about the origin,

    (x, y) = r (cos a, sin a),   r = r0 + growth * turn,   a = a0 ± 2 pi turn,   turn = turns * t / (steps * spacing),

with the starting point (r0, a0) uniform in an interval and on the circle; one turn over the observed steps, and another over
the further ones. Both directions start anywhere, so that no single point tells the direction. Three quarters of the extrapolation
happen at radii that were seen: they reach 2.6 within the observed steps, 3.2 beyond.
"""

from typing import NamedTuple

import numpy as np


class Geometry(NamedTuple):
    """Shape and sampling of the spirals.

    turns: over the observed steps. growth: of the radius in a turn. start_radius: interval of r0. spacing: time from step to
    step. steps: observed equally spaced times; as many follow for extrapolation.
    """

    turns: float = 1.0
    growth: float = 0.6
    start_radius: tuple = (0.8, 2.0)
    spacing: float = 0.05
    steps: int = 100


class Archimedean(NamedTuple):
    """The two spirals of the authors' later example: r = a + b angle, and r = a + 50 b / angle, of so many turns and points.

    centre: distance of either from the origin. spacing and steps: as of a `Geometry`; an angle of 6 pi / 1,000 goes by in a
    spacing, whose unit is ours.
    """

    a: float = 0.0
    b: float = 0.3
    turns: float = 3.0
    points: int = 1000
    centre: float = 5.0
    spacing: float = 0.05
    steps: int = 100


GEOMETRIES = {"growing": Geometry(), "archimedean": Archimedean()}


class Trajectories(NamedTuple):
    """N spirals, each observed at n of the `steps` times.

    grid (steps,): the times that observations are drawn from, from 0. times (N, n), increasing, and values (N, n, 2): what was
    observed, with noise. further_times (steps,), further_noisy and further_clean (N, steps, 2): what comes after. noisy and
    clean (N, steps, 2): the spirals on the whole grid, with noise and without. clockwise (N,): their direction, booleans.
    """

    grid: np.ndarray
    times: np.ndarray
    values: np.ndarray
    further_times: np.ndarray
    further_noisy: np.ndarray
    further_clean: np.ndarray
    noisy: np.ndarray
    clean: np.ndarray
    clockwise: np.ndarray


def spiral(t, start_radius, start_angle, clockwise, geometry=Geometry()):
    """Points (..., len(t), 2) of spirals at times t, for arrays (...) of r0, of a0 (radians), and of directions."""
    turn = geometry.turns / (geometry.steps * geometry.spacing) * np.asarray(t)
    angle = np.asarray(start_angle)[..., None] + np.where(clockwise, -1.0, 1.0)[..., None] * 2 * np.pi * turn
    radius = np.asarray(start_radius)[..., None] + geometry.growth * turn
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def archimedean_spiral(places, clockwise, geometry=GEOMETRIES["archimedean"]):
    """Points (N, T, 2) at places (N, T), from 0 to geometry.points - 1, of the spiral of each direction (N,)."""
    end, clockwise = 2 * np.pi * geometry.turns, np.asarray(clockwise)[:, None]
    turned = end * np.asarray(places) / (geometry.points - 1)
    angle = np.where(clockwise, end + 1 - turned, turned)
    radius = geometry.a + geometry.b * np.where(clockwise, 50 / (end + 1 - turned), turned)
    x = radius * np.cos(angle) + np.where(clockwise, -geometry.centre, geometry.centre)
    return np.stack([x, radius * np.sin(angle)], axis=-1)


def make_spirals(seed, count, points, noise, geometry=Geometry()):
    """Trajectories of `count` spirals, half of them clockwise, each observed at `points` of the times.

    seed: an int or a np.random.SeedSequence. noise: standard deviation of the Gaussian noise, in the spirals' unit of length.
    Spirals and noise depend on seed and count only, so that other numbers of points are drawn from the same spirals. Raises
    ValueError where points or noise make no sense.
    """
    if not 1 <= points <= geometry.steps:
        raise ValueError(f"points must be from 1 to the {geometry.steps} steps, got {points}")
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise must be at least 0 and finite, got {noise}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    shapes, noises, draws = np.random.default_rng(seed).spawn(3)
    clockwise = shapes.permutation(np.arange(count) % 2 == 0)
    t = geometry.spacing * np.arange(2 * geometry.steps)
    if isinstance(geometry, Archimedean):
        # As there, none begins in the first tenth.
        first = shapes.integers(geometry.steps, geometry.points - 2 * geometry.steps, count)
        clean = archimedean_spiral(first[:, None] + np.arange(2 * geometry.steps), clockwise, geometry)
    else:
        start_radius, start_angle = shapes.uniform(*geometry.start_radius, count), shapes.uniform(0, 2 * np.pi, count)
        clean = spiral(t, start_radius, start_angle, clockwise, geometry)
    noisy = clean + noise * noises.normal(size=clean.shape)
    # The points that come first in a random order: without replacement, and each of them equally likely.
    chosen = np.sort(np.argsort(draws.random((count, geometry.steps)), axis=1)[:, :points], axis=1)
    return Trajectories(
        t[: geometry.steps],
        t[chosen],
        np.take_along_axis(noisy, chosen[..., None], 1),
        t[geometry.steps :],
        noisy[:, geometry.steps :],
        clean[:, geometry.steps :],
        noisy[:, : geometry.steps],
        clean[:, : geometry.steps],
        clockwise,
    )


def head(data, count):
    """The first `count` of Trajectories."""
    shared = {"grid", "further_times"}
    return Trajectories(*(array if name in shared else array[:count] for name, array in data._asdict().items()))


def make_sets(seed, counts, points, noise, geometry=Geometry()):
    """Independent sets of Trajectories of the given counts, such as (training, validation, test)."""
    return tuple(
        make_spirals(child, count, points, noise, geometry)
        for child, count in zip(np.random.SeedSequence(seed).spawn(len(counts)), counts)
    )
