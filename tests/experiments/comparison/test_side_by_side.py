"""What benchmarks share."""

import numpy as np
import pytest

from experiments.comparison import side_by_side
from experiments.comparison.modern import names, problems
from experiments.comparison.modern.measure import DynamicsDiffer
from experiments.comparison.modern.of_solvers_bridge import OfAutograd


def test_candidates_take_turns_after_one_round_to_warm_up():
    order = []
    results = side_by_side.take_turns({name: lambda name=name: order.append(name) or len(order) for name in "ab"}, 2)
    assert "".join(order) == "ababab"
    assert results == {"a": [3, 5], "b": [4, 6]}


def test_compare_takes_ratios_round_by_round():
    assert side_by_side.compare([2.0, 6.0, 10.0], [1.0, 2.0, 2.0]) == (3.0, 2.0)


def test_other_libraries_are_those_that_are_installed_and_solve_the_same(monkeypatch, capsys):
    absent = names.Entry("of_absent", "Absent", ("no_such_package",))
    monkeypatch.setitem(side_by_side.LIBRARIES, "an absent one", absent)
    problem = problems.small(units=3, times=3)
    wanted = {"absent": ("an absent one", "m"), "own": ("autograd's odeint", "LSODA, adjoint")}
    derivative = OfAutograd(problem).derivative
    found = side_by_side.peers(problem, derivative, 1e-6, wanted)
    assert list(found) == ["own"] and "absent: not installed: no_such_package; pip install" in capsys.readouterr().out
    step = found["own"]()
    assert step.gradient[0].shape == problem.y0.shape and step.forward > 0 and step.nfe_backward > step.nfe_forward > 0
    right = side_by_side.flat(tuple(OfAutograd(problem).solver("dop853, adjoint", 1e-11, 1e-11).gradient()[1:]))
    assert side_by_side.gradient_error(step, right) < 1e-3 < side_by_side.gradient_error(step, 1.01 * right)
    with pytest.raises(DynamicsDiffer, match="autograd's odeint solves another problem than ours"):
        side_by_side.peers(problem, lambda t, y: derivative(t, y) * (1 + np.float64(1e-5)), 1e-6, wanted)
