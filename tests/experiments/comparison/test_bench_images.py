import numpy as np

from experiments.comparison import bench_images


def test_steps_of_a_model_are_timed_both_ways(capsys):
    metrics = bench_images.bench_images(1, batch=4, sizes={"anode": (4, 1)})
    ways = {f"images_anode_{way}_seconds_{which}" for way in ("direct", "winograd") for which in ("median", "min")}
    assert metrics.keys() == ways | {"images_anode_winograd_ratio"}
    assert all(0 < value < np.inf for value in metrics.values()) and "of the time" in capsys.readouterr().out
