"""Rules that decide whether records reproduce what the paper reports: small functions of records, named in results/reported.json.

A rule is called with the records that count, the reported value (None where the paper makes a claim without a number) and its
parameters from the registry; it returns a Finding, or raises CannotJudge where the records lack what it asks for.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from ..harness.statistics import line_fit, mean_and_deviation, students_reach, wilson_interval


class Finding(NamedTuple):
    """What a rule found: a number, its standard deviation over seeds or its 95 % interval where there is one, words to add."""

    holds: bool
    measured: float
    deviation: float | None = None
    interval: tuple[float, float] | None = None
    detail: str = ""


class CannotJudge(ValueError):
    """The records lack a metric, points, or a setting that the rule needs."""


def error_rate(records, value):
    """The lower end of the error rate's 95 % interval (Wilson 1927) is at most the reported rate.

    Over several seeds the rate is their mean, the interval that of one test set: the seeds share its images.
    """
    examples = {int(size) for size in _values(records, "examples")}
    if len(examples) > 1:
        raise CannotJudge(f"test sets of different sizes: {sorted(examples)}")
    rates = [errors / min(examples) for errors in _values(records, "errors")]
    low, high = wilson_interval(float(np.mean(rates)), min(examples))
    return Finding(low <= value, *mean_and_deviation(rates), (low, high))


def at_most(records, value, metric, limit=None):
    """The metric, a mean over seeds, is at most the reported value, or the rule's limit where the paper gives none."""
    measured, deviation = mean_and_deviation(_values(records, metric))
    return Finding(measured <= _bound(value, limit), measured, deviation)


def at_least(records, value, metric, limit=None):
    """The metric, a mean over seeds, is at least the reported value, or the rule's limit where the paper gives none."""
    measured, deviation = mean_and_deviation(_values(records, metric))
    return Finding(measured >= _bound(value, limit), measured, deviation)


def within(records, value, metric, share):
    """The metric, a mean over seeds, differs from the reported value by at most a share of it."""
    measured, deviation = mean_and_deviation(_values(records, metric))
    return Finding(abs(measured - value) <= share * abs(value), measured, deviation, detail=f"{measured / value - 1:+.1%}")


def trend(records, value, rows, x, y, above=None, below=None, log=False, per=None):
    """The 95 % interval (Student's t) of the slope of y over x lies above and below the given bounds.

    Least squares over the rows of the history; log: of the logarithms, so that the slope is a power; per: a metric that is the
    slope's unit.
    """
    points = select(records, rows, (x, y))
    if len({point[x] for point in points}) < 3:
        raise CannotJudge(f"a slope with an interval needs points at three {x} or more, there are {len(points)} points")
    transform = np.log if log else np.asarray
    line = line_fit(*(transform([point[name] for point in points]).tolist() for name in (x, y)))
    unit = mean_and_deviation(_values(records, per))[0] if per else 1.0
    slope, reach = line.slope / unit, students_reach(line.slope_error, len(points) - 2) / unit
    interval = (float(slope - reach), float(slope + reach))
    holds = (above is None or interval[0] > above) and (below is None or interval[1] < below)
    return Finding(holds, slope, interval=interval)


def band(records, value, rows, y, low, high):
    """y lies between low and high in every chosen row of the history.

    measured is the mean. A row that is not "finished" holds a lower bound only, and does not.
    """
    points = select(records, rows, (y,))
    if not points:
        raise CannotJudge(f"no rows with {y}")
    numbers = [point[y] for point in points]
    inside = sum(low <= point[y] <= high and point.get("finished", True) for point in points)
    return Finding(
        inside == len(points),
        float(np.mean(numbers)),
        detail=f"{min(numbers):.2f} to {max(numbers):.2f}; in {inside} of {len(points)} conditions",
    )


def ordering(records, value, lesser, greater, over, standard_errors=0.0):
    """In every pair, one metric is at or below the other, by some standard errors of their difference where asked for.

    lesser and greater are names with {placeholders}, over gives the values that these take; a pair for each combination. Means
    over seeds. Standard errors are the metrics <name>_se of each record. measured counts the pairs in order.
    """
    broken, pairs = [], 0
    for choice in itertools.product(*over.values()):
        where = dict(zip(over, choice, strict=True))
        (small, small_error), (large, large_error) = (
            _mean_with_error(records, name.format(**where), standard_errors > 0) for name in (lesser, greater)
        )
        pairs += 1
        if not small + standard_errors * math.hypot(small_error, large_error) <= large:
            broken.append(f"{', '.join(map(str, choice))} ({small:.4g} and {large:.4g})")
    return Finding(not broken, pairs - len(broken), detail=f"of {pairs} pairs" + (f"; not {'; '.join(broken)}" if broken else ""))


def setting(records, value, key):
    """The run's configuration has the reported value under this key (its parts joined by dots)."""
    found = {_setting(record["configuration"], key) for record in records}
    if len(found) > 1:
        raise CannotJudge(f"{key} differs between records: {sorted(found)}")
    return Finding(found == {value}, found.pop())


RULES = {rule.__name__: rule for rule in (error_rate, at_most, at_least, within, trend, band, ordering, setting)}


def meaning(name):
    """A rule in a sentence, for the report."""
    return RULES[name].__doc__.splitlines()[0].removesuffix(".")


def select(records, rows, needed):
    """Rows of the records' histories that have these values (a list: one of them) and the needed numbers, none of them null."""
    return [
        row
        for record in records
        for row in record["history"]
        if all(row.get(name) in (wanted if isinstance(wanted, list) else [wanted]) for name, wanted in rows.items())
        and all(row.get(name) is not None for name in needed)
    ]


def _values(records, metric):
    found = [record["metrics"].get(metric) for record in records]
    if not found or None in found:
        raise CannotJudge(f"no metric {metric}")
    return found


def _mean_with_error(records, metric, with_error):
    """(mean over seeds, its standard error from the records' own, 0 unless asked for)."""
    mean, _ = mean_and_deviation(_values(records, metric))
    errors = _values(records, f"{metric}_se") if with_error else [0.0]
    return mean, math.sqrt(sum(error**2 for error in errors)) / len(errors)


def _bound(value, limit):
    if (value is None) == (limit is None):
        raise ValueError("a rule with a bound takes the reported value or a limit, one of them")
    return value if limit is None else limit


def _setting(configuration, key):
    found = configuration
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            raise CannotJudge(f"no {key} in the configuration")
        found = found[part]
    return found
