"""What the site takes from outside docs/: README as its first page, results and examples, under links that fit both places."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
TAKEN = (
    "results/README.md",
    "results/figures/*",
    "results/runs/*/*.json",
    "results/superseded/*/*.json",
    "examples/*.py",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)


def on_files(files, config):
    """Add the files of TAKEN at their places in the repository, and README as index.md."""
    files.append(File.generated(config, "index.md", content=_from_root((ROOT / "README.md").read_text(encoding="utf-8"))))
    for path in (path for pattern in TAKEN for path in sorted(ROOT.glob(pattern))):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links of a page of docs/ to what lies beside docs/ lead to where on_files put it."""
    return markdown if "/" in page.file.src_uri else markdown.replace("](../", "](")


def _from_root(markdown):
    """Links of README: pages of docs/ lie beside it here, and a folder has no page."""
    return re.sub(r"\[([^\]]+)\]\(examples\)", r"\1", markdown.replace("](docs/", "]("))
