"""Learning rates: functions of the number of steps already taken, 0 at the first. Why not Keras's: see `optimisers`."""

import math

from .checks import check_not_negative


def constant(rate):
    """The same rate at every step."""
    check_not_negative("rate", rate)
    return lambda step: float(rate)


def piecewise(rates, cuts):
    """rates[0] before step cuts[0], rates[1] from there until before cuts[1], and so on: one rate more than there are cuts."""
    rates, cuts = [float(rate) for rate in rates], list(cuts)
    if len(rates) != len(cuts) + 1:
        raise ValueError(f"rates must have one entry more than cuts; got {len(rates)} and {len(cuts)}")
    if any(later <= earlier for earlier, later in zip(cuts, cuts[1:])):
        raise ValueError(f"cuts must increase strictly; got {cuts}")
    return lambda step: rates[sum(step >= cut for cut in cuts)]


def warmup_cosine(peak, total_steps, warmup_steps=0):
    """A straight line that reaches `peak` after `warmup_steps`, then half a cosine that reaches zero at `total_steps`."""
    check_not_negative("peak", peak)
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"warmup_steps must be at least 0 and below total_steps = {total_steps}; got {warmup_steps}")

    def rate(step):
        if step < warmup_steps:
            return peak * (step + 1) / (warmup_steps + 1)
        return _cosine(peak, 0.0, (step - warmup_steps) / (total_steps - warmup_steps))

    return rate


def one_cycle(peak, total_steps, warmup_fraction=0.3, start_factor=25.0, final_factor=1e4):
    """Half a cosine up from peak / start_factor, then one down to peak / (start_factor final_factor) at the last step.

    Smith and Topin (2018), "Super-convergence", in the form of PyTorch's OneCycleLR.
    """
    check_not_negative("peak", peak)
    if not 0 < warmup_fraction < 1:
        raise ValueError(f"warmup_fraction must lie between 0 and 1; got {warmup_fraction}")
    summit = warmup_fraction * total_steps - 1
    if summit <= 0:
        raise ValueError(f"total_steps must leave a step for the way up: more than {1 / warmup_fraction:g}; got {total_steps}")
    start = peak / start_factor

    def rate(step):
        if step < summit:
            return _cosine(start, peak, step / summit)
        return _cosine(peak, start / final_factor, (step - summit) / (total_steps - 1 - summit))

    return rate


def _cosine(first, last, fraction):
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
