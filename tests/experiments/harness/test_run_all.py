"""All experiments: what runs after what, and each in a process of its own."""

from dataclasses import dataclass

import pytest

from experiments import Experiment, Settings, command_line, option
from experiments.harness import run_all


@dataclass(frozen=True, kw_only=True)
class WithWorkers(Settings):
    workers: int = option(1, "processes", type=int, named=False)


def experiment(code, **more):
    """One whose description is what its process executes."""
    return Experiment(name="one", source="", shows="", run=print, description=code, **more)


def test_every_experiment_and_variant_runs_once_after_what_it_needs():
    found = run_all.chains(command_line.EXPERIMENTS)
    runs = [run for chain in found for run in chain]
    assert sorted(name for name, variant in runs if not variant) == sorted(command_line.EXPERIMENTS)
    assert [variant["model"] for name, variant in runs if name == "table1_mnist" and variant] == ["resnet", "rknet", "mlp"]
    after = {chain[0][0]: {name for name, _ in chain[1:]} for chain in found if len(chain) > 1}
    assert after["table1_mnist"] >= {"figure3_mnist", "figure3c_reverse", "harder_inputs"}
    assert after["table2_latent_ode"] == {"figure7_poisson", "figures8to10_latent_ode", "latent_checks"}
    # What takes weights from another experiment's run has to come after it.
    needing = {name for name, one in command_line.EXPERIMENTS.items() if one.needs is not None}
    assert set.union(*after.values()) == needing
    assert needing >= {
        name
        for name, one in command_line.EXPERIMENTS.items()
        if any(option.name == "weights" for option in one.settings.options())
    }
    assert len(runs) == len({(name, *variant.values()) for name, variant in runs})


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Scripts in place of `python -m experiments run NAME`: an experiment's description is what its process executes."""
    experiments = {}

    class Popen(run_all.subprocess.Popen):
        def __init__(self, command, **kwargs):
            place = command.index("run")
            code = experiments[command[place + 1]].description
            super().__init__([*command[: place - 2], "-c", code, *command[place + 2 :]], **kwargs)

    monkeypatch.setattr(run_all.subprocess, "Popen", Popen)
    return experiments


def test_output_goes_to_files_and_variants_to_the_command(commands, tmp_path, capfd):
    show = "import os, sys; print(sys.argv[1:], os.environ.get('OMP_NUM_THREADS'))"
    commands |= {
        "one": experiment(show, variants=({"model": "big"},), settings=WithWorkers),
        "two": experiment(show, needs="one"),
    }
    assert run_all.run_all(commands, ["--seed", "3"], 2, tmp_path) == 0
    assert (tmp_path / "one.txt").read_text() == "['--seed', '3', '--workers=1'] 1\n"
    assert (tmp_path / "one-big.txt").read_text() == "['--seed', '3', '--model=big', '--workers=1'] 1\n"
    assert (tmp_path / "two.txt").read_text() == "['--seed', '3'] 1\n"
    assert "one big: done" in capfd.readouterr().out


def test_a_failure_is_shown_and_what_needs_it_is_not_begun(commands, tmp_path, capfd):
    commands |= {
        "one": experiment("raise SystemExit('no such thing')"),
        "two": experiment("", needs="one"),
        "three": experiment(""),
    }
    assert run_all.run_all(commands, [], 1, tmp_path) == 1
    printed = capfd.readouterr()
    assert "one: failed with status 1" in printed.out and "no such thing" in printed.err
    assert "two" not in printed.out and "three: done" in printed.out


def test_a_number_of_workers_that_makes_no_sense(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["run", "all", "--workers", "0"])
    assert "--workers must be a whole number from 1" in capsys.readouterr().err
