"""The registry of the paper's numbers and claims, results/reported.json, and the verdict of the records on each.

An entry has: id; source (table, figure or section, of the second paper after "Augmented, "); what; value (null for a claim
without a number) and unit; reported, the value in words where it is not a number; measured_by: the experiment, its preset, the
options of the run beyond preset and seed, and a part of the record's configuration; rule: name and parameters, of rules.py;
note, if a choice needs a reason; why, the reason where it is not reproduced, as far as it is known; headline, if it is in the
main README's short table, which has about ten rows; against, as measured_by: the runs that a rule compares with; from_seed:
lower seeds were looked at before the rule was written, and do not count; information: true where it is listed and not counted.

A record is asked for by an entry if it is of that experiment and was run with exactly those options (its name says so), any seed.
It counts if preset and configuration are the entry's as well. Where records that count differ in configuration, those of the
newest one do, so that a mean over seeds is one of like runs.
"""

import json
from pathlib import Path
from typing import NamedTuple

from ..harness.records import RESULTS, read_records
from . import rules

PATH = RESULTS / "reported.json"
REPRODUCED, NOT_REPRODUCED, NOT_MEASURED = "reproduced", "not reproduced", "not measured"
NEEDED = {"id", "source", "what", "value", "unit", "measured_by", "rule"}
ALLOWED = NEEDED | {"reported", "note", "why", "headline", "against", "from_seed", "information"}
MEASURED_BY = {"experiment", "preset", "options", "configuration"}
# Parts of a configuration in which runs of several seeds differ by nature, or that change numbers by rounding only.
OF_ONE_SEED = ("seed", "weights", "weights_sha256", "compiler")
FIRST, SECOND = "Neural Ordinary Differential Equations", "Augmented Neural ODEs"  # the papers
NUMBER, CLAIM, ORDERING, LISTED = "number", "claim", "ordering", "listed"


# What a rule or a table makes of a record whose parts are of other types or names than those that the experiment writes.
NOT_AS_EXPECTED = (TypeError, KeyError, ValueError, AttributeError, IndexError, ZeroDivisionError)
WRONG = "not as the experiment writes it"


class Verdict(NamedTuple):
    """An entry judged: the verdict, the Finding or None, paths of the records used, and (path, reason) of those set aside.

    quick: what the rule finds in quick records where none counts, for show only; or None. kept: whether the records are of
    weights that were kept, measured again, and not of whole runs. seeds: how many of them the entry's own runs are.
    """

    entry: dict
    verdict: str
    finding: rules.Finding | None
    records: list
    set_aside: list
    quick: rules.Finding | None = None
    kept: bool = False
    seeds: int = 0


def read(path=PATH):
    """The entries. Raises ValueError, naming the entry, where one lacks a key, has an unknown one, or names no rule of ours."""
    entries = json.loads(Path(path).read_text(encoding="utf-8"))
    for entry in entries:
        name = entry.get("id", "an entry without id")
        if NEEDED - entry.keys() or entry.keys() - ALLOWED:
            raise ValueError(f"{name}: lacks {sorted(NEEDED - entry.keys())}, unknown {sorted(entry.keys() - ALLOWED)}")
        for part in ("measured_by", *(["against"] if "against" in entry else [])):
            if entry[part].keys() != MEASURED_BY:
                raise ValueError(f"{name}: {part} needs {', '.join(sorted(MEASURED_BY))}")
        if entry["rule"]["name"] not in rules.RULES:
            raise ValueError(f"{name}: rule must be one of {', '.join(rules.RULES)}, got {entry['rule']['name']!r}")
        if (entry["rule"]["name"] in rules.COMPARISONS) != ("against" in entry):
            raise ValueError(f"{name}: `against` goes with the rules {', '.join(rules.COMPARISONS)} and no other")
        if entry["value"] is None and "reported" not in entry:
            raise ValueError(f"{name}: an entry without a value needs `reported`, the claim in words")
    ids = [entry["id"] for entry in entries]
    if len(set(ids)) < len(ids):
        raise ValueError(f"ids occur twice: {sorted({one for one in ids if ids.count(one) > 1})}")
    return entries


def judge_all(out, entries=None):
    """A Verdict for each entry from the records under out/runs."""
    found = read_records(out)
    return [judge(entry, found) for entry in (read() if entries is None else entries)]


def judge(entry, found):
    """The Verdict on an entry from records, a list of (path, record)."""
    parts = [part for part in ("measured_by", "against") if part in entry]
    chosen = [_choose(entry[part], entry.get("from_seed", 0), found) for part in parts]
    counted, set_aside = [one.counted for one in chosen], [pair for one in chosen for pair in one.set_aside]
    if all(counted):
        used = [pair for some in counted for pair in some]
        try:
            finding = _apply(entry, *([record for _, record in some] for some in counted))
        except rules.CannotJudge as error:
            set_aside += [(path, str(error)) for path, _ in used]
        except NOT_AS_EXPECTED as error:
            set_aside += [(path, f"{WRONG}: {error!r}") for path, _ in used]
        else:
            verdict = REPRODUCED if finding.holds else NOT_REPRODUCED
            kept = any("kept_weights" in record for _, record in used)
            # A run may have several seeds itself.
            seeds = {record["seed"]: record["configuration"].get("repetitions", 1) for _, record in counted[0]}
            return Verdict(entry, verdict, finding, [path for path, _ in used], set_aside, kept=kept, seeds=sum(seeds.values()))
    return Verdict(entry, NOT_MEASURED, None, [], set_aside, _for_show(entry, [one.quick for one in chosen]))


class _Chosen(NamedTuple):
    """Records that count, (path, reason) of those that do not, and quick records."""

    counted: list
    set_aside: list
    quick: list


def _choose(wanted, from_seed, found):
    asked = [(path, record) for path, record in found if _is_of(wanted, path, record)]
    set_aside = [(path, reason) for path, record in asked if (reason := _mismatch(wanted, from_seed, record))]
    counted = [(path, record) for path, record in asked if not _mismatch(wanted, from_seed, record)]
    newest = max((record for _, record in counted), key=lambda record: record["date"], default=None)
    set_aside += [(path, "an older configuration") for path, record in counted if not _alike(record, newest)]
    counted = [(path, record) for path, record in counted if _alike(record, newest)]
    return _Chosen(counted, set_aside, [record for _, record in asked if record["preset"] == "quick"])


def kind(entry):
    """What an entry is counted as: number, claim or ordering; or listed, where it is a setting that we typed, or information."""
    if entry.get("information") or entry["rule"]["name"] == "setting":
        return LISTED
    if entry["rule"]["name"] in rules.ORDERINGS:
        return ORDERING
    return CLAIM if entry["value"] is None else NUMBER


def paper(entry):
    """Which paper an entry is of, FIRST or SECOND, whose sources begin with Augmented."""
    return SECOND if entry["source"].startswith("Augmented") else FIRST


def is_asked_for(entry, path, record):
    """Whether a record is of the entry's experiment, with its options and no other, of any preset and seed."""
    return any(_is_of(entry[part], path, record) for part in ("measured_by", "against") if part in entry)


def _is_of(wanted, path, record):
    options = [f"{name}={value}" for name, value in sorted(wanted["options"].items())]
    return record["experiment"] == wanted["experiment"] and path.stem == "-".join(
        [record["preset"], f"seed{record['seed']}", *options]
    )


def unused(found, verdicts):
    """(path, reason) of the records of the registry's experiments that no verdict uses."""
    used = {path for verdict in verdicts for path in verdict.records}
    experiments = {verdict.entry["measured_by"]["experiment"] for verdict in verdicts}
    reasons = dict(pair for verdict in verdicts for pair in verdict.set_aside)
    return [
        (path, reasons.get(path, "run with options that no entry asks for"))
        for path, record in found
        if record["experiment"] in experiments and path not in used
    ]


def command(entry):
    """The command that measures an entry, of the first seed that counts."""
    wanted, seed = entry["measured_by"], entry.get("from_seed", 0)
    return " ".join(
        [
            "python -m experiments run",
            wanted["experiment"],
            "--preset",
            wanted["preset"],
            *([f"--seed {seed}"] if seed else []),
            *(f"--{name.replace('_', '-')} {value}" for name, value in wanted["options"].items()),
        ]
    )


def as_json(verdicts, out):
    """What results/verdicts.json holds: by id, the verdict, the measured numbers to six digits, and the records used."""
    flat = {}
    for verdict in verdicts:
        finding = verdict.finding
        numbers = (
            {}
            if finding is None
            else {
                "measured": _digits(finding.measured),
                "deviation": _digits(finding.deviation),
                "interval": finding.interval and [_digits(end) for end in finding.interval],
                "detail": finding.detail,
            }
        )
        flat[verdict.entry["id"]] = {
            "verdict": verdict.verdict,
            **numbers,
            "records": [path.relative_to(out).as_posix() for path in verdict.records],
        }
    return flat


def _apply(entry, records, against=None):
    rule = entry["rule"]
    further = {} if against is None else {"against": against}
    return rules.RULES[rule["name"]](records, entry["value"], **rule["parameters"], **further)


def _for_show(entry, records):
    """What the rule finds in quick records: a list for each part of the entry that names runs."""
    try:
        return _apply(entry, *records) if all(records) else None
    except (rules.CannotJudge, *NOT_AS_EXPECTED):
        return None


def _mismatch(wanted, from_seed, record):
    """Why a record does not count, in words; empty where it does."""
    if record["preset"] != wanted["preset"]:
        return f"{record['preset']} preset"
    if record["seed"] < from_seed:
        return f"seed {record['seed']} was looked at before the rule was written; seeds from {from_seed} count"
    other = [
        f"{name} {record['configuration'].get(name)!r} where {value!r} is asked for"
        for name, value in wanted["configuration"].items()
        if record["configuration"].get(name) != value
    ]
    if other:
        return "another configuration: " + ", ".join(other)
    failed = record["metrics"].get("failed")
    return f"its training failed after {failed['after_records']} records" if isinstance(failed, dict) else ""


def _alike(record, other):
    """Whether two records are of the same configuration but for the seed."""
    one, another = (
        {name: value for name, value in each["configuration"].items() if name not in OF_ONE_SEED} for each in (record, other)
    )
    return one == another


def _digits(value):
    return None if value is None else float(f"{value:.6g}")
