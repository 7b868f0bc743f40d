"""Do inputs that are hard take more evaluations? Single test images through a trained ODE-Net, and the same in minibatches.

The weights are those that `run table1_mnist` of the same preset and seed left. Each image is solved alone, at the tolerance of
training, and its evaluations are set against three measures of how hard it is: the margin (the greatest logit less the next),
the loss (nats), and the class, as Spearman's rank correlations with intervals of 95 % and as means of each digit. The same images
are solved in batches of 128, each as one ODE (section 6), whose evaluations are those of its hardest part: their mean is set
against the mean of the images alone.
"""

import time

import numpy as np

from original_repro import training
from original_repro.datasets import mnist

from .. import Experiment, Section
from ..harness import records
from ..harness.statistics import rank_correlation
from ..harness.tables import markdown_table
from . import table1_mnist

NAME = "harder_inputs"
TOLERANCE = 1e-3
ENDS = ("", "_low", "_high")
PRESETS = {
    "quick": {"data": "embedded sample", "images": 100, "batch_size": 20},
    "paper": {"data": "full MNIST", "images": 2048, "batch_size": 128},
}


def run(settings, places):
    """Measure, write and return the record. FileNotFoundError where there are no weights."""
    begun, preset = time.perf_counter(), PRESETS[settings.preset]
    path = table1_mnist.kept_weights(settings, places)
    images, labels = table1_mnist.load_test_images(preset["data"], None)
    chosen = np.random.default_rng(settings.seed).permutation(len(labels))[: preset["images"]]
    rows, batched = measure(training.load_weights(path), images[chosen], labels[chosen], preset["batch_size"])
    return records.record_run(
        NAME,
        settings,
        places,
        configuration={**preset, "method": "adams", "tolerance": TOLERANCE, "weights": path.name},
        metrics=metrics(rows, batched),
        history=by_digit(rows),
        wall_seconds=time.perf_counter() - begun,
    )


def measure(params, images, labels, batch_size):
    """({"nfe", "margin", "loss", "digit", "right"}: arrays over the images solved alone, evaluations of each minibatch)."""
    from original_repro import supervised
    from solvers_bridge import odeint, record_solves

    channels = params["stem"]["conv1"]["weight"].shape[-1]
    net = supervised.OdeNet(mnist.FORMAT, "adams", TOLERANCE, TOLERANCE, groups=channels // 2)

    def logits(batch):
        z0 = net.stem(params["stem"], batch)
        with record_solves() as solves:
            z1 = odeint(net.dynamics, z0, [0.0, 1.0], params["dynamics"], **net.solver)[-1]
        return supervised.head(params["head"], z1.astype(np.float32), groups=channels // 2).numpy(), solves[0].nfe

    found = [logits(images[i : i + 1]) for i in range(len(images))]
    answers, nfe = np.concatenate([one for one, _ in found]).astype(np.float64), np.array([count for _, count in found])
    ordered = np.sort(answers, axis=1)
    of_truth = answers[np.arange(len(labels)), labels]
    rows = {
        "nfe": nfe,
        "margin": ordered[:, -1] - ordered[:, -2],
        "loss": np.logaddexp.reduce(answers, axis=1) - of_truth,
        "digit": np.asarray(labels),
        "right": answers.argmax(1) == labels,
    }
    starts = range(0, len(images) - batch_size + 1, batch_size)
    return rows, [logits(images[start : start + batch_size])[1] for start in starts]


def metrics(rows, batched):
    """Rank correlations with intervals, evaluations alone and in minibatches."""
    found = {}
    for measure in ("margin", "loss"):
        rho, low, high = rank_correlation(rows["nfe"], rows[measure])
        found |= {f"spearman_nfe_{measure}": rho, f"spearman_nfe_{measure}_low": low, f"spearman_nfe_{measure}_high": high}
    means = [rows["nfe"][rows["digit"] == digit].mean() for digit in np.unique(rows["digit"])]
    wrong = rows["nfe"][~rows["right"]]
    return {
        **found,
        "nfe_single": float(rows["nfe"].mean()),
        "nfe_single_deviation": float(rows["nfe"].std(ddof=1)),
        "nfe_single_least": int(rows["nfe"].min()),
        "nfe_single_greatest": int(rows["nfe"].max()),
        "nfe_minibatch": float(np.mean(batched)),
        "minibatch_over_single": float(np.mean(batched) / rows["nfe"].mean()),
        "nfe_of_digits_spread": float(max(means) / min(means)),
        "wrong_answers": len(wrong),
        "nfe_wrong_answers": float(wrong.mean()) if len(wrong) else None,
    }


def by_digit(rows):
    """A row for each digit: images, mean evaluations with standard deviation, mean margin and loss."""
    return [
        {
            "digit": int(digit),
            "images": int(mine.sum()),
            "nfe": float(rows["nfe"][mine].mean()),
            "nfe_deviation": float(rows["nfe"][mine].std()),
            "margin": float(rows["margin"][mine].mean()),
            "loss": float(rows["loss"][mine].mean()),
        }
        for digit in np.unique(rows["digit"])
        for mine in [rows["digit"] == digit]
    ]


def table(found):
    """Correlations, and evaluations of each digit, in Markdown."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    metrics = record["metrics"]
    correlations = [
        [f"evaluations and {name}", "{:.3f} ({:.3f} to {:.3f})".format(*(metrics[f"spearman_nfe_{name}{end}"] for end in ENDS))]
        for name in ("margin", "loss")
    ]
    alone, batched = (f"{metrics[name]:.1f}" for name in ("nfe_single", "nfe_minibatch"))
    correlations += [["mean evaluations of an image alone", alone], ["mean evaluations of a minibatch", batched]]
    digits = [
        [
            row["digit"],
            row["images"],
            f"{row['nfe']:.1f} ± {row['nfe_deviation']:.1f}",
            f"{row['margin']:.1f}",
            f"{row['loss']:.4f}",
        ]
        for row in record["history"]
    ]
    heads = ["digit", "images", "evaluations alone", "mean margin", "mean loss, nats"]
    return "\n\n".join(
        [markdown_table(["of single test images", "(95 % interval)"], correlations), markdown_table(heads, digits)]
    )


EXPERIMENT = Experiment(
    name=NAME,
    source="Section 3 and 6",
    shows="evaluations of single images against how hard they are, and of minibatches",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    takes={"quick": "20 s"},
    in_all=False,  # What it checks are the trained networks of the paper preset.
    needs=table1_mnist.NAME,
    section=Section("Inputs that are hard, and minibatches", table),
)
