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


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rule": {"name": "magic", "parameters": {}}}, "rmse: rule must be one of error_rate, .* got 'magic'"),
        ({"value": None}, "rmse: an entry without a value needs `reported`"),
        ({"colour": "red"}, r"rmse: lacks \[\], unknown \['colour'\]"),
        ({"measured_by": {"experiment": "fits"}}, "rmse: measured_by needs configuration, experiment, options, preset"),
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
        f"kl_{density}_{flow}_{size}": kl
        for density in ("u1", "u2", "u3")
        for size in (2, 8, 32)
        for flow, kl in (("nf", 0.3), ("cnf", 0.3 * factor))
    }
    return "figure4_flows", {}, metrics


def likelihoods(factor):
    metrics = {
        f"log_likelihood_{data}_{flow}{end}": value
        for data in ("two_circles", "two_moons")
        for flow, fit in (("nf", -1.5), ("cnf", -1.5 * factor))
        for end, value in (("", fit), ("_se", 0.01))
    }
    metrics |= {f"reversal_error_{data}_max": 9e-4 * factor for data in ("two_circles", "two_moons")}
    return "figure5_flows", {"cnf": {"tolerance": 1e-5 if factor <= 1 else 1e-3}}, metrics


def table2(factor):
    metrics = {
        f"rmse_{model}_{size}_noisy": factor * rmse
        for model, values in (
            ("rnn", (0.39, 0.32, 0.18)),
            ("rnn_dt", (0.39, 0.32, 0.18)),
            ("latent_ode", (0.16 * factor**3, 0.15 * factor**3, 0.13 * factor**3)),
        )
        for size, rmse in zip((30, 50, 100), values)
    }
    metrics |= {
        f"ratio_{size}_noisy": metrics[f"rmse_latent_ode_{size}_noisy"] / metrics[f"rmse_rnn_{size}_noisy"]
        for size in (30, 50, 100)
    }
    return "table2_latent_ode", {"noise": 0.1, "solver": {"tolerance": 1.5e-8 if factor <= 1 else 1e-3}}, metrics


def poisson(factor):
    return "figure7_poisson", {}, {"intensity_relative_l2": 0.19 * factor}


def directions(factor):
    return "figures8to10_latent_ode", {}, {"direction_probe_accuracy": 0.96 / factor}


@pytest.mark.parametrize("results, entries", [(flows, 1), (likelihoods, 5), (table2, 11), (poisson, 1), (directions, 1)])
@pytest.mark.parametrize("factor, expected", [(0.9, REPRODUCED), (1.5, NOT_REPRODUCED)])
def test_committed_entries_judge_records_to_come(results, entries, factor, expected):
    experiment, configuration, metrics = results(factor)
    record = {
        "experiment": experiment,
        "preset": "paper",
        "seed": 0,
        "configuration": configuration,
        "metrics": metrics,
        "history": [],
        "date": "2026-01-01",
    }
    verdicts = [registry.judge(entry, [(Path(f"runs/{experiment}/paper-seed0.json"), record)]) for entry in registry.read()]
    judged = [verdict for verdict in verdicts if verdict.verdict != NOT_MEASURED]
    assert len(judged) == entries
    assert {verdict.verdict for verdict in judged} == {expected}


def test_what_is_not_reproduced_has_a_reason():
    verdicts = json.loads((RESULTS / "verdicts.json").read_text())
    missing = [entry["id"] for entry in registry.read() if verdicts[entry["id"]]["verdict"] == NOT_REPRODUCED]
    assert missing and all("why" in entry for entry in registry.read() if entry["id"] in missing)


def test_other_noise_levels_have_entries_of_their_own():
    _, configuration, metrics = table2(0.9)
    record = {
        "experiment": "table2_latent_ode",
        "preset": "paper",
        "seed": 0,
        "configuration": {**configuration, "noise": 0.2},
        "metrics": metrics,
        "history": [],
        "date": "2026-01-01",
    }
    found = [(Path("runs/table2_latent_ode/paper-seed0-noise=0.2.json"), record)]
    judged = [
        verdict.entry["id"]
        for verdict in (registry.judge(entry, found) for entry in registry.read())
        if verdict.verdict != NOT_MEASURED
    ]
    assert judged == ["table2-order-noise-0.2"]
