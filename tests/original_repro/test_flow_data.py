"""Two Circles, Two Moons and the three densities of Rezende and Mohamed."""

import math

import autograd.numpy as anp
import numpy as np
import pytest
import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from original_repro.datasets import circles_and_moons, energies
from tests.helpers import some_fast


@pytest.mark.parametrize("name", circles_and_moons.NAMES)
def test_splits_are_independent_draws_that_a_seed_repeats(name):
    split = circles_and_moons.load(name, train=300, validation=200, test=100, seed=5)
    assert [part.shape for part in split] == [(300, 2), (200, 2), (100, 2)]
    assert all(part.dtype == np.float32 for part in split)
    assert len(np.unique(np.concatenate(split), axis=0)) == 600
    again = circles_and_moons.load(name, train=300, validation=200, test=100, seed=5)
    other = circles_and_moons.load(name, train=300, validation=200, test=100, seed=6)
    np.testing.assert_array_equal(split.test, again.test)
    assert (split.test != other.test).any()


def test_circles_have_their_radii_and_moons_their_place():
    circles = circles_and_moons.draw("two_circles", 20_000, np.random.default_rng(0))
    radii = np.linalg.norm(circles, axis=1)
    for radius, chosen in ((1.0, radii > 0.75), (0.5, radii < 0.75)):
        assert abs(chosen.mean() - 0.5) < 0.02
        # The noise across the circle lengthens the mean radius by noise^2 / 2 radius.
        assert abs(radii[chosen].mean() - radius - circles_and_moons.NOISE**2 / (2 * radius)) < 0.002
        assert abs(radii[chosen].std() - circles_and_moons.NOISE) < 0.002
    moons = circles_and_moons.draw("two_moons", 20_000, np.random.default_rng(0))
    np.testing.assert_allclose(moons.mean(0), 0.0, atol=0.03)
    # Turned by half a turn about the middle of both, one moon is the other.
    np.testing.assert_allclose(
        circles_and_moons.log_density("two_moons", moons[:200]),
        circles_and_moons.log_density("two_moons", -moons[:200]),
        atol=1e-4,
    )


@pytest.mark.parametrize("name", some_fast(circles_and_moons.NAMES, "two_moons"))
def test_the_known_density_integrates_to_one_and_is_that_of_the_draws(name):
    side = np.linspace(-2.2, 2.2, 221)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    density, cell = np.exp(circles_and_moons.log_density(name, grid, nodes=500)), (side[1] - side[0]) ** 2
    np.testing.assert_allclose(density.sum() * cell, 1.0, atol=1e-4)
    log_densities = circles_and_moons.log_density(name, circles_and_moons.draw(name, 5_000, np.random.default_rng(2)), nodes=500)
    entropy = -(density * np.log(np.maximum(density, 1e-300))).sum() * cell
    assert abs(-log_densities.mean() - entropy) < 5 * log_densities.std() / math.sqrt(5_000)


@pytest.mark.parametrize("name", circles_and_moons.NAMES)
def test_two_thousand_nodes_are_enough_for_the_known_density(name):
    x = circles_and_moons.draw(name, 300, np.random.default_rng(3))
    coarse, fine = (circles_and_moons.log_density(name, x, nodes=nodes) for nodes in (2000, 8000))
    np.testing.assert_allclose(coarse, fine, atol=1e-4)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: circles_and_moons.load("three_circles"), "name must be one of two_circles, two_moons"),
        (lambda: circles_and_moons.load("two_moons", train=0), "train must be a whole number of points from 1"),
        (lambda: circles_and_moons.log_density("two_moons", np.zeros(2)), r"x must have shape \(points, 2\)"),
        (lambda: energies.energy("u4", 0.0, 0.0), "name must be one of u1, u2, u3"),
    ],
)
def test_arguments_that_make_no_sense_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def published_energy(name, z1, z2):
    """Table 1 of Rezende and Mohamed, term by term."""
    w1 = np.sin(2 * math.pi * z1 / 4)
    w2 = 3 * np.exp(-0.5 * ((z1 - 1) / 0.6) ** 2)
    return {
        "u1": 0.5 * ((np.hypot(z1, z2) - 2) / 0.4) ** 2
        - np.log(np.exp(-0.5 * ((z1 - 2) / 0.6) ** 2) + np.exp(-0.5 * ((z1 + 2) / 0.6) ** 2)),
        "u2": 0.5 * ((z2 - w1) / 0.4) ** 2,
        "u3": -np.log(np.exp(-0.5 * ((z2 - w1) / 0.35) ** 2) + np.exp(-0.5 * ((z2 - w1 + w2) / 0.35) ** 2)),
    }[name]


@pytest.mark.parametrize("name", energies.NAMES)
def test_energies_are_the_published_ones_where_those_are_shown_and_end_beyond(name):
    z1, z2 = np.random.default_rng(4).uniform(-4, 4, size=(2, 200))
    np.testing.assert_allclose(energies.energy(name, z1, z2), published_energy(name, z1, z2), rtol=1e-9, atol=1e-9)
    assert energies.energy(name, np.array(-8.0), np.array(0.0)) > 40
    assert energies.energy(name, np.array(8.0), np.array(0.0)) > 40


@pytest.mark.parametrize("name", energies.NAMES)
def test_energies_in_tensorflow_are_those_in_numpy(name):
    z = np.random.default_rng(5).normal(size=(50, 2), scale=3.0)
    tensor = tf.constant(z, tf.float32)
    result = energies.energy(name, tensor[:, 0], tensor[:, 1], tnp)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, energies.energy(name, *z.T), rtol=1e-4, atol=1e-4)


def test_normalisers_agree_with_importance_sampling_and_between_grids():
    rng = np.random.default_rng(6)
    for name in energies.NAMES:
        z = rng.uniform(-6, 6, size=(400_000, 2))
        weights = 144 * np.exp(-energies.energy(name, *z.T))
        estimate, error = weights.mean(), weights.std() / math.sqrt(len(weights))
        normaliser = math.exp(energies.log_normaliser(name))
        assert abs(estimate - normaliser) < 5 * error < 0.05 * normaliser
        np.testing.assert_allclose(energies.log_normaliser(name, 500), math.log(normaliser), atol=1e-6)


def test_energies_can_be_differentiated():
    from autograd import grad

    for name in energies.NAMES:
        gradient = grad(lambda z: anp.sum(energies.energy(name, z[:, 0], z[:, 1])))(np.array([[1.0, 0.5], [4.7, -1.0]]))
        step = 1e-6
        for i, point in enumerate(([1.0, 0.5], [4.7, -1.0])):
            right, left = (energies.energy(name, point[0] + move, point[1]) for move in (step, -step))
            difference = (right - left) / (2 * step)
            np.testing.assert_allclose(gradient[i, 0], difference, rtol=1e-6, atol=1e-9)
