import time

import numpy as np
import pytest

from experiments.comparison import bench_small
from experiments.comparison.side_by_side import flat
from solvers_bridge import TensorFlowDynamics


def test_candidates_of_the_small_problem_agree():
    problem = bench_small.make_small_problem(units=6, times=4)
    reference = flat(problem.step(bench_small.mlp, method="dop853", rtol=1e-11, atol=1e-11).gradient)
    tensorflow = TensorFlowDynamics(bench_small.mlp_tensorflow, "float64")
    for step in (bench_small.autograd_own(problem)(), problem.step(bench_small.mlp, method="lsoda"), problem.step(tensorflow)):
        np.testing.assert_allclose(flat(step.gradient), reference, atol=1e-3 * np.abs(reference).max())
        assert step.nfe_forward > 10 and step.nfe_backward > 10


def test_autograds_own_evaluations_are_those_of_the_same_lsoda():
    problem = bench_small.make_small_problem(units=6, times=4)
    own, ours = bench_small.autograd_own(problem)(), problem.step(bench_small.mlp, method="lsoda")
    assert own.nfe_forward == ours.nfe_forward
    assert own.nfe_backward == pytest.approx(ours.nfe_backward, rel=0.3)


def test_torchdiffeq_computes_the_same_small_problem():
    pytest.importorskip("torchdiffeq")
    pytest.importorskip("torch").set_num_threads(1)
    problem = bench_small.make_small_problem(units=6, times=4)
    reference = flat(problem.step(bench_small.mlp, method="dop853", rtol=1e-11, atol=1e-11).gradient)
    np.testing.assert_allclose(flat(bench_small.torch_small(problem)().gradient), reference, atol=1e-3 * np.abs(reference).max())


def test_small_bench_prints_and_returns_numbers(monkeypatch, capsys):
    for others in ("torchdiffeq_is_installed", "jax_is_installed"):
        monkeypatch.setattr(bench_small, others, lambda: False)
    begun = time.perf_counter()
    metrics = bench_small.bench_small(1, bench_small.make_small_problem(units=6, times=3))
    assert all(np.isfinite(value) for value in metrics.values())
    assert 0 < metrics["small_adams_step_seconds_min"] < time.perf_counter() - begun
    assert "adams_tensorflow_warm" in capsys.readouterr().out


def test_compiled_candidates_and_jax_compute_the_same_small_problem():
    pytest.importorskip("diffrax")
    problem = bench_small.make_small_problem(units=6, times=4)
    reference = flat(problem.step(bench_small.mlp, method="dop853", rtol=1e-11, atol=1e-11).gradient)
    arguments = bench_small.mlp, problem.params, problem.y0, problem.t, problem.states_bar, 1e-6, "float64"
    for candidate in bench_small.jax_candidates(*arguments).values():
        np.testing.assert_allclose(flat(candidate().gradient), reference, atol=1e-3 * np.abs(reference).max())
