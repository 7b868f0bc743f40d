import json

import numpy as np
import pytest

from experiments import command_line
from experiments.neural_ode import figure5_fits, figure5_flows
from original_repro import flows, training
from original_repro.datasets import circles_and_moons

TINY = {
    "data": {"train": 300, "validation": 200, "test": 200},
    "looks": 3,
    "paths": 20,
    "frames": 4,
    "nf": {**figure5_flows.NF, "size": 3, "iterations": 600, "chunk": 100},
    "cnf": {**figure5_flows.CNF, "size": 4, "batch_size": 64, "iterations": 9, "times": (0.0, 1.0)},
}


@pytest.fixture(scope="module", params=[("two_moons",), pytest.param(circles_and_moons.NAMES, marks=pytest.mark.slow)], ids=len)
def finished(tmp_path_factory, request):
    """(folder, arguments) of a small run, in this process instead of workers."""
    folder = tmp_path_factory.mktemp("figure5")
    arguments = ["run", "figure5_flows", "--out", str(folder), "--checkpoints", str(folder / "checkpoints"), "--workers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure5_flows, "COMPILER", "graph")  # compiling takes longer than so few iterations
        patch.setattr(circles_and_moons, "NAMES", request.param)
        patch.setitem(figure5_flows.PRESETS, "quick", TINY)
        patch.setattr(figure5_flows, "BATCH", 200)
        patch.setattr(figure5_flows, "IMAGE_POINTS", 20)
        patch.setattr(figure5_flows, "REVERSAL_TOLERANCES", (1e-3, 1e-5))
        patch.setattr(figure5_flows, "run_tasks", lambda function, tasks, workers: list(map(function, tasks)))
        assert command_line.main(arguments) == 0
        yield folder, arguments


def record_of(folder):
    return json.loads((folder / "runs" / "figure5_flows" / "quick-seed0.json").read_text())


@pytest.mark.slow
def test_weights_left_behind_have_the_recorded_log_likelihoods(finished):
    data = "two_moons"
    metrics, test = record_of(finished[0])["metrics"], circles_and_moons.load(data, **TINY["data"], seed=0).test
    weights = training.load_weights(finished[0] / "weights" / "figure5_flows-quick-seed0.npz")[data]
    cnf = flows.ContinuousFlow(flows.planar_dynamics, (0.0, 1.0)).log_density(weights["cnf"], test)
    nf = flows.PlanarFlow("data_to_base").log_density(weights["nf"], test)
    for kind, mine in (("cnf", cnf), ("nf", nf), ("true", circles_and_moons.log_density(data, test))):
        assert metrics[f"log_likelihood_{data}_{kind}"] == pytest.approx(mine.mean(), abs=1e-4)
        assert metrics[f"log_likelihood_{data}_{kind}_se"] == pytest.approx(mine.std(ddof=1) / np.sqrt(200), rel=1e-2)
    assert metrics[f"log_likelihood_{data}_nf"] < metrics[f"log_likelihood_{data}_true"]


def test_iterations_are_those_of_the_best_look_at_validation_data(finished):
    record = record_of(finished[0])
    for data in circles_and_moons.NAMES:
        for kind in ("cnf", "nf"):
            rows = [row for row in record["history"] if row["part"] == "training" and (row["data"], row["flow"]) == (data, kind)]
            assert [row["steps"] for row in rows] == [TINY[kind]["iterations"] * look // 3 for look in (1, 2, 3)]
            best = max(rows, key=lambda row: row["validation_log_likelihood"])
            assert record["metrics"][f"iterations_{data}_{kind}"] == best["steps"]


def test_reversal_is_recorded_at_every_tolerance_and_better_at_a_tighter_one(finished):
    record = record_of(finished[0])
    for data in circles_and_moons.NAMES:
        rows = {
            (row["dtype"], row["tolerance"]): row
            for row in record["history"]
            if row["part"] == "reversal" and row["data"] == data
        }
        assert len(rows) == 4
        assert rows["float64", 1e-5]["rms"] < rows["float64", 1e-3]["rms"]
        at_training = rows["float32", 1e-5]
        assert record["metrics"][f"reversal_error_{data}_rms"] == at_training["rms"] <= at_training["max"] < 1e-3
        assert record["metrics"][f"reversal_error_{data}_max"] == at_training["max"]


def test_figure_and_animation_are_drawn(finished):
    from PIL import Image

    figures = finished[0] / "figures"
    assert (figures / "figure5_flows-quick-seed0.png").stat().st_size > 20_000
    with Image.open(figures / "figure5_flows-quick-seed0.gif") as animation:
        assert animation.n_frames >= TINY["frames"]  # those that repeat the last may be one long frame


@pytest.mark.slow
def test_the_figure_is_drawn_again_from_weights_and_record(finished, tmp_path, capsys):
    figure = finished[0] / "figures" / "figure5_flows-quick-seed0.png"
    before = figure.read_bytes()
    figure.unlink()
    assert command_line.main(["redraw", "figure5_flows", "--out", str(finished[0])]) == 0
    assert figure.read_bytes() == before and f"figure: {figure}" in capsys.readouterr().out
    assert command_line.main(["redraw", "figure5_flows", "--seed", "7", "--out", str(tmp_path)]) == 1
    assert "run figure5_flows --preset quick` leaves them" in capsys.readouterr().err


def test_images_of_the_planar_flow_are_of_its_last_layers():
    flow, params = flows.PlanarFlow("data_to_base"), flows.init_planar_flow(np.random.default_rng(0), 3)
    drawn = figure5_flows._to_draw("nf", flow, params, None, {"nf": {"size": 3}}, 0, flows)
    assert drawn["layers"] == [1, 1, 2, 2, 3, 3]
    side = np.linspace(-figure5_flows.IMAGE_SIDE, figure5_flows.IMAGE_SIDE, figure5_flows.IMAGE_POINTS)
    row, column = 8, 12
    for image, first in ((drawn["images"][0], 2), (drawn["images"][-1], 0)):
        last = {name: array[first:] for name, array in params.items()}
        (density,) = np.exp(flow.log_density(last, np.array([[side[column], side[row]]])))
        assert image[row, column] == pytest.approx(density, rel=1e-4)


@pytest.mark.slow
def test_a_finished_run_trains_no_more(finished, monkeypatch):
    folder, arguments = finished
    before = record_of(folder)["metrics"]
    monkeypatch.setattr(flows.ContinuousFlow, "nll_and_grad", lambda *_: pytest.fail("training again"))
    assert command_line.main(arguments) == 0
    assert record_of(folder)["metrics"] == before


def test_the_best_parameters_outlive_a_kill_and_not_a_fresh_start(tmp_path):
    checkpoint = tmp_path / "run.npz"
    best = figure5_fits.Best(checkpoint, lambda params: -abs(params["x"][0] - 2.0))
    for value in (0.0, 2.5, 4.0):
        assert best.evaluate({"x": np.array([value])}) == {"log_likelihood": -abs(value - 2.0)}
    assert best.params()["x"] == 2.5
    checkpoint.touch()
    assert figure5_fits.Best(checkpoint, None).params()["x"] == 2.5
    checkpoint.unlink()
    figure5_fits.Best(checkpoint, None)
    assert not list(tmp_path.iterdir())
