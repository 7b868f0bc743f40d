"""What the rows of a comparison say: who is fastest at a given accuracy, how often what went wrong, how stable the ratios are."""

import numpy as np

from .outcomes import OUTCOMES, RIGHT, SILENT, WRONG

ACCURACIES = (1e-2, 1e-4, 1e-6, 1e-8)
OURS = "solvers_bridge"
ORIGINAL = "autograd's odeint"
# Stated before the first run: this share of the points' times, each over the median of its problem and tolerance, are in the
# second pass within this factor of those in the first.
BAND, SHARE = 1.5, 0.9


def points(rows):
    return [row for row in rows if row["part"] == "point"]


def seconds(row, way="gradient", turn="first_pass"):
    """Processor seconds of a solve with its gradient (way "gradient") or of a solve alone; None where there are none."""
    return row.get(turn, {}).get(way, {}).get("cpu")


def fastest(rows, problem, accuracy, among=lambda library: True, resolved=0.0):
    """The row of least time for a gradient of a problem with no more than this error; None where there is none.

    resolved: how far the reference's two ways are apart; no accuracy below it can be told.
    """
    if resolved > accuracy:
        return None
    good = [
        row
        for row in points(rows)
        if row["problem"] == problem
        and among(row["library"])
        and row["outcome"] == RIGHT
        and row.get("gradient_error") is not None
        and row["gradient_error"] <= accuracy
        and seconds(row) is not None
    ]
    return min(good, key=seconds, default=None)


def is_ours(library):
    return library.startswith(OURS)


def winners(rows, references):
    """[{problem, accuracy, winner, ours, original: row or None}] for every problem and accuracy that somebody reached."""
    found = []
    for problem, about in references.items():
        for accuracy in ACCURACIES:
            first = fastest(rows, problem, accuracy, resolved=about["gradient"])
            if first is not None:
                ours = fastest(rows, problem, accuracy, is_ours)
                original = fastest(rows, problem, accuracy, lambda library: library == ORIGINAL)
                found.append({"problem": problem, "accuracy": accuracy, "winner": first, "ours": ours, "original": original})
    return found


def of(rows, library):
    return [row for row in rows if row["library"] == library]


def is_gradient_alone_wrong(row):
    """Whether a point's solution was right, its gradient was not, and nothing was said."""
    errors = row.get("solution_error"), row.get("gradient_error")
    return row["outcome"] == SILENT and None not in errors and errors[0] <= WRONG < errors[1]


def ratios(rows):
    """Second pass over first of each point's time over the median of its problem and tolerance."""
    found, groups = [], {}
    for row in points(rows):
        if seconds(row) and seconds(row, turn="second_pass"):
            groups.setdefault((row["problem"], row["rtol"]), []).append(row)
    for group in groups.values():
        first, second = (np.array([seconds(row, turn=turn) for row in group]) for turn in ("first_pass", "second_pass"))
        found += list((second / np.median(second)) / (first / np.median(first)))
    return np.array(found)


def metrics(rows, references):
    """Flat numbers: outcomes by library, wins, times over the winner's, the reference's accuracy, the share inside the band."""
    every, table = points(rows), winners(rows, references)
    found = {"points": len(every), "problems": len(references), "libraries": len({row["library"] for row in every})}
    for library in dict.fromkeys(row["library"] for row in every):
        for outcome in OUTCOMES:
            count = sum(row["library"] == library and row["outcome"] == outcome for row in every)
            found[f"{outcome.replace(', ', '_').replace(' ', '_')}/{library}"] = count
        found[f"gradient_alone_wrong_in_silence/{library}"] = sum(map(is_gradient_alone_wrong, of(every, library)))
        found[f"gradients/{library}"] = sum(row.get("gradient_error") is not None for row in of(every, library))
        found[f"wins/{library}"] = sum(row["winner"]["library"] == library for row in table)
    for row in table:
        label = f"{row['problem']}/{row['accuracy']:g}"
        for other in ("ours", "original"):
            if row[other] is not None:
                found[f"{other}_over_winner/{label}"] = seconds(row[other]) / seconds(row["winner"])
    for problem, about in references.items():
        found |= {f"second_way_{what}/{problem}": about[what] for what in ("states", "gradient")}
    again = ratios(rows)
    if len(again):
        found["share_in_band"] = float(np.mean(np.maximum(again, 1 / again) <= BAND))
        found["ratio_median_deviation"] = float(np.median(np.maximum(again, 1 / again)))
    return found
