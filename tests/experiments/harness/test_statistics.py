"""Lines, intervals and means, against SciPy's and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, linregress, spearmanr, t

from experiments.harness import statistics


def test_a_line_is_found_with_how_uncertain_it_is():
    line = statistics.line_fit([1, 2, 4, 8], [3.0, 5.0, 9.0, 17.0])
    assert line == pytest.approx((2.0, 1.0, 0.0, 0.0, 1.0), abs=1e-12)
    # By hand: residuals -1, 1, 1, -1 of four points leave a variance of 4 / 2, the x a sum of squares of 5.
    line = statistics.line_fit([0, 1, 2, 3], [0.0, 4.0, 6.0, 6.0])
    assert line[:4] == pytest.approx((2.0, 1.0, (2 / 5) ** 0.5, (2 * (1 / 4 + 1.5**2 / 5)) ** 0.5))
    # By hand: residuals -0.2, 0.6, -0.6, 0.2 leave 0.8 of a sum of squares of 8.
    assert statistics.line_fit([0, 1, 2, 3], [0.0, 2.0, 2.0, 4.0]).r2 == pytest.approx(0.9)


def test_a_line_is_scipys():
    x, y = np.random.default_rng(0).normal(size=(2, 9)) + 100
    line, expected = statistics.line_fit(x, y), linregress(x, y)
    assert line == pytest.approx(
        (expected.slope, expected.intercept, expected.stderr, expected.intercept_stderr, expected.rvalue**2), rel=1e-9
    )


def test_two_points_give_a_line_without_errors():
    assert statistics.line_fit([1, 3], [10.0, 20.0]) == (5.0, 5.0, None, None, 1.0)
    assert math.isnan(statistics.line_fit([1, 3], [10.0, 10.0]).r2)


@pytest.mark.parametrize("x", [[], [4], [4, 4]])
def test_one_x_is_no_line(x):
    with pytest.raises(ValueError, match="at two x or more"):
        statistics.line_fit(x, [1.0] * len(x))


def test_the_reach_is_students():
    assert statistics.students_reach(2.0, 3) == pytest.approx(2 * t.ppf(0.975, 3))


@given(st.integers(0, 500), st.integers(500, 20_000))
def test_the_interval_is_wilsons(count, examples):
    expected = binomtest(count, examples).proportion_ci(0.95, method="wilson")
    assert statistics.wilson_interval(count / examples, examples) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_means_have_a_deviation_from_two_values_on():
    assert statistics.mean_and_deviation([1.0, 3.0]) == pytest.approx((2.0, math.sqrt(2)))
    assert statistics.mean_and_deviation([1.0]) == (1.0, None)


def test_a_curvature_with_its_error_is_numpys():
    rng = np.random.default_rng(0)
    x = np.arange(1.0, 9.0) * 1e4
    values = 3 + 2 * x + 5e-4 * x**2 + 1e3 * rng.normal(size=8)
    found, error = statistics.curvature(x, values)
    coefficients, covariance = np.polyfit(x / 1e4, values, 2, cov=True)
    assert found * 1e8 == pytest.approx(coefficients[0]) and error * 1e8 == pytest.approx(math.sqrt(covariance[0, 0]))
    with pytest.raises(ValueError, match="four x or more"):
        statistics.curvature([1, 2, 3, 3], [1, 2, 3, 4])


def test_a_rank_correlation_is_scipys_with_an_interval_that_holds_the_truth():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, 300)
    y = x + rng.normal(size=300)
    rho, low, high = statistics.rank_correlation(x, y)
    assert rho == pytest.approx(spearmanr(x, y).statistic) and low < rho < high
    assert statistics.rank_correlation(x, -x)[0] == pytest.approx(-1)
    held = 0
    for _ in range(400):
        _, low, high = statistics.rank_correlation(rng.normal(size=40), rng.normal(size=40))
        held += low < 0 < high
    assert 365 <= held <= 397
    with pytest.raises(ValueError, match="both have to vary; got 12 pairs"):
        statistics.rank_correlation(np.ones(12), np.arange(12))
