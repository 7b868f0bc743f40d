import numpy as np
import pytest

from experiments.comparison import bench_flows
from experiments.comparison.modern import problems
from experiments.comparison.side_by_side import flat


@pytest.fixture(scope="module")
def flow():
    return problems.flow(points=16, units=4)


def test_a_step_is_the_gradient_of_the_mean_log_likelihood(flow):
    from original_repro import flows

    step = bench_flows.ours(flow)["ours"]()
    assert step.nfe_forward > 5 and step.nfe_backward > 5
    continuous = flows.ContinuousFlow(flows.planar_dynamics, flow.problem.t[::-1])
    _, expected = continuous.nll_and_grad(flow.params, flow.problem.y0[:, :2])
    np.testing.assert_allclose(flat(step.gradient[1]), flat(expected), atol=1e-3 * np.abs(flat(expected)).max())


def test_torchdiffeq_computes_the_same_flow(flow):
    pytest.importorskip("torchdiffeq")
    pytest.importorskip("torch").set_num_threads(1)
    ours = flat(bench_flows.ours(flow)["ours"]().gradient[1])
    theirs = flat(bench_flows.others(flow)["torchdiffeq"]().gradient[1])
    np.testing.assert_allclose(theirs, ours, atol=1e-2 * np.abs(ours).max())


def test_bench_without_torchdiffeq_measures_ours(monkeypatch, flow):
    monkeypatch.setattr(bench_flows, "others", lambda flow: {})
    monkeypatch.setattr(bench_flows, "native_is_available", lambda: False)
    metrics = bench_flows.bench_flow(1, flow)
    assert all(np.isfinite(value) for value in metrics.values()) and "flow_speedup" not in metrics
    assert metrics["flow_ours_step_seconds_min"] > 0 and metrics["flow_ours_seminorm_nfe_backward"] > 5
