"""The comparison with other libraries: one text of each problem, the workers' protocol, refusal, the table, the quick preset."""

import json
import sys

import numpy as np
import pytest

from experiments import command_line
from experiments.comparison import modern_comparison
from experiments.comparison.modern import client, library, measure, names, outcomes, problems, references, winners
from experiments.comparison.modern.operations import of_numpy
from experiments.comparison.modern.references import error, reference
from experiments.harness import environments, right_hand_sides


def test_the_layer_and_the_flow_are_those_of_the_paper():
    ops = of_numpy(np)
    for name, model in (("layer", problems.layer()), ("flow", problems.flow())):
        problem = problems.PROBLEMS[name].make()
        ours = model.dynamics.func(0.3, model.problem.y0, model.params).numpy()
        assert error([model.problem.f(ops, 0.3, problem.y0, *problem.params)], [ours]) < 1e-4


@pytest.fixture(autouse=True)
def quick_references(monkeypatch):
    monkeypatch.setattr(references, "TOLERANCE", 1e-8)


@pytest.fixture
def contraction(tmp_path):
    path = str(tmp_path / "problem.npz")
    library.write_problem(path, problems.PROBLEMS["contraction"].make())
    return path


def test_a_library_answers_in_a_process_of_its_own(contraction, tmp_path):
    problem, answer = library.read_problem(contraction), str(tmp_path / "answer.npz")
    assert problem.f is right_hand_sides.relaxation
    order = {"method": "Radau", "rtol": 1e-6, "atol": 1e-6, "answer": answer}
    one = client.Client("SciPy", sys.executable)
    try:
        assert set(one.about()["versions"]) == {"scipy", "numpy"}
        assert one.ask("open", problem=contraction) == {}
        found = one.ask("first", 30.0, **order)
        assert found["counts"]["forward"] > 20 and found["warnings"] == []
        with np.load(answer) as file:
            right = reference(problem, "stiff")
            assert error([file["states"]], [right.states]) < 1e-4 and "y0_bar" not in file
        wall, cpu = one.ask("time", method="Radau", rtol=1e-6)["forward"]
        assert 0 < cpu and 0 < wall
        assert one.ask("peak")["peak_mib"] > 20
        assert "ValueError" in one.ask("first", **{**order, "method": "none"})["raised"]
        assert one.ask("first", 0.01, **{**order, "method": "RK45", "rtol": 1e-12, "atol": 1e-12}) == {"late": True}
        one.process.kill()
        with pytest.raises(client.Ended):
            one.ask("peak")
        assert one.ask("peak")["peak_mib"] > 20 and one.number == 2
    finally:
        one.close()


def test_other_dynamics_are_refused():
    right = np.array([1.0, 2.0])
    measure.check_dynamics("a library", "small", right * (1 + 1e-8), right)
    for wrong in (right * (1 + 1e-5), right * np.nan):
        with pytest.raises(measure.DynamicsDiffer, match="a library solves another problem than small"):
            measure.check_dynamics("a library", "small", wrong, right)


def test_a_library_with_other_dynamics_stops_the_run(monkeypatch, contraction):
    other = client.Client("SciPy", sys.executable)
    make = problems.PROBLEMS["contraction"].make
    stiffer = problems.PROBLEMS["contraction"]._replace(
        make=lambda: (found := make())._replace(params=(found.params[0] * 1.001,))
    )
    monkeypatch.setitem(problems.PROBLEMS, "contraction", stiffer)
    # It is handed the file of the problem as it was.
    monkeypatch.setattr(measure, "write_problem", lambda path, problem: library.write_problem(path, make()))
    limits = {**modern_comparison.LIMITS, "tolerances": [1e-3], "memory": {}}
    try:
        with pytest.raises(measure.DynamicsDiffer, match="SciPy"):
            measure.measure({"SciPy": other}, limits, "contraction")
    finally:
        other.close()


def test_after_a_late_answer_the_points_before_it_are_solved_and_timed_in_a_new_process(monkeypatch):
    one = client.Client("SciPy", sys.executable)
    one.known = {**one.about(), "compiled": True}
    ask = one.ask

    def late_once(question, seconds=None, **order):
        if (question, order.get("method"), one.number) == ("first", "BDF", 1):
            return {"late": True}
        return ask(question, seconds, **order)

    monkeypatch.setattr(one, "ask", late_once)
    limits = {**modern_comparison.LIMITS, "rounds": 1, "tolerances": [1e-3], "memory": {}}
    try:
        rows = measure.measure({"SciPy": one}, limits, "contraction")[0]
    finally:
        one.close()
    late = [row["method"] for row in rows if row["outcome"] == outcomes.LATE]
    timed = [row["method"] for row in rows if "first_pass" in row and "second_pass" in row]
    assert late == ["BDF"] and one.number == 2 and timed == ["LSODA", "Radau"]


def point(library, gradient_error, seconds, outcome=outcomes.RIGHT, again=1.0, problem="small", rtol=1e-4):
    about = {"part": "point", "problem": problem, "library": library, "method": "m", "rtol": rtol}
    timed = {
        turn: {"gradient": {"cpu": factor * seconds, "wall": 1.0}}
        for turn, factor in (("first_pass", 1.0), ("second_pass", again))
    }
    return {**about, "outcome": outcome, "gradient_error": gradient_error, **timed}


def test_winners_are_the_fastest_that_are_right_enough():
    rows = [
        point("a", 1e-3, 0.1),
        point("b", 1e-5, 0.4),
        point("solvers_bridge, native", 1e-7, 0.8),
        point("autograd's odeint", 1e-5, 40.0),
        {**point("c", 0.5, 0.01, outcomes.SILENT), "solution_error": 1e-3},
        {**point("c", 0.5, 0.01, outcomes.SILENT), "solution_error": 0.2},
        {**point("d", None, 0.01), "first_pass": {}},
        {**point("e", None, 0.0, outcomes.RAISED), "reason": "ValueError: too many steps in /home/one/lib.py"},
    ]
    about = {"small": {"states": 1e-12, "gradient": 3e-8}}
    found = {row["accuracy"]: row for row in winners.winners(rows, about)}
    assert {accuracy: row["winner"]["library"] for accuracy, row in found.items()} == {
        1e-2: "a",
        1e-4: "b",
        1e-6: "solvers_bridge, native",
    }
    measured = winners.metrics(rows, about)
    assert measured["ours_over_winner/small/0.01"] == pytest.approx(8.0)
    assert measured["original_over_winner/small/0.0001"] == pytest.approx(100.0)
    assert measured["wins/a"] == 1 and measured["wrong_in_silence/c"] == 2 and measured["gradient_alone_wrong_in_silence/c"] == 1
    assert measured["share_in_band"] == 1.0
    configuration = {
        "references": about,
        "words": {"small": "a network"},
        "not_measured": {"f": "no wheel"},
        "left_out": {"flow": "a flow"},
        "band": {"factor": 1.5, "share": 0.9},
    }
    made = {
        "experiment": "modern_comparison",
        "metrics": {**measured, "share_in_band": 0.8},
        "history": rows,
        "configuration": configuration,
    }
    text = modern_comparison.table([(None, made)])
    row = next(line for line in text.splitlines() if "0.0001" in line and "b: m" in line)
    assert "400 ms" in row and "2 (solvers_bridge, native" in row and "100 (autograd's odeint" in row
    assert any(line.replace(" ", "") == "|e:m|small|ValueError|1|" for line in text.splitlines())
    assert "80 % of the times" in text and "the 90 % stated before are not met." in text
    assert "not in this preset's grid: a flow." in text
    assert "f was not measured: no wheel." in text


def test_reasons_name_no_folder():
    row = modern_comparison._without_paths({"reason": 'E: File "/home/one/lib.py", line 3: 1/2 steps'})
    assert row["reason"] == 'E: File "(path)", line 3: 1/2 steps'


def test_ratios_of_the_second_pass_leave_out_what_all_share():
    slower = [point("a", 1e-5, 0.1, again=3.0), point("b", 1e-5, 0.2, again=3.0), point("c", 1e-5, 0.3, again=12.0)]
    assert sorted(winners.ratios(slower)) == pytest.approx([1.0, 1.0, 4.0])
    assert winners.metrics(slower, {})["share_in_band"] == pytest.approx(2 / 3)


def test_outcomes():
    assert outcomes.judge(1e-3, None, []) == outcomes.RIGHT
    assert outcomes.judge(1e-3, 0.5, []) == outcomes.SILENT
    assert outcomes.judge(np.inf, 0.5, ["GradientWarning"]) == outcomes.SAID


def test_the_quick_preset_takes_what_is_installed_and_names_what_is_not(monkeypatch, tmp_path):
    kept = {name: names.LIBRARIES[name] for name in ("SciPy", "autograd's odeint")}
    absent = names.Entry("of_absent", "Absent", ("no_such_package",), ("no-such-package==1",))
    for module in (client, measure):
        monkeypatch.setattr(module, "LIBRARIES", {**kept, "an absent one": absent})
    monkeypatch.setitem(modern_comparison.PRESETS["quick"], "problems", ["contraction"])
    assert not command_line.main(
        ["run", "modern_comparison", "--out", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    )
    record = json.loads((tmp_path / "runs" / "modern_comparison" / "quick-seed0.json").read_text())
    assert record["configuration"]["not_measured"] == {"an absent one": "not installed here: no_such_package"}
    assert {row["library"] for row in record["history"]} == set(kept)
    assert record["metrics"]["right/SciPy"] == 3
    own = next(row for row in record["history"] if row["library"] == "autograd's odeint")
    # y' = -100 (y - cos t) backwards from 1 to 0 loses y: the paper's own stack says nothing of it, or does not come back.
    assert own["outcome"] != outcomes.RIGHT
    assert len(list((tmp_path / "figures").glob("modern_comparison-quick-seed0-*.png"))) == 2


def test_an_environment_that_cannot_be_made_is_a_gap(monkeypatch):
    def refuse(*arguments):
        raise environments.Gap("ERROR: No matching distribution found")

    monkeypatch.setattr(environments, "environment", refuse)
    with measure.clients(make=True) as (found, gaps):
        assert "solvers_bridge, native" in found and "No matching" in gaps["torchode"]
        assert set(found) | set(gaps) == set(names.LIBRARIES)
