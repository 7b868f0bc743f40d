"""Memory and time against depth: the fits, one point in a process of its own, record and figure of made-up points."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import Places, Settings
from experiments.neural_ode import table1_depth as depth

SMALL = {"batch_size": 2, "channels": 4, "seed": 0, "memory_steps": 1, "timed_steps": 1}


def made_up_point(model, setting, **settings):
    """A point on known lines: blocks add 5 MiB and 0.1 s, evaluations of the RK-Net 2 MiB, all evaluations 0.02 s."""
    assert settings["batch_size"] > 0 and settings["channels"] == 64
    if model == "resnet":
        return point(model, setting, setting, 700 + 5 * setting, 1 + 0.1 * setting, blocks=setting)
    evaluations = 4 * setting if model == "rknet" else round(5 - 10 * np.log10(setting))
    memory = 800 + 2 * evaluations if model == "rknet" else 1000
    return point(model, setting, evaluations, memory, 1 + 0.02 * evaluations, nfe_forward=evaluations, nfe_backward=evaluations)


def point(model, setting, depth, peak, seconds, **counts):
    return {
        "model": model,
        "setting": setting,
        "depth": depth,
        **counts,
        "before_mib": 600.0,
        "peak_mib": float(peak),
        "peak_kept_mib": peak + 30.0,
        "step_seconds": seconds,
        "cpu_seconds": 2 * seconds,
        "seconds": [seconds],
    }


def test_metrics_are_lines_ratios_and_slopes_in_states():
    points = [
        made_up_point(model, setting, **SMALL | {"channels": 64})
        for model, setting in [("rknet", 8), ("rknet", 1), ("rknet", 2), ("odenet", 1e-1), ("odenet", 1e-3)]
    ]
    found = depth.metrics(points, state_mib=0.5)
    assert found["rknet_memory_slope_mib"] == pytest.approx(2.0)
    assert found["rknet_memory_constant_mib"] == pytest.approx(800.0)
    assert found["rknet_memory_slope_states"] == pytest.approx(4.0)
    assert found["rknet_time_slope_seconds"] == pytest.approx(0.02)
    assert found["rknet_cpu_slope_seconds"] == pytest.approx(0.04)
    assert found["rknet_depth_ratio"] == 8.0
    assert found["rknet_memory_ratio"] == pytest.approx(864 / 808)
    assert found["odenet_memory_slope_mib"] == 0.0 and found["odenet_memory_ratio"] == 1.0
    assert found["odenet_memory_slope_error_states"] is None
    assert not any(name.startswith("resnet") for name in found)


@pytest.mark.parametrize("preset", depth.PRESETS)
def test_a_run_writes_record_and_figure(preset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(depth, "measure_in_fresh_process", made_up_point)
    record = depth.run(Settings(preset=preset), Places(out=tmp_path))
    assert record == json.loads((tmp_path / "runs" / "table1_depth" / f"{preset}-seed0.json").read_text())
    assert len(record["history"]) == sum(map(len, record["configuration"]["settings"].values()))
    assert record["metrics"]["resnet_memory_slope_mib"] == pytest.approx(5.0)
    assert record["metrics"]["odenet_memory_slope_states"] == pytest.approx(0.0, abs=1e-9)
    assert record["metrics"]["state_mib"] == record["configuration"]["batch_size"] * 6 * 6 * 64 * 4 / 2**20
    assert (tmp_path / "figures" / f"table1_depth-{preset}-seed0.png").stat().st_size > 10_000
    printed = capsys.readouterr()
    assert "RK-Net" in printed.out and "ODE-Net 0.1" in printed.err


def test_a_process_that_was_disturbed_does_not_count_among_three(tmp_path, monkeypatch):
    """In every round another point takes a hundredfold of time and memory; each is asked for in an order of the round's own."""
    asked = []

    def disturbed(model, setting, **settings):
        asked.append((model, setting))
        found, factor = made_up_point(model, setting, **settings), 1 if (len(asked) - 1) % 19 else 100
        return {**found, **{name: factor * found[name] for name in ("peak_mib", "step_seconds", "cpu_seconds")}}

    monkeypatch.setattr(depth, "measure_in_fresh_process", disturbed)
    record = depth.run(Settings(preset="paper"), Places(out=tmp_path))
    rounds = [asked[start : start + 19] for start in (0, 19, 38)]
    assert len(asked) == 57 and len({one[0] for one in rounds}) == 3
    assert [sorted(one) for one in rounds] == [sorted(rounds[0])] * 3 and rounds[0] != rounds[1] != rounds[2]
    assert record["metrics"]["resnet_time_slope_seconds"] == pytest.approx(0.1)
    assert all(len(point["seconds"]) == 3 for point in record["history"])


@pytest.mark.slow
def test_a_point_is_measured_in_a_process_that_knows_nothing_of_this_one():
    ballast = np.ones(2**27)  # 1 GiB
    measured = depth.measure_in_fresh_process(model="resnet", setting=1, **SMALL)
    assert measured["model"] == "resnet" and measured["setting"] == measured["blocks"] == measured["depth"] == 1
    assert 50 < measured["before_mib"] < measured["peak_mib"] <= measured["peak_kept_mib"] < ballast.nbytes / 2**20
    assert measured["seconds"] == [measured["step_seconds"]] and measured["step_seconds"] > 0 < measured["cpu_seconds"]


def test_depth_with_an_ode_is_evaluations_forward(monkeypatch):
    batches = []

    def value_and_grad(params, images, labels):
        batches.append((images.shape, len(labels)))
        return {"loss": 2.3, "nfe_forward": 8, "nfe_backward": 7}, params

    monkeypatch.setattr(depth, "network", lambda *arguments, **options: (SimpleNamespace(value_and_grad=value_and_grad), {}))
    measured = depth.measure("odenet", 1e-3, **SMALL | {"memory_steps": 2, "timed_steps": 3})
    assert measured["depth"] == measured["nfe_forward"] == 8 and measured["nfe_backward"] == 7
    assert len(measured["seconds"]) == 3 and "blocks" not in measured
    assert batches == [((2, 28, 28, 1), 2)] * 5


def test_networks_have_the_depth_asked_for():
    _, params = depth.network("resnet", 3, channels=4, seed=0)
    assert len(params["blocks"]) == 3
    rknet, _ = depth.network("rknet", 5, channels=4, seed=0)
    assert rknet.solver["method"] == "rk4" and rknet.solver["options"] == {"step_size": 1 / 5}
    odenet, _ = depth.network("odenet", 1e-4, channels=4, seed=0)
    assert odenet.solver["method"] == "adams" and odenet.solver["rtol"] == odenet.solver["atol"] == 1e-4


@pytest.mark.parametrize(
    "model, setting, message",
    [
        ("mlp", 1, "model must be one of resnet, rknet, odenet"),
        ("resnet", 0, "whole number of blocks or steps from 1, got 0"),
        ("rknet", 1.5, "whole number of blocks or steps from 1, got 1.5"),
        ("odenet", -1e-3, "positive tolerance, got -0.001"),
        ("odenet", float("nan"), "positive tolerance, got nan"),
    ],
)
def test_settings_that_make_no_sense(model, setting, message):
    with pytest.raises(ValueError, match=message):
        depth.network(model, setting, channels=4, seed=0)


def test_a_process_that_fails_says_of_what():
    with pytest.raises(RuntimeError, match="measuring RK-Net at 0 failed: ValueError: setting of rknet must be"):
        depth.measure_in_fresh_process(model="rknet", setting=0, **SMALL)
