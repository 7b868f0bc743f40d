"""Curves and numbers over repetitions: means and deviations, quartiles, ratios with intervals, failures counted."""

import math

import numpy as np

from ..harness.statistics import students_reach

COLOURS = {"resnet": "C2", "node": "C0", "anode": "C3"}
NAMES = {"resnet": "ResNet", "node": "NODE", "anode": "ANODE"}


def chosen(trained, **settings):
    """Those whose task has these settings."""
    return [one for one in trained if all(one.task[name] == value for name, value in settings.items())]


def curves(trained, metric):
    """Array (runs, epochs) of a metric over epochs; runs that failed are NaN from there on. ValueError where there is none."""
    if not trained:
        raise ValueError(f"no runs to take {metric} of")
    rows = np.full((len(trained), trained[0].task["epochs"]), np.nan)
    for row, one in zip(rows, trained):
        values = [epoch[metric] for epoch in one.result["epochs"]]
        row[: len(values)] = values
    return rows


def failures(trained):
    """How many did not come to their end."""
    return sum(not one.ended for one in trained)


def finals(trained, metric):
    """The metric in the last epoch, of the runs that came to their end."""
    return [one.result["epochs"][-1][metric] for one in trained if one.ended]


def by_seed(trained, value):
    """{seed: value(run)} of the runs that came to their end, those left out of which it is None."""
    found = {one.task["seed"]: value(one) for one in trained if one.ended}
    return {seed: number for seed, number in found.items() if number is not None}


def in_epoch(place, metric):
    """The function of a run that takes the metric in an epoch, counted from 0, or from the last by negative numbers."""
    return lambda one: one.result["epochs"][place][metric]


def first_below(one, limit, metric="loss"):
    """The first epoch, counted from 0, in which a run's metric is below the limit; None where it never is."""
    return next((place for place, epoch in enumerate(one.result["epochs"]) if epoch[metric] < limit), None)


def ratio(numerators, denominators):
    """(ratio, low, high): geometric mean of ratios paired by key, with its 95 % interval (Student's t of the logarithms).

    The interval's ends are None for a single pair, all three for none.
    """
    pairs = [(numerators[key], denominators[key]) for key in numerators if key in denominators]
    if not pairs:
        return None, None, None
    return tuple(
        None if end is None else math.exp(end) for end in _mean_with_interval([math.log(one / other) for one, other in pairs])
    )


def difference(values, others):
    """(mean difference, low, high) of values paired by key, with its 95 % interval (Student's t); None as `ratio` has it."""
    pairs = [values[key] - others[key] for key in values if key in others]
    return _mean_with_interval(pairs) if pairs else (None, None, None)


def _mean_with_interval(values):
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, None, None
    reach = students_reach(float(np.std(values, ddof=1)) / math.sqrt(len(values)), len(values) - 1)
    return mean, mean - reach, mean + reach


def with_interval(name, numbers):
    """{name, name_low, name_high} of three numbers: metrics, as the rule `interval` has them."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))


def quartiles(values):
    """(lower quartile, median, upper quartile); None where there are no values."""
    return tuple(float(value) for value in np.quantile(values, (0.25, 0.5, 0.75))) if len(values) else (None, None, None)


def draw_curves(axes, trained, metric, *, label=None, model=None):
    """A thin line a run and their mean over the epochs, in the model's colour, with failures in the label."""
    model = model or trained[0].task["model"]
    rows = curves(trained, metric)
    epochs = np.arange(1, rows.shape[1] + 1)
    for row in rows:
        axes.plot(epochs, row, color=COLOURS[model], linewidth=0.5, alpha=0.35)
    alive = ~np.isnan(rows).all(0)
    failed = f", {failures(trained)} failed" if failures(trained) else ""
    axes.plot(epochs[alive], np.nanmean(rows[:, alive], 0), color=COLOURS[model], label=f"{label or NAMES[model]}{failed}")
    axes.set_xlabel("epoch")
