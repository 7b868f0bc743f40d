import itertools
import math

import numpy as np
import pytest

from original_repro.training import constant, one_cycle, piecewise, warmup_cosine


def test_constant_and_piecewise():
    assert constant(0.3)(0) == constant(0.3)(10**6) == 0.3
    assert [piecewise([1, 0.1, 0.01], [2, 4])(step) for step in range(6)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_warmup_cosine():
    rates = [warmup_cosine(0.8, 20, 4)(step) for step in range(21)]
    np.testing.assert_allclose(rates[:5], [0.16, 0.32, 0.48, 0.64, 0.8])
    np.testing.assert_allclose([rates[8], rates[12], rates[20]], [0.8 * (2 + math.sqrt(2)) / 4, 0.4, 0.0], atol=1e-16)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[4:]))
    assert warmup_cosine(0.8, 20, 4)(25) == pytest.approx(0.0, abs=1e-16)
    assert warmup_cosine(0.8, 20)(0) == 0.8


def test_one_cycle():
    rates = [one_cycle(1.0, 100, 0.31, start_factor=20, final_factor=50)(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.05) and rates[30] == pytest.approx(1.0) and rates[99] == pytest.approx(0.001)
    assert rates[15] == pytest.approx((1 + 0.05) / 2)
    assert all(later > earlier for earlier, later in itertools.pairwise(rates[:31]))
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[30:]))


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: constant(-1.0), "rate"),
        (lambda: piecewise([1, 2], []), "rates"),
        (lambda: piecewise([1, 2, 3], [5, 5]), "cuts"),
        (lambda: warmup_cosine(0.1, 10, 10), "warmup_steps"),
        (lambda: one_cycle(0.1, 10, 1.0), "warmup_fraction"),
        (lambda: one_cycle(0.1, 3), "total_steps"),
    ],
)
def test_senseless_constants_are_refused_by_name(make, name):
    with pytest.raises(ValueError, match=name):
        make()
