import numpy as np
import pytest

from experiments.comparison import bench_flows
from experiments.comparison.side_by_side import flat


@pytest.fixture(scope="module")
def problem():
    return bench_flows.Problem(points=16, units=4)


def test_a_step_is_the_gradient_of_the_mean_log_likelihood(problem):
    from original_repro import flows

    step = problem.step()
    assert step.nfe_forward > 5 and step.nfe_backward > 5 and 0 < step.outside_backward < 1
    flow = flows.ContinuousFlow(flows.planar_dynamics, bench_flows.TIMES[::-1])
    _, expected = flow.nll_and_grad(problem.params, problem.y0[:, :2])
    np.testing.assert_allclose(flat(step.gradient[1]), flat(expected), atol=1e-3 * np.abs(flat(expected)).max())


def test_torchdiffeq_computes_the_same_flow(problem):
    pytest.importorskip("torchdiffeq")
    pytest.importorskip("torch").set_num_threads(1)
    ours = flat(problem.step(rtol=1e-7, atol=1e-7).gradient[1])
    theirs = flat(bench_flows.torch_flow(problem, tolerance=1e-6)().gradient[1])
    np.testing.assert_allclose(theirs, ours, atol=1e-2 * np.abs(ours).max())


def test_bench_without_torchdiffeq_measures_ours_and_says_how_to_get_it(monkeypatch, capsys):
    for others in ("torchdiffeq_is_installed", "native_is_available"):
        monkeypatch.setattr(bench_flows, others, lambda: False)
    metrics = bench_flows.bench_flow(1, points=16, units=4)
    assert all(np.isfinite(value) for value in metrics.values()) and "flow_speedup" not in metrics
    assert metrics["flow_ours_step_seconds_min"] > 0 and metrics["flow_ours_seminorm_nfe_backward"] > 5
    assert 'pip install "neural-ode-repro[modern]"' in capsys.readouterr().out
