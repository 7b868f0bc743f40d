"""Where a run writes: tried before its work, its own while it runs, and what is given for nothing is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from experiments import Places, command_line
from experiments.harness import records
from experiments.harness.alone import alone
from experiments.neural_ode import figure7_poisson, table1_mnist, table2_latent_ode
from original_repro import locks, training
from original_repro.folders import FolderUnusable, check_file

NAME, MLP = "table1_mnist", ["run", "table1_mnist", "--model", "mlp", "--epochs", "1"]


@pytest.fixture
def no_work(monkeypatch):
    """Whoever begins to work fails the test."""
    for name in ("table1_mnist", "integrator_fidelity"):
        experiment = command_line.EXPERIMENTS[name]
        monkeypatch.setitem(command_line.EXPERIMENTS, name, experiment.__class__(**{**vars(experiment), "run": _fail}))


def _fail(settings, places):
    raise AssertionError("the work began")


KINDS = ("a file", "below a file", "a folder instead", "not writable", "too long a name", "too long a path")


def unusable(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "runs" / NAME / "quick-seed0-epochs=1-model=mlp.json").mkdir(parents=True)
    return dict(
        zip(
            KINDS,
            (
                tmp_path / "file",
                tmp_path / "file" / "below",
                tmp_path,
                "/proc/nothing",
                tmp_path / ("a" * 256),
                tmp_path / "/".join(["a" * 200] * 25),
            ),
            strict=True,
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_unusable_out_is_one_line_before_the_work(tmp_path, capsys, no_work, kind):
    out = unusable(tmp_path)[kind]
    before = sorted(tmp_path.rglob("*"))
    assert command_line.main([*MLP, "--out", str(out), "--checkpoints", str(tmp_path / "checkpoints")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"table1_mnist: FolderUnusable: --out {out} cannot be used: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_unusable_checkpoints_are_too_where_there_are_any(tmp_path, capsys, no_work):
    (tmp_path / "file").touch()
    places = ["--out", str(tmp_path), "--checkpoints", str(tmp_path / "file")]
    assert command_line.main([*MLP, *places]) == command_line.main(["run", "all", *places]) == 1
    assert capsys.readouterr().err.count(f"--checkpoints {tmp_path / 'file'} cannot be used") == 2
    with pytest.raises(AssertionError, match="the work began"):
        command_line.main(["run", "integrator_fidelity", *places])


def test_a_cache_that_cannot_be_used_is_named_before_anything_is_fetched(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEURAL_ODE_REPRO_CACHE", str(tmp_path / "file"))
    places = ["--out", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    for name in ("table1_mnist", "integrator_fidelity"):
        assert command_line.main(["run", name, "--preset", "paper", *places]) == 1
    assert capsys.readouterr().err.count("the cache, which $NEURAL_ODE_REPRO_CACHE names, cannot be used") == 2


def test_a_name_that_just_fits_is_usable(tmp_path):
    check_file(tmp_path / ("a" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 22)), "it")
    with pytest.raises(FolderUnusable, match="too long"):
        check_file(tmp_path / ("a" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 21)), "it")


HOLD = "import sys, time; from original_repro import locks; file = locks.take(sys.argv[1], ''); print('held', flush=True); time.sleep(600)"


@pytest.fixture
def live():
    """live(path): a process, alive until the test's end, that holds the lock of a path."""
    processes = []

    def hold(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", HOLD, str(path)]
        processes.append(subprocess.Popen(command, cwd=records.REPOSITORY, stdout=subprocess.PIPE))
        assert processes[-1].stdout.readline() == b"held\n"
        return processes[-1].pid

    yield hold
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.skipif(locks.fcntl is None, reason="no file locks on this system")
def test_a_run_has_its_checkpoints_to_itself(tmp_path, capsys, no_work, live):
    settings = table1_mnist.RunSettings(model="mlp", epochs=1)
    places = ["--out", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    process = live(tmp_path / "checkpoints" / NAME / settings.stem)
    assert command_line.main([*MLP, *places, "--fresh"]) == 1
    assert f"is in use by a run that is alive, of process {process}. Wait for its end" in capsys.readouterr().err
    with alone(command_line.EXPERIMENTS[NAME], table1_mnist.RunSettings(), Places(tmp_path, tmp_path / "others")):
        pass
    assert not (tmp_path / "others").exists()


@pytest.mark.skipif(locks.fcntl is None, reason="no file locks on this system")
def test_fresh_removes_nothing_that_a_live_run_writes(tmp_path, live):
    fresh = Places(tmp_path, tmp_path, fresh=True)
    one, of_many = tmp_path / "one" / "quick-seed0.npz", tmp_path / "many" / "quick-seed0" / "fit.npz"
    for path, ask in ((one, fresh.checkpoint), (of_many, fresh.checkpoint_folder)):
        process = live(path)
        path.touch()
        with pytest.raises(
            locks.InUse, match=f"--fresh would remove {path}, which a run that is alive writes, of process {process}"
        ):
            ask(path.relative_to(tmp_path).parts[0], "quick-seed0")
        assert path.exists()


def test_fresh_that_cannot_remove_says_so(tmp_path):
    fresh = Places(tmp_path, tmp_path, fresh=True)
    (tmp_path / "one" / "quick-seed0.npz").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="--fresh cannot remove .*quick-seed0.npz: Is a directory"):
        fresh.checkpoint("one", "quick-seed0")
    (tmp_path / "one" / "quick-seed0.npz").rmdir()
    assert fresh.checkpoint("one", "quick-seed0") == tmp_path / "one" / "quick-seed0.npz"


@pytest.mark.parametrize(
    "words, message",
    [
        (["integrator_fidelity", "--preset", "paper", "--releases", ""], "--releases takes full versions"),
        (["table1_mnist", "--model", "mlp", "--data", "somewhere"], "--data goes with full MNIST"),
        (["anode_images", "--folder", "somewhere"], "--folder goes with images from files"),
        (["anode_images", "--model", "linear", "--extra", "3"], "--extra does not go with --model linear"),
        (["figure4_flows", "--seed", str(2**31)], "--seed must be below 2**31"),
        (["figure5_flows", "--seed", str(2**32 + 9)], "--seed must be below 2**31"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(tmp_path, capsys, words, message):
    assert command_line.main(["run", *words, "--out", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]) == 1
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_mistyped_folder_of_records_is_not_made(tmp_path, capsys):
    for command in ("report", "check"):
        assert command_line.main([command, "--out", str(tmp_path / "resluts")]) == 1
    assert capsys.readouterr().err.count("has no folder runs with records") == 2 and not any(tmp_path.iterdir())


GOOD = records.REPOSITORY / "results" / "runs" / NAME / "paper-seed0.json"
BAD = {
    "truncated": lambda record: json.dumps(record)[:1000],
    "not UTF-8": lambda record: b"\xff\xfe",
    "foreign": lambda record: json.dumps([record]),
    "another's": lambda record: json.dumps({"name": "package", "version": "1.0.0"}),
    "wrongly typed": lambda record: json.dumps({**record, "seed": "0"}),
    "without its commit": lambda record: json.dumps({name: part for name, part in record.items() if name != "git_commit"}),
    "wrong metrics": lambda record: json.dumps({**record, "metrics": {**record["metrics"], "error_rate": "high"}}),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_a_bad_record_is_named_and_left_out_of_the_report(tmp_path, capsys, kind):
    record = json.loads(GOOD.read_text(encoding="utf-8"))
    folder = tmp_path / "runs" / NAME
    folder.mkdir(parents=True)
    content = BAD[kind](record)
    (folder / "paper-seed1.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "paper-seed2-model=mlp.json").write_text(
        (GOOD.parent / "paper-seed2-model=mlp.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    assert command_line.main(["report", "--out", str(tmp_path)]) == command_line.BAD_RECORDS
    errors = capsys.readouterr().err
    assert "paper-seed1.json" in errors and errors.startswith("left out: ")
    assert "paper-seed2-model=mlp.json" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["figure7_poisson", "figures8to10_latent_ode"])
def test_weights_of_another_model_are_refused_before_the_work(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(figure7_poisson, "fit_alone", _fail)
    others = records.REPOSITORY / "results" / "weights" / "figure5_flows-paper-seed0.npz"
    training.save_weights(tmp_path / "shapes.npz", {f"{model}_30": {"w": np.ones(2)} for model in table2_latent_ode.MODELS})
    for path in (others, tmp_path / "shapes.npz"):
        words = ["run", name, "--weights", str(path), "--out", str(tmp_path / "out"), "--checkpoints", str(tmp_path / "out")]
        assert command_line.main(words) == 1
        assert f"{name}: ValueError: {path} does not hold weights of latent_ode_30" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_record_says_in_which_sessions_its_numbers_were_computed(tmp_path, monkeypatch):
    computed = records.computed
    settings, places = table1_mnist.RunSettings(), Places(tmp_path, tmp_path / "checkpoints")
    checkpoint = places.checkpoint(NAME, settings.stem)
    checkpoint.parent.mkdir(parents=True)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setattr(computed, "commit", lambda: "a" * 40)
    training.save_checkpoint(checkpoint, {})
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    monkeypatch.setattr(computed, "commit", lambda: "b" * 40)
    written = records.record_run(NAME, settings, places, configuration={}, metrics={}, history=[], wall_seconds=1.0)
    (session,) = written["computed"]
    assert session["commit"] == "a" * 40 and session["environment"]["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert written["git_commit"] == "b" * 40 and written["environment"]["TF_ENABLE_ONEDNN_OPTS"] == "1"
    assert any("openblas" in name and count >= 1 for name, count in written["threads"].items())
