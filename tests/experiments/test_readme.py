"""Numbers in the README's running text are those of the committed traces and of the scripts it names."""

import json
import runpy

import pytest
import scipy

from experiments.harness.records import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


@pytest.mark.skipif(scipy.__version__ != "1.16.3", reason="the README shows what SciPy 1.16.3 prints")
def test_what_the_c_translations_script_prints(capsys):
    runpy.run_path(str(REPOSITORY / "experiments" / "fidelity" / "c_translations.py"))
    assert capsys.readouterr().out.strip() in README


def test_the_library_example_runs(capsys):
    code = README.split("## Ten lines of the library")[1].split("```python\n")[1].split("```")[0]
    exec(compile(code, "README.md", "exec"), {})
    assert "'predator'" in capsys.readouterr().out


def test_counts_of_the_traces_are_those_of_the_traces():
    text = " ".join(README.split())
    for trace, entries, words in (
        ("forward", "solves", "{} forward solves"),
        ("classics", "solves", "{} of DETEST's"),
        ("adjoint", "sweeps", "{} sweeps of the adjoint"),
    ):
        content = json.loads((REPOSITORY / "results" / "stack_2018" / f"{trace}.json").read_text())
        assert words.format(len(content[entries])) in text
