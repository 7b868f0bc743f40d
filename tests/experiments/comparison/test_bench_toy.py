import numpy as np

from experiments.comparison import bench_toy


def test_iterations_of_both_models_are_timed(monkeypatch, capsys):
    monkeypatch.setattr(bench_toy, "native_is_available", lambda: False)
    metrics = bench_toy.bench_toy(1)
    assert sorted(metrics) == sorted(
        f"toy_{model}_graph_seconds_{which}" for model in ("node", "anode") for which in ("median", "min")
    )
    assert all(0 < value < np.inf for value in metrics.values()) and "anode" in capsys.readouterr().out
