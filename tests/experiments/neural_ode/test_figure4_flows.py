import json

import numpy as np
import pytest

from experiments import command_line
from experiments.neural_ode import figure4_figures, figure4_flows
from original_repro import flows
from original_repro.datasets import energies

TINY = {
    "sizes": (2, 3),
    "samples": 4_000,
    "epochs": 2,
    "restarts": 1,
    "nf": {**figure4_flows.NF, "iterations": 400, "chunk": 100, "annealing": 0.25},
    "cnf": {**figure4_flows.CNF, "iterations": 6, "batch_size": 64, "times": (0.0, 1.0)},
}


@pytest.fixture(scope="module", params=[(2,), pytest.param((2, 3), marks=pytest.mark.slow)], ids=len)
def finished(tmp_path_factory, request):
    """(folder, arguments, results of the fits) of a small run, in this process instead of workers."""
    folder, results = tmp_path_factory.mktemp("figure4"), []
    arguments = ["run", "figure4_flows", "--out", str(folder), "--checkpoints", str(folder / "checkpoints"), "--workers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(figure4_flows.PRESETS, "quick", {**TINY, "sizes": request.param})
        patch.setattr(figure4_flows, "COMPILER", "graph")  # compiling takes longer than so few iterations
        patch.setattr(energies, "NAMES", ("u1",))
        patch.setattr(
            figure4_flows, "run_tasks", lambda function, tasks, workers: results.extend(map(function, tasks)) or results
        )
        assert command_line.main(arguments) == 0
        yield folder, arguments, list(results)


def record_of(folder):
    return json.loads((folder / "runs" / "figure4_flows" / "quick-seed0.json").read_text())


def test_every_pair_has_its_kl_with_an_error_and_a_history(finished):
    folder, _, results = finished
    record = record_of(folder)
    sizes = {one["size"] for one in results}
    assert record["metrics"]["pairs"] == len(sizes) and len(results) == 2 * len(sizes)
    for one in results:
        name = f"kl_{one['density']}_{one['flow']}_{one['size']}"
        assert record["metrics"][name] == one["kl"] > 0 and record["metrics"][f"{name}_se"] > 0
    assert len(record["history"]) == len(results) * TINY["epochs"]
    cnf = [row for row in record["history"] if row["flow"] == "cnf"]
    assert all(row["nfe_forward"] > 5 and row["nfe_backward"] > 5 for row in cnf)
    assert (folder / "figures" / "figure4_flows-quick-seed0.png").stat().st_size > 20_000


def test_kl_is_that_of_quadrature(finished):
    side = np.linspace(-figure4_figures.IMAGE_SIDE, figure4_figures.IMAGE_SIDE, figure4_figures.IMAGE_POINTS)
    cell = (side[1] - side[0]) ** 2
    z = figure4_figures.image_points()
    for one in finished[2]:
        q = one["image"].reshape(-1)
        assert abs(q.sum() * cell - 1.0) < 0.02
        log_p = -energies.energy(one["density"], *z.T) - energies.log_normaliser(one["density"])
        log_ratio = np.log(np.maximum(q, 1e-300)) - log_p
        assert abs((q * log_ratio).sum() * cell - one["kl"]) < 5 * one["kl_se"] + 0.03


@pytest.mark.slow
def test_a_finished_run_trains_no_more_and_fresh_begins_anew(finished, monkeypatch):
    folder, arguments, _ = finished
    before = record_of(folder)["metrics"]

    def no_more(*arguments):
        raise ValueError("training again")

    monkeypatch.setattr(figure4_flows, "run_tasks", lambda function, tasks, workers: list(map(function, tasks)))
    monkeypatch.setattr(flows.ContinuousFlow, "kl_and_grad", no_more)
    assert command_line.main(arguments) == 0
    assert record_of(folder)["metrics"] == before
    assert command_line.main([*arguments, "--fresh"]) == 1


@pytest.mark.parametrize("flow", ["nf", "cnf"])
def test_the_start_of_the_least_training_loss_is_fitted_in_full(flow, monkeypatch, tmp_path):
    """Both kinds alike: probes of a tenth, then all iterations from the best start."""
    seen = []

    def fit_flow(task, flows):
        seen.append((task["seed"], task["settings"]["iterations"], task["checkpoint"].name))
        loss = {7: 3.0, 1007: 1.0, 2007: 2.0}[task["seed"]]
        if len(seen) == 4:
            raise LookupError("fitted in full")
        return None, None, [{"train": {"loss": loss}}]

    for name in ("_fit_cnf", "_fit_nf"):
        monkeypatch.setattr(figure4_flows, name, fit_flow)
    task = {
        "density": "u1",
        "flow": flow,
        "size": 2,
        "settings": {"iterations": 500},
        "seed": 7,
        "restarts": 3,
        "checkpoint": tmp_path / "fit.npz",
    }
    with pytest.raises(LookupError, match="fitted in full"):
        figure4_flows.fit(task)
    probes = [(7 + 1000 * number, 50, f"fit-restart{number}.npz") for number in range(3)]
    assert seen == [*probes, (1007, 500, "fit.npz")]


def test_the_energy_rises_over_its_share_of_the_iterations():
    settings = {"annealing": 0.1, "iterations": 1000}
    assert [figure4_flows.annealed(settings, step) for step in (0, 50, 99, 500)] == pytest.approx([0.01, 0.51, 1.0, 1.0])
    assert figure4_flows.NF["annealing"] == figure4_flows.CNF["annealing"]


def one_fit(flow, size, kl, error=0.01):
    return {"density": "u1", "flow": flow, "size": size, "kl": kl, "kl_se": error, "history": [{"seconds": 1.0}]}


def test_pairs_are_counted_by_sign_and_by_two_standard_errors():
    # Differences CNF - NF: -0.5, -0.02, +0.02, +0.5; two standard errors of each are 0.028.
    fits = [one_fit("nf", size, 1.0) for size in (1, 2, 3, 4)]
    fits += [one_fit("cnf", size, kl) for size, kl in ((4, 0.5), (3, 0.98), (2, 1.02), (1, 1.5))]
    found = figure4_flows.metrics(fits)
    counts = [found[name] for name in ("pairs", "cnf_at_or_below_nf", "cnf_below_nf_by_2se", "nf_below_cnf_by_2se")]
    assert counts == [4, 2, 1, 1]
    assert (found["kl_u1_cnf_4"], found["kl_u1_nf_4_se"], found["seconds_u1_nf_1"]) == (0.5, 0.01, 1.0)
    equal = figure4_flows.metrics([one_fit("nf", 2, 1.0), one_fit("cnf", 2, 1.0)])
    assert (equal["cnf_at_or_below_nf"], equal["cnf_below_nf_by_2se"], equal["nf_below_cnf_by_2se"]) == (1, 0, 0)
