"""Every text file, and what commands say, is read and written as UTF-8, said, whatever the locale is."""

import ast
import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

FILES = [
    path
    for folder in ("experiments", "original_repro", "solvers_bridge", "docs", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
    # Runs under Python 3.6; and needs nothing of ours.
    if "stack_2018" not in path.parts
]


def unsaid(tree):
    """Lines of calls that read or write text in the locale's encoding."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        modes = [argument.value for argument in [*node.args[1:2], given.get("mode")] if isinstance(argument, ast.Constant)]
        opens = name == "open" and isinstance(node.func, ast.Name) and not any("b" in str(mode) for mode in modes)
        texts = any(isinstance(given.get(word), ast.Constant) and given[word].value for word in ("text", "universal_newlines"))
        if (name in ("read_text", "write_text") or opens or texts) and "encoding" not in given:
            yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_encoding_is_said(path):
    assert not list(unsaid(ast.parse(path.read_text(encoding="utf-8"))))


# Nothing in it that ASCII does not have: that is all the locale can hand over.
REPORT = r"""
import shutil, sys
from pathlib import Path
from experiments.report import write
readme = shutil.copy(write.REPOSITORY / "README.md", sys.argv[1])
write.fill_markers(Path(readme), {"reported": "gr\u00f6\u00dfer"})
print("gr\u00f6\u00dfer")
"""


def test_a_report_in_a_locale_without_utf8_is_the_same(tmp_path):
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    script = f"from experiments.harness import process\nprocess.open_streams()\n{REPORT}"
    done = subprocess.run([sys.executable, "-c", script, tmp_path], env=environment, cwd=ROOT, capture_output=True, timeout=100)
    assert done.returncode == 0 and done.stdout == b"gr\\xf6\\xdfer\n", done.stderr
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    before, begin, rest = readme.partition("<!-- reported: begin -->\n")
    after = rest[rest.index("<!-- reported: end -->") :]
    assert not after.isascii()
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == f"{before}{begin}gr\u00f6\u00dfer\n{after}"
