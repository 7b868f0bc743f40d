"""Figure 4 drawn: each target, the densities of every flow that was fitted to it, and their KL divergences."""

import numpy as np

from original_repro.datasets import energies

from ..harness import plotting

FLOWS = ("nf", "cnf")
LABELS = {"nf": "NF", "cnf": "CNF"}
IMAGE_SIDE, IMAGE_POINTS = 4.0, 100


def image_points():
    """The points of an image of the plane (IMAGE_POINTS^2, 2), row by row, z2 upwards."""
    side = np.linspace(-IMAGE_SIDE, IMAGE_SIDE, IMAGE_POINTS)
    return np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)


def draw(fits, settings, path):
    """The paper's figure: target, densities of every NF and CNF, and KL over K or M."""
    sizes, names = settings["sizes"], energies.NAMES
    columns = 1 + 2 * len(sizes)
    figure, panels = plotting.subplots(
        len(names),
        columns + 1,
        figsize=(1.7 * columns + 3.4, 1.9 * len(names)),
        frames=True,
        squeeze=False,
        gridspec_kw={"width_ratios": [1] * columns + [1.9]},
    )
    z = image_points()
    for row, name in zip(panels, names):
        target = np.exp(-energies.energy(name, *z.T) - energies.log_normaliser(name)).reshape(IMAGE_POINTS, IMAGE_POINTS)
        mine = {(one["flow"], one["size"]): one for one in fits if one["density"] == name}
        shown = [("target", target)] + [
            (f"{LABELS[flow]}, {'K' if flow == 'nf' else 'M'} = {size}", mine[flow, size]["image"])
            for flow in FLOWS
            for size in sizes
        ]
        for axes, (title, image) in zip(row, shown):
            axes.imshow(
                image,
                origin="lower",
                extent=[-IMAGE_SIDE, IMAGE_SIDE] * 2,
                vmin=0,
                vmax=target.max(),
                cmap="viridis",
                interpolation="bilinear",
            )
            axes.set(xticks=[], yticks=[])
            if name == names[0]:
                axes.set_title(title, fontsize=10)
        row[0].set_ylabel(name.upper(), fontsize=11)
        for flow, style in (("nf", "s--"), ("cnf", "o-")):
            row[-1].errorbar(
                sizes,
                [mine[flow, size]["kl"] for size in sizes],
                [2 * mine[flow, size]["kl_se"] for size in sizes],
                fmt=style,
                label=LABELS[flow],
                capsize=2,
            )
        row[-1].set(xscale="log", yscale="log", xticks=sizes, xticklabels=sizes, ylabel="KL(q‖p) (nats)")
        plotting.plain_log(row[-1].yaxis)
        row[-1].minorticks_off()
        row[-1].spines[["top", "right"]].set_visible(False)
    panels[0, -1].legend(frameon=False, fontsize=9)
    panels[-1, -1].set_xlabel("layers K or units M")
    plotting.save(figure, path, dpi=100)
