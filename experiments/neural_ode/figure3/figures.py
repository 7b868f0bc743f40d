"""Figure 3 drawn: its four panels, and the test error over the tolerance of testing."""

import numpy as np

from ...harness import plotting
from .presets import DEFAULT_METHOD, LABELS
from .summary import of_part

COLOURS = {"adams": "C0", "lsoda": "C1", "dopri5": "C2", "euler": "C3", "rk4": "C4"}
MARKERS = {"adams": "o", "lsoda": "s", "dopri5": "^", "euler": "v", "rk4": "D"}


def draw(record, path):
    """The four panels of Figure 3; (c) in three, by loss and batch, on the same axes."""
    rows, configuration = record["history"], record["configuration"]
    figure, ((a, b, d), c) = plotting.subplots(2, 3, figsize=(13, 7.8))
    _draw_error(a, rows)
    _draw_time(b, rows, record["metrics"])
    _draw_training(d, rows)
    _draw_backward(c, [row for row in of_part(rows, "backward") if row["weights"] == "trained"])
    size = configuration["batch_size"]
    titles = ("(a)", "(b)", "(d)", f"(c) loss a mean over {size} images", f"(c) loss a sum over {size} images", "(c) one image")
    for title, axes in zip(titles, (a, b, d, *c), strict=True):
        axes.set_title(title, loc="left", fontsize=10)
    figure.suptitle(
        f"An ODE-Net trained on {configuration['data']}, {LABELS[configuration['trained_with']['method']]} "
        f"at {configuration['trained_with']['tolerance']:g}; batches of {configuration['batch_size']}"
    )
    plotting.save(figure, path)


def _draw_error(axes, rows):
    for method, series in _by_method(row for row in of_part(rows, "forward") if "error" in row):
        axes.loglog(
            [row["nfe"] for row in series],
            [row["error"] for row in series],
            f"{MARKERS[method]}-",
            color=COLOURS[method],
            markersize=4.5,
            linewidth=1,
            label=LABELS[method],
        )
        for row in series if method == DEFAULT_METHOD else ():
            axes.annotate(
                plotting.power_of_ten(row["tolerance"]),
                (row["nfe"], row["error"]),
                xytext=(-4, -4),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=7,
                color=COLOURS[method],
            )
    for row, style in zip(of_part(rows, "floor"), (":", "-."), strict=True):
        how = {"direct": "direct", "winograd": "Winograd"}[row["convolution"]]
        axes.axhline(row["error"], color="grey", linestyle=style, linewidth=1, label=f"float32, {how} convolutions")
    axes.set(xlabel="evaluations forward", ylabel="relative error of z(1)")
    plotting.plain_log(axes.xaxis, (1, 3))
    axes.margins(x=0.12)
    axes.legend(frameon=False, fontsize=8)


def _draw_time(axes, rows, metrics):
    drawn = []
    for method, series in _by_method(row for row in of_part(rows, "forward") if "error" in row):
        counts, seconds = [row["nfe"] for row in series], [row["seconds"] for row in series]
        slope, r2 = (metrics[f"{name}/{method}"] for name in ("time_ms_per_evaluation", "time_r2"))
        fitted = "" if slope is None else f": {slope:.3g} ms each{'' if r2 is None else f', R² {r2:.3f}'}"
        axes.plot(
            counts,
            seconds,
            f"{MARKERS[method]}-",
            color=COLOURS[method],
            markersize=4.5,
            linewidth=1,
            label=LABELS[method] + fitted,
        )
        drawn += zip(counts, seconds)
    # A guide to the eye, below all points.
    ends = np.array([min(drawn)[0], max(drawn)[0]])
    least = min(second / count for count, second in drawn)
    axes.plot(ends, 0.6 * least * ends, "--", color="grey", linewidth=1, label="proportional")
    axes.set(xscale="log", yscale="log", xlabel="evaluations forward", ylabel="time of the forward solve (s)")
    plotting.plain_log(axes.xaxis, (1, 3))
    plotting.plain_log(axes.yaxis, (1, 3))
    axes.legend(frameon=False, fontsize=8)


def _draw_backward(panels, found):
    """Rows of the part "backward": one panel for a loss that is a mean, one for a sum, one for a batch of one image."""
    parts = (
        [row for row in found if row["batch_size"] > 1 and row["reduction"] == "mean"],
        [row for row in found if row["batch_size"] > 1 and row["reduction"] == "sum"],
        [row for row in found if row["batch_size"] == 1],
    )
    counts = [row["nfe_forward"] for row in found]
    ends = np.array([0.8 * min(counts), 1.25 * max(counts)])
    limits = (0.35 * ends[0], 2.5 * max(row["nfe_backward"] for row in found))
    for axes, rows in zip(panels, parts, strict=True):
        for method, series in _by_method(rows):
            _draw_method_backward(axes, method, series)
        axes.plot(ends, ends, "-", color="grey", linewidth=1)
        axes.plot(ends, ends / 2, "--", color="grey", linewidth=1)
        for share, text in ((1, "as many"), (0.5, "half")):
            axes.annotate(
                text, (ends[1], share * ends[1]), xytext=(3, 0), textcoords="offset points", fontsize=8, color="grey", va="center"
            )
        axes.set(xscale="log", yscale="log", ylim=limits, xlabel="evaluations forward")
        plotting.plain_log(axes.xaxis)
        plotting.plain_log(axes.yaxis)
    panels[0].set_ylabel("evaluations backward (trained weights)")
    panels[0].legend(frameon=False, fontsize=8, loc="upper left")


def _draw_method_backward(axes, method, series):
    """Evaluations of one solver; an arrow upwards where the reverse solve was stopped and had not finished."""
    series = sorted(series, key=lambda row: row["nfe_forward"])
    axes.plot(
        [row["nfe_forward"] for row in series],
        [row["nfe_backward"] for row in series],
        f"{MARKERS[method]}-",
        color=COLOURS[method],
        markersize=5.5,
        linewidth=0.8,
        label=LABELS[method],
    )
    for row in series:
        if not row["finished"]:
            axes.annotate(
                "",
                (row["nfe_forward"], 1.9 * row["nfe_backward"]),
                (row["nfe_forward"], row["nfe_backward"]),
                arrowprops={"arrowstyle": "->", "color": COLOURS[method]},
            )


def _draw_training(axes, rows):
    epochs = of_part(rows, "training")
    for way, style, colour in (("forward", "o-", "C5"), ("backward", "s--", "C6")):
        axes.plot(
            [row["epoch"] for row in epochs],
            [row[f"nfe_{way}"] for row in epochs],
            style,
            color=colour,
            markersize=4.5,
            label=way,
        )
    most = max(row[f"nfe_{way}"] for row in epochs for way in ("forward", "backward"))
    axes.set(xlabel="epoch", ylabel="evaluations a training step", ylim=(0, 1.25 * most))
    plotting.whole_numbers(axes.xaxis)
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def draw_test(record, path):
    """Test error over the tolerance of testing, and over evaluations."""
    rows, configuration = record["history"], record["configuration"]
    trained = configuration["trained_with"]["tolerance"]
    figure, (left, right) = plotting.subplots(1, 2, figsize=(10, 3.9), sharey=True)
    for method, series in _by_method(of_part(rows, "test")):
        percent = [100 * row["error_rate"] for row in series]
        bars = [[100 * abs(row[f"error_rate_95_{end}"] - row["error_rate"]) for row in series] for end in ("low", "high")]
        style = {"color": COLOURS[method], "marker": MARKERS[method], "markersize": 4.5, "linewidth": 1}
        right.plot([row["nfe"] for row in series], percent, label=LABELS[method], **style)
        if "tolerance" in series[0]:
            left.errorbar([row["tolerance"] for row in series], percent, bars, capsize=2, **style)
            for row in series:
                left.annotate(
                    f"{row['nfe']:.3g}",
                    (row["tolerance"], 100 * row["error_rate_95_high"]),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=7,
                )
    left.axvline(trained, color="grey", linestyle=":", linewidth=1)
    left.annotate(
        "trained with",
        (trained, 0.98),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=8,
        color="grey",
        va="top",
    )
    left.set(xscale="log", yscale="log", xlabel="tolerance of testing (above the points: evaluations)", ylabel="test error (%)")
    right.set(xscale="log", xlabel="evaluations of a forward solve")
    plotting.plain_log(left.yaxis, (1, 2, 3, 4, 5, 6, 8))
    plotting.plain_log(right.xaxis)
    right.legend(frameon=False, fontsize=8)
    figure.suptitle(f"Trained with high accuracy, tested with low: {configuration['data']}")
    plotting.save(figure, path)


def _by_method(rows):
    series = {}
    for row in rows:
        series.setdefault(row["method"], []).append(row)
    return series.items()
