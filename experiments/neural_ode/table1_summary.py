"""What Table 1's records come to: its table, and the figure of a training."""

from ..harness import plotting
from ..harness.tables import markdown_table

LABELS = {"odenet": "ODE-Net", "resnet": "ResNet", "rknet": "RK-Net", "mlp": "MLP"}
CROP_PADDING = 4  # pixels, where the preset does not say otherwise


def table(experiment, found):
    """Errors of every network and seed on the test set and, below, those that settings left on held-out training images."""
    runs = [
        (record["configuration"], record["seed"], record["metrics"])
        for _, record in found
        if record["experiment"] == experiment and record["preset"] == "paper"
    ]
    runs.sort(key=lambda run: (list(LABELS).index(run[0]["model"]), run[0]["epochs"], run[1]))
    tested = [
        [
            LABELS[configuration["model"]] + (", deskewed digits" if configuration.get("deskewed") else ""),
            solver(configuration),
            configuration["epochs"],
            seed,
            f"{metrics['errors']:.0f}",
            _error_rate(metrics),
            _evaluations(metrics),
            f"{metrics['training_seconds'] / 60:.0f}",
        ]
        for configuration, seed, metrics in runs
        if not configuration["validation"]
    ]
    compared = [
        [
            LABELS[configuration["model"]],
            configuration["epochs"],
            configuration.get("crop_padding", CROP_PADDING),
            f"{configuration.get('weight_decay', 0):g}",
            f"{metrics['errors']:.0f}",
            _error_rate(metrics),
        ]
        for configuration, _, metrics in runs
        if configuration["validation"]
    ]
    return "\n\n".join(
        filter(
            None,
            (
                markdown_table(
                    [
                        "network",
                        "solver",
                        "epochs",
                        "seed",
                        "errors",
                        "error rate (95 % interval)",
                        "evaluations of a step, forward and backward",
                        "training, minutes",
                    ],
                    tested,
                ),
                markdown_table(
                    [
                        "settings compared",
                        "epochs",
                        "crops after padding by",
                        "weight decay",
                        "errors on held-out training images",
                        "error rate (95 % interval)",
                    ],
                    compared,
                ),
            ),
        )
    )


def _error_rate(metrics):
    return "{:.2f} % ({:.2f} to {:.2f})".format(
        *(100 * metrics[name] for name in ("error_rate", "error_rate_95_low", "error_rate_95_high"))
    )


def _evaluations(metrics):
    return ", ".join(f"{metrics[name]:.1f}" for name in ("nfe_forward", "nfe_backward") if name in metrics)


def draw(history, configuration, path):
    """Loss and error over training, and with an ODE its evaluations (the ODE-Net's are the paper's Figure 3d)."""
    epochs = [epoch["epoch"] for epoch in history]
    with_ode = "nfe_forward" in history[0]["train"]
    figure, panels = plotting.subplots(1, 3 if with_ode else 2, figsize=(11 if with_ode else 7.4, 3.2))
    left, middle = panels[:2]
    left.plot(epochs, [epoch["train"]["loss"] for epoch in history], "o-", label="training")
    left.plot(epochs, [epoch["evaluation"]["loss"] for epoch in history], "s--", label="held out")
    left.set(ylabel="cross-entropy (nats)", ylim=(0, None))
    left.legend(frameon=False)
    middle.plot(epochs, [100 * epoch["evaluation"]["error_rate"] for epoch in history], "s--", color="C1")
    middle.set(ylabel="error on held-out images (%)", ylim=(0, None))
    if with_ode:
        _draw_evaluations(history, epochs, panels[2])
    for axes in panels:
        axes.set_xlabel("epoch")
        plotting.whole_numbers(axes.xaxis)
    parts = [f"{LABELS[configuration['model']]} on {configuration['data']}", solver(configuration)]
    figure.suptitle(", ".join(filter(None, parts)))
    plotting.save(figure, path)


def solver(configuration):
    """The solver of a record's configuration, in words; none for a network without an ODE."""
    return {
        "odenet": f"{configuration.get('method')} at {configuration.get('tolerance', 0):g}",
        "rknet": f"{configuration.get('steps')} steps of {configuration.get('method')}",
    }.get(configuration["model"], "")


def _draw_evaluations(history, epochs, axes):
    axes.plot(epochs, [epoch["train"]["nfe_forward"] for epoch in history], "o-", color="C2", label="forward")
    axes.plot(epochs, [epoch["train"]["nfe_backward"] for epoch in history], "s--", color="C3", label="backward")
    most = max(epoch["train"][f"nfe_{way}"] for epoch in history for way in ("forward", "backward"))
    axes.set(ylabel="evaluations a training step", ylim=(0, 1.2 * most))
    axes.legend(frameon=False)
