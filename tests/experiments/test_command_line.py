"""The command line: names of records, errors, and whole runs and evaluations of the networks on a few digits."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest

from experiments import Places, command_line, options
from experiments.harness.records import REPOSITORY
from experiments.neural_ode import table1_mnist
from original_repro import supervised, training
from original_repro.datasets import mnist


def test_list_names_every_experiment(capsys):
    assert command_line.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in command_line.EXPERIMENTS)
    seconds = json.loads(Places(REPOSITORY / "results").record("table1_mnist", "paper-seed0").read_text())["wall_seconds"]
    (row,) = (line for line in printed.splitlines() if line.startswith("table1_mnist"))
    assert "Table 1" in row and row.split()[-2:] == [f"{seconds / 60:.0f}", "min"]
    assert command_line.main(["run"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    "words, hint",
    [
        (["run", "table2"], "did you mean table2_latent_ode or table2_tuning?"),
        (["run", "figure4_flow"], "did you mean figure4_flows?"),
        (["evaluate", "tabel1_mnist"], "did you mean table1_mnist"),
        (["evaluate", "nothing_like_it"], "`python -m experiments list` shows them all"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(words, hint, capsys):
    with pytest.raises(SystemExit) as info:
        command_line.main(words)
    assert info.value.code == 2 and hint in capsys.readouterr().err


def test_the_package_loads_neither_tensorflow_nor_torch():
    code = "import sys, experiments.command_line; print([name for name in ('tensorflow', 'torch', 'matplotlib.pyplot') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments, name",
    [
        ([], "quick-seed0"),
        (["--preset", "paper", "--seed", "3"], "paper-seed3"),
        (["--out", "elsewhere", "--fresh"], "quick-seed0"),
        (["--data", "somewhere"], "quick-seed0"),
        (["--method", "lsoda", "--epochs", "2"], "quick-seed0-epochs=2-method=lsoda"),
        (["--model", "resnet", "--rate", "0.05"], "quick-seed0-model=resnet-rate=0.05"),
        (["--model", "odenet"], "quick-seed0"),
    ],
)
def test_a_record_is_named_by_every_option_that_matters(arguments, name):
    parsed = command_line._parser().parse_args(["run", "table1_mnist", *arguments])
    settings, places = options.settings_and_places(parsed, table1_mnist.RunSettings)
    assert settings.stem == name
    assert places.record("table1_mnist", name).name == f"{name}.json"


@pytest.mark.parametrize(
    "arguments", [["run", "table2"], ["run", "table1_mnist", "--seed", "-1"], ["run", "table1_mnist", "--preset", "big"]]
)
def test_wrong_arguments_end_with_status_2(arguments):
    with pytest.raises(SystemExit) as info:
        command_line.main(arguments)
    assert info.value.code == 2


@pytest.fixture
def few_digits(monkeypatch):
    """An embedded sample of 40 and 250 digits, presets of two short epochs, and networks of half the width."""
    sample = mnist.load_sample()
    train, test = np.arange(0, 2000, 50), np.arange(0, 1000, 4)
    few = mnist.Mnist(sample.train_images[train], sample.train_labels[train], sample.test_images[test], sample.test_labels[test])
    monkeypatch.setattr(mnist, "load_sample", lambda: few)
    monkeypatch.setitem(
        table1_mnist.PRESETS,
        "quick",
        {model: {**settings, "epochs": 2, "batch_size": 20} for model, settings in table1_mnist.PRESETS["quick"].items()},
    )
    for name, size in (("init_odenet", {"channels": 32}), ("init_resnet", {"channels": 32, "blocks": 1})):
        monkeypatch.setattr(supervised, name, functools.partial(getattr(supervised, name), **size))


def test_a_run_writes_record_and_figure_and_a_second_one_goes_on_from_its_checkpoint(few_digits, tmp_path, capsys):
    arguments = ["run", "table1_mnist", "--out", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    assert command_line.main(arguments) == 0
    path = tmp_path / "runs" / "table1_mnist" / "quick-seed0.json"
    record = json.loads(path.read_text())
    assert record["metrics"]["parameters"] == 52938 and record["metrics"]["examples"] == 250
    assert [epoch["steps"] for epoch in record["history"]] == [2, 4]
    assert all(epoch["train"]["nfe_forward"] > 0 and epoch["train"]["nfe_backward"] > 0 for epoch in record["history"])
    assert (tmp_path / "figures" / "table1_mnist-quick-seed0.png").stat().st_size > 10_000
    assert (tmp_path / "weights" / "table1_mnist-quick-seed0.npz").exists()
    printed = capsys.readouterr().out
    assert f"record: {path}" in printed and f"figure: {tmp_path / 'figures' / 'table1_mnist-quick-seed0.png'}" in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("Table 1: ODE-Net, test error"))
    assert "0.42 %" in line and "(quick, not a paper-preset measurement)" in line and "not measured" in line
    assert command_line.main(arguments) == 0
    again = json.loads(path.read_text())
    assert again["history"] == record["history"]


@pytest.mark.slow
def test_a_batch_shared_among_processes_trains_the_same_network(tmp_path):
    """Processes do not see few_digits: this is the sample's 2,000 digits."""
    losses = []
    for processes in ([], ["--processes", "2"]):
        assert command_line.main(["run", "table1_mnist", "--model", "mlp", "--epochs", "1", *processes, *folders(tmp_path)]) == 0
        name = "-processes=2" if processes else ""
        record = json.loads((tmp_path / "runs" / "table1_mnist" / f"quick-seed0-epochs=1-model=mlp{name}.json").read_text())
        assert record["configuration"].get("processes") == (2 if processes else None)
        losses.append(record["history"][-1]["evaluation"]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_crops_decay_and_validation_are_the_options_chosen(tmp_path):
    options = ["--crop-padding", "1", "--validation", "500", "--epochs", "1", "--weight-decay", "0.1"]
    assert command_line.main(["run", "table1_mnist", "--model", "mlp", *options, *folders(tmp_path)]) == 0
    path = (
        tmp_path / "runs" / "table1_mnist" / "quick-seed0-crop_padding=1-epochs=1-model=mlp-validation=500-weight_decay=0.1.json"
    )
    record = json.loads(path.read_text())
    assert record["configuration"]["crops"] and record["configuration"]["crop_padding"] == 1
    assert record["metrics"]["examples"] == record["configuration"]["validation"] == 500
    assert record["history"][0]["steps"] == 75  # batches of 20 from the 1,500 images left
    assert record["configuration"]["weight_decay"] == 0.1
    weights = training.load_weights(tmp_path / "weights" / f"table1_mnist-{path.stem}.npz")
    initial = supervised.init_mlp(np.random.default_rng(0), mnist.FORMAT)
    assert np.linalg.norm(weights["hidden"]["weight"]) < np.linalg.norm(initial["hidden"]["weight"]) / 2


@pytest.mark.parametrize(
    "option, value, message",
    [
        ("--crop-padding", "-1", "--crop-padding must be a whole number from 0, got -1"),
        ("--weight-decay", "-1", "weight_decay must be"),
        ("--epochs", "0", "--epochs must be a whole number from 1, got 0"),
        ("--validation", "-5", "--validation must be a whole number from 0, got -5"),
        ("--validation", "30", "--validation must be a multiple of 250 below 40, the number of training images; got 30"),
        ("--validation", "250", "--validation must be a multiple of 250 below 40, the number of training images; got 250"),
    ],
)
def test_a_bad_number_is_refused_before_any_work(few_digits, tmp_path, capsys, option, value, message):
    assert command_line.main(["run", "table1_mnist", "--model", "mlp", option, value, *folders(tmp_path)]) == 1
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_an_error_of_ours_is_one_line_and_status_1(few_digits, tmp_path, capsys):
    arguments = ["run", "table1_mnist", "--method", "rk5", "--out", str(tmp_path), "--checkpoints", str(tmp_path)]
    assert command_line.main(arguments) == 1
    assert "method must be one of adams" in capsys.readouterr().err


def folders(tmp_path):
    return ["--out", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]


@pytest.mark.parametrize(
    "model, parameters, evaluations",
    [("resnet", 52234, None), pytest.param("rknet", 52938, 8, marks=pytest.mark.slow), ("mlp", 238510, None)],
)
def test_weights_of_a_run_evaluate_to_its_errors(few_digits, tmp_path, capsys, model, parameters, evaluations):
    assert command_line.main(["run", "table1_mnist", "--model", model, *folders(tmp_path)]) == 0
    record = json.loads((tmp_path / "runs" / "table1_mnist" / f"quick-seed0-model={model}.json").read_text())
    metrics = record["metrics"]
    assert metrics["parameters"] == parameters and metrics["examples"] == 250
    assert metrics["error_rate"] == metrics["errors"] / 250 == record["history"][-1]["evaluation"]["error_rate"]
    assert 0 <= metrics["error_rate_95_low"] < metrics["error_rate"] < metrics["error_rate_95_high"] <= 1
    assert metrics["seconds_per_epoch"] == pytest.approx(metrics["training_seconds"] / 2)
    assert metrics.get("nfe_forward") == metrics.get("nfe_backward") == evaluations
    assert ("method" in record["configuration"]) == (evaluations is not None)
    assert (tmp_path / "figures" / f"table1_mnist-quick-seed0-model={model}.png").stat().st_size > 10_000

    capsys.readouterr()
    assert command_line.main(["evaluate", "table1_mnist", "--model", model, "--out", str(tmp_path)]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines()[2:])
    assert int(printed["errors"]) == metrics["errors"] and printed["error_rate_95_high"].startswith("0.")
    assert float(printed.get("nfe_forward", 0)) == (evaluations or 0)


@pytest.mark.slow
def test_weights_are_evaluated_with_another_solver(few_digits, tmp_path, capsys):
    training.save_weights(tmp_path / "mine.npz", supervised.init_odenet(np.random.default_rng(1), mnist.FORMAT))
    arguments = ["evaluate", "table1_mnist", "--weights", str(tmp_path / "mine.npz")]
    evaluations = []
    for solver in ([], ["--method", "dopri5", "--tolerance", "1e-1"]):
        assert command_line.main([*arguments, *solver]) == 0
        printed = dict(line.split() for line in capsys.readouterr().out.splitlines()[2:])
        evaluations.append(float(printed["nfe_forward"]))
    assert evaluations[0] != evaluations[1]
    assert command_line.main([*arguments, "--model", "mlp"]) == 1
    assert "mine.npz does not hold weights of --model mlp: there is shape" in capsys.readouterr().err


def test_missing_weights_name_the_command_that_makes_them(tmp_path, capsys):
    arguments = ["evaluate", "table1_mnist", "--model", "mlp", "--preset", "paper", "--seed", "3", "--out", str(tmp_path)]
    assert command_line.main(arguments) == 1
    message = capsys.readouterr().err
    assert str(tmp_path / "weights" / "table1_mnist-paper-seed3-model=mlp.npz") in message
    assert f"`python -m experiments run table1_mnist --model mlp --preset paper --seed 3 --out {tmp_path}`" in message


def test_an_aborted_run_leaves_no_weights(few_digits, tmp_path, capsys):
    arguments = ["run", "table1_mnist", "--model", "mlp", "--rate", "1e30", *folders(tmp_path)]
    assert command_line.main(arguments) == 1
    assert "FloatingPointError" in capsys.readouterr().err
    assert not (tmp_path / "weights").exists() and not (tmp_path / "runs").exists()


def test_an_experiment_without_weights_says_so(capsys):
    assert command_line.main(["evaluate", "integrator_fidelity"]) == 1
    assert "integrator_fidelity: keeps no weights to evaluate; table1_mnist, figure5_flows" in capsys.readouterr().err


def test_options_of_the_odenet_are_refused_for_other_models(few_digits, tmp_path, capsys):
    assert command_line.main(["run", "table1_mnist", "--model", "mlp", "--tolerance", "1e-5", *folders(tmp_path)]) == 1
    assert "--method and --tolerance go with --model odenet, not mlp" in capsys.readouterr().err


def test_an_experiment_runs_from_python_with_plain_values_and_returns_its_record(few_digits, tmp_path):
    settings = table1_mnist.RunSettings(model="mlp", epochs=1, validation=0, processes=None)
    places = Places(out=tmp_path, checkpoints=str(tmp_path / "checkpoints"))
    record = table1_mnist.EXPERIMENT.run(settings, places)
    assert record == json.loads((tmp_path / "runs" / "table1_mnist" / "quick-seed0-epochs=1-model=mlp.json").read_text())
    assert record["command"] == (
        f"python -m experiments run table1_mnist --model mlp --epochs 1 --out {tmp_path} --checkpoints {tmp_path / 'checkpoints'}"
    )
    words = record["command"].split()[3:]
    assert options.settings_and_places(command_line._parser().parse_args(words), table1_mnist.RunSettings) == (
        settings,
        places,
    )


@pytest.mark.parametrize(
    "given, message",
    [
        ({"preset": "big"}, "--preset must be one of quick, paper, got 'big'"),
        ({"seed": -1}, "--seed must be a whole number from 0, got -1"),
        ({"seed": 1.5}, "--seed must be a whole number from 0, got 1.5"),
        ({"seed": None}, "--seed must be a whole number from 0, got None"),
        ({"model": "lenet"}, "--model must be one of odenet, resnet, rknet, mlp, got 'lenet'"),
        ({"tolerance": "tight"}, "--tolerance must be a float, got 'tight'"),
        ({"crop_padding": True}, "--crop-padding must be a whole number from 0, got True"),
    ],
)
def test_plain_values_of_no_sense_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        table1_mnist.RunSettings(**given)


@pytest.mark.parametrize(
    "experiment", [*command_line.EXPERIMENTS.values(), command_line.bench.EXPERIMENT], ids=lambda one: one.name
)
def test_every_experiment_says_what_it_is(experiment):
    assert experiment.settings().stem == "quick-seed0"
    assert all(about.help for about in experiment.settings.options())
    assert experiment.shows and experiment.source and experiment.description and experiment.takes["quick"]
    assert experiment.evaluate is None or experiment.evaluation_settings().stem == "quick-seed0"
