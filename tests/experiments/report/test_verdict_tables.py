"""What a finished run prints of the verdict table."""

from pathlib import Path

from experiments.report import registry, verdict_tables


def found(stem, preset, errors):
    path = Path(f"runs/table1_mnist/{stem}.json")
    configuration = {"model": "odenet", "validation": 0, "crops": True, "data": "full MNIST", "epochs": 10}
    return path, {
        "experiment": "table1_mnist",
        "preset": preset,
        "seed": 0,
        "configuration": {**configuration, "method": "adams", "tolerance": 1e-3},
        "metrics": {"errors": errors, "examples": 10_000},
        "history": [],
        "date": "2026-01-01",
    }


def lines(path, record):
    verdicts = [registry.judge(entry, [(path, record)]) for entry in registry.read()]
    return verdict_tables.lines_of(verdicts, path, record)


def test_the_lines_are_those_of_the_entries_that_ask_for_the_record():
    text = lines(*found("paper-seed0", "paper", 100))
    (row,) = (line for line in text.splitlines() if "ODE-Net, test error" in line)
    assert "0.42 %" in row and "1.00 % (0.82 % to 1.21 %)" in row and row.rstrip().endswith("not reproduced")
    assert "ResNet, test error" not in text


def test_a_run_that_no_entry_asks_for_says_so():
    assert "measured by this run" in lines(*found("paper-seed0-epochs=2", "paper", 100))
