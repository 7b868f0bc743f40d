import numpy as np
import pytest

from experiments.comparison import bench_latent
from experiments.comparison.side_by_side import flat
from solvers_bridge import TensorFlowDynamics, odeint


def test_the_dynamics_turn_and_the_reverse_ways_agree(capsys, monkeypatch):
    for others in ("jax_is_installed", "native_is_available"):
        monkeypatch.setattr(bench_latent, others, lambda: False)
    problem = bench_latent.make_problem(batch=5, times=11)
    metrics = bench_latent.bench_latent(1, problem)
    for setting, most in (("loose", 1e-3), ("tight", 1e-3)):
        for way in ("paper", bench_latent.BEST):
            assert 0 < metrics[f"latent_{setting}_{way}_gradient_error"] < most
            assert metrics[f"latent_{setting}_{way}_step_seconds_min"] > 0
    # Half a unit of time from output to output is crossed in three steps of at most 0.2.
    assert metrics[f"latent_tight_{bench_latent.BEST}_nfe_backward"] == 10 * 3 * 4
    assert metrics["latent_tight_paper_gradient_error"] < metrics["latent_loose_paper_gradient_error"]
    assert "times faster than torchdiffeq" in capsys.readouterr().out
    dynamics = TensorFlowDynamics(bench_latent.dynamics_tensorflow, "float64")
    states = odeint(dynamics, problem.z0, problem.t, problem.params)
    assert np.abs(states).max() < 20 and np.abs(states[-1] - states[0]).max() > 1


def test_the_gradient_is_that_of_the_problem():
    problem = bench_latent.make_problem(batch=3, times=5)
    dynamics = TensorFlowDynamics(bench_latent.dynamics_tensorflow, "float64")
    step = problem.step(dynamics, 1e-10, method="dop853")
    direction = np.random.default_rng(1).normal(size=problem.z0.shape)
    along = [
        np.sum(
            problem.states_bar
            * odeint(dynamics, problem.z0 + h * direction, problem.t, problem.params, method="dop853", rtol=1e-12, atol=1e-12)
        )
        for h in (1e-5, -1e-5)
    ]
    assert np.sum(step.gradient[0] * direction) == pytest.approx((along[0] - along[1]) / 2e-5, rel=1e-5)
    assert len(flat(step.gradient)) == problem.z0.size + sum(leaf.size for leaf in problem.params)
