"""The report: verdicts and tables from records, blocks between markers, what is committed."""

import json
import shutil
from pathlib import Path

import pytest

from experiments import Experiment, Places, Section
from experiments.command_line import REPORTED
from experiments.harness import records
from experiments.neural_ode import table1_mnist
from experiments.report import page, registry, verdict_tables, write

PAPER = {
    "model": "odenet",
    "validation": 0,
    "crops": True,
    "data": "full MNIST",
    "epochs": 10,
    "method": "adams",
    "tolerance": 1e-3,
}
QUICK = {**PAPER, "crops": False, "data": "embedded sample", "goals": {"f": 2.0}}


def make_record(out, experiment="table1_mnist", stem="quick-seed0", history=(), configuration=QUICK, **metrics):
    if "errors" in metrics:
        metrics |= table1_mnist.error_metrics(metrics, metrics["examples"]) | {"training_seconds": 1500.0}
    records.write_record(
        Places(out).record(experiment, stem),
        experiment=experiment,
        preset=stem.split("-")[0],
        seed=int(stem.split("-")[1].removeprefix("seed")),
        command="python -m experiments",
        configuration=configuration,
        metrics=metrics,
        history=list(history),
        wall_seconds=61.0,
    )


def written(out):
    markdown, _ = write.write(out, REPORTED)
    return markdown.read_text()


def row(text, what):
    (found,) = (line for line in text.splitlines() if what in line and line.startswith("|"))
    return found


def test_a_reported_number_stands_beside_what_was_measured(tmp_path):
    make_record(tmp_path, stem="paper-seed0", configuration=PAPER, errors=45, examples=10_000, parameters=208266)
    text = written(tmp_path)
    error = row(text, "ODE-Net, test error")
    assert (
        "| 0.42 %" in error and "| 0.45 % (0.34 % to 0.60 %); reported rate inside; 1 seed" in error and "| reproduced" in error
    )
    assert "[table1_mnist/paper-seed0](runs/table1_mnist/paper-seed0.json)" in error and "TensorFlow" in error
    assert "`python -m experiments run table1_mnist --preset paper`" in error and "`error_rate`" in error
    assert "208,266; -5.3%" in row(text, "ODE-Net, parameters")
    assert "| not measured" in row(text, "ResNet, test error")


def test_seeds_stand_as_mean_deviation_and_interval(tmp_path):
    for seed, errors in enumerate((40, 50, 60)):
        make_record(tmp_path, stem=f"paper-seed{seed}", configuration=PAPER, errors=errors, examples=10_000, parameters=208266)
    assert "0.50 % ± 0.10 % (0.38 % to 0.66 %); reported rate inside; 3 seeds" in row(written(tmp_path), "ODE-Net, test error")


def test_what_is_not_reproduced_comes_first(tmp_path):
    make_record(tmp_path, stem="paper-seed0", configuration=PAPER, errors=100, examples=10_000, parameters=208266)
    text = written(tmp_path)
    places = [text.index(part) for part in ("## Not reproduced", "test error on MNIST", "## Reproduced", "## Not measured")]
    assert places == sorted(places)
    assert "**not reproduced**" in row(text, "ODE-Net, test error")
    assert " numbers: 1 reproduced, 1 not, " in text.split("##")[0]


def test_quick_records_are_shown_as_such_and_decide_nothing(tmp_path):
    make_record(tmp_path, errors=20, examples=1000, parameters=208266)
    text = written(tmp_path)
    error = row(text, "ODE-Net, test error")
    assert "2.00 %" in error and "(quick, not a paper-preset measurement)" in error and "| not measured" in error
    assert "| quick preset" in text.split("## Records that no verdict uses")[1]
    assert "## Not reproduced" not in text and "## Reproduced" not in text


def test_a_record_of_another_configuration_is_named_and_does_not_count(tmp_path):
    make_record(tmp_path, stem="paper-seed0", configuration={**PAPER, "validation": 500}, errors=45, examples=10_000)
    text = written(tmp_path)
    assert "| not measured" in row(text, "ODE-Net, test error") and "0.45 %" not in text.partition("## Table 1: networks")[0]
    assert "another configuration: validation 500 where 0 is asked for" in text


def test_the_short_table_has_the_headlines_and_counts_the_rest(tmp_path):
    make_record(tmp_path, stem="paper-seed0", configuration=PAPER, errors=100, examples=10_000, parameters=100)
    table = verdict_tables.short_table(registry.judge_all(tmp_path))
    assert "**not reproduced**" in row(table, "ODE-Net, test error") and "ODE-Net, parameters" not in table
    assert " numbers: 0 reproduced, 2 not, " in table and "results/README.md" in table


def test_settings_that_were_typed_are_listed_and_not_counted(tmp_path):
    make_record(tmp_path, stem="paper-seed0", configuration=PAPER, errors=45, examples=10_000, parameters=208266)
    text = written(tmp_path)
    listed = text.partition("## Listed, not counted")[2].partition("\n## ")[0]
    assert "Tolerance for classification" in listed and text.count("Tolerance for classification") == 1
    entries = [entry for entry in registry.read() if registry.paper(entry) == registry.FIRST]
    kinds = (registry.NUMBER, registry.CLAIM, registry.ORDERING)
    counts = [sum(registry.kind(entry) == kind for entry in entries) for kind in kinds]
    assert f"{len(entries) - sum(counts)} more entries" in text.split("##")[0]
    for count, words in zip(counts, ("numbers", "claims", "orderings")):
        assert f"{count} {words}: " in text.split("##")[0]


def test_the_second_paper_has_counts_and_verdicts_of_its_own(tmp_path):
    make_record(tmp_path, stem="paper-seed0", experiment="anode_figure9", gap_node=0.2, gap_anode=0.3)
    text = written(tmp_path)
    of_first, _, rest = text.partition("\n## Augmented Neural ODEs\n")
    of_second = rest.partition("\n## ")[0]
    assert "Augmented, Figure 9" not in of_first and "Figure 9: Share of spirals" not in of_second
    assert "orderings: 0 reproduced, 1 not" in of_second and "### Not reproduced" in of_second
    assert "## Not reproduced" not in of_first
    blocks = write.marked_blocks([], registry.judge_all(tmp_path), [])
    assert "**not reproduced**" in row(
        blocks["docs/augmented.md"]["verdicts"], "Figure 9: Loss on the slice less training loss, ANODE,"
    )
    assert "Augmented, Figure 9" in blocks["README.md"]["reported"]


def test_experiments_may_share_a_page():
    experiments = [
        Experiment(name=name, source="", shows="", run=None, section=Section(name, lambda _, name=name: name), page="docs/a.md")
        for name in ("one", "other")
    ]
    assert write.marked_blocks([], [], experiments)["docs/a.md"] == {"one": "one", "other": "other"}


def test_the_networks_stand_by_seed_and_their_settings_by_validation(tmp_path):
    for seed, errors in enumerate((40, 50)):
        make_record(
            tmp_path,
            stem=f"paper-seed{seed}",
            configuration=PAPER,
            errors=errors,
            examples=10_000,
            nfe_forward=24.25,
            nfe_backward=22.0,
            parameters=208266,
        )
    resnet = {**PAPER, "model": "resnet", "validation": 5_000}
    make_record(tmp_path, stem="paper-seed0-validation=5000", configuration=resnet, errors=60, examples=5_000)
    other = {**resnet, "crop_padding": 1, "weight_decay": 1e-3, "epochs": 30}
    make_record(tmp_path, stem="paper-seed0-other", configuration=other, errors=45, examples=5_000)
    make_record(tmp_path, errors=20, examples=1000)
    section = written(tmp_path).partition("## Table 1: networks on MNIST")[2]
    tested, compared = section.partition("| settings compared")[::2]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in (tested + compared).splitlines()
        if line.startswith(("| ODE-Net  ", "| ResNet  "))
    ]
    assert rows == [
        ["ODE-Net", "adams at 0.001", "10", "0", "40", "0.40 % (0.29 to 0.54)", "24.2, 22.0", "25"],
        ["ODE-Net", "adams at 0.001", "10", "1", "50", "0.50 % (0.38 to 0.66)", "24.2, 22.0", "25"],
        ["ResNet", "10", "4", "0", "60", "1.20 % (0.93 to 1.54)"],
        ["ResNet", "30", "1", "0.001", "45", "0.90 % (0.67 to 1.20)"],
    ]


def test_superseded_test_errors_are_disclosed(tmp_path):
    make_record(tmp_path, stem="paper-seed0", configuration=PAPER, errors=40, examples=10_000, parameters=208266)
    assert "Superseded" not in written(tmp_path)
    earlier = tmp_path / "superseded" / "table1_mnist" / "paper-seed0-epochs=7.json"
    earlier.parent.mkdir(parents=True)
    record = json.loads((tmp_path / "runs" / "table1_mnist" / "paper-seed0.json").read_text())
    record["configuration"]["epochs"], record["metrics"]["errors"], record["git_commit"] = 7, 45, "0123456789ab"
    earlier.write_text(json.dumps(record))
    section = written(tmp_path).partition("## Superseded test errors")[2]
    assert "superseded/table1_mnist/paper-seed0-epochs=7.json" in section and "| 7 " in section
    assert "45 of 10,000" in section and "012345678 " in section


def test_growth_with_depth_has_its_standard_error(tmp_path):
    lines = {
        f"{model}_{column}": value
        for model in ("resnet", "rknet", "odenet")
        for column, value in {
            "memory_slope_mib": 2.5,
            "memory_slope_error_mib": 0.25,
            "memory_ratio": 1.5,
            "time_slope_seconds": 0.0125,
            "time_slope_error_seconds": None,
            "time_ratio": 4.0,
        }.items()
    }
    points = [{"model": model, "depth": depth} for model in ("resnet", "rknet", "odenet") for depth in (1, 16)]
    make_record(tmp_path, experiment="table1_depth", history=points, **lines)
    table = written(tmp_path)
    assert "1 to 16" in table and "2.50 ± 0.25" in table and "| 12.5 " in table


def test_tables_of_the_flows_the_latent_ode_and_its_restarts(tmp_path):
    make_record(tmp_path, "figure4_flows", kl_u1_nf_2=0.25, kl_u1_nf_2_se=0.01, kl_u1_cnf_2=0.125)
    make_record(tmp_path, "figure5_flows", log_likelihood_two_moons_cnf=-1.5, log_likelihood_two_moons_cnf_se=0.02)
    make_record(tmp_path, "latent_restarts", nfe_backward_fresh=1200, gradient_error_fresh=1e-7, seconds_fresh=2.5)
    numbers = {
        f"{name}_{size}_{kind}": value
        for size in (30, 50, 100)
        for kind in ("noisy", "clean")
        for name, value in (("rmse_rnn", 0.5), ("rmse_rnn_dt", 0.4), ("rmse_latent_ode", 0.2), ("ratio", 0.4))
    }
    for seed in range(2):
        shift = {name: value + 0.1 * seed for name, value in numbers.items()}
        make_record(tmp_path, "table2_latent_ode", f"paper-seed{seed}", configuration={"noise": 0.1}, **shift)
    make_record(tmp_path, "table2_latent_ode", "paper-seed0-noise=0.3", configuration={"noise": 0.3}, **numbers)
    text = written(tmp_path)
    assert "| 0.2500 ± 0.0100" in row(text, "| U1        | NF") and "| 0.1250" in row(text, "| U1        | CNF")
    assert "-1.5000 ± 0.0200" in row(text, "| Two Moons   | CNF")
    assert "1.2e+03" in row(text, "| fresh") and "2.5" in row(text, "| fresh")
    assert row(text, "| 0.1     | ours       | noisy     | latent ODE  ").count("0.2500 ± 0.0707") == 3
    assert row(text, "| 0.3     | ours       | clean     | latent ODE  ").count("0.2000") == 3


def test_bench_rows_show_what_was_measured(tmp_path):
    make_record(tmp_path, experiment="bench", graph_f_ratio=1.375)
    text = written(tmp_path)
    assert "1.38" in text and "fused graph" not in text


def test_blocks_replace_only_what_is_between_their_markers(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("above\n<!-- one: begin -->\nold\n<!-- one: end -->\nbelow\n")
    write.fill_markers(path, {"one": "new"})
    write.fill_markers(path, {"one": "new"})
    assert path.read_text() == "above\n<!-- one: begin -->\nnew\n<!-- one: end -->\nbelow\n"
    with pytest.raises(ValueError, match="no lines <!-- two: begin -->"):
        write.fill_markers(path, {"two": ""})


def test_verdicts_are_written_for_the_committed_results_only(tmp_path):
    make_record(tmp_path, errors=20, examples=1000, parameters=208266)
    markdown, web = write.write(tmp_path, REPORTED)
    assert (markdown, web) == (tmp_path / "README.md", tmp_path / "report.html")
    assert not (tmp_path / "verdicts.json").exists()


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """A copy of the committed results with the report written anew."""
    folder = tmp_path_factory.mktemp("copy") / "results"
    shutil.copytree(records.REPOSITORY / "results", folder)
    write.write(folder, REPORTED)
    return folder


def test_the_committed_report_is_that_of_the_committed_records(again):
    assert (again / "README.md").read_text() == (records.REPOSITORY / "results" / "README.md").read_text(), (
        "results/README.md is out of date: `python -m experiments report` writes it"
    )


def test_the_pages_with_marked_places_are_those_of_the_committed_records(again, tmp_path):
    blocks_of = write.marked_blocks(records.read_records(again), registry.judge_all(again), REPORTED)
    for page_name, blocks in blocks_of.items():
        committed = records.REPOSITORY / page_name
        copy = shutil.copy(committed, tmp_path)
        write.fill_markers(Path(copy), blocks)
        assert Path(copy).read_text() == committed.read_text(), (
            f"{page_name} differs between its markers: `python -m experiments report` fills them"
        )


def test_every_committed_figure_is_in_the_report(again):
    text = (again / "README.md").read_text()
    figures = [path for path in (again / "figures").iterdir() if path.suffix in page.MEDIA]
    assert figures and all(f"](figures/{path.name})" in text for path in figures)
    assert (again / "report.html").read_text().count('src="data:') == len(figures)


def test_numbers_that_are_not_finite_become_null(tmp_path):
    make_record(tmp_path, loss=float("nan"))
    ((_, record),) = records.read_records(tmp_path)
    assert record["metrics"]["loss"] is None
    assert record["versions"]["scipy"] and record["integrators"]["vode"] in ("fortran", "c") and record["host"]["cores"] >= 1
    assert json.loads(Places(tmp_path).record("table1_mnist", "quick-seed0").read_text()) == record
