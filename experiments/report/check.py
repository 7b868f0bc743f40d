"""What can be checked of records in seconds: names, commits, presets, digests of data and weights, figures, verdicts.

A record of an earlier version does not tell all of it; that is no fault, and is said.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

from ..harness import records
from . import registry

VERSION_1 = "as records of version 0.1.0 do not"


class Found(NamedTuple):
    """faults: sentences that begin with a path; untold: {what is not told: [paths of records]}; checked: how many records."""

    faults: list
    untold: dict
    checked: int


def check(out, experiments, settings_of):
    """What is Found of the records under out/runs, and of what lies beside them.

    experiments: {name: Experiment}; settings_of(command) -> (name, Settings) of the words of a record's command, or ValueError.
    """
    out, untold = Path(out), {}
    good, faults = records.read_records(out), records.unreadable(out)

    def not_told(path, what):
        untold.setdefault(what, []).append(path)

    for path, record in good:
        of_record = [
            *_of_name(path, record, experiments, settings_of, not_told),
            *_of_commits(path, record, not_told),
            *_of_data(path, record, not_told),
            *_of_weights(path, record, out, not_told),
        ]
        faults += [f"{path}: {fault}" for fault in of_record]
    return Found([*faults, *_of_verdicts(out), *_of_links(out / "README.md")], untold, len(good))


def _of_name(path, record, experiments, settings_of, not_told):
    """Whether a record's name, command, preset and configuration are of one run."""
    name = record["experiment"]
    if name not in experiments:
        return [f"no experiment is called {name!r}"]
    try:
        commanded, settings = settings_of(record["command"])
    except ValueError as error:
        return [f"its command is none: {error}"]
    named = path.parent.name, path.stem
    faults = (
        [] if named == (name, settings.stem) == (commanded, settings.stem) else [f"its command is of {commanded} {settings.stem}"]
    )
    if (record["preset"], record["seed"]) != (settings.preset, settings.seed):
        faults.append(f"it is of preset {record['preset']} and seed {record['seed']}, its command of others")
    expected = {about.name: value for about, value in settings.chosen() if about.named and value is not None}
    if experiments[name].preset_of is not None:
        expected |= experiments[name].preset_of(settings)
    configuration = record["configuration"]
    others = [
        f"its configuration has {key} {configuration[key]!r:.80}, and the preset {value!r:.80}"
        for key, value in json.loads(json.dumps(expected, default=str)).items()
        if key in configuration and configuration[key] != value
    ]
    if others and "computed" not in record:
        not_told(path, f"its preset when it was measured, {VERSION_1}: it is another now")
        others = []
    return faults + others


def _of_commits(path, record, not_told):
    """Whether the code that computed and wrote a record can be had: no commit with changes."""
    if record["git_commit"] is None:
        not_told(path, "the commit, as outside a checkout")
    if "computed" not in record:
        not_told(path, f"when and where the numbers were computed, {VERSION_1}")
        if (record["git_commit"] or "").endswith("+changes"):
            not_told(path, f"what the changes to its commit were, {VERSION_1}")
        return []
    commits = {record["git_commit"], *(one["commit"] for one in record.get("computed", ()))}
    return [
        f"it is of {commit}, whose changes nobody has" for commit in sorted(filter(None, commits)) if commit.endswith("+changes")
    ]


def _of_data(path, record, not_told):
    """Whether the data, so far as they come with the project, are those of a record."""
    here = records.data_digest(record["configuration"].get("data"))
    if here is None:
        return []
    if "data_sha256" not in record:
        not_told(path, f"the digest of the data, {VERSION_1}")
        return []
    return [] if record["data_sha256"] == here else [f"its data have SHA-256 {record['data_sha256']}, and ours {here}"]


def _of_weights(path, record, out, not_told):
    """Whether weights at hand are those that a record names as measured or as left."""
    configuration, named = record["configuration"], []
    if "weights_sha256" in configuration:
        named.append((Path(configuration["weights"]).name, configuration["weights_sha256"]))
    elif "weights" in configuration:
        not_told(path, f"the digest of the weights that it measures, {VERSION_1}")
    named += [(record[part]["file"], record[part]["sha256"]) for part in ("left_weights", "kept_weights") if part in record]
    left = out / "weights" / f"{record['experiment']}-{path.stem}.npz"
    if left.is_file() and not {"left_weights", "kept_weights"} & record.keys():
        not_told(path, f"the digest of the weights that it left, {VERSION_1}")
    faults = []
    for name, digest in named:
        file = out / "weights" / name
        if file.is_file() and records.sha256(file) != digest:
            faults.append(f"weights/{name} has another SHA-256 than the record, {digest}")
    return faults


def _of_verdicts(out):
    """Whether verdicts.json, if there is one, is what the records say."""
    path = out / "verdicts.json"
    if not path.is_file():
        return []
    try:
        then = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return [f"{path}: {error}"]
    now = json.loads(json.dumps(registry.as_json(registry.judge_all(out), out)))
    return [
        f"{path}: {name} is {_verdict(then, name)} there, and {_verdict(now, name)} by the records"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def _verdict(verdicts, name):
    return json.dumps(verdicts[name]) if name in verdicts else "absent"


def _of_links(path):
    """Whether the files exist that the report shows or links."""
    if not path.is_file():
        return []
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    return [f"{path}: there is no {link}" for link in dict.fromkeys(links) if not (path.parent / link).exists()]
