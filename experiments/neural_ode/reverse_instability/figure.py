"""The figure of reverse_instability: errors over the rate of contraction, a panel a way."""

from ...harness import plotting

TITLES = {
    "solve": "solved backwards (the paper's)",
    "checkpoints_backwards": "solved backwards from checkpoints",
    "checkpoints": "re-integrated from checkpoints",
    "interpolate": "forward interpolant",
    "auto": "auto (default)",
    "discrete": "through the steps taken",
    "torchdiffeq": "torchdiffeq's adjoint",
}
# Where a gradient that was not returned is drawn, and the least and greatest error that are shown.
NOT_RETURNED, LEAST, GREATEST = 1e6, 1e-12, 1e4


def draw(record, path):
    """A panel for each way of the record, in their order; errors outside the axes are drawn at their edge."""
    rows = [row for row in record["history"] if row["part"] == "gradient" and row["problem"] == "relaxation"]
    ways = list(dict.fromkeys(row["way"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    columns = 4
    lines = -(-len(ways) // columns)
    figure, axes = plotting.subplots(lines, columns, figsize=(13, 3.3 * lines), sharex=True, sharey=True, squeeze=False)
    for one, way in zip(axes.flat, ways, strict=False):
        for number, method in enumerate(methods):
            # A little apart, since many lie on each other.
            points = [(row["value"] * 1.04**number, row) for row in rows if (row["way"], row["method"]) == (way, method)]
            given = [(x, min(max(row["error"], LEAST), GREATEST)) for x, row in points if row.get("error") is not None]
            missing = [x for x, row in points if row.get("error") is None]
            style = {"color": f"C{number}", "markersize": 4}
            one.plot(*zip(*given, strict=True), "o-", label=method, linewidth=1, **style) if given else None
            one.plot(missing, [NOT_RETURNED] * len(missing), "x", **style)
        one.axhline(1e-4, color="grey", linestyle=":", linewidth=1)
        one.set_title(TITLES[way], fontsize=10)
        one.set(xscale="log", yscale="log", ylim=(LEAST / 3, NOT_RETURNED * 10))
    for one in axes.flat[len(ways) :]:
        one.set_visible(False)
    for one in axes[:, 0]:
        one.set_ylabel("relative error of the gradient")
    for one in axes[-1]:
        one.set_xlabel("contraction λT")
    handles, labels = max((one.get_legend_handles_labels() for one in axes.flat), key=lambda found: len(found[1]))
    figure.legend(handles, labels, loc="outside right upper", fontsize=9)
    plotting.save(figure, path)
