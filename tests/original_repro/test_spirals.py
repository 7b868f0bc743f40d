import numpy as np
import pytest

from original_repro.datasets import spirals


@pytest.mark.parametrize("clockwise", [True, False])
def test_a_spiral_turns_and_grows_as_its_geometry_says(clockwise):
    geometry = spirals.Geometry(turns=2.0, growth=0.5, spacing=0.1, steps=50)
    t = np.linspace(0, 10.0, 1001)
    path = spirals.spiral(t, 0.7, 0.3, clockwise, geometry)
    radius = np.linalg.norm(path, axis=-1)
    angle = np.unwrap(np.arctan2(path[:, 1], path[:, 0]))
    # 50 steps of 0.1 are two turns, 10 units of time therefore four.
    np.testing.assert_allclose(radius, 0.7 + 0.5 * 4 * t / 10, atol=1e-12)
    np.testing.assert_allclose(angle, 0.3 + (-1 if clockwise else 1) * 8 * np.pi * t / 10, atol=1e-9)


def test_observations_are_drawn_from_the_grid_without_replacement_and_each_spiral_has_its_own():
    data = spirals.make_spirals(0, 300, 30, 0.1)
    assert data.times.shape == (300, 30) and data.values.shape == (300, 30, 2)
    assert np.all(np.diff(data.times, axis=1) > 0) and np.isin(data.times, data.grid).all()
    assert len({tuple(times) for times in data.times}) == 300
    # 90 of 300 expected at each time, with a deviation of 8.
    counts = [np.sum(data.times == t) for t in data.grid]
    assert 50 < min(counts) and max(counts) < 130


def test_half_of_the_spirals_are_clockwise_in_no_order_and_start_everywhere():
    data = spirals.make_spirals(1, 400, 100, 0.0)
    x, y = data.clean[:, :2, 0], data.clean[:, :2, 1]
    assert np.array_equal(x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0] < 0, data.clockwise)
    assert data.clockwise.sum() == 200 and 150 < np.sum(data.clockwise[:-1] != data.clockwise[1:]) < 250
    radius, angle = np.linalg.norm(data.clean[:, 0], axis=1), np.arctan2(y[:, 0], x[:, 0])
    low, high = spirals.Geometry().start_radius
    assert low <= radius.min() < low + 0.05 and high - 0.05 < radius.max() <= high
    assert np.histogram(angle, 8, (-np.pi, np.pi))[0].min() > 25


def test_noise_is_that_of_the_observed_values_and_of_the_noisy_targets():
    data = spirals.make_spirals(2, 500, 100, 0.2)
    for noisy, clean in ((data.values, data.clean), (data.noisy, data.clean), (data.further_noisy, data.further_clean)):
        assert np.std(noisy - clean) == pytest.approx(0.2, rel=0.02)
        assert np.mean(noisy - clean) == pytest.approx(0.0, abs=0.005)


def test_the_further_times_go_on_where_the_grid_ends():
    data = spirals.make_spirals(3, 4, 10, 0.0)
    together = np.concatenate([data.grid, data.further_times])
    np.testing.assert_allclose(np.diff(together), 0.05)
    path = np.concatenate([data.clean, data.further_clean], axis=1)
    # Equal steps in angle and radius: the ratio of neighbouring radii and the angle between them vary slowly over the seam.
    radius = np.linalg.norm(path, axis=-1)
    np.testing.assert_allclose(np.diff(radius, axis=1), 0.006, atol=1e-12)


def test_numbers_of_points_see_the_same_spirals_and_sets_are_independent():
    few, many = spirals.make_spirals(4, 20, 30, 0.1), spirals.make_spirals(4, 20, 50, 0.1)
    np.testing.assert_array_equal(few.further_noisy, many.further_noisy)
    np.testing.assert_array_equal(few.noisy, many.noisy)
    train, test = spirals.make_sets(4, (20, 20), 30, 0.1)
    assert not np.isin(train.values, test.values).any()
    (again,) = spirals.make_sets(4, (20,), 30, 0.1)
    np.testing.assert_array_equal(train.values, again.values)


def test_head_is_the_first_trajectories():
    data = spirals.make_spirals(5, 7, 10, 0.1)
    first = spirals.head(data, 3)
    assert first.values.shape == (3, 10, 2) and first.clockwise.shape == (3,) and len(first.grid) == 100
    np.testing.assert_array_equal(first.further_clean, data.further_clean[:3])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 10, 101, 0.1), "points must be from 1 to the 100 steps, got 101"),
        ((0, 10, 0, 0.1), "points must be from 1"),
        ((0, 10, 30, -0.1), "noise must be at least 0"),
        ((0, 10, 30, np.nan), "noise must be"),
        ((0, 0, 30, 0.1), "count must be"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        spirals.make_spirals(*arguments)


def test_the_spirals_of_the_authors_later_example():
    geometry = spirals.GEOMETRIES["archimedean"]
    ends = spirals.archimedean_spiral(np.array([[0, 999], [0, 999]]), np.array([False, True]))
    # r = 0.3 angle around (5, 0), from 0 to 6 pi; r = 15 / angle around (-5, 0), from 6 pi + 1 to 1.
    np.testing.assert_allclose(ends[0], [[5, 0], [5 + 0.3 * 6 * np.pi, 0]], atol=1e-12)
    first = 6 * np.pi + 1
    expected = [[15 / first * np.cos(first) - 5, 15 / first * np.sin(first)], [15 * np.cos(1) - 5, 15 * np.sin(1)]]
    np.testing.assert_allclose(ends[1], expected, atol=1e-12)
    data = spirals.make_spirals(0, 50, 30, 0.0, geometry)
    assert data.values.shape == (50, 30, 2) and data.further_clean.shape == (50, 100, 2)
    np.testing.assert_array_equal(
        data.values, np.take_along_axis(data.clean, np.searchsorted(data.grid, data.times)[..., None], 1)
    )
    centre = np.where(data.clockwise, -5.0, 5.0)[:, None]
    x, y = data.clean[..., 0] - centre, data.clean[..., 1]
    turns = np.sum(x[:, :-1] * y[:, 1:] - x[:, 1:] * y[:, :-1], axis=1)
    np.testing.assert_array_equal(turns < 0, data.clockwise)
    assert len(np.unique(data.clean[:, 0, 0])) > 40
