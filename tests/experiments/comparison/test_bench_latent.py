import numpy as np
import pytest

from experiments.comparison import bench_latent
from experiments.comparison.modern import problems
from experiments.comparison.modern.of_solvers_bridge import OfGraph
from solvers_bridge import odeint


def test_the_dynamics_turn_and_the_reverse_ways_agree(capsys, monkeypatch):
    monkeypatch.setattr(bench_latent, "PEERS", {})
    monkeypatch.setattr(bench_latent, "native_is_available", lambda: False)
    problem = problems.latent(batch=5, times=11)
    metrics = bench_latent.bench_latent(1, problem)
    for setting, most in (("loose", 1e-3), ("tight", 1e-3)):
        for way in ("paper", bench_latent.BEST):
            assert 0 < metrics[f"latent_{setting}_{way}_gradient_error"] < most
            assert metrics[f"latent_{setting}_{way}_step_seconds_min"] > 0
    # Half a unit of time from output to output is crossed in three steps of at most 0.2.
    assert metrics[f"latent_tight_{bench_latent.BEST}_nfe_backward"] == 10 * 3 * 4
    assert metrics["latent_tight_paper_gradient_error"] < metrics["latent_loose_paper_gradient_error"]
    assert "times faster than torchdiffeq" in capsys.readouterr().out
    states = odeint(OfGraph(problem).func, problem.y0, problem.t, problem.params)
    assert np.abs(states).max() < 20 and np.abs(states[-1] - states[0]).max() > 1


def test_other_libraries_solve_it_in_its_precision(monkeypatch):
    pytest.importorskip("torchdiffeq")
    pytest.importorskip("diffrax")
    monkeypatch.setattr(bench_latent, "native_is_available", lambda: False)
    metrics = bench_latent.bench_latent(1, problems.latent(batch=3, times=3))
    for name in bench_latent.PEERS:
        loose, tight = (metrics[f"latent_{setting}_{name}_gradient_error"] for setting in ("loose", "tight"))
        assert tight < 1e-5 and 1e-8 < loose < 1e-3


def test_the_gradient_is_that_of_the_problem():
    problem = problems.latent(batch=3, times=5)
    ours = OfGraph(problem)
    _, y0_bar, params_bar = ours.solver_of(method="dop853", rtol=1e-10, atol=1e-10).gradient()
    direction = np.random.default_rng(1).normal(size=problem.y0.shape)
    along = [
        np.sum(
            problem.states_bar
            * odeint(ours.func, problem.y0 + h * direction, problem.t, problem.params, method="dop853", rtol=1e-12, atol=1e-12)
        )
        for h in (1e-5, -1e-5)
    ]
    assert np.sum(y0_bar * direction) == pytest.approx((along[0] - along[1]) / 2e-5, rel=1e-5)
    assert [bar.shape for bar in params_bar] == [array.shape for array in problem.params]
