"""Kept weights measured again: records of the paper preset, named as what they are, and what the report makes of them."""

import json
import os

import numpy as np
import pytest

from experiments import Experiment, Places, command_line
from experiments.harness import kept, records
from experiments.report import registry, verdict_tables, write
from original_repro import training


def forty_one_errors(settings, places):
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == "1"
    return {"error_rate": 0.0041, "errors": 41, "examples": 10_000, "parameters": 208_266}


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A results folder with one record and its weights; returns (places, out, the experiment)."""
    places = Places(tmp_path / "shipped")
    monkeypatch.setattr(records, "RESULTS", places.out)
    training.save_weights(places.weights("table1_mnist", "paper-seed0"), {"w": np.ones(2)})
    record = json.loads(Places(records.REPOSITORY / "results").record("table1_mnist", "paper-seed0").read_text())
    places.record("table1_mnist", "paper-seed0").parent.mkdir(parents=True)
    places.record("table1_mnist", "paper-seed0").write_text(json.dumps({**record, "date": "2026-01-01"}))
    experiment = Experiment(
        name="table1_mnist",
        source="Table 1",
        shows="errors",
        run=None,
        evaluate=forty_one_errors,
        kept=({},),
    )
    return places, tmp_path / "out", experiment


def test_a_record_of_kept_weights_names_them_and_is_judged(shipped):
    places, out, experiment = shipped
    (path,) = kept.measure_again([experiment], out)
    record = json.loads(path.read_text())
    assert path == Places(out).record("table1_mnist", "paper-seed0") and record["preset"] == "paper"
    assert record["command"] == "python -m experiments evaluate table1_mnist --preset paper"
    assert record["kept_weights"]["file"] == "table1_mnist-paper-seed0.npz" and len(record["kept_weights"]["sha256"]) == 64
    assert record["kept_weights"]["trained"] == "2026-01-01"
    verdict = next(one for one in registry.judge_all(out) if one.entry["id"] == "table1-odenet-error")
    assert verdict.kept and verdict.verdict == registry.REPRODUCED and verdict.finding.measured == 0.0041


def test_the_report_leads_with_kept_weights_and_calls_the_rest_demonstrations(shipped):
    _, out, experiment = shipped
    kept.measure_again([experiment], out)
    write.write(out, [])
    text = (out / "README.md").read_text()
    places = [text.index(part) for part in ("Measured just now", "## Measured again from kept weights", "## Demonstrations")]
    assert places == sorted(places) and "## Not measured" not in text


def test_verdicts_of_whole_runs_are_counted_as_ever():
    assert "measured just now" not in verdict_tables.counts(registry.judge_all(records.REPOSITORY / "results"))


def test_the_projects_own_results_are_not_written_over(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["evaluate", "all", "--out", str(records.RESULTS)])
    assert ended.value.code == 2 and "another folder" in capsys.readouterr().err


def test_every_kept_run_has_its_weights_and_record():
    places = Places(records.REPOSITORY / "results")
    for experiment in command_line.EXPERIMENTS.values():
        for options in experiment.kept:
            settings = experiment.settings(preset="paper", **options)
            assert places.record(experiment.name, settings.stem).is_file(), (experiment.name, options)
