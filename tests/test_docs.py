"""What README and docs/ show runs, and the numbers in their running text are those of the traces and of the scripts they name."""

import importlib.util
import json
import re
import runpy
import subprocess
import sys
from urllib.parse import unquote

import pytest
import scipy

from experiments.harness.records import REPOSITORY
from solvers_bridge.integrators import INTEGRATORS

PAGES = ("README.md", "docs/library.md", "docs/stiff.md", "docs/doors.md", "docs/extending.md")


def text(page):
    return (REPOSITORY / page).read_text(encoding="utf-8")


@pytest.fixture
def integrators():
    """Methods that a page adds are gone after it."""
    before = dict(INTEGRATORS)
    yield
    INTEGRATORS.clear()
    INTEGRATORS.update(before)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("integrators")
def test_the_python_of_a_page_runs_from_top_to_bottom(page):
    blocks = re.findall(r"^```python\n(.*?)^```", text(page), flags=re.MULTILINE | re.DOTALL)
    assert blocks
    names = {}
    for block in blocks:
        if block.startswith("import torch\n") and importlib.util.find_spec("torch") is None:
            continue
        exec(compile(block, page, "exec"), names)


def test_values_that_the_library_page_states(capsys):
    names = {}
    exec(compile(text("docs/library.md").split("```python\n")[1].split("```")[0], "docs/library.md", "exec"), names)
    odeint, grad, np = (names[name] for name in ("odeint", "grad", "np"))
    end = lambda rate: odeint(names["decay"], np.array([1.0, 2.0]), names["times"], rate)[-1, 0]
    assert grad(end)(0.5) == pytest.approx(-2 * np.exp(-1), rel=1e-6)
    assert grad(grad(end))(0.5) == pytest.approx(4 * np.exp(-1), rel=1e-5)


@pytest.mark.skipif(scipy.__version__ != "1.16.3", reason="the page shows what SciPy 1.16.3 prints")
def test_what_the_c_translations_script_prints(capsys):
    runpy.run_path(str(REPOSITORY / "experiments" / "fidelity" / "c_translations.py"))
    assert capsys.readouterr().out.strip() in text("docs/fidelity.md")


def test_counts_of_the_traces_are_those_of_the_traces():
    words = " ".join(text("docs/fidelity.md").split())
    for trace, entries, phrase in (
        ("forward", "solves", "{} forward solves"),
        ("classics", "solves", "{} of DETEST's"),
        ("adjoint", "sweeps", "{} sweeps of the adjoint"),
    ):
        content = json.loads((REPOSITORY / "results" / "stack_2018" / f"{trace}.json").read_text(encoding="utf-8"))
        assert phrase.format(len(content[entries])) in words


def test_the_readme_is_a_page_and_shows_about_ten_numbers_of_each_paper():
    readme = text("README.md")
    tables = readme.split("<!-- reported: begin -->")[1].split("<!-- reported: end -->")[0].split("*Augmented Neural ODEs*")
    verdicts = ("reproduced", "**not reproduced**", "not measured")
    shown = [
        sum(line.rstrip(" |").endswith(verdicts) for line in table.splitlines() if line.startswith("| ")) for table in tables
    ]
    assert len(readme.splitlines()) <= 150 and len(shown) == 2 and 8 <= shown[0] <= 12 and 5 <= shown[1] <= 12, shown


def test_the_site_is_built_strictly(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert broken_links(tmp_path) == []
    api = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    for name in ("torch.odeint_adjoint", "torch.odeint_event", "keras.ODEBlock", "tensorflow.odeint"):
        assert f'id="solvers_bridge.{name}"' in api


def broken_links(site):
    """[(page, link)] of links within a built site to files or headings that are not there."""
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    broken = []
    for path, html in pages.items():
        for link in re.findall(r'(?:href|src)="([^"]+)"', html):
            target, _, heading = link.partition("#")
            if "://" in target or target.startswith(("mailto:", "data:", "/")):
                continue
            file = (path.parent / unquote(target.partition("?")[0])).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            known = not heading or file not in pages or f'id="{unquote(heading)}"' in pages[file]
            if not file.exists() or not known:
                broken.append((str(path.relative_to(site)), link))
    return broken


def test_links_between_the_pages_lead_somewhere():
    for page in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]:
        prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name} links to {target}"
