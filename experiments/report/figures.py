"""The figures of an experiment in the report: the paper's first, with captions; those of other seeds and options as a list."""

import os
import re

from ..harness.records import portable


def markdown(figures, section, runs, out):
    """Parts of Markdown. figures: paths; runs: [(path, record)] of the experiment; links are relative to the folder `out`.

    The web page folds away what is in the list.
    """
    order = list(section.captions)
    by_caption = sorted(figures, key=lambda path: order.index(key) if (key := _key(path, section)) in order else len(order))
    ranked = sorted(by_caption, key=lambda path: "-paper-" not in path.name)
    plain = [path for path in ranked if not re.search(r"seed[1-9]|=", path.name)]
    main = [path for path in plain if "-paper-" in path.name] or plain or ranked
    parts = []
    for path in main:
        words = caption(path, section, runs)
        parts.append(f"![{words.replace('`', '')}]({os.path.relpath(path, out)})\\\n*{words}*")
    others = [f"- [{path.stem}]({os.path.relpath(path, out)})" for path in ranked if path not in main]
    return [*parts, "Other seeds, options and presets:", "\n".join(others)] if others else parts


def caption(path, section, runs):
    """What a figure shows, in a sentence, and the command of the record whose name is in the figure's, if there is one."""
    of_figure = [(run.stem, record) for run, record in runs if run.stem in path.name]
    command = f" From `{portable(max(of_figure, key=lambda pair: len(pair[0]))[1]['command'])}`." if of_figure else ""
    return section.captions.get(_key(path, section), path.stem) + command


def _key(path, section):
    """Which of a section's captions is a figure's."""
    return next((part for part in re.split(r"-|\.(?!\d)", path.name) if part in section.captions), "")
