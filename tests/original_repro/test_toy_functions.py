"""The synthetic problems of Augmented Neural ODEs."""

import math

import numpy as np
import pytest

from original_repro.datasets import toy_functions
from original_repro.datasets.toy_functions import Points


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("flipped, sign", [(True, -1), (False, 1)])
def test_signs_are_balanced_and_mapped(flipped, sign):
    points = toy_functions.signs(rng(), 4000, flipped=flipped)
    assert points.x.shape == points.y.shape == (4000, 1) and points.x.dtype == points.y.dtype == np.float32
    assert set(np.unique(points.x)) == {-1.0, 1.0} and abs(points.x.mean()) < 0.06
    np.testing.assert_array_equal(points.y, sign * points.x)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_spheres_have_the_radii_and_labels_of_g_and_no_order(dim):
    x, y = toy_functions.spheres(rng(), dim)
    radii = np.linalg.norm(x, axis=1)
    assert x.shape == (3000, dim) and y.shape == (3000, 1) and x.dtype == y.dtype == np.float32
    assert (y[:, 0] == -1).sum() == 1000
    assert radii[y[:, 0] == -1].max() <= 0.5 and 1 <= radii[y[:, 0] == 1].min() and radii.max() <= 1.5 + 1e-6
    assert 0.2 < (y[:1500] == -1).mean() < 0.47
    assert np.abs(x.mean(0)).max() < 0.1


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_radii_of_spheres_are_distributed_as_published(dim):
    x, y = toy_functions.spheres(rng(), dim, inner=20_000, outer=20_000)
    radii = np.linalg.norm(x, axis=1)
    for label, low, high in ((-1, 0.0, 0.5), (1, 1.0, 1.5)):
        uniform = np.sort(((radii[y[:, 0] == label] - low) / (high - low)) ** dim)
        assert np.abs(uniform - (np.arange(len(uniform)) + 0.5) / len(uniform)).max() < 1.95 / math.sqrt(len(uniform))


def test_a_hyperplane_separates_the_control_in_one_dimension_and_a_sine_in_two():
    x, y = toy_functions.separable(rng(), 1)
    np.testing.assert_array_equal(np.sign(x), y)
    x, y = toy_functions.separable(rng(), 2)
    height = x[:, 1] - np.sin(math.pi * x[:, 0])
    assert (np.sign(height) == y[:, 0]).all() and x.shape == (3000, 2)
    np.testing.assert_allclose([height[y[:, 0] == 1].mean(), height[y[:, 0] == 1].std()], [0.7, 0.1], atol=0.01)


def test_a_slice_is_taken_out_and_nothing_is_lost():
    points = toy_functions.spheres(rng(), 2)
    kept, removed = toy_functions.without_slice(points)
    angle = np.arctan2(removed.x[:, 1], removed.x[:, 0])
    assert ((0 <= angle) & (angle <= math.pi / 5)).all()
    assert abs(len(removed.x) - 300) < 60 and len(kept.x) + len(removed.x) == 3000
    together = np.concatenate([np.hstack(kept), np.hstack(removed)])
    np.testing.assert_array_equal(np.sort(together, 0), np.sort(np.hstack(points), 0))
    across, _ = toy_functions.without_slice(points, (math.pi, 2 * math.pi))
    assert (across.x[:, 1] >= 0).all()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_dense_regions_fill_both_regions(dim):
    x, y = toy_functions.dense_regions(dim, 2001, rng())
    radii = np.linalg.norm(x, axis=1)
    assert len(x) == 4002 and ((radii <= 0.5 + 1e-6) == (y[:, 0] == -1)).all()
    shell = radii[y[:, 0] == 1]
    assert 0.999 < shell.min() < 1.01 and 1.49 < shell.max() < 1.501
    assert abs((shell**dim).mean() - (1 + 1.5**dim) / 2) < 0.02 * dim


def test_a_seed_repeats_the_points():
    for draw in (lambda r: toy_functions.spheres(r, 2), lambda r: toy_functions.separable(r, 2)):
        first, again, other = draw(rng(3)), draw(rng(3)), draw(rng(4))
        np.testing.assert_array_equal(first.x, again.x)
        assert (first.x != other.x).any()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: toy_functions.signs(rng(), 0, flipped=True), "count must be a whole number from 1"),
        (lambda: toy_functions.spheres(rng(), 0), "dim must be a whole number from 1"),
        (lambda: toy_functions.spheres(rng(), 2, outer=1.5), "outer must be a whole number from 1"),
        (lambda: toy_functions.separable(rng(), 3), "dim must be 1 or 2"),
        (lambda: toy_functions.without_slice(toy_functions.spheres(rng(), 3)), "plane, got points in 3 dimensions"),
        (lambda: toy_functions.without_slice(Points(np.zeros((1, 2)), np.zeros((1, 1))), (2, 1)), "low < high"),
    ],
)
def test_arguments_that_make_no_sense_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
