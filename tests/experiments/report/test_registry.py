"""The registry: entries are checked, records chosen, verdicts made; the committed entries on made-up records."""

import copy
import json
from pathlib import Path

import pytest

from experiments.harness.records import RESULTS
from experiments.report import registry
from experiments.report.registry import NOT_MEASURED, NOT_REPRODUCED, REPRODUCED

ENTRY = {
    "id": "rmse",
    "source": "Table 9",
    "what": "RMSE",
    "value": 0.15,
    "unit": "",
    "measured_by": {"experiment": "fits", "preset": "paper", "options": {}, "configuration": {"noise": 0.1}},
    "rule": {"name": "at_most", "parameters": {"metric": "rmse"}},
}


def made_up(rmse=0.1, preset="paper", seed=0, experiment="fits", options="", date="2026-01-01", **configuration):
    record = {
        "experiment": experiment,
        "preset": preset,
        "seed": seed,
        "configuration": {"noise": 0.1, **configuration},
        "metrics": {"rmse": rmse},
        "history": [],
        "date": date,
    }
    return Path(f"runs/{experiment}/{preset}-seed{seed}{options}.json"), record


def judge(*found, entry=ENTRY):
    return registry.judge(entry, list(found))


def test_no_verdict_without_a_record():
    verdict = judge()
    assert verdict.verdict == NOT_MEASURED and verdict.finding is None and not verdict.records


@pytest.mark.parametrize("rmse, expected", [(0.1, REPRODUCED), (0.2, NOT_REPRODUCED)])
def test_a_record_decides(rmse, expected):
    verdict = judge(made_up(rmse))
    assert verdict.verdict == expected and verdict.finding.measured == rmse and len(verdict.records) == 1


def test_seeds_are_averaged_though_their_configurations_name_the_seed():
    verdict = judge(*(made_up(rmse, seed=seed, weights=f"seed{seed}.npz") for seed, rmse in enumerate((0.1, 0.1, 0.22))))
    assert verdict.verdict == REPRODUCED and len(verdict.records) == 3 and verdict.finding.measured == pytest.approx(0.14)
    assert verdict.seeds == 3


def test_a_run_of_several_seeds_says_so():
    assert judge(made_up(repetitions=20)).seeds == 20


@pytest.mark.parametrize(
    "found, reason",
    [(made_up(preset="quick"), "quick preset"), (made_up(noise=0.3), "another configuration: noise 0.3 where 0.1 is asked for")],
)
def test_what_was_measured_otherwise_does_not_count_and_is_named(found, reason):
    verdict = judge(found)
    assert verdict.verdict == NOT_MEASURED and verdict.set_aside == [(found[0], reason)]
    assert registry.unused([found], [verdict]) == [(found[0], reason)]


def test_runs_with_other_options_are_not_asked_for():
    found = made_up(options="-epochs=2")
    verdict = judge(found)
    assert verdict.verdict == NOT_MEASURED and not verdict.set_aside
    assert registry.unused([found], [verdict]) == [(found[0], "run with options that no entry asks for")]
    entry = copy.deepcopy(ENTRY)
    entry["measured_by"]["options"] = {"epochs": 2}
    assert judge(found, entry=entry).verdict == REPRODUCED
    assert registry.command(entry) == "python -m experiments run fits --preset paper --epochs 2"


def test_records_of_several_configurations_are_not_averaged_the_newest_counts():
    old, new = made_up(0.1, epochs=5), made_up(0.2, seed=1, epochs=10, date="2026-01-02")
    verdict = judge(old, new)
    assert verdict.verdict == NOT_REPRODUCED and verdict.records == [new[0]]
    assert verdict.set_aside == [(old[0], "an older configuration")]


def test_a_training_that_failed_does_not_count():
    path, record = made_up()
    record["metrics"]["failed"] = {"after_records": 3, "kind": "solve", "reason": "step size underflow"}
    verdict = judge((path, record))
    assert verdict.verdict == NOT_MEASURED and verdict.set_aside == [(path, "its training failed after 3 records")]
    record["metrics"]["failed"] = 2  # trainings of many, whose failures are counted
    assert judge((path, record)).verdict == REPRODUCED


def test_a_record_without_the_metric_is_named_not_judged():
    found = made_up(None)
    verdict = judge(found)
    assert verdict.verdict == NOT_MEASURED and verdict.set_aside == [(found[0], "no metric rmse")]


def test_quick_records_are_for_show_only():
    verdict = judge(made_up(0.01, preset="quick", noise=0.5))
    assert verdict.verdict == NOT_MEASURED and verdict.quick.measured == 0.01 and not verdict.records
    assert judge(made_up(0.01, preset="quick"), made_up(0.2)).quick is None


def test_another_experiment_is_not_the_registrys():
    found = made_up(experiment="bench")
    assert not registry.unused([found], [judge(found)])


def test_seeds_looked_at_before_the_rule_do_not_count():
    entry = {**ENTRY, "from_seed": 3}
    old, new = made_up(0.1), made_up(0.2, seed=3)
    verdict = judge(old, new, entry=entry)
    assert verdict.verdict == NOT_REPRODUCED and verdict.records == [new[0]]
    assert verdict.set_aside == [(old[0], "seed 0 was looked at before the rule was written; seeds from 3 count")]
    assert registry.command(entry) == "python -m experiments run fits --preset paper --seed 3"


def compared(errors, others):
    """An entry that compares two networks, judged on runs with so many errors; None: there is no such run."""
    asked = {"experiment": "fits", "preset": "paper", "configuration": {}}
    entry = {
        **ENTRY,
        "value": None,
        "reported": "as good",
        "measured_by": {**asked, "options": {}},
        "against": {**asked, "options": {"model": "resnet"}},
        "rule": {"name": "as_few_errors", "parameters": {}},
    }
    found = []
    for count, options in ((errors, ""), (others, "-model=resnet")):
        if count is not None:
            path, record = made_up(options=options)
            record["metrics"] = {"errors": count, "examples": 10_000}
            found.append((path, record))
    return judge(*found, entry=entry)


@pytest.mark.parametrize("errors, others, expected", [(45, 40, REPRODUCED), (90, 40, NOT_REPRODUCED), (45, None, NOT_MEASURED)])
def test_a_comparison_needs_both_kinds_of_runs(errors, others, expected):
    verdict = compared(errors, others)
    assert verdict.verdict == expected
    assert len(verdict.records) == (0 if expected == NOT_MEASURED else 2)
    assert registry.kind(verdict.entry) == registry.ORDERING


@pytest.mark.parametrize(
    "change, kind",
    [
        ({}, registry.NUMBER),
        ({"value": None, "reported": "low"}, registry.CLAIM),
        ({"value": None, "rule": {"name": "ordering", "parameters": {}}}, registry.ORDERING),
        ({"rule": {"name": "setting", "parameters": {"key": "tolerance"}}}, registry.LISTED),
        ({"information": True}, registry.LISTED),
    ],
)
def test_what_an_entry_is_counted_as(change, kind):
    assert registry.kind({**ENTRY, **change}) == kind


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rule": {"name": "magic", "parameters": {}}}, "rmse: rule must be one of error_rate, .* got 'magic'"),
        ({"value": None}, "rmse: an entry without a value needs `reported`"),
        ({"colour": "red"}, r"rmse: lacks \[\], unknown \['colour'\]"),
        ({"measured_by": {"experiment": "fits"}}, "rmse: measured_by needs configuration, experiment, options, preset"),
        ({"against": {"experiment": "fits"}}, "rmse: against needs configuration"),
        (
            {"rule": {"name": "as_few_errors", "parameters": {}}},
            "rmse: `against` goes with the rules as_few_errors, .* and no other",
        ),
        ({"id": "other"}, r"ids occur twice: \['other'\]"),
    ],
)
def test_entries_that_make_no_sense(tmp_path, change, message):
    path = tmp_path / "reported.json"
    path.write_text(json.dumps([{**ENTRY, "id": "other"}, {**ENTRY, **change}]))
    with pytest.raises(ValueError, match=message):
        registry.read(path)


def test_an_entry_lacks_a_key(tmp_path):
    path = tmp_path / "reported.json"
    path.write_text(json.dumps([{"id": "rmse"}]))
    with pytest.raises(ValueError, match="rmse: lacks .*'measured_by'"):
        registry.read(path)


# The committed registry on made-up records with the agreed names of metrics, better and worse than the paper's.


def flows(factor):
    metrics = {
        f"kl_{density}_{flow}_{size}{end}": value
        for density in ("u1", "u2", "u3")
        for size in (2, 8, 32)
        for flow, kl in (("nf", 0.3), ("cnf", 0.3 * factor))
        for end, value in (("", kl), ("_se", 0.01))
    }
    return "figure4_flows", "", {"restarts": 3, "annealed": "both"}, metrics, []


def scores(factor):
    metrics = {
        f"gap_{data}{end}": value
        for data in ("two_circles", "two_moons")
        for end, value in (("", 0.003 / factor**4), ("_se", 0.001))
    }
    return "flow_scores", "", {}, metrics, []


def reversals(factor):
    rows = [
        {"part": "reversal", "data": data, "dtype": "float64", "tolerance": 1.5e-8, "max": 1.4e-6 * factor}
        for data in ("two_circles", "two_moons")
    ]
    return "figure5_flows", "", {}, {}, rows


def table2(factor):
    paper = {"rnn": (0.3937, 0.3202, 0.1813), "rnn_dt": (0.39, 0.32, 0.18), "latent_ode": (0.1642, 0.1502, 0.1346)}
    ours = {"rnn": factor, "rnn_dt": factor, "latent_ode": factor**4}
    metrics = {
        f"rmse_{model}_{size}_noisy": ours[model] * rmse
        for model, values in paper.items()
        for size, rmse in zip((30, 50, 100), values)
    }
    metrics |= {
        f"ratio_{size}_noisy": metrics[f"rmse_latent_ode_{size}_noisy"] / metrics[f"rmse_rnn_{size}_noisy"]
        for size in (30, 50, 100)
    }
    configuration = {"noise": 0.12, "tuned": "yes", "rnn_dt_steps": "mean gap"}
    return "table2_latent_ode", "-noise=0.12-tuned=yes", configuration, metrics, []


def poisson(factor):
    return "figure7_poisson", "", {}, {"intensity_relative_l2": 0.19 * factor}, []


def clusters(factor):
    return "latent_checks", "", {}, {"cluster_purity_least": 0.96 / factor}, []


CASES = [
    (flows, {"figure4-order"}),
    (scores, {"figure5-order", "figure5-two-moons"}),
    (reversals, {"section6-reversal-two-circles", "section6-reversal-two-moons"}),
    (
        table2,
        {f"table2-{what}-{size}" for what in ("rnn", "latent-ode", "ratio") for size in (30, 50, 100)} | {"table2-order"},
    ),
    (poisson, {"figure7-intensity"}),
    (clusters, {"figure8c-clusters"}),
]


def made_up_runs(results, factor, seeds=3):
    experiment, options, configuration, metrics, history = results(factor)
    return [
        (
            Path(f"runs/{experiment}/paper-seed{seed}{options}.json"),
            {
                "experiment": experiment,
                "preset": "paper",
                "seed": seed,
                "configuration": configuration,
                "metrics": metrics,
                "history": history,
                "date": "2026-01-01",
            },
        )
        for seed in range(3, 3 + seeds)
    ]


@pytest.mark.parametrize("results, ids", CASES, ids=[case[0].__name__ for case in CASES])
@pytest.mark.parametrize("factor, expected", [(0.97, REPRODUCED), (1.5, NOT_REPRODUCED)])
def test_committed_entries_judge_records_to_come(results, ids, factor, expected):
    found = made_up_runs(results, factor)
    verdicts = {entry["id"]: registry.judge(entry, found).verdict for entry in registry.read() if entry["id"] in ids}
    assert verdicts == dict.fromkeys(ids, expected)


@pytest.mark.parametrize("results", [flows, table2])
def test_two_seeds_are_not_enough(results):
    found = made_up_runs(results, 0.97, seeds=2)
    assert all(registry.judge(entry, found).verdict == NOT_MEASURED for entry in registry.read())


def test_a_latent_ode_too_good_is_not_the_papers_number():
    found = made_up_runs(table2, 0.9)
    verdicts = {entry["id"]: registry.judge(entry, found).verdict for entry in registry.read()}
    assert verdicts["table2-latent-ode-30"] == NOT_REPRODUCED and verdicts["table2-order"] == REPRODUCED


def test_what_is_not_reproduced_has_a_reason():
    verdicts = json.loads((RESULTS / "verdicts.json").read_text())
    missing = [entry["id"] for entry in registry.read() if verdicts[entry["id"]]["verdict"] == NOT_REPRODUCED]
    counted = [entry for entry in registry.read() if entry["id"] in missing and registry.kind(entry) != registry.LISTED]
    assert missing and all("why" in entry for entry in counted)


# As the second paper claims, and the other way around; what is not named is the same in both.
AUGMENTED = {
    "anode_figure3": (
        {"flip_node_squared_error_least": 1.0001, "flip_node_gap_least": 1e-4, "flip_anode_squared_error_last_most": 1e-4}
        | {"identity_node_huber": 1e-5, "flip_node_huber": 0.51, "flip_node_nfe_last": 40, "identity_node_nfe_last": 14},
        {"flip_node_squared_error_least": 0.999, "flip_node_gap_least": -1e-4, "flip_anode_squared_error_last_most": 0.01}
        | {"identity_node_huber": 0.01, "flip_node_huber": 0.4, "flip_node_nfe_last": 20, "identity_node_nfe_last": 20},
    ),
    "anode_figure5": (
        {"reached_spheres1_resnet": 20, "reached_spheres1_node": 0}
        | {f"course_gap_{problem}{d}": gap for problem, gap in (("spheres", 0.3), ("separable", 0.1)) for d in (1, 2)}
        | {f"bend_spheres{d}_{model}": bend for model, bend in (("node", 2.0), ("anode", 1.1)) for d in (1, 2)}
        | {
            f"course_ratio_spheres{d}_node_{other}{end}": value
            for d, other in ((2, "resnet"), (1, "anode"), (2, "anode"))
            for end, value in (("", 2.0), ("_low", 1.5), ("_high", 2.5))
        },
        {"reached_spheres1_resnet": 17, "reached_spheres1_node": 1, "course_gap_separable2": 0.4, "bend_spheres1_anode": 2.1}
        | {f"course_ratio_spheres{d}_node_{other}_low": 0.9 for d, other in ((2, "resnet"), (1, "anode"), (2, "anode"))},
    ),
    "anode_figure6": (
        {"nfe_last_spheres1_node": 36}
        | {
            f"{name}{end}": value
            for name, low, middle, high in (
                ("growth_spheres2_node", 1.5, 1.7, 1.9),
                ("growth_spheres1_anode", 0.98, 1.0, 1.1),
                ("growth_spheres1_node", 1.8, 2.0, 2.2),
                ("growth_ratio_spheres1", 1.8, 2.0, 2.2),
                ("growth_ratio_spheres2", 1.2, 1.4, 1.6),
                ("nfe_equal_loss_ratio_spheres2", 1.2, 1.4, 1.6),
            )
            for end, value in (("_low", low), ("", middle), ("_high", high))
        },
        {"growth_spheres2_node_low": 0.9, "growth_spheres1_anode_high": 1.3, "growth_spheres1_node": 1.2}
        | {"nfe_last_spheres1_node": 60, "growth_ratio_spheres1_low": 0.9, "growth_ratio_spheres2_low": 0.9}
        | {"nfe_equal_loss_ratio_spheres2_low": 0.9},
    ),
    "anode_figure9": ({"gap_node": 0.3, "gap_anode": 0.001}, {"gap_node": 0.01, "gap_anode": 0.2}),
    "anode_propositions": (
        {"gap_least_spheres1_node": 1e-7, "wrong_dense_least_spheres1_node": 0.25, "tunnel_most_spheres2_node": -0.1}
        | {"winding_one_spheres2_node": 10, "tunnel_least_spheres2_anode": 1.9, "det_differences_least_spheres2_node": 1e-6}
        | {"integrated_spheres1_node_0.001": 2, "integrated_spheres2_node_1e-09": 10},
        {"gap_least_spheres1_node": -1e-7, "wrong_dense_least_spheres1_node": 0.0, "tunnel_most_spheres2_node": 0.1}
        | {"winding_one_spheres2_node": 9, "tunnel_least_spheres2_anode": -1, "det_differences_least_spheres2_node": -1e-6}
        | {"integrated_spheres1_node_0.001": 8, "integrated_spheres2_node_1e-09": 9},
    ),
    "anode_weight_decay": (
        {"loss_anode_0": 0.001, "nfe_anode_0": 26, "nfe_node_0": 44, "nfe_anode_decayed_least": 20}
        | {
            f"{name}_node_{decay}": v
            for name, v in (("loss", 0.1), ("nfe", 40))
            for decay in ("1e-05", "0.0001", "0.001", "0.01")
        },
        {"loss_node_0.001": 0.0005, "nfe_node_0.001": 19},
    ),
}


@pytest.mark.parametrize("experiment", AUGMENTED)
def test_claims_of_the_second_paper_are_judged_by_its_metrics(experiment):
    entries = [entry for entry in registry.read() if entry["measured_by"]["experiment"] == experiment]
    good, changes = AUGMENTED[experiment]
    for metrics, verdict in ((good, REPRODUCED), ({**good, **changes}, NOT_REPRODUCED)):
        record = {**made_up(experiment=experiment)[1], "configuration": {}, "metrics": metrics}
        found = [(Path(f"results/runs/{experiment}/paper-seed0.json"), record)]
        assert {entry["id"]: registry.judge(entry, found).verdict for entry in entries} == {e["id"]: verdict for e in entries}


@pytest.mark.parametrize("shift, verdict", [(0.0, REPRODUCED), (-0.02, NOT_REPRODUCED)])
def test_accuracies_of_the_second_paper(shift, verdict):
    entries = [entry for entry in registry.read() if entry["id"].startswith("anode-table1")]
    for entry in entries:
        options = "".join(f"-{name}={value}" for name, value in sorted(entry["measured_by"]["options"].items()))
        record = {**made_up(experiment="anode_images")[1], "configuration": entry["measured_by"]["configuration"]}
        record["metrics"] = {"test_accuracy": entry["value"] + shift}
        found = [(Path(f"results/runs/anode_images/paper-seed0{options}.json"), record)]
        assert registry.judge(entry, found).verdict == verdict
    assert len(entries) == 8
