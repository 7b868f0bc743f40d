"""Checks of numbers that more than one room of this package is given; each raises ValueError that names the argument."""

import math


def check_fraction(name, value):
    """From 0 to below 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1; got {value}")


def check_not_negative(name, value):
    """From 0, finite."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be at least 0 and finite; got {value}")


def check_at_least_one(name, value):
    """An int from 1."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number from 1; got {value!r}")
