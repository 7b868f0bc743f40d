"""What Figure 3's measurements come to: metrics, verdicts on "roughly half", tables."""

import math

from ...harness.records import first
from ...harness.statistics import line_fit
from ...harness.tables import markdown_table as table_of
from .presets import LABELS, NAME

# The paper's "roughly half" is taken as at most the first; at least the second is as many evaluations as forward.
HALF, WHOLE = 0.6, 0.9


def is_half(row):
    """Whether a row of panel (c) bears out "roughly half": a lower bound never does."""
    return row["finished"] and row["ratio"] <= HALF


def is_whole(row):
    """Whether a row of panel (c) has about as many evaluations backward as forward, or more."""
    return row["ratio"] >= WHOLE


CONDITION = ("weights", "batch_size", "method", "reduction")


def verdicts(rows):
    """Where "roughly half" holds: a row for each condition of panel (c) but the tolerance, which is judged over.

    Each has the least and greatest ratio (the greatest is a lower bound where "finished" is false), the tolerances at which the
    ratio is at most HALF and at least WHOLE, and in words whether it holds.
    """
    found = []
    for condition, group in _by_condition(rows).items():
        half, whole = ([row["tolerance"] for row in group if judge(row)] for judge in (is_half, is_whole))
        holds = "holds" if len(half) == len(group) else f"holds at {_tolerances(half)} only" if half else "does not hold"
        found.append(
            {
                "part": "verdict",
                **dict(zip(CONDITION, condition, strict=True)),
                "conditions": len(group),
                "finished": all(row["finished"] for row in group),
                "ratio_least": min(row["ratio"] for row in group),
                "ratio_greatest": max(row["ratio"] for row in group),
                "half_at": half,
                "whole_at": whole,
                "roughly_half": holds,
            }
        )
    return found


def _by_condition(rows):
    groups = {}
    for row in rows:
        if row["part"] == "backward":
            groups.setdefault(tuple(row[name] for name in CONDITION), []).append(row)
    return groups


def _tolerances(values):
    return ", ".join(f"{value:.0e}" for value in values)


def metrics(rows, configuration):
    """Flat numbers of all panels; what has a tolerance is named by it, as ratio/adams/1e-03/mean.

    Of panel (c), names without more are of trained weights and the batch of the configuration.
    """
    flat = {f"float32_floor_{row['convolution']}": row["error"] for row in of_part(rows, "floor")}
    for row in of_part(rows, "reference"):
        flat["reference_difference"] = row["difference"]
    for row in of_part(rows, "forward"):
        if "error" in row:
            flat |= {f"{name}/{row['method']}/{row['tolerance']:.0e}": row[name] for name in ("error", "nfe")}
    for method in configuration["methods"]:
        solved = [row for row in of_part(rows, "forward") if row["method"] == method and "error" in row]
        counts, milliseconds = [row["nfe"] for row in solved], [1e3 * row["seconds"] for row in solved]
        line = line_fit(counts, milliseconds)._asdict() if len(set(counts)) > 1 else {}
        flat |= {
            f"{name}/{method}": line.get(part, math.nan)
            for name, part in (("time_ms_per_evaluation", "slope"), ("time_ms_constant", "constant"), ("time_r2", "r2"))
        }
    backward = of_part(rows, "backward")
    for row in backward:
        usual = row["weights"] == "trained" and row["batch_size"] == configuration["batch_size"]
        name = f"{row['method']}/{row['tolerance']:.0e}/{row['reduction']}"
        if usual:
            flat |= {f"{what}/{name}": row[what] for what in ("nfe_forward", "nfe_backward", "ratio")}
        else:
            flat[f"ratio/{name}/{row['weights']}/batch_{row['batch_size']}"] = row["ratio"]
    flat |= {
        "conditions": len(backward),
        f"conditions_at_most_{HALF}": sum(map(is_half, backward)),
        f"conditions_at_least_{WHOLE}": sum(map(is_whole, backward)),
        "conditions_not_finished": sum(not row["finished"] for row in backward),
    }
    epochs = of_part(rows, "training")
    for when, epoch in (("first", epochs[0]), ("last", epochs[-1])):
        flat |= {f"nfe_{way}_{when}_epoch": epoch[f"nfe_{way}"] for way in ("forward", "backward")}
    return flat | _test_metrics(rows, configuration["trained_with"]["tolerance"])


def _test_metrics(rows, trained_tolerance):
    tests = of_part(rows, "test")
    flat = {f"test_error/{_setting(row)}": row["error_rate"] for row in tests}
    at_training = next((row for row in tests if row.get("tolerance") == trained_tolerance), None)
    if at_training is not None:
        same = loosest_with_same_error(tests, at_training)
        flat |= {
            "test_tolerance_loosest_with_same_error": same["tolerance"],
            "test_evaluations_saved": 1 - same["nfe"] / at_training["nfe"],
        }
    return flat


def loosest_with_same_error(tests, at_training):
    """Of the rows of tests at tolerances: the loosest up to which none has an error above the 95 % interval of `at_training`."""
    looser = [row for row in tests if row.get("tolerance", 0) > at_training["tolerance"]]
    found = at_training
    for row in sorted(looser, key=lambda row: row["tolerance"]):
        if row["error_rate"] > at_training["error_rate_95_high"]:
            break
        found = row
    return found


def _setting(row):
    return f"{row['method']}/{row['tolerance']:.0e}" if "tolerance" in row else f"{row['method']}/steps_{row['grid_steps']}"


def of_part(rows, part):
    """The rows of a part."""
    return [row for row in rows if row["part"] == part]


def markdown_table(record):
    """Panel (c) of a record as Markdown: evaluations forward, backward, and their ratio, by condition; what it comes to below."""
    rows = record["history"]
    found = verdicts(rows)
    tolerances = sorted({row["tolerance"] for row in of_part(rows, "backward")}, reverse=True)
    table = []
    for (condition, group), verdict in zip(_by_condition(rows).items(), found, strict=True):
        weights, batch_size, method, reduction = condition
        cells = {row["tolerance"]: _cell(row) for row in group}
        loss = "one image's" if batch_size == 1 else reduction
        table.append(
            [weights, batch_size, loss, LABELS[method], *(cells.get(value, "") for value in tolerances), verdict["roughly_half"]]
        )
    for row_group in _state_groups(rows):
        cells = {
            row["tolerance"]: f"{row['nfe_backward'] / row['nfe_forward']:.2f}, "
            f"{row['nfe_backward_diluted'] / row['nfe_forward']:.2f}"
            for row in row_group
        }
        first = row_group[0]
        table.append(
            [
                first["weights"],
                first["batch_size"],
                "z(t) alone",
                LABELS[first["method"]],
                *(cells.get(value, "") for value in tolerances),
                f"tolerance x 1, x {first['tolerance_factor']:.2f}",
            ]
        )
    headers = ["weights", "batch", "loss", "solver", *(f"{value:.0e}" for value in tolerances), f"ratio at most {HALF}"]
    return table_of(headers, table) + "\n\n" + sentence(found)


def sentence(found):
    """Verdicts in a sentence."""
    conditions = sum(verdict["conditions"] for verdict in found)
    half = [
        f"{LABELS[verdict['method']]}, {verdict['weights']} weights, batch {verdict['batch_size']}, loss a "
        f"{verdict['reduction']}, at {_tolerances(verdict['half_at'])}"
        for verdict in found
        if verdict["half_at"]
    ]
    whole = sum(len(verdict["whole_at"]) for verdict in found)
    count = sum(len(verdict["half_at"]) for verdict in found)
    return (
        f"Evaluations backward are at most {HALF} of those forward in {count} of {conditions} conditions"
        f"{': ' + '; '.join(half) if half else ''}. They are at least {WHOLE} of them in {whole}."
    )


def _state_groups(rows):
    groups = {}
    for row in (row for row in of_part(rows, "state") if "nfe_backward" in row):
        groups.setdefault((row["weights"], row["batch_size"], row["method"]), []).append(row)
    return list(groups.values())


def _cell(row):
    ratio = f"{row['ratio']:.2f}" if row["finished"] else f"over {row['ratio']:.1f}"
    return f"{row['nfe_forward']:.3g} → {row['nfe_backward']:.3g} ({ratio})"


def table(found):
    """Panel (c) of the first record there is."""
    record = first(found, NAME)
    return markdown_table(record) if record else ""
