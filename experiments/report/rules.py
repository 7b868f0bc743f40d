"""Rules that decide whether records reproduce what the paper reports: small functions of records, named in results/reported.json.

A rule is called with the records that count, the reported value (None where the paper makes a claim without a number) and its
parameters from the registry; it returns a Finding, or raises CannotJudge where the records lack what it asks for. Rules that
compare two kinds of runs get the records of the second as `against`.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from ..harness.statistics import curvature, line_fit, mean_and_deviation, students_reach, wilson_interval


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
    """The reported rate lies inside the 95 % interval (Wilson 1927) of the error rate, or above it.

    Over several seeds the rate is their mean, the interval that of one test set: the seeds share its images.
    """
    rates, (low, high) = _error_rates(records)
    where = "above" if value > high else "inside" if value >= low else "below"
    return Finding(low <= value, *mean_and_deviation(rates), (low, high), f"reported rate {where}")


def as_few_errors(records, value, against):
    """The 95 % interval (Wilson 1927) of the error rate overlaps that of the other network's, or lies below it."""
    (rates, interval), (others, (_, high)) = _error_rates(records), _error_rates(against)
    detail = f"the other's {np.mean(others):.2%} to at most {high:.2%}, {_seeds(len(others))}"
    return Finding(interval[0] <= high, *mean_and_deviation(rates), interval, detail)


def fewer_errors(records, value, against):
    """The 95 % interval (Wilson 1927) of the error rate lies below that of the other network's."""
    (rates, interval), (others, (low, high)) = _error_rates(records), _error_rates(against)
    detail = f"the other's {np.mean(others):.2%} ({low:.2%} to {high:.2%}), {_seeds(len(others))}"
    return Finding(interval[1] < low, *mean_and_deviation(rates), interval, detail)


def fewer_on_average(records, value, metric, against):
    """The metric, a mean over seeds, is below the other runs'."""
    measured, deviation = mean_and_deviation(_values(records, metric))
    other, spread = mean_and_deviation(_values(against, metric))
    detail = f"the other's {other:.4g}{'' if spread is None else f' ± {spread:.2g}'}, {_seeds(len(against))}"
    return Finding(measured < other, measured, deviation, detail=detail)


def within_deviations(records, value, metric, deviation, deviations=3.0):
    """The metric, a mean over seeds, differs from the reported mean by at most so many of the reported standard deviations."""
    measured, spread = mean_and_deviation(_values(records, metric))
    detail = f"{abs(measured - value) / deviation:.1f} reported deviations {'above' if measured > value else 'below'}"
    return Finding(_not_above(abs(measured - value), deviations * deviation), measured, spread, detail=detail)


def at_most(records, value, metric, limit=None):
    """The metric, a mean over seeds, is at most the reported value, or the rule's limit where the paper gives none."""
    measured, deviation = mean_and_deviation(_values(records, metric))
    return Finding(_not_above(measured, _bound(value, limit)), measured, deviation)


def at_least(records, value, metric, limit=None):
    """The metric, a mean over seeds, is at least the reported value, or the rule's limit where the paper gives none."""
    measured, deviation = mean_and_deviation(_values(records, metric))
    return Finding(_not_above(_bound(value, limit), measured), measured, deviation)


def within(records, value, metric, share, seeds=1):
    """The metric, a mean over at least so many seeds, differs from the reported value by at most a share of it."""
    _need_seeds(records, seeds)
    measured, deviation = mean_and_deviation(_values(records, metric))
    return Finding(
        _not_above(abs(measured - value), share * abs(value)), measured, deviation, detail=f"{measured / value - 1:+.1%}"
    )


def interval(records, value, metric, above=None, below=None):
    """The metric's 95 % interval, the metrics <name>_low and <name>_high of one record, lies above and below the given bounds."""
    if len(records) > 1:
        raise CannotJudge(f"an interval is of one run, there are {len(records)}")
    measured, low, high = (_values(records, name)[0] for name in (metric, f"{metric}_low", f"{metric}_high"))
    return Finding(_between(low, high, above, below), measured, interval=(low, high))


def trend(records, value, rows, x, y, above=None, below=None, log=False, per=None):
    """The 95 % interval (Student's t) of the slope of y over x lies above and below the given bounds.

    Least squares over the rows of the history; log: of the logarithms, so that the slope is a power; per: a metric that is the
    slope's unit.
    """
    line, interval, _ = _slope(records, rows, x, y, log, per)
    return Finding(_between(*interval, above, below), line.slope / _unit(records, per), interval=interval)


def linear(records, value, rows, x, y, per=None, share=0.98):
    """y grows in proportion to x: slope above zero, so large a share R² of the variance explained, no curvature that counts.

    The slope's 95 % interval lies above zero, that of the coefficient of x² (both Student's t) has zero inside.
    """
    line, interval, points = _slope(records, rows, x, y, False, per)
    try:
        bend, error = curvature(*points)
    except ValueError as reason:
        raise CannotJudge(str(reason)) from reason
    bent = abs(bend) > students_reach(error, len(points[0]) - 3)
    detail = f"R² {line.r2:.4f}; {'' if bent else 'no '}curvature beyond its error"
    holds = interval[0] > 0 and line.r2 >= share and not bent
    return Finding(holds, line.slope / _unit(records, per), interval=interval, detail=detail)


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
        detail=f"{min(numbers):.3g} to {max(numbers):.3g}; in {inside} of {len(points)} conditions",
    )


def ordering(records, value, lesser, greater, over, standard_errors=0.0, seeds=1):
    """In every pair, one metric is at or below the other, by some standard errors of their difference where asked for.

    lesser and greater are names with {placeholders}, over gives the values that these take; a pair for each combination. Means
    over at least so many seeds. Standard errors are the metrics <name>_se of each record. measured counts the pairs in order.
    """
    _need_seeds(records, seeds)
    pairs = _pairs(records, lesser, greater, over, standard_errors > 0)
    broken = [pair for pair in pairs if pair.greater - pair.lesser < standard_errors * pair.error]
    return _counted(not broken, pairs, broken)


def generally_lower(records, value, lesser, greater, over, standard_errors, margin, pairs, seeds):
    """One metric is not above the other, by some standard errors and a margin, in so many pairs; on (geometric) average below.

    As `ordering`: a pair is broken where the first exceeds the second by more than both. The geometric mean of the ratios is
    below 1.
    """
    _need_seeds(records, seeds)
    found = _pairs(records, lesser, greater, over, True)
    broken = [pair for pair in found if pair.lesser - pair.greater > max(standard_errors * pair.error, margin)]
    if any(min(pair.lesser, pair.greater) <= 0 for pair in found):
        raise CannotJudge("ratios need metrics above zero")
    ratio = math.exp(np.mean([math.log(pair.lesser / pair.greater) for pair in found]))
    finding = _counted(len(found) - len(broken) >= pairs and ratio < 1, found, broken)
    return finding._replace(detail=f"{finding.detail}; geometric mean of the ratios {ratio:.3g}")


def somewhere(records, value, lesser, greater, over, factor, seeds=1):
    """In one pair at least, one metric is so many times the other.

    As `ordering`, of means over at least so many seeds; measured is the greatest ratio.
    """
    _need_seeds(records, seeds)
    best = max(_pairs(records, lesser, greater, over, False), key=lambda pair: pair.greater / pair.lesser)
    return Finding(best.greater / best.lesser >= factor, best.greater / best.lesser, detail=f"at {best.name}")


def paired_gap(records, value, metric, over, standard_errors):
    """For every choice, the gap of two models scored on the same points is at least so many of its own standard errors.

    metric: a name with {placeholders}; its standard error, of the differences point by point, is the metric <name>_se. Means
    over seeds. measured is the least gap.
    """
    found = []
    for choice in itertools.product(*over.values()):
        name = metric.format(**dict(zip(over, choice, strict=True)))
        found.append((", ".join(map(str, choice)), *_mean_with_error(records, name, True)))
    holds = all(gap >= standard_errors * error for _, gap, error in found)
    detail = "; ".join(f"{name} {gap:.4f} ± {error:.4f}" for name, gap, error in found)
    return Finding(holds, min(gap for _, gap, _ in found), detail=detail)


def setting(records, value, key):
    """The run's configuration has the reported value under this key (its parts joined by dots)."""
    found = {_setting(record["configuration"], key) for record in records}
    if len(found) > 1:
        raise CannotJudge(f"{key} differs between records: {sorted(found)}")
    return Finding(found == {value}, found.pop())


RULES = {
    rule.__name__: rule
    for rule in (
        error_rate,
        as_few_errors,
        fewer_errors,
        fewer_on_average,
        within_deviations,
        at_most,
        at_least,
        within,
        interval,
        trend,
        linear,
        band,
        ordering,
        generally_lower,
        somewhere,
        paired_gap,
        setting,
    )
}
# Which of them put two things in an order, and which compare two kinds of runs.
ORDERINGS = ("ordering", "generally_lower", "paired_gap", "as_few_errors", "fewer_errors", "fewer_on_average")
COMPARISONS = ("as_few_errors", "fewer_errors", "fewer_on_average")


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


def _error_rates(records):
    """(rate of each record, Wilson's interval of their mean on one test set)."""
    examples = {int(size) for size in _values(records, "examples")}
    if len(examples) > 1:
        raise CannotJudge(f"test sets of different sizes: {sorted(examples)}")
    rates = [errors / min(examples) for errors in _values(records, "errors")]
    return rates, wilson_interval(float(np.mean(rates)), min(examples))


def _seeds(count):
    return f"{count} seed{'s' if count > 1 else ''}"


def _need_seeds(records, seeds):
    found = len({record.get("seed") for record in records})
    if found < seeds:
        raise CannotJudge(f"{_seeds(seeds)} are asked for, there {'are' if found > 1 else 'is'} {found}")


def _between(low, high, above, below):
    return (above is None or low > above) and (below is None or high < below)


def _unit(records, per):
    return mean_and_deviation(_values(records, per))[0] if per else 1.0


def _slope(records, rows, x, y, log, per):
    """(the Line of y over x, its slope's 95 % interval in units of `per`, (x, y) of the points)."""
    chosen = select(records, rows, (x, y))
    if len({point[x] for point in chosen}) < 3:
        raise CannotJudge(f"a slope with an interval needs points at three {x} or more, there are {len(chosen)} points")
    transform = np.log if log else np.asarray
    points = tuple(transform([point[name] for point in chosen]).tolist() for name in (x, y))
    line, unit = line_fit(*points), _unit(records, per)
    slope, reach = line.slope / unit, students_reach(line.slope_error, len(chosen) - 2) / unit
    return line, (float(slope - reach), float(slope + reach)), points


class _Pair(NamedTuple):
    """Two metrics that are compared: the choice in words, both means, the standard error of their difference."""

    name: str
    lesser: float
    greater: float
    error: float

    def __str__(self):
        return f"{self.name} ({self.lesser:.4g} and {self.greater:.4g})".strip()


def _pairs(records, lesser, greater, over, with_error):
    """A _Pair for every combination."""
    found = []
    for choice in itertools.product(*over.values()):
        where = dict(zip(over, choice, strict=True))
        (small, small_error), (large, large_error) = (
            _mean_with_error(records, name.format(**where), with_error) for name in (lesser, greater)
        )
        found.append(_Pair(", ".join(map(str, choice)), small, large, math.hypot(small_error, large_error)))
    return found


def _counted(holds, pairs, broken):
    """How many pairs are in order, those that are not by name; of a single pair, both numbers in any case."""
    if len(pairs) == 1:
        return Finding(holds, 1 - len(broken), detail=f"of 1 pair {pairs[0]}")
    detail = f"of {len(pairs)} pairs" + (f"; not {'; '.join(map(str, broken))}" if broken else "")
    return Finding(holds, len(pairs) - len(broken), detail=detail)


def _mean_with_error(records, metric, with_error):
    """(mean over seeds, its standard error from the records' own, 0 unless asked for)."""
    mean, _ = mean_and_deviation(_values(records, metric))
    errors = _values(records, f"{metric}_se") if with_error else [0.0]
    return mean, math.sqrt(sum(error**2 for error in errors)) / len(errors)


def _not_above(lesser, greater):
    """lesser <= greater, but for rounding: 0.979 lies three deviations of 0.001 below 0.982, which the floats deny."""
    return lesser <= greater or math.isclose(lesser, greater, rel_tol=1e-9)


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
