"""Figure 5 drawn: densities and samples on their way from the base to the data, and an animation of the samples."""

import tempfile
from pathlib import Path

from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.colors import PowerNorm

from original_repro.atomic_writes import write_atomically
from original_repro.datasets import circles_and_moons

from ..harness import plotting

LABELS = {"nf": "NF", "cnf": "CNF", "two_circles": "Two Circles", "two_moons": "Two Moons"}
SHOWN = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the way from the base to the data
IMAGE_SIDE = 2.5


def draw(drawn, true, metrics, path):
    """The paper's figure: for each data set a row of the CNF's densities, one of its samples, one of densities after NF layers.

    drawn: {(data, kind): as of `figure5_flows._to_draw`}; true: {data: image of its density}. All images have one colour scale,
    whose colours go with the square root of the density, so that the wide base and the narrow data both are seen.
    """
    columns = len(SHOWN) + 1
    figure, panels = plotting.subplots(6, columns, figsize=(1.6 * columns + 0.8, 10.2), frames=True)
    colours = PowerNorm(0.5, vmin=0, vmax=max(image.max() for image in true.values()))
    for data, (densities, samples, layers) in zip(circles_and_moons.NAMES, (panels[:3], panels[3:])):
        cnf, nf = drawn[data, "cnf"], drawn[data, "nf"]
        for axes, image in [*zip(densities, [*cnf["images"], true[data]]), *zip(layers, nf["images"])]:
            shown = axes.imshow(
                image,
                origin="lower",
                extent=[-IMAGE_SIDE, IMAGE_SIDE] * 2,
                cmap="viridis",
                norm=colours,
                interpolation="bilinear",
            )
        for axes, points in zip([*samples, layers[-1]], [*cnf["samples"], cnf["test"], *nf["samples"]]):
            axes.plot(*points[:1500].T, ",", color="C0")
            axes.set(xlim=(-IMAGE_SIDE, IMAGE_SIDE), ylim=(-IMAGE_SIDE, IMAGE_SIDE), aspect="equal")
        for axes, what in ((densities[0], "CNF\ndensity"), (samples[0], "CNF\nsamples"), (layers[0], "NF\ndensity")):
            axes.set_ylabel(f"{LABELS[data]}, {what}")
        for axes, title in zip(densities, [f"{100 * share:.0f} %" for share in SHOWN] + ["data"]):
            axes.set_title(title, fontsize=10)
        for axes, kind in ((densities[-2], "cnf"), (densities[-1], "true")):
            axes.set_xlabel(f"{metrics[f'log_likelihood_{data}_{kind}']:.3f} nats", fontsize=9)
        for axes, count in zip(layers, nf["layers"]):
            axes.set_xlabel(f"{count} layer{'s' if count > 1 else ''}", fontsize=9)
        layers[-2].set_xlabel(f"{nf['layers'][-1]} layers, {metrics[f'log_likelihood_{data}_nf']:.3f} nats", fontsize=9)
        layers[-1].set_xlabel("the NF's samples", fontsize=9)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    figure.colorbar(
        shown, ax=panels.ravel().tolist(), label="density, one scale for all panels", extend="max", aspect=60, pad=0.01
    )
    plotting.save(figure, path, dpi=100)


def animate(drawn, path):
    """Noise turning into data: samples of both CNFs over time."""
    figure, panels = plotting.subplots(1, 2, figsize=(6.4, 3.5), frames=True)
    paths = [drawn[data, "cnf"]["paths"] for data in circles_and_moons.NAMES]
    points = [axes.plot([], [], ".", markersize=1.5, color="C0")[0] for axes in panels]
    for axes, data in zip(panels, circles_and_moons.NAMES):
        axes.set(
            xlim=(-IMAGE_SIDE, IMAGE_SIDE),
            ylim=(-IMAGE_SIDE, IMAGE_SIDE),
            aspect="equal",
            xticks=[],
            yticks=[],
            title=LABELS[data],
        )
    frames = len(paths[0])
    caption = figure.supxlabel("0 % of the way from the base to the data", fontsize=10)

    def show(frame):
        frame = min(frame, frames - 1)
        for line, path_points in zip(points, paths):
            line.set_data(*path_points[frame].T)
        caption.set_text(f"{100 * frame / (frames - 1):.0f} % of the way from the base to the data")

    # The last frame stays for a second.
    # Matplotlib writes animations to a path only.
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        FuncAnimation(figure, show, frames + 12).save(made, PillowWriter(fps=12), dpi=80)
        write_atomically(path, made.read_bytes())
