"""Answers on Augmented Neural ODEs follow their records."""

from pathlib import Path

import pytest

from experiments.report import augmented_questions
from experiments.report.answers import NotMeasured


def found(experiment, stem="paper-seed0", configuration=None, **metrics):
    record = {"experiment": experiment, "preset": stem.split("-")[0], "configuration": configuration or {}, "metrics": metrics}
    return Path(f"runs/{experiment}/{stem}.json"), record


def images(accuracy, options="", **configuration):
    about = {"data": "mnist_half", "model": "anode", "filters": 64, "extra": 5, "readout": "all", "steps": None, "epochs": 10}
    stem = f"paper-seed0-data=mnist_half-epochs=10{options}"
    return found("anode_images", stem, {**about, **configuration}, test_accuracy=accuracy, failed=None)


def answer(question, records):
    (text,) = (answer(records) for asked, answer in augmented_questions.QUESTIONS if asked.startswith(question))
    return text


def test_accuracies_stand_beside_the_papers_and_sizes_that_are_not_matched_do_not():
    whole = found(
        "anode_images",
        "paper-seed0-model=node",
        {"data": "mnist", "model": "node", "steps": None, "epochs": 8},
        test_accuracy=0.96,
        failed=None,
    )
    text = answer("Are the accuracies", [whole, images(0.97), images(0.5, "-extra=1", extra=1)])
    assert "NODE on MNIST, after 8 epochs: 96.00 %, the paper's 96.4 (1 seed)" in text
    assert "ANODE on MNIST halved to 14 x 14, after 10 epochs: 97.00 % (1 seed)" in text and "50.00" not in text
    failed = found("anode_images", "paper-seed0", whole[1]["configuration"], test_accuracy=0.9, failed={"after_records": 3})
    for waiting in (images(0.97), found("anode_images", "quick-seed0", test_accuracy=0.9), failed):
        with pytest.raises(NotMeasured):
            answer("Are the accuracies", [waiting])


def with_controls(own):
    return [
        images(0.98),
        images(own, "-readout=own", readout="own"),
        images(0.96, "-model=node", model="node", filters=92, extra=0),
        images(0.95, "-filters=64-model=node", model="node", extra=0),
        images(0.92, "-model=linear", model="linear"),
    ]


@pytest.mark.parametrize("own, kept", [(0.975, "75 %"), (0.95, "nothing"), (0.99, "all")])
def test_the_readouts_share_of_the_gap(own, kept):
    assert f"keeps {kept} of the gap" in answer("Is the gap", with_controls(own))


def test_the_gap_needs_every_control():
    with pytest.raises(NotMeasured, match="--model linear"):
        answer("Is the gap", with_controls(0.975)[:-1])


@pytest.mark.parametrize("low, high, says", [(1.1, 1.5, "Yes, on g"), (0.8, 1.2, "Not measurably"), (0.7, 0.9, "No, more")])
def test_evaluations_at_equal_loss_follow_the_interval(low, high, says):
    metrics = {f"nfe_{when}_spheres{d}_{model}": 20 for when in ("first", "last") for d in (1, 2) for model in ("node", "anode")}
    metrics |= {f"growth_ratio_spheres2{end}": 1.5 for end in ("", "_low", "_high")} | {"fitted_spheres1_node": 0}
    metrics |= {"nfe_equal_loss_ratio_spheres2": 1.0, "fitted_spheres2_node": 20}
    metrics |= {"nfe_equal_loss_ratio_spheres2_low": low, "nfe_equal_loss_ratio_spheres2_high": high}
    assert answer("Does augmentation", [found("anode_figure6", configuration={"repetitions": 20}, **metrics)]).startswith(says)
