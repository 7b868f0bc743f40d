"""The committed verdicts are those of the committed records; what can be measured again in minutes gives the recorded numbers.

If a change of a record, a rule or a reported number is meant: `python -m experiments report` rewrites results/verdicts.json and
the tables; look at its diff, and commit it with what caused it.
"""

import copy
import hashlib
import json

import numpy as np
import pytest

from experiments import Places, command_line
from experiments.harness.records import REPOSITORY, read_records
from experiments.neural_ode import table1_depth, table1_mnist
from experiments.neural_ode.figure3.laboratory import Laboratory
from experiments.report import registry
from original_repro import training
from original_repro.datasets import mnist

RESULTS = REPOSITORY / "results"
ACCEPT = "If that is meant, `python -m experiments report` rewrites results/verdicts.json; look at its diff and commit it."


def differences(committed, now):
    """What differs between two versions of verdicts.json, a line for each entry."""
    lines = [f"{name}: no longer in the registry" for name in committed.keys() - now.keys()]
    lines += [f"{name}: new in the registry, {now[name]['verdict']}" for name in now.keys() - committed.keys()]
    for name in committed.keys() & now.keys():
        was, found = committed[name], now[name]
        if was["verdict"] != found["verdict"]:
            lines.append(
                f"{name}: was {was['verdict']!r} ({was.get('measured')}), is {found['verdict']!r} ({found.get('measured')})"
            )
        elif was.get("measured", 0.0) != pytest.approx(found.get("measured", 0.0), rel=1e-4):
            lines.append(f"{name}: measured {was['measured']}, now {found['measured']}; still {found['verdict']}")
        elif was["records"] != found["records"]:
            lines.append(f"{name}: was decided by {was['records']}, is by {found['records']}")
    return sorted(lines)


def test_no_verdict_has_changed():
    committed = json.loads((RESULTS / "verdicts.json").read_text())
    changed = differences(committed, registry.as_json(registry.judge_all(RESULTS), RESULTS))
    assert not changed, "\n".join(["verdicts differ from the committed ones:", *changed, ACCEPT])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"metrics": {"errors": 100}}, "table1-odenet-error: was 'reproduced' (0.0045), is 'not reproduced' (0.01)"),
        ({"metrics": {"errors": 44}}, "table1-odenet-error: measured 0.0045, now 0.0044; still reproduced"),
        ({"configuration": {"validation": 500}}, "table1-odenet-error: was 'reproduced' (0.0045), is 'not measured' (None)"),
    ],
)
def test_a_changed_record_is_noticed(change, message):
    entry = next(entry for entry in registry.read() if entry["id"] == "table1-odenet-error")
    path, record = (
        Places(RESULTS).record("table1_mnist", "paper-seed0"),
        {
            "experiment": "table1_mnist",
            "preset": "paper",
            "seed": 0,
            "date": "2026-01-01",
            "history": [],
            "configuration": dict(entry["measured_by"]["configuration"]),
            "metrics": {"errors": 45, "examples": 10_000},
        },
    )
    other = copy.deepcopy(record)
    for part, values in change.items():
        other[part].update(values)
    was, now = (registry.as_json([registry.judge(entry, [(path, each)])], RESULTS) for each in (record, other))
    assert differences(was, was) == [] and differences(was, now) == [message]
    assert differences({}, now)[0].startswith("table1-odenet-error: new") and "no longer" in differences(was, {})[0]


def test_every_record_that_a_verdict_uses_is_committed_with_what_measured_it():
    used = {path for verdict in registry.judge_all(RESULTS) for path in verdict.records}
    for path, record in read_records(RESULTS):
        if path in used:
            assert record["integrators"]["vode"] == "fortran"
            assert record["git_commit"] and record["command"].startswith("python -m experiments")


# Measured again

needs_mnist = pytest.mark.skipif(not mnist.has_files(mnist.cache_folder()), reason="MNIST is not in the cache")
# Metrics of the quick presets, and by how much a run on another machine may differ from the committed one.
QUICK_BANDS = {
    "table1_mnist": {"error_rate": {"abs": 0.03}},
    "figure7_poisson": {"intensity_relative_l2": {"rel": 0.3}},
    "figure5_flows": {"log_likelihood_two_moons_cnf": {"abs": 0.2}, "log_likelihood_two_circles_cnf": {"abs": 0.2}},
}


@pytest.mark.slow
@needs_mnist
@pytest.mark.parametrize("model", table1_mnist.MODELS)
def test_kept_weights_make_the_recorded_errors(model):
    settings = table1_mnist.EvaluationSettings(model=model, preset="paper")
    recorded = json.loads(Places(RESULTS).record("table1_mnist", settings.stem).read_text())["metrics"]
    measured = table1_mnist.evaluate(settings, Places(RESULTS))
    # Another processor rounds otherwise, which may move a digit that lies between two classes.
    assert measured["errors"] == pytest.approx(recorded["errors"], abs=2)
    assert measured["examples"] == recorded["examples"] == 10_000


@pytest.mark.slow
@needs_mnist
@pytest.mark.parametrize("method", ["adams", "lsoda"])
def test_a_condition_of_figure_3c_has_the_recorded_evaluations(method):
    record = json.loads(Places(RESULTS).record("figure3_mnist", "paper-seed0").read_text())
    settings, weights = record["configuration"], Places(RESULTS).weights("table1_mnist", "paper-seed0")
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == settings["weights_sha256"], (
        "Figure 3 was measured with other weights than those kept: run figure3_mnist --preset paper again"
    )
    *_, images, labels = table1_mnist.load_images(settings["data"], None)
    order = np.random.default_rng(record["seed"]).permutation(len(labels))
    laboratory = Laboratory(settings, training.load_weights(weights), images[order], labels[order], record["seed"])
    task = {"part": "backward", "weights": "trained", "batch_size": 1, "method": method, "tolerance": 1e-4, "reduction": "mean"}
    (recorded,) = (row for row in record["history"] if task.items() <= row.items())
    measured = laboratory.measure(task, [])
    assert measured["finished"] and measured["nfe_forward"] == pytest.approx(recorded["nfe_forward"], rel=0.1)
    assert measured["ratio"] == pytest.approx(recorded["ratio"], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("model, setting", [("odenet", 1e-1), ("odenet", 1e-3), ("rknet", 4)])
def test_a_training_step_takes_the_recorded_memory(model, setting):
    record = json.loads(Places(RESULTS).record("table1_depth", "paper-seed0").read_text())
    (recorded,) = (point for point in record["history"] if (point["model"], point["setting"]) == (model, setting))
    settings = {name: record["configuration"][name] for name in ("batch_size", "channels", "memory_steps")}
    measured = table1_depth.measure_in_fresh_process(model=model, setting=setting, seed=record["seed"], timed_steps=1, **settings)
    assert measured["depth"] == pytest.approx(recorded["depth"], rel=0.15)
    assert measured["peak_mib"] - measured["before_mib"] == pytest.approx(recorded["peak_mib"] - recorded["before_mib"], rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [path for path, record in read_records(RESULTS) if record["preset"] == "quick" and record["experiment"] in QUICK_BANDS],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_a_quick_run_gives_the_recorded_numbers(path, tmp_path):
    record = json.loads(path.read_text())
    _, options = record["command"].split(f"run {record['experiment']}")
    words = ["run", record["experiment"], *options.split(), "--out", tmp_path, "--checkpoints", tmp_path / "checkpoints"]
    assert command_line.main([str(word) for word in words]) == 0
    measured = json.loads(Places(tmp_path).record(record["experiment"], path.stem).read_text())["metrics"]
    for metric, band in QUICK_BANDS[record["experiment"]].items():
        assert measured[metric] == pytest.approx(record["metrics"][metric], **band), metric
