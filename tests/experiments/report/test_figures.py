"""Figures in the report: which have captions, which are listed, in which order, and from which command they are."""

from pathlib import Path

from experiments import Section
from experiments.harness.records import portable
from experiments.report import figures

SECTION = Section("Figure 9", captions={"": "The fit.", "wide": "The same, wide.", "gif": "The fit moving."})


def record(stem, command):
    return Path("out/runs/fits") / f"{stem}.json", {"command": command}


def markdown(*names, runs=()):
    return figures.markdown([Path("out/figures") / name for name in names], SECTION, list(runs), Path("out"))


def test_the_papers_first_seed_has_captions_in_their_order_and_the_others_are_listed():
    parts = markdown(
        "fits-paper-seed0-wide.png",
        "fits-paper-seed0.gif",
        "fits-paper-seed0.png",
        "fits-paper-seed1.png",
        "fits-paper-seed0-noise=0.05.png",
        "fits-quick-seed0.png",
        runs=[record("paper-seed0", "run it")],
    )
    assert parts[:3] == [
        "![The fit. From run it.](figures/fits-paper-seed0.png)\\\n*The fit. From `run it`.*",
        "![The same, wide. From run it.](figures/fits-paper-seed0-wide.png)\\\n*The same, wide. From `run it`.*",
        "![The fit moving. From run it.](figures/fits-paper-seed0.gif)\\\n*The fit moving. From `run it`.*",
    ]
    assert parts[3] == "Other seeds, options and presets:"
    assert set(parts[4].splitlines()) == {
        f"- [{stem}](figures/{stem}.png)" for stem in ("fits-paper-seed1", "fits-paper-seed0-noise=0.05", "fits-quick-seed0")
    }


def test_where_there_is_no_paper_preset_the_quick_ones_have_captions():
    (one, other) = markdown("fits-quick-seed0.png", "fits-quick-seed0-wide.png")
    assert one.startswith("![The fit.](") and other.startswith("![The same, wide.](")


def test_the_command_is_that_of_the_longest_name():
    runs = [record("paper-seed0", "run"), record("paper-seed0-noise=0.2", "run --noise 0.2")]
    assert figures.caption(Path("figures/fits-paper-seed0-noise=0.2.png"), SECTION, runs).endswith("From `run --noise 0.2`.")
    assert figures.caption(Path("figures/fits-paper-noise.png"), SECTION, runs) == "The fit."


def test_commands_of_the_report_name_no_folder_of_the_machine_that_ran_them():
    command = "run --preset paper --checkpoints '/home/my self/kept' --data mnist --seed 1 --out /tmp/out"
    runs = [record("paper-seed1", command)]
    said = figures.caption(Path("figures/fits-paper-seed1.png"), SECTION, runs)
    assert said.endswith("From `run --preset paper --data mnist --seed 1`.")
    assert portable("run --checkpoints below/here") == "run --checkpoints below/here"


def test_a_figure_without_a_caption_has_its_name():
    assert figures.caption(Path("figures/other-quick-seed0.png"), Section("Other"), []) == "other-quick-seed0"
