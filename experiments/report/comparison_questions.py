"""What the records say to questions on the modern libraries; every number is taken from a record, none is typed."""

from .answers import NotMeasured, record_of


def _modern_libraries(found):
    record = record_of(found, "modern_comparison")
    metrics, words = record["metrics"], record["configuration"]["words"]
    wins = {name: count for name, count in _by_name(metrics, "wins/").items() if count}
    ours = _by_name(metrics, "ours_over_winner/")
    if not wins or not ours:
        raise NotMeasured(metrics.command)
    where = {problem: [ours[name] for name in ours if name.rpartition("/")[0] == problem] for problem in words}
    won = [words[problem] for problem, ratios in where.items() if ratios and min(ratios) == 1.0]
    lost = [f"{words[problem]} ({_span(ratios)})" for problem, ratios in where.items() if ratios and min(ratios) > 1.0]
    total = sum(wins.values())
    ranked = sorted(wins.items(), key=lambda pair: -pair[1])
    original = list(_by_name(metrics, "original_over_winner/").values())
    return (
        f"It depends on the work. Of {total} pairs of a problem and an accuracy of its gradient that somebody reached, with one "
        f"thread each: {', '.join(f'{name} is the fastest in {count}' for name, count in ranked)}. Ours is the fastest at some "
        f"accuracy on {'; '.join(won) or 'none of the problems'}. Where it is at none, it takes so many times the winner's time: "
        f"{'; '.join(lost) or 'nowhere'}. The paper's own stack, autograd's odeint, reaches {len(original)} of the {total}"
        f"{f', in {_span(original)} times the time' if original else ''}. "
        f"(`python -m experiments run modern_comparison --preset paper`; [tables](modern.md))"
    )


def _silent_errors(found):
    metrics = record_of(found, "modern_comparison")["metrics"]
    silent, said, gradients, alone = (
        _by_name(metrics, f"{name}/")
        for name in ("wrong_in_silence", "wrong_said", "gradients", "gradient_alone_wrong_in_silence")
    )
    if not silent or not alone:
        raise NotMeasured(metrics.command)
    counts = ", ".join(
        f"{name} {count} of {gradients[name]}"
        for name, count in sorted(alone.items(), key=lambda pair: -pair[1])
        if gradients[name]
    )
    lost = sum(silent.values()) - sum(alone.values())
    return (
        f"Mostly not. Of {metrics['points']} points, solutions or gradients off by more than a tenth came back without a word in "
        f"{sum(silent.values())} (in {lost} of them the solution was off, as a loose tolerance may leave it), and with a warning "
        f"in {sum(said.values())}. With the solution right and only the gradient wrong, in silence: {counts}. "
        f"(`python -m experiments run modern_comparison --preset paper`)"
    )


def _by_name(metrics, prefix):
    """{the rest of a metric's name: value} of those that begin so."""
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def _span(ratios):
    low, high = f"{min(ratios):.2g}", f"{max(ratios):.2g}"
    return low if low == high else f"{low} to {high}"


QUESTIONS = (
    ("Which library is the fastest for which work?", _modern_libraries),
    ("Does a library say when its gradient is wrong?", _silent_errors),
)
