import numpy as np
import pytest

from experiments.comparison import bench_layer
from experiments.comparison.modern import problems
from solvers_bridge import odeint


@pytest.fixture(scope="module")
def layer():
    return problems.layer(batch=2, channels=4)


def test_layer_has_the_shapes_of_an_odenet_of_its_size(layer):
    y0, states_bar = layer.problem.y0, layer.problem.states_bar
    assert y0.shape == (2, 6, 6, 4) and states_bar.shape == (2, 2, 6, 6, 4)
    assert {array.dtype.name for array in (y0, states_bar, *layer.problem.params)} == {"float32"}
    assert np.abs(states_bar[0]).max() == 0 < np.abs(states_bar[1]).max()


def test_a_step_measures_solves_and_the_share_outside_graphs(layer):
    step = bench_layer.step(layer)
    z_bar, params_bar = step.gradient
    assert z_bar.shape == layer.problem.y0.shape
    assert params_bar.keys() == layer.params.keys()
    assert step.nfe_forward > 2 and step.nfe_backward > 2
    assert step.seconds == step.forward + step.backward > 0
    # Not above 0 on a busy machine: what a call of the graph takes before the solve begins counts as inside.
    assert step.outside_forward < 1 and step.outside_backward < 1


def test_timed_dynamics_are_the_same_dynamics(layer):
    timed = bench_layer.TimedDynamics(layer.dynamics)
    plain, through = (
        odeint(f, layer.problem.y0, [0.0, 0.1], layer.params, rtol=1e-3, atol=1e-3) for f in (layer.dynamics, timed)
    )
    np.testing.assert_array_equal(plain, through)
    assert timed.seconds > 0 and timed.adjoint is None


def test_graph_calls_are_those_of_the_layer(layer):
    calls = bench_layer.bound_graphs(layer)
    n, p = layer.problem.y0.size, sum(array.size for array in map(np.asarray, bench_layer.flatten(layer.params)[0]))
    assert calls["f"]().shape == (n,)
    assert calls["fused_vjp"]().shape == (2 * n + p + 1,)
    np.testing.assert_allclose(calls["fused_vjp"]()[:n], calls["f"](), rtol=1e-5, atol=1e-5)
    assert calls["two_convolutions"]().shape == layer.problem.y0.shape


@pytest.mark.slow
def test_a_training_step_is_measured_in_one_process_and_shared(capsys):
    metrics = bench_layer.bench_processes(4, 1, processes=2, model="mlp")
    assert metrics["training_shared_speedup"] == pytest.approx(
        metrics["training_one_process_step_seconds_median"] / metrics["training_shared_step_seconds_median"]
    )
    assert all(value > 0 for value in metrics.values())
    assert "shared among 2 processes" in capsys.readouterr().out


def test_our_solvers_and_torchdiffeq_are_compared_by_time_and_error(layer):
    pytest.importorskip("torchdiffeq")
    pytest.importorskip("torch").set_num_threads(1)
    metrics = bench_layer.bench_torchdiffeq(layer, 1)
    for name in ("ours", "ours_dopri5", "ours_dopri5_discrete", "torchdiffeq"):
        # Of a coarse tolerance; with parameters or states in another order it would be about the root of 2.
        assert 0 < metrics[f"beside_{name}_gradient_error"] < 0.8
    for name in ("", "_dopri5", "_dopri5_discrete"):
        seconds = [metrics[f"beside_{which}_step_seconds_min"] for which in (f"ours{name}", "torchdiffeq")]
        assert metrics[f"torchdiffeq_ratio{name}_of_minima"] == pytest.approx(seconds[0] / seconds[1])


def test_without_torchdiffeq_nothing_is_beside_the_layer(monkeypatch, layer):
    monkeypatch.setattr(bench_layer, "PEERS", {})
    assert bench_layer.bench_torchdiffeq(layer, 1) == {}
