"""Verdicts in words: counts of them, tables of them, and numbers with units."""

from collections import Counter

from tabulate import tabulate

from ..harness.tables import markdown_table
from . import registry, rules

KINDS = {registry.NUMBER: "numbers", registry.CLAIM: "claims", registry.ORDERING: "orderings"}


def counts(verdicts):
    """How many of the paper's numbers, claims and orderings have which verdict, in sentences; what is only listed, apart."""
    counted = [verdict for verdict in verdicts if registry.kind(verdict.entry) != registry.LISTED]
    if any(verdict.kept for verdict in verdicts):
        kept = [verdict for verdict in counted if verdict.kept]
        waiting = sum(verdict.verdict == registry.NOT_MEASURED for verdict in counted)
        return (
            f"Measured just now, from the weights that come with the project: {_by_kind(kept)}. The quick presets below show "
            f"what the experiments do, not the paper's numbers; {waiting} entries wait for the paper presets, whose results are "
            "in results/README.md of the project."
        )
    listed = len(verdicts) - len(counted)
    what, are = (f"{listed} more entries", "are") if listed > 1 else ("One more entry", "is")
    aside = f" {what}, settings that we typed or information, {are} listed and not counted." if listed else ""
    return f"{_by_kind(counted)}.{aside}"


def _by_kind(verdicts):
    """A clause for each kind."""
    parts = []
    for kind, name in KINDS.items():
        number = Counter(verdict.verdict for verdict in verdicts if registry.kind(verdict.entry) == kind)
        if number.total():
            words = f"{number[registry.REPRODUCED]} reproduced, {number[registry.NOT_REPRODUCED]} not"
            waiting = number[registry.NOT_MEASURED]
            parts.append(f"{number.total()} {name}: {words}" + (f", {waiting} not measured yet" if waiting else ""))
    return "; ".join(parts)


def of_paper(verdicts, paper):
    """Those on one paper, registry.FIRST or registry.SECOND."""
    return [verdict for verdict in verdicts if registry.paper(verdict.entry) == paper]


def short_table(verdicts):
    """The main README's tables: each paper's headline entries, with the counts of all."""
    first, second = (of_paper(verdicts, paper) for paper in (registry.FIRST, registry.SECOND))
    links = "[results/README.md](results/README.md) has all of them, with rules and records, those that are not reproduced first."
    tables = [plain_table([one for one in some if one.entry.get("headline")]) for some in (first, second)]
    further = f"*{registry.SECOND}*, [a page of its own](docs/augmented.md). {counts(second)}"
    return "\n\n".join([f"{counts(first)} {links}", tables[0], further, tables[1]])


def plain_table(verdicts):
    """What, the paper's, ours and the verdict, of each."""
    rows = [[_what(one.entry), reported(one.entry), measured(one), _bold(one.verdict)] for one in verdicts]
    return markdown_table(["what", "paper", "measured", "verdict"], rows)


def lines_of(verdicts, path, record):
    """The verdicts on the entries that ask for a record, as a table for the terminal; or why there is none."""
    asked = [verdict for verdict in verdicts if registry.is_asked_for(verdict.entry, path, record)]
    if not asked:
        return "No number of results/reported.json is measured by this run."
    rows = [[_what(verdict.entry), reported(verdict.entry), measured(verdict), verdict.verdict] for verdict in asked]
    return tabulate(rows, ["what", "paper", "measured", "verdict"], disable_numparse=True)


def verdict_table(verdicts, records, out):
    """Everything there is to say of some verdicts, with the reason where one is not reproduced; records: {path: record}."""
    rows = [
        [
            _what(verdict.entry),
            reported(verdict.entry),
            measured(verdict),
            _bold(verdict.verdict),
            _reason_and_note(verdict),
            _how_measured(verdict, records, out),
        ]
        for verdict in verdicts
    ]
    why = any(verdict.verdict == registry.NOT_REPRODUCED for verdict in verdicts)
    return markdown_table(["what", "reported", "measured", "verdict", "why" if why else "note", "rule, command, records"], rows)


def listed_table(verdicts, records, out):
    """Settings that we typed, and information: what is reported, what was used or found; no verdict is counted."""
    rows = [
        [_what(one.entry), reported(one.entry), measured(one), one.entry.get("note", ""), _how_measured(one, records, out)]
        for one in verdicts
    ]
    return markdown_table(["what", "reported", "used or found", "note", "rule, command, records"], rows)


def demonstrations(verdicts):
    """What small runs show of entries that only the paper presets measure, with the command that does."""
    rows = [
        [
            _what(one.entry),
            reported(one.entry),
            "" if one.quick is None else _finding(one.quick, one.entry),
            f"`{registry.command(one.entry)}`",
        ]
        for one in verdicts
    ]
    return markdown_table(["what", "reported", "in small", "measured by"], rows)


def reported(entry):
    """The paper's value, in words where it is a claim."""
    return entry["reported"] if entry["value"] is None else number(entry["value"], entry["unit"])


def measured(verdict):
    """What was measured, in words: value, interval, deviation over seeds, and what the rule adds; quick ones are named such."""
    if verdict.finding is not None:
        seeds = verdict.seeds
        return _finding(verdict.finding, verdict.entry) + f"; {seeds} seed{'s' if seeds > 1 else ''}"
    if verdict.quick is not None:
        return _finding(verdict.quick, verdict.entry) + " (quick, not a paper-preset measurement)"
    return ""


def number(value, unit, digits=4):
    """A number with its unit: per cent for fractions, thousands in full, otherwise so many digits."""
    if unit == "fraction":
        return f"{100 * value:.2f} %"
    return f"{value:,.0f} {unit}".strip() if abs(value) >= 1000 else f"{value:.{digits}g} {unit}".strip()


def how(verdicts):
    """What each rule in use asks for, and what counts."""
    used = dict.fromkeys(verdict.entry["rule"]["name"] for verdict in verdicts)
    lines = [
        "A record counts for a number if it is of the experiment, preset, options and configuration that "
        "`results/reported.json` asks for; records of several seeds count together. What was measured otherwise is "
        "listed above and decides nothing. The rules, functions of `experiments/report/rules.py`:",
        "",
    ]
    return "\n".join(lines + [f"- `{name}`: {rules.meaning(name)}." for name in used])


def _what(entry):
    return f"{entry['source']}: {entry['what']}"


def _finding(finding, entry):
    # A claim without a number needs no more digits than show it.
    unit, digits = entry["unit"], 3 if entry["value"] is None else 4
    text = number(finding.measured, unit, digits)
    if finding.deviation is not None:
        text += f" ± {number(finding.deviation, unit, 2)}"
    if finding.interval is not None:
        text += " ({} to {})".format(*(number(end, unit if unit == "fraction" else "", digits) for end in finding.interval))
    # An ordering's count and its detail read as one: 7 of 9 pairs.
    return f"{text}{' ' if finding.detail.startswith('of ') else '; '}{finding.detail}" if finding.detail else text


def _rule(rule):
    bounds = [
        f"{name.replace('_', ' ')} {value:g}"
        for name, value in rule["parameters"].items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    return f"`{rule['name']}`" + (f" {', '.join(bounds)}" if bounds else "")


def _reason_and_note(verdict):
    reason = verdict.entry.get("why", "Not known.") if verdict.verdict == registry.NOT_REPRODUCED else ""
    return " ".join(filter(None, [reason, verdict.entry.get("note", "")]))


def _how_measured(verdict, records, out):
    links = [link(path, out) for path in verdict.records]
    used = ", ".join([*links, *_when([records[path] for path in verdict.records])])
    return f"{_rule(verdict.entry['rule'])}; `{registry.command(verdict.entry)}`" + (f": {used}" if used else "")


def _when(records):
    """Days and versions of records, each once."""
    return dict.fromkeys([*sorted(record["date"][:10] for record in records), *map(versions, records)])


def versions(record):
    """What a record was measured with."""
    found, kind = record["versions"], record["integrators"].get("vode")
    return f"SciPy {found.get('scipy')} ({kind}), TensorFlow {found.get('tensorflow')}"


def _bold(verdict):
    return f"**{verdict}**" if verdict == registry.NOT_REPRODUCED else verdict


def link(path, out):
    """A record's name, linked."""
    return f"[{path.parent.name}/{path.stem}]({path.relative_to(out).as_posix()})"
