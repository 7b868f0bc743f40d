"""The comparison of SciPy releases: verdicts, gaps, the probe under the running Python, record, tables and figure."""

import json
import math
import sys

import pytest
import scipy

from experiments import Places, command_line
from experiments.fidelity import integrator_fidelity as fidelity
from experiments.fidelity import matrix, scipy_releases
from experiments.fidelity.fidelity_probe import SOLVERS
from experiments.harness import environments

ONE = {"solver": "lsoda", "problem": "A3", "tolerance": 1e-3, "outputs": 1}
FORTRAN, C = {"vode": "fortran", "lsoda": "fortran", "dop": "fortran"}, {"vode": "c", "lsoda": "c", "dop": "c"}


def cell(evaluations=10, steps=5, success=True, state=(1.0, -2.0), **task):
    return {
        **ONE,
        **task,
        "evaluations": evaluations,
        "steps": steps,
        "success": success,
        "state": " ".join(number.hex() for number in state),
    }


def made_up_record(cells, gaps=(), compared_with="this run"):
    reference = {matrix.key(one): one for one in cells.get(matrix.REFERENCE, [])}
    history = matrix.compare(cells, reference)
    releases = {release: {"integrators": C if release.startswith("1.17") else FORTRAN} for release in cells}
    return {
        "history": history,
        "metrics": matrix.metrics(history, dict(gaps)),
        "configuration": {
            "reference": matrix.REFERENCE,
            "compared_with": compared_with,
            "releases": releases,
            "gaps": dict(gaps),
        },
    }


@pytest.mark.parametrize(
    "changed, verdict",
    [
        ({}, "same"),
        ({"state": (1.0, math.nextafter(-2.0, 0.0))}, "equal counts"),
        ({"state": (1.0, 2.0)}, "equal counts"),
        ({"evaluations": 11}, "differs"),
        ({"steps": 4}, "differs"),
        ({"success": False}, "differs"),
        ({"evaluations": 11, "state": (1.0, 0.0)}, "differs"),
    ],
)
def test_verdict(changed, verdict):
    assert matrix.judge(cell(**changed), cell())["verdict"] == verdict


def test_without_a_reference_nothing_is_judged():
    assert matrix.judge(cell(), None)["verdict"] == "not compared"


def test_one_bit_counts_and_is_measured():
    judged = matrix.judge(cell(state=(1.0, math.nextafter(-2.0, 0.0))), cell())
    assert judged["relative_difference"] == 2.0**-53
    assert "relative_difference" not in matrix.judge(cell(), cell())


def test_metrics_table_and_list_point_at_what_differs():
    cells = {
        "1.16.3": [cell(), cell(problem="B1"), cell(solver="dop853")],
        "1.17.1": [cell(), cell(problem="B1", state=(1.0, -2.5)), cell(solver="dop853", evaluations=12)],
    }
    record = made_up_record(cells)
    assert record["metrics"] == {
        "solves": 3,
        "releases": 2,
        "gaps": 0,
        "cells": 6,
        "cells_same_as_1.16/1.16.3": 3,
        "cells_equal_counts/1.16.3": 0,
        "cells_differing/1.16.3": 0,
        "cells_same_as_1.16/1.17.1": 1,
        "cells_equal_counts/1.17.1": 1,
        "cells_differing/1.17.1": 1,
    }
    header, _, lsoda, dop853 = matrix.markdown_table(record).splitlines()
    assert "1.16.3 (Fortran)" in header and "1.17.1 (C)" in header
    assert "2 solves" in lsoda and "1 equal counts (to 2e-01), 1 same" in lsoda
    assert "**1 differ**" in dop853
    listed = matrix.differences_table(record).splitlines()[2:]
    assert [line.split()[:3] for line in listed] == [["1.17.1", "dop853", "A3"], ["1.17.1", "lsoda", "B1"]]
    assert "10 -> 12" in listed[0]


def test_figure_with_all_kinds_of_cells(tmp_path):
    cells = {"1.16.3": [cell(), cell(solver="dop853")], "1.17.1": [cell(state=(1.0, 2.0)), cell(solver="dop853", steps=1)]}
    matrix.draw(made_up_record(cells, gaps={"1.1.0": "no Python 3.6"}), tmp_path / "figures" / "matrix.png")
    assert (tmp_path / "figures" / "matrix.png").stat().st_size > 5000


def test_releases_that_cannot_be_had_are_named_gaps(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NEURAL_ODE_REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(environments, "find_python", lambda version: sys.executable if version == "3.11" else None)
    commands = []

    def refuse(command, **options):
        commands.append(command)
        if "pip" in command:
            raise environments.Gap("ERROR: No matching distribution found for scipy==1.16.99")

    monkeypatch.setattr(environments, "call", refuse)
    out = tmp_path / "out"
    status = command_line.main(
        ["run", "integrator_fidelity", "--preset", "paper", "--out", str(out), "--releases", "1.1.0,1.16.99,7.0.0"]
    )
    assert not status
    (path,) = (out / "runs" / "integrator_fidelity").iterdir()
    record = json.loads(path.read_text())
    gaps = record["configuration"]["gaps"]
    assert "no Python 3.6" in gaps["1.1.0"]
    assert "No matching distribution" in gaps["1.16.99"]
    assert "7.0" in gaps["7.0.0"]
    assert record["metrics"]["gaps"] == 3 and record["metrics"]["cells"] == 0
    assert any("scipy==1.16.99" in command for command in commands)
    assert "SciPy 1.1.0 was not measured: no Python 3.6" in capsys.readouterr().out
    assert len(list((out / "figures").glob("*.png"))) == 1


def test_a_failing_command_is_a_gap_without_addresses():
    script = "import sys; print('ERROR: nothing at https://example.org/simple/scipy', file=sys.stderr); sys.exit(1)"
    with pytest.raises(environments.Gap, match=r"nothing at \(address\)"):
        environments.call([sys.executable, "-c", script])


def test_environment_is_made_once_and_again_if_it_was_left_half_made(tmp_path, monkeypatch):
    monkeypatch.setenv("NEURAL_ODE_REPRO_CACHE", str(tmp_path))
    monkeypatch.setattr(environments, "find_python", lambda version: "a-python")
    calls = []

    def pretend(command, **options):
        calls.append(command)
        if "venv" in command:
            (tmp_path / "environments" / "scipy-1.16.3-numpy-2.4.6").mkdir(parents=True)
        elif len(calls) == 2:
            raise environments.Gap("interrupted")

    monkeypatch.setattr(environments, "call", pretend)
    with pytest.raises(environments.Gap):
        scipy_releases.environment("1.16.3")
    python = scipy_releases.environment("1.16.3")
    assert len(calls) == 4
    assert scipy_releases.environment("1.16.3") == python and len(calls) == 4
    assert python.parts[-4:] == ("environments", "scipy-1.16.3-numpy-2.4.6", "bin", "python")


def test_find_python():
    running = "%d.%d" % sys.version_info[:2]
    assert environments.find_python(running) == sys.executable
    assert environments.find_python("3.999") is None


def test_probe_under_the_running_python():
    tasks = [{"solver": solver, "problem": "A3", "tolerance": 1e-6, "outputs": 2} for solver in SOLVERS]
    answer = scipy_releases.probe(sys.executable, {"problems": fidelity.problems(), "tasks": tasks})
    assert answer["scipy"] == scipy.__version__
    for one in answer["cells"]:
        (state,) = map(float.fromhex, one["state"].split())
        assert one["success"] and one["evaluations"] > one["steps"] > 10
        assert state == pytest.approx(math.exp(math.sin(20.0)), rel=1e-3)
    assert scipy_releases.probe(sys.executable, {"problems": fidelity.problems(), "tasks": tasks}) == answer


def test_quick_preset_compares_the_running_scipy_with_the_committed_record(tmp_path, capsys):
    assert not command_line.main(["run", "integrator_fidelity", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "runs" / "integrator_fidelity" / "quick-seed0.json").read_text())
    assert list(record["configuration"]["releases"]) == [scipy.__version__]
    assert record["configuration"]["compared_with"] == "the committed record"
    assert record["metrics"]["solves"] == len(fidelity.tasks()) == record["metrics"]["cells"]
    # The mathematical library of another machine may round sin and cos otherwise; counts stay.
    assert record["metrics"][f"cells_differing/{scipy.__version__}"] == 0
    assert (tmp_path / "figures" / "integrator_fidelity-quick-seed0.png").exists()


@pytest.mark.parametrize("preset, releases", [("quick", "1.16.3"), ("paper", "1.16"), ("paper", "1.16.3,,1.1.0")])
def test_releases_that_make_no_sense(preset, releases, tmp_path):
    with pytest.raises(ValueError, match="--releases"):
        fidelity.run(fidelity.RunSettings(preset=preset, releases=releases), Places(out=tmp_path))


def test_committed_record_holds_the_finding():
    record = json.loads(fidelity.COMMITTED.read_text())
    metrics, table = record["metrics"], matrix.markdown_table(record)
    for release in record["configuration"]["releases"]:
        fortran = set(record["configuration"]["releases"][release]["integrators"].values()) == {"fortran"}
        assert (metrics[f"cells_same_as_1.16/{release}"] == metrics["solves"]) == fortran
        assert release in table
    different = {row["solver"] for row in record["history"] if row["releases"]["1.17.1"]["verdict"] == "differs"}
    assert different == {"vode-bdf-newton", "dopri5", "dop853"}
    for row in record["history"]:
        if row["solver"] == "dopri5":
            assert row["releases"]["1.17.1"]["verdict"] == ("same" if row["outputs"] == 1 else "differs")
    assert fidelity.COMMITTED.stat().st_size < 300_000
