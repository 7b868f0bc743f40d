"""`experiments check`: the committed records pass, and each kind of fault is found."""

import json
import shutil

import numpy as np
import pytest

from experiments import Places, command_line
from experiments.harness import records
from experiments.neural_ode import table1_mnist
from experiments.report import check
from original_repro import training

RESULTS = records.REPOSITORY / "results"
NAME, STEM = "table1_mnist", "quick-seed0-model=mlp"


def checked(out):
    return check.check(out, {one.name: one for one in command_line.REPORTED}, command_line.settings_of)


def test_the_committed_records_have_no_fault(capsys):
    assert command_line.main(["check", "--out", str(RESULTS)]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(" records checked, 0 faults\n") and "as records of version 0.1.0 do not" in printed


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder with a record of today as a run writes it, its weights, and a report that links them; returns the folder."""
    monkeypatch.setattr(records.computed, "commit", lambda: "a" * 40)
    settings, places = table1_mnist.RunSettings(model="mlp"), Places(tmp_path, tmp_path / "checkpoints")
    training.save_weights(places.weights(NAME, settings.stem), {"w": np.ones(3)})
    records.record_run(
        NAME,
        settings,
        places,
        configuration={"model": "mlp", **table1_mnist.preset_of(settings)},
        metrics={"errors": 3},
        history=[],
        wall_seconds=1.0,
    )
    (tmp_path / "README.md").write_text(f"[one](runs/{NAME}/{STEM}.json) ![two](weights/{NAME}-{STEM}.npz)", encoding="utf-8")
    assert checked(tmp_path).faults == [] and checked(tmp_path).untold == {}
    return tmp_path


def change(results, **parts):
    path = Places(results).record(NAME, STEM)
    record = json.loads(path.read_text(encoding="utf-8"))
    for name, value in parts.items():
        record[name] = {**record[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(
    "parts, fault",
    [
        ({"git_commit": "b" * 40 + "+changes"}, "whose changes nobody has"),
        ({"computed": [{"commit": "c" * 40 + "+changes", "environment": {}, "from": "", "to": ""}]}, "whose changes nobody has"),
        ({"configuration": {"epochs": 7}}, "its configuration has epochs 7, and the preset 20"),
        ({"configuration": {"model": "resnet"}}, "its configuration has model 'resnet', and the preset 'mlp'"),
        (
            {"command": "python -m experiments run table1_mnist --seed 1 --model mlp"},
            "its command is of table1_mnist quick-seed1",
        ),
        ({"command": "python -m experiments run table1_mnist --modl mlp"}, "its command is none"),
        ({"preset": "paper"}, "it is of preset paper and seed 0, its command of others"),
        ({"experiment": "table3"}, "no experiment is called 'table3'"),
        ({"data_sha256": "0" * 64}, "its data have SHA-256 0000"),
        ({"left_weights": {"sha256": "0" * 64}}, f"weights/{NAME}-{STEM}.npz has another SHA-256"),
        ({"metrics": 3}, "is no record: metrics is 3"),
    ],
)
def test_a_fault_of_a_record_is_one_line(results, parts, fault):
    change(results, **parts)
    assert any(fault in one and f"{STEM}.json" in one for one in checked(results).faults)


def test_other_weights_a_missing_figure_and_other_verdicts_are_found(results, capsys):
    training.save_weights(Places(results).weights(NAME, STEM), {"w": np.zeros(3)})
    (results / "README.md").write_text("![a figure](figures/none.png)", encoding="utf-8")
    shutil.copy(RESULTS / "verdicts.json", results)
    assert command_line.main(["check", "--out", str(results)]) == 1
    printed = capsys.readouterr().out
    assert "has another SHA-256" in printed and "there is no figures/none.png" in printed
    assert "verdicts.json: table1-odenet-error is" in printed
