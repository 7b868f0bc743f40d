"""What `bench` says of a step of the models of images."""

from experiments.comparison import bench_images


def test_every_way_of_each_model_is_timed_and_compared_with_the_direct_one():
    metrics = bench_images.bench_images(1, batch=4, sizes={"node": (4, 0), "anode": (4, 1)})
    timed = {"node": ("direct", "winograd", "tables"), "anode": ("direct", "winograd", "tiles")}
    expected = {f"images_{model}_{way}_seconds_{of}" for model in timed for way in timed[model] for of in ("median", "min")}
    expected |= {f"images_{model}_{way}_ratio" for model in timed for way in timed[model] if way != "direct"}
    assert metrics.keys() == expected
    assert all(value > 0 for value in metrics.values())


def test_neither_tables_nor_tiles_without_numba(monkeypatch):
    monkeypatch.setattr(bench_images, "find_spec", lambda name: None)
    metrics = bench_images.bench_images(1, batch=4, sizes={"node": (4, 0), "anode": (4, 1)})
    assert not any(way in name for name in metrics for way in bench_images.COMPILED)
