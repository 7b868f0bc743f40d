"""Figure 3: a small network measured whole, and fits, verdicts and summaries of made-up measurements."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import Places, command_line
from experiments.neural_ode.figure3 import laboratory, presets, summary
from original_repro import supervised, training
from original_repro.datasets import mnist
from solvers_bridge import odeint

SMALL = {
    "data": "embedded sample",
    "batch_size": 5,
    "methods": ("adams", "lsoda"),
    "tolerances": (1e-1, 1e-2, 1e-3),
    "max_steps": 200,
    "timed_seconds": 1e-9,
    "reference_tolerance": 1e-7,
    "floor_steps": 4,
    "backward": (
        {"weights": "trained", "batch_size": 5, "batches": 2, "tolerances": (1e-1, 1e-2), "reductions": ("mean", "sum")},
        {"weights": "initial", "batch_size": 5, "batches": 1, "tolerances": (1e-1,), "reductions": ("mean",)},
    ),
    "max_steps_backward": 200,
    "test_tolerances": (1e1, 1e-3),
    "test_steps": {"euler": (1,)},
    "test_batch_size": 5,
}


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """A folder with weights and record of a network of four channels, for ten test images; arguments of a run on it."""
    sample = mnist.load_sample()
    few = mnist.Mnist(sample.train_images[:2], sample.train_labels[:2], sample.test_images[::100], sample.test_labels[::100])
    monkeypatch.setattr(mnist, "load_sample", lambda: few)
    monkeypatch.setitem(presets.PRESETS, "quick", SMALL)
    weights = Places(tmp_path).weights("table1_mnist", "quick-seed0")
    training.save_weights(weights, supervised.init_odenet(np.random.default_rng(5), mnist.FORMAT, channels=4))
    record = tmp_path / "runs" / "table1_mnist" / "quick-seed0.json"
    record.parent.mkdir(parents=True)
    record.write_text(
        json.dumps(
            {
                "command": "python -m experiments run table1_mnist",
                "git_commit": "0123456",
                "integrators": {},
                "wall_seconds": 1.0,
                "versions": {},
                "experiment": "table1_mnist",
                "preset": "quick",
                "seed": 0,
                "date": "2026-01-01",
                "metrics": {},
                "configuration": {"method": "adams", "tolerance": 1e-3},
                "history": [{"epoch": epoch, "train": {"nfe_forward": 20.0 + epoch, "nfe_backward": 21.0}} for epoch in (1, 2)],
            }
        )
    )
    # One process: others would not see these presets and images.
    folders = ["--out", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    yield tmp_path, ["run", "figure3_mnist", "--workers", "1", *folders]
    laboratory._laboratory.cache_clear()


def test_a_small_network_is_measured_whole(trained, capsys):
    folder, arguments = trained
    assert command_line.main(arguments) == 0
    record = json.loads((folder / "runs" / "figure3_mnist" / "quick-seed0.json").read_text())
    rows, metrics = record["history"], record["metrics"]
    errors = {
        method: [metrics[f"error/{method}/{tolerance:.0e}"] for tolerance in SMALL["tolerances"]] for method in SMALL["methods"]
    }
    assert all(series[0] > series[-1] > metrics["float32_floor_direct"] > 0 for series in errors.values())
    assert metrics["nfe/adams/1e-03"] > metrics["nfe/adams/1e-01"] > 0
    assert metrics["reference_difference"] < 1e-4
    backward = [row for row in rows if row["part"] == "backward"]
    assert len(backward) == metrics["conditions"] == 10
    assert all(row["finished"] and row["ratio"] == pytest.approx(row["nfe_backward"] / row["nfe_forward"]) for row in backward)
    assert metrics["ratio/lsoda/1e-01/mean/initial/batch_5"] > 0 and metrics["nfe_backward/adams/1e-02/sum"] > 0
    factors = {row["method"]: row["tolerance_factor"] for row in rows if row["part"] == "state"}
    parameters = sum(
        leaf.size
        for leaf in training.tree_leaves(supervised.init_odenet(np.random.default_rng(0), mnist.FORMAT, channels=4)["dynamics"])
    )
    states = 5 * 6 * 6 * 4
    assert factors == {"adams": pytest.approx(math.sqrt((2 * states + parameters + 1) / states)), "lsoda": 1.0}
    assert (metrics["nfe_forward_first_epoch"], metrics["nfe_forward_last_epoch"]) == (21.0, 22.0)
    assert {row["method"]: row["nfe"] for row in rows if row["part"] == "test"}["euler"] == 1
    assert record["configuration"]["trained_with"] == {"method": "adams", "tolerance": 1e-3}
    for name in ("figure3_mnist-quick-seed0.png", "figure3_mnist-test_tolerance-quick-seed0.png"):
        assert (folder / "figures" / name).stat().st_size > 10_000
    assert "in 0 of 10 conditions" in capsys.readouterr().out or metrics["conditions_at_most_0.6"] > 0
    assert not list((folder / "checkpoints").rglob("*.npz"))

    figure = folder / "figures" / "figure3_mnist-quick-seed0.png"
    before = figure.read_bytes()
    figure.unlink()
    assert command_line.main(["redraw", "figure3_mnist", "--out", str(folder)]) == 0
    assert figure.read_bytes() == before


@pytest.mark.parametrize("missing", ["weights/table1_mnist-quick-seed0.npz", "runs/table1_mnist/quick-seed0.json"])
def test_without_weights_or_their_record_an_error_names_the_command_that_makes_them(trained, missing, monkeypatch, capsys):
    folder, arguments = trained
    (folder / missing).unlink()
    monkeypatch.setattr(mnist, "load_sample", lambda: pytest.fail("work before the error"))
    assert command_line.main(arguments) == 1
    printed = capsys.readouterr().err
    assert str(folder / missing) in printed
    assert f"python -m experiments run table1_mnist --preset quick --seed 0 --out {folder}" in printed


def test_weights_of_another_network_are_refused(trained, capsys):
    folder, arguments = trained
    training.save_weights(folder / "weights" / "other.npz", supervised.init_mlp(np.random.default_rng(0), mnist.FORMAT))
    runs = folder / "runs" / "table1_mnist"
    (runs / "other.json").write_text((runs / "quick-seed0.json").read_text())
    assert command_line.main([*arguments, "--weights", str(folder / "weights" / "other.npz")]) == 1
    assert "does not hold weights of an ODE-Net" in capsys.readouterr().err


def backward(tolerance, ratio, method="adams", batch_size=128, reduction="mean", finished=True):
    return {
        "part": "backward",
        "weights": "trained",
        "batch_size": batch_size,
        "method": method,
        "tolerance": tolerance,
        "reduction": reduction,
        "nfe_forward": 20.0,
        "nfe_backward": 20.0 * ratio,
        "ratio": ratio,
        "finished": finished,
    }


def verdict_of(*rows):
    (found,) = summary.verdicts(rows)
    return found


def test_roughly_half_holds_only_where_it_does():
    assert verdict_of(backward(1e-1, 0.5), backward(1e-3, 0.6))["roughly_half"] == "holds"
    mixed = verdict_of(backward(1e-1, 0.95), backward(1e-3, 0.75), backward(1e-5, 0.55))
    assert mixed["roughly_half"] == "holds at 1e-05 only"
    assert (mixed["half_at"], mixed["whole_at"]) == ([1e-5], [1e-1])
    assert (mixed["ratio_least"], mixed["ratio_greatest"], mixed["conditions"]) == (0.55, 0.95, 3)
    never = verdict_of(backward(1e-1, 0.61), backward(1e-3, 1.4))
    assert (never["roughly_half"], never["half_at"], never["whole_at"]) == ("does not hold", [], [1e-3])


def test_a_lower_bound_never_counts_as_half():
    found = verdict_of(backward(1e-4, 0.3, finished=False), backward(1e-5, 3.0, finished=False))
    assert (found["roughly_half"], found["whole_at"], found["finished"]) == ("does not hold", [1e-5], False)


def test_conditions_are_told_apart_and_counted_in_the_sentence():
    rows = [
        backward(1e-3, 0.5),
        backward(1e-3, 1.2, reduction="sum"),
        backward(1e-3, 1.0, method="lsoda"),
        backward(1e-3, 0.55, batch_size=1),
    ]
    found = summary.verdicts(rows)
    assert [verdict["roughly_half"] for verdict in found] == ["holds", "does not hold", "does not hold", "holds"]
    sentence = summary.sentence(found)
    assert "in 2 of 4 conditions: VODE Adams, trained weights, batch 128, loss a mean, at 1e-03; VODE Adams" in sentence
    assert sentence.endswith("at least 0.9 of them in 2.")
    assert "in 0 of 1 conditions. They are" in summary.sentence([verdict_of(backward(1e-3, 1.1))])


def test_the_table_shows_counts_bounds_and_verdicts():
    rows = [backward(1e-1, 0.95), backward(1e-3, 2.5, finished=False), backward(1e-3, 0.5, batch_size=1)]
    table = summary.markdown_table({"history": rows})
    assert "20 → 19 (0.95)" in table and "(over 2.5)" in table and "one image's" in table and "holds" in table


def decay(adjoint_max_steps):
    """A stand-in for a network: the loss is a number that decays, at a rate that is its parameter."""

    def loss(rate, images, labels):
        y = odeint(
            lambda t, y, rate: -rate * y,
            1.0,
            [0.0, 1.0],
            rate,
            method="lsoda",
            adjoint_options={"max_num_steps": adjoint_max_steps},
        )
        return y[-1], len(labels)

    return SimpleNamespace(loss=loss)


def test_evaluations_of_both_solves_are_counted_and_a_sum_weighs_more_than_a_mean():
    (forward, backward), reason = laboratory.gradient_evaluations(decay(1000), 2.0, None, range(8), "mean")
    assert forward > 10 and backward > 10 and reason is None
    (again, more), reason = laboratory.gradient_evaluations(decay(1000), 2.0, None, range(10**6), "sum")
    assert again == forward and more != backward and reason is None


def test_a_reverse_solve_that_is_stopped_gives_a_bound_and_a_reason():
    (forward, backward), reason = laboratory.gradient_evaluations(decay(2), 2.0, None, range(8), "mean")
    assert forward > backward > 0 and "max_num_steps = 2" in reason


def test_the_loosest_tolerance_without_more_errors_stops_at_the_first_that_has_them():
    tests = [
        {
            "part": "test",
            "method": "adams",
            "tolerance": tolerance,
            "error_rate": rate,
            "error_rate_95_high": rate + 0.01,
            "nfe": nfe,
        }
        for tolerance, rate, nfe in [(10.0, 0.05, 5), (1.0, 0.07, 6), (1e-1, 0.055, 9), (1e-3, 0.05, 20)]
    ]
    tests.append({"part": "test", "method": "euler", "grid_steps": 1, "error_rate": 0.05, "error_rate_95_high": 0.06, "nfe": 1})
    assert summary.loosest_with_same_error(tests, tests[3]) is tests[2]
    assert summary.loosest_with_same_error(tests[1:2] + tests[3:], tests[3]) is tests[3]
