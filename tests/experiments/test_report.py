"""The report: tables from records, the paper's numbers beside them, blocks between markers."""

import json
import shutil

import pytest

from experiments import records, report


def make_record(out, experiment="table1_mnist", stem="quick-seed0", history=(), **metrics):
    records.write_record(
        records.record_path(out, experiment, stem), experiment=experiment, preset=stem.split("-")[0], seed=0,
        configuration={"model": "odenet", "validation": 0, "data": "embedded sample", "goals": {"f": 2.0}},
        metrics=metrics, history=list(history), wall_seconds=61.0)


def row(text, what):
    (found,) = (line for line in text.splitlines() if what in line)
    return found


def test_a_reported_number_stands_beside_what_was_measured(tmp_path):
    make_record(tmp_path, error_rate=0.0123, parameters=208266)
    text = report.write(tmp_path).read_text()
    error = row(text, "ODE-Net, test error")
    assert "| 0.42 %" in error and "| 1.23 %" in error and "208,266" in row(text, "ODE-Net, parameters")
    assert "not yet measured" not in error and "not yet measured" in row(text, "ResNet, test error")


def test_an_interval_stands_behind_the_value(tmp_path):
    make_record(tmp_path, error_rate=0.0123, error_rate_95_low=0.01, error_rate_95_high=0.015)
    assert "1.23 % (1.00 % to 1.50 %)" in row(report.write(tmp_path).read_text(), "ODE-Net, test error")


def test_a_quick_record_counts_only_where_there_is_none_of_the_paper_preset(tmp_path):
    make_record(tmp_path, error_rate=0.5)
    make_record(tmp_path, stem="paper-seed0", error_rate=0.0123)
    assert "1.23 %" in row(report.write(tmp_path).read_text(), "ODE-Net, test error")


def test_growth_with_depth_has_its_standard_error(tmp_path):
    lines = {f"{model}_{column}": value for model in ("resnet", "rknet", "odenet") for column, value in {
        "memory_slope_mib": 2.5, "memory_slope_error_mib": 0.25, "memory_ratio": 1.5,
        "time_slope_seconds": 0.0125, "time_slope_error_seconds": None, "time_ratio": 4.0}.items()}
    points = [{"model": model, "depth": depth} for model in ("resnet", "rknet", "odenet") for depth in (1, 16)]
    make_record(tmp_path, experiment="table1_depth", history=points, **lines)
    table = report.write(tmp_path).read_text()
    assert "1 to 16" in table and "2.50 ± 0.25" in table and "| 12.5 " in table


def test_a_record_of_another_configuration_does_not_count(tmp_path):
    make_record(tmp_path, error_rate=0.5)
    path = records.record_path(tmp_path, "table1_mnist", "quick-seed0")
    record = json.loads(path.read_text())
    record["configuration"]["validation"] = 500
    path.write_text(json.dumps(record))
    text = report.write(tmp_path).read_text()
    assert "50.00 %" not in text and "not yet measured" in text


def test_bench_rows_show_what_was_measured(tmp_path):
    make_record(tmp_path, experiment="bench", graph_f_ratio=1.375)
    text = report.write(tmp_path).read_text()
    assert "1.38" in text and "fused graph" not in text


def test_blocks_replace_only_what_is_between_their_markers(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("above\n<!-- one: begin -->\nold\n<!-- one: end -->\nbelow\n")
    report.fill_markers(path, {"one": "new"})
    report.fill_markers(path, {"one": "new"})
    assert path.read_text() == "above\n<!-- one: begin -->\nnew\n<!-- one: end -->\nbelow\n"
    with pytest.raises(ValueError, match="no lines <!-- two: begin -->"):
        report.fill_markers(path, {"two": ""})


def test_committed_tables_are_those_of_the_committed_records(tmp_path):
    shutil.copytree(records.REPOSITORY / "results", tmp_path / "results")
    text = report.write(tmp_path / "results").read_text()
    assert text == (records.REPOSITORY / "results" / "README.md").read_text()


def test_numbers_that_are_not_finite_become_null(tmp_path):
    make_record(tmp_path, loss=float("nan"))
    (_, record), = report.read_records(tmp_path)
    assert record["metrics"]["loss"] is None
    assert record["versions"]["scipy"] and record["integrators"]["vode"] in ("fortran", "c") and record["host"]["cores"] >= 1
