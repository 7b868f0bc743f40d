import time

import numpy as np
import pytest

from experiments.comparison import bench_small
from experiments.comparison.modern import problems
from experiments.comparison.modern.of_solvers_bridge import OfAutograd, OfGraph, OfNative


@pytest.fixture(scope="module")
def measured():
    """The metrics of a smaller problem, by all that is installed, graphs for what is compiled, and how long they took."""
    ways = bench_small.OURS
    graphs = {OfAutograd: ways[OfAutograd], OfGraph: ways[OfGraph] | ways[OfNative]}
    begun = time.perf_counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_small, "OURS", graphs)
        return bench_small.bench_small(1, problems.small(units=6, times=4)), time.perf_counter() - begun


def test_candidates_of_the_small_problem_agree(measured):
    metrics, seconds = measured
    errors = {name: value for name, value in metrics.items() if name.endswith("_gradient_error")}
    ours = [name for methods in bench_small.OURS.values() for name in methods]
    assert {f"small_{name}_gradient_error" for name in (*bench_small.OWN, *ours)} <= set(errors)
    assert all(0 < value < 1e-3 for value in errors.values())
    assert all(np.isfinite(value) for value in metrics.values())
    assert 0 < metrics["small_adams_step_seconds_min"] < seconds


def test_autograds_own_evaluations_are_those_of_the_same_lsoda(measured):
    own, ours = (
        [measured[0][f"small_{name}_nfe_{way}"] for way in ("forward", "backward")] for name in ("autograd_odeint", "lsoda")
    )
    assert own[0] == ours[0] > 10
    assert own[1] == pytest.approx(ours[1], rel=0.3)


def test_goals_are_beside_the_libraries_of_today(measured):
    pytest.importorskip("torchdiffeq")
    pytest.importorskip("diffrax")
    for other in bench_small.PEERS:
        ratio = measured[0][f"small_dopri5_warm_native_over_{other}"]
        seconds = [measured[0][f"small_{name}_step_seconds_median"] for name in ("dopri5_warm_native", other)]
        assert ratio == pytest.approx(seconds[0] / seconds[1])
