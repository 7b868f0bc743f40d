"""The figures of Table 2: errors over observations and training, and over the noise."""

import numpy as np

from ..harness import plotting

LABELS = {"rnn": "RNN", "rnn_dt": "RNN with time gaps", "latent_ode": "latent ODE"}


def draw(metrics, history, numbers, noise, path):
    """RMSE over observations, and validation RMSE over training."""
    figure, panels = plotting.subplots(1, 3, figsize=(12, 3.6), width_ratios=(1, 1, 1.2))
    for axes, kind in zip(panels, ("noisy", "clean")):
        for i, (model, label) in enumerate(LABELS.items()):
            axes.plot(
                range(len(numbers)), [metrics[f"rmse_{model}_{points}_{kind}"] for points in numbers], "os^"[i] + "-", label=label
            )
        axes.set(
            xlabel="observations of 100",
            ylabel=f"RMSE against {kind} targets",
            ylim=(0, None),
            xticks=range(len(numbers)),
            xticklabels=numbers,
        )
        axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
    panels[0].axhline(noise, color="grey", linestyle=":", linewidth=1)
    panels[0].annotate("noise", (0, noise), xytext=(0, 3), textcoords="offset points", fontsize=8, color="grey")
    panels[0].legend(frameon=False, fontsize=8)
    for i, model in enumerate(LABELS):
        for points, style in zip(numbers, (":", "--", "-")):
            fitted = next(one for one in history if (one["model"], one["points"]) == (model, points))
            panels[2].plot(
                [epoch["iteration"] for epoch in fitted["history"]],
                [epoch["evaluation"]["rmse"] for epoch in fitted["history"]],
                style,
                color=f"C{i}",
                label=f"{points} observations" if i == 0 else None,
            )
    panels[2].set(xlabel="iterations", ylabel="validation RMSE (noisy)", ylim=(0, None))
    panels[2].legend(frameon=False, fontsize=8)
    figure.suptitle(f"Spirals with noise {noise:g}, 100 further time points")
    plotting.save(figure, path)


def draw_over_noise(levels, numbers, reported, path):
    """RMSE over noise, a panel for each number of observations: means over seeds, bars a standard deviation.

    levels: {noise: records}; reported: the paper's values by the ids of results/reported.json.
    """
    noises = list(levels)
    figure, panels = plotting.subplots(1, len(numbers), figsize=(4 * len(numbers), 3.6), sharey=True)
    for axes, points in zip(np.atleast_1d(panels), numbers):
        for i, (model, label) in enumerate((("rnn", "RNN"), ("latent_ode", "latent ODE"))):
            for kind, style in (("noisy", "o-"), ("clean", "o--")):
                values = [[record["metrics"][f"rmse_{model}_{points}_{kind}"] for record in group] for group in levels.values()]
                axes.errorbar(
                    noises,
                    [np.mean(group) for group in values],
                    capsize=2,
                    color=f"C{i}",
                    markersize=4,
                    fmt=style,
                    yerr=[np.std(group, ddof=1) if len(group) > 1 else 0 for group in values],
                    label=f"{label}, {kind} targets",
                )
        axes.plot([0, max(noises)], [0, max(noises)], color="grey", linestyle=":", linewidth=1, label="the noise itself")
        value = reported.get(f"table2-latent-ode-{points}")
        if value is not None:
            axes.axhline(value, color="C1", linewidth=0.8, alpha=0.6)
            axes.annotate(
                "latent ODE in the paper",
                (max(noises), value),
                xytext=(0, 2),
                textcoords="offset points",
                fontsize=7,
                ha="right",
                color="C1",
            )
        axes.set(title=f"{points} of 100 observations", xlabel="noise, standard deviation", xlim=(0, None), ylim=(0, None))
    np.atleast_1d(panels)[0].set_ylabel("RMSE at 100 further times")
    np.atleast_1d(panels)[0].legend(frameon=False, fontsize=7)
    plotting.save(figure, path)
