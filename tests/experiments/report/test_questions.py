"""Answers are filled from records, follow what those say, and name the command where there is none."""

from pathlib import Path

import numpy as np
import pytest

from experiments.harness.records import REPOSITORY, read_records
from experiments.harness.tables import over_seeds
from experiments.neural_ode import table2_latent_ode
from experiments.report import questions


def found(experiment, stem="paper-seed0", **record):
    preset, seed = stem.split("-")[:2]
    return Path(f"runs/{experiment}/{stem}.json"), {
        "experiment": experiment,
        "preset": preset,
        "seed": int(seed[4:]),
        "configuration": {},
        "metrics": {},
        "history": [],
        **record,
    }


def answer(text, question):
    """The paragraph that answers a question."""
    (paragraph,) = (part for part in text.split("\n\n") if part.startswith(f"**{question}"))
    return paragraph


def test_without_records_every_answer_is_the_command_that_measures_it():
    text = questions.markdown([])
    assert text.lower().count("not measured yet: `python -m experiments") == len(questions.QUESTIONS)


def test_quick_records_settle_nothing():
    _, record = depth(0.1)
    assert "In evaluations" not in questions.markdown(
        [
            found("bench", "quick-seed0"),
            found("table1_depth", "quick-seed0", **{name: record[name] for name in ("history", "configuration", "metrics")}),
        ]
    )


def test_committed_records_answer():
    text = questions.markdown(read_records(REPOSITORY / "results"))
    counts = answer(text, "Why do torchdiffeq's")
    assert "takes 26 evaluations forward and 38 backward" in counts or "Not measured" not in counts
    assert "In evaluations, yes" in answer(text, "Is the adjoint method's memory")
    assert "294,912 unknowns" in answer(text, "How does one use LSODA")
    assert "Those of vode-bdf-newton, dopri5 and dop853, yes" in answer(text, "Do SciPy's new C")


def depth(slope):
    points = [
        {"model": "odenet", "depth": depth, "peak_mib": 1000 + slope * depth + depth % 3, "before_mib": 600.0}
        for depth in (10, 20, 40, 80)
    ]
    return found(
        "table1_depth",
        history=points,
        configuration={"batch_size": 2, "channels": 4},
        metrics={
            "state_mib": 1.0,
            "odenet_memory_constant_mib": 1000.0,
            "rknet_memory_constant_mib": 990.0,
            "rknet_memory_constant_error_mib": 5.0,
        },
    )


@pytest.mark.parametrize("slope, words", [(0.1, "In evaluations, yes: 0.1"), (2.0, "In evaluations, this does not show it: 2.0")])
def test_the_memorys_answer_follows_its_slope(slope, words):
    # Other questions find less in this record, and stay open.
    bench = found(
        "bench",
        "quick-seed0",
        metrics={"memory_evaluations_ratio": 20.0, "memory_ratio": 1.01},
        configuration={"batch": 2, "channels": 4, "tolerance": 1e-3},
    )
    text = questions.markdown([bench, depth(slope)])
    assert words in answer(text, "Is the adjoint method's memory") and "20.0 times as many evaluations take 1.010 times" in text


def test_the_augmented_system_has_as_many_unknowns_as_the_network_says():
    from original_repro import supervised
    from original_repro.datasets.mnist import FORMAT
    from original_repro.training import tree_leaves

    dynamics = supervised.init_odenet(np.random.default_rng(0), FORMAT, channels=8)["dynamics"]
    parameters = sum(leaf.size for leaf in tree_leaves(dynamics))
    assert questions.adjoint_unknowns(3, 8) == 2 * 3 * 36 * 8 + parameters + 1


def fidelity(c_verdicts):
    releases = {release: {"integrators": {"vode": kind}} for release, kind in (("1.16.3", "fortran"), ("1.17.1", "c"))}
    history = [{"solver": solver, "releases": {"1.17.1": {"verdict": verdict}}} for solver, verdict in c_verdicts.items()]
    numbers = {
        name: list(c_verdicts.values()).count(verdict)
        for name, verdict in (
            ("cells_same_as_1.16/1.17.1", "same"),
            ("cells_equal_counts/1.17.1", "equal counts"),
            ("cells_differing/1.17.1", "differs"),
        )
    }
    return found(
        "integrator_fidelity",
        history=history,
        configuration={"reference": "1.16.3", "releases": releases},
        metrics={"solves": len(history), **numbers},
    )


@pytest.mark.parametrize(
    "verdicts, words",
    [
        (
            {"lsoda": "same", "dop853": "differs"},
            "Those of dop853, yes; those of lsoda, at most in last bits. Of 2 solves, compared "
            "with the Fortran of 1.16.3: 1.17.1, 1 the same in every bit, 1 different.",
        ),
        ({"lsoda": "equal counts"}, "No; those of lsoda, at most in last bits."),
    ],
)
def test_the_c_translations_answer_follows_the_matrix(verdicts, words):
    assert words in answer(questions.markdown([fidelity(verdicts)]), "Do SciPy's new C")


def table2(noise, seed=0, preset="paper", options="", **metrics):
    return found("table2_latent_ode", f"{preset}-seed{seed}{options}", configuration={"noise": noise}, metrics=metrics)


def test_records_of_table_2_are_grouped_by_noise_and_runs_with_other_options_left_out():
    records = [
        table2(0.1),
        table2(0.1, seed=1),
        table2(0.3, options="-noise=0.3"),
        table2(0.1, options="-reverse=fresh"),
        table2(0.1, preset="quick"),
    ]
    groups = table2_latent_ode.by_noise(records)
    assert {noise: len(group) for noise, group in groups.items()} == {0.1: 2, 0.3: 1}
    assert {noise: len(group) for noise, group in table2_latent_ode.by_noise(records[-1:]).items()} == {0.1: 1}


def with_errors(noise, *errors):
    return table2(
        noise,
        options="" if noise == 0.1 else f"-noise={noise}",
        **{f"rmse_latent_ode_{size}_noisy": error for size, error in zip(questions.SIZES, errors)},
    )


def test_the_noise_at_which_we_would_have_the_papers_errors_is_interpolated():
    # The paper's 0.1642, 0.1502 and 0.1346.
    records = [with_errors(0.1, 0.1542, 0.1402, 0.1146), with_errors(0.2, 0.2542, 0.2402, 0.2146)]
    assert "the paper's errors are those of noise 0.110, 0.110, 0.120." in questions.markdown(records)
    assert "the paper's errors are those" not in questions.markdown(records[:1])
    assert "the paper's errors are those" not in questions.markdown([records[0], with_errors(0.2, 0.2542, 0.2402, 0.1)])


def test_networks_tuned_alike_have_a_sentence_beside_the_papers_errors():
    metrics = {f"rmse_{model}_{size}_noisy": 0.5 for model in ("latent_ode", "rnn") for size in questions.SIZES}
    tuned = table2(0.12, seed=3, options="-noise=0.12-tuned=yes", **metrics)
    text = questions.markdown([with_errors(0.1, 0.1, 0.1, 0.1), tuned])
    words = (
        "noise 0.12: 0.5000, 0.5000, 0.5000 (RNN: 0.5000, 0.5000, 0.5000); the paper's are 0.1642, 0.1502, 0.1346 (RNN: 0.3937,"
    )
    assert words in answer(text, "What RMSE") and "noise 0.12" not in questions.markdown([with_errors(0.1, 0.1, 0.1, 0.1)])


def test_means_have_a_deviation_from_two_records_on():
    records = [record for _, record in (table2(0.1, rmse=0.1), table2(0.1, rmse=0.2))]
    assert over_seeds(records, "rmse") == "0.1500 ± 0.0707"
    assert over_seeds(records[:1], "rmse") == "0.1000"


def test_the_lsoda_example_solves_300_000_unknowns():
    code = questions.LSODA_EXAMPLE.strip("`").removeprefix("python\n")
    names = {}
    exec(compile(code, "questions.py", "exec"), names)
    assert names["y"].shape == (2, 300_000)
    np.testing.assert_allclose(names["y"][-1], np.exp(-0.5), rtol=1e-2)
    (solve,) = names["solves"]
    assert solve.method == "lsoda" and solve.size == 300_000 and 0 < solve.nfe < 100


def test_half_comes_with_a_looser_reverse_solve():
    history = [
        {"method": method, "factor": factor, "weights": "trained", "batch_size": 8, "ratio": ratio, "gradient_error": 0.05}
        for method, factor, ratio in (("adams", 1.0, 0.9), ("adams", 10.0, 0.4), ("adams", 10.0, 0.5), ("lsoda", 10.0, 0.45))
    ]
    text = questions._looser_reverse_solves([found("figure3c_reverse", configuration={"batch_size": 8}, history=history)])
    assert "0.40 to 0.50 with VODE and 0.45 to 0.45 with LSODA" in text and "off by 5 to 5 %" in text
    assert "not measured yet: `python -m experiments run figure3c_reverse" in questions._looser_reverse_solves([])


def test_what_the_comparison_of_libraries_says_is_counted_from_its_metrics():
    metrics = {
        "points": 40,
        "wins/diffrax": 2,
        "wins/solvers_bridge, native": 1,
        "wins/SciPy": 0,
        "ours_over_winner/small/0.01": 1.0,
        "ours_over_winner/small/1e-06": 3.25,
        "ours_over_winner/large/0.01": 2.5,
        "original_over_winner/small/0.01": 120.0,
        "wrong_in_silence/diffrax": 4,
        "wrong_in_silence/torchode": 5,
        "wrong_said/diffrax": 1,
        "gradients/diffrax": 10,
        "gradients/torchode": 12,
        "gradients/SciPy": 0,
        "gradient_alone_wrong_in_silence/diffrax": 3,
        "gradient_alone_wrong_in_silence/torchode": 2,
        "gradient_alone_wrong_in_silence/SciPy": 0,
    }
    words = {"small": "a network", "large": "a ring"}
    text = questions.markdown([found("modern_comparison", metrics=metrics, configuration={"words": words})])
    fastest = answer(text, "Which library is the fastest")
    assert "Of 3 pairs" in fastest and "diffrax is the fastest in 2, solvers_bridge, native is the fastest in 1." in fastest
    assert "on a network." in fastest and "times the winner's time: a ring (2.5)." in fastest
    assert "reaches 1 of the 3, in 1.2e+02 times the time" in fastest
    silent = answer(text, "Does a library say")
    assert "without a word in 9 (in 4 of them" in silent and "with a warning in 1." in silent
    assert "in silence: diffrax 3 of 10, torchode 2 of 12." in silent
