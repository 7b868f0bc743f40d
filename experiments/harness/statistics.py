"""The few statistics that experiments and rules share: a line through points, an interval of a rate, a mean over seeds."""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit
from scipy.stats import rankdata

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point


class Line(NamedTuple):
    """value = constant + slope * x, with standard errors and the share r2 of the variance that the line explains.

    The errors are None from two points, which any line meets; r2 is NaN where the values do not vary.
    """

    slope: float
    constant: float
    slope_error: float | None
    constant_error: float | None
    r2: float


def line_fit(x, values):
    """The Line of least squares through points. Raises ValueError unless two x differ."""
    x, values = np.asarray(x, float), np.asarray(values, float)
    if len(np.unique(x)) < 2:
        raise ValueError(f"a line needs points at two x or more, got x {sorted(set(x.tolist()))}")
    spread, total = np.sum((x - x.mean()) ** 2), np.sum((values - values.mean()) ** 2)
    slope = np.sum((x - x.mean()) * (values - values.mean())) / spread
    constant = values.mean() - slope * x.mean()
    residual = np.sum((values - constant - slope * x) ** 2)
    slope_error = constant_error = None
    if len(x) > 2:
        slope_error = math.sqrt(residual / (len(x) - 2) / spread)
        constant_error = slope_error * math.sqrt(np.mean(x**2))
    return Line(float(slope), float(constant), slope_error, constant_error, float(1 - residual / total) if total else math.nan)


def curvature(x, values):
    """(coefficient of x², its standard error) of the parabola of least squares. Raises ValueError unless four x differ."""
    x, values = np.asarray(x, float), np.asarray(values, float)
    if len(np.unique(x)) < 4:
        raise ValueError(f"a curvature with an error needs points at four x or more, got x {sorted(set(x.tolist()))}")
    scale = np.abs(x).max()  # keeps the normal equations in the range of their digits
    powers = np.vander(x / scale, 3)
    coefficients = np.linalg.lstsq(powers, values, rcond=None)[0]
    variance = np.sum((values - powers @ coefficients) ** 2) / (len(x) - 3)
    error = math.sqrt(variance * np.linalg.inv(powers.T @ powers)[0, 0])
    return float(coefficients[0] / scale**2), float(error / scale**2)


def students_reach(error, freedom):
    """Half the width of a 95 % interval from a standard error with so many degrees of freedom (Student's t)."""
    return float(stdtrit(freedom, 0.975)) * error


def wilson_interval(rate, examples):
    """95 % interval of a rate (Wilson 1927), also for a mean of rates, whose count of errors is no whole number."""
    scale = 1 + Z_95**2 / examples
    centre = (rate + Z_95**2 / (2 * examples)) / scale
    reach = Z_95 / scale * math.sqrt(rate * (1 - rate) / examples + Z_95**2 / (4 * examples**2))
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def mean_and_deviation(values):
    """(mean, standard deviation) over seeds, the latter None of a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def standard_error(values):
    """That of the mean of many values."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def rank_correlation(x, y):
    """(Spearman's rank correlation, low, high): 95 % interval by Fisher's z with the standard error of Fieller and others (1957).

    Raises ValueError for fewer than ten pairs, or where one of both does not vary.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 10 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError(f"a rank correlation needs ten pairs or more, and both have to vary; got {len(x)} pairs")
    rho = float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
    centre, reach = math.atanh(min(max(rho, -1 + 1e-12), 1 - 1e-12)), Z_95 * 1.03 / math.sqrt(len(x) - 3)
    return rho, math.tanh(centre - reach), math.tanh(centre + reach)
