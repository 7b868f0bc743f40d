"""The command line: names of records, errors, and one whole run of the ODE-Net on a few digits."""

import json

import numpy as np
import pytest

from experiments import command_line, table1_mnist
from original_repro.datasets import mnist


def test_list_names_every_experiment(capsys):
    assert command_line.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in command_line.EXPERIMENTS)


@pytest.mark.parametrize("arguments, name", [
    ([], "quick-seed0"), (["--preset", "paper", "--seed", "3"], "paper-seed3"), (["--out", "elsewhere", "--fresh"], "quick-seed0"),
    (["--data", "somewhere"], "quick-seed0"), (["--method", "lsoda", "--epochs", "2"], "quick-seed0-epochs=2-method=lsoda")])
def test_a_record_is_named_by_every_option_that_matters(arguments, name):
    parsed = command_line._parser().parse_args(["run", "table1_mnist", *arguments])
    assert command_line.run_name(parsed, parsed.parser, table1_mnist.LOCATION_ARGUMENTS) == name


@pytest.mark.parametrize("arguments", [["run", "table2"], ["run", "table1_mnist", "--seed", "-1"], ["run", "table1_mnist", "--preset", "big"]])
def test_wrong_arguments_end_with_status_2(arguments):
    with pytest.raises(SystemExit) as info:
        command_line.main(arguments)
    assert info.value.code == 2


@pytest.fixture
def few_digits(monkeypatch):
    """An embedded sample of 40 and 250 digits, and a preset of two short epochs."""
    sample = mnist.load_sample()
    train, test = np.arange(0, 2000, 50), np.arange(0, 1000, 4)
    few = mnist.Mnist(sample.train_images[train], sample.train_labels[train], sample.test_images[test], sample.test_labels[test])
    monkeypatch.setattr(mnist, "load_sample", lambda: few)
    monkeypatch.setitem(table1_mnist.PRESETS, "quick", {**table1_mnist.PRESETS["quick"], "epochs": 2})


def test_a_run_writes_record_and_figure_and_a_second_one_goes_on_from_its_checkpoint(few_digits, tmp_path, capsys):
    arguments = ["run", "table1_mnist", "--out", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    assert command_line.main(arguments) == 0
    path = tmp_path / "runs" / "table1_mnist" / "quick-seed0.json"
    record = json.loads(path.read_text())
    assert record["metrics"]["parameters"] == 208266 and record["metrics"]["examples"] == 250
    assert [epoch["steps"] for epoch in record["history"]] == [2, 4]
    assert all(epoch["train"]["nfe_forward"] > 0 and epoch["train"]["nfe_backward"] > 0 for epoch in record["history"])
    assert (tmp_path / "figures" / "table1_mnist-quick-seed0.png").stat().st_size > 10_000
    assert str(path) in capsys.readouterr().out
    assert command_line.main(arguments) == 0
    again = json.loads(path.read_text())
    assert again["history"] == record["history"]


def test_an_error_of_ours_is_one_line_and_status_1(few_digits, tmp_path, capsys):
    arguments = ["run", "table1_mnist", "--method", "rk5", "--out", str(tmp_path), "--checkpoints", str(tmp_path)]
    assert command_line.main(arguments) == 1
    assert "method must be one of adams" in capsys.readouterr().err
