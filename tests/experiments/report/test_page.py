"""The web page made from the report's Markdown: self-contained, escaped, with verdicts marked."""

import base64
import re
from html.parser import HTMLParser

import pytest

from experiments.report import page

TEXT = """# Title

First *paragraph* with `a < b`, **bold** and a [link](runs/a.json),
on two lines.

## One part

| what     | verdict            |
|----------|--------------------|
| a & b    | **not reproduced** |
| `<code>` | reproduced         |

- first: `x`
- second

```python
x = [1]

# not a heading
```

![a figure](figures/one.png)
![another](figures/two.gif)

![with a caption](figures/one.png)\\
*What it shows. From `run one`.*

- [a second seed](figures/two.gif)
"""


class Checker(HTMLParser):
    """Notes tags that are left open and addresses that a browser would fetch by itself."""

    VOID = {"meta", "img", "br", "!doctype"}

    def __init__(self):
        super().__init__()
        self.open, self.fetched = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [value for name, value in attributes if name == "src" or (tag == "link" and name == "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def rendered(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "one.png").write_bytes(b"png")
    (tmp_path / "figures" / "two.gif").write_bytes(b"gif")
    return page.render(TEXT, tmp_path, "A & B")


def test_a_page_is_well_formed_and_fetches_nothing(rendered):
    checker = Checker()
    checker.feed(rendered)
    assert checker.open == []
    kinds = ("png", "gif", "png", "gif")
    assert checker.fetched == [f"data:image/{kind};base64,{base64.b64encode(kind.encode()).decode()}" for kind in kinds]
    assert "http" not in rendered and "url(" not in rendered and "@import" not in rendered


def test_text_is_escaped_and_marked_up(rendered):
    assert "<title>A &amp; B</title>" in rendered
    assert "<em>paragraph</em> with <code>a &lt; b</code>, <strong>bold</strong> and a " in rendered
    assert '<a href="runs/a.json">link</a>,' in rendered
    assert "a &amp; b" in rendered and "<code>&lt;code&gt;</code>" in rendered
    assert "<ul><li>first: <code>x</code></li><li>second</li></ul>" in rendered
    assert "<pre><code>x = [1]\n\n# not a heading</code></pre>" in rendered


def test_verdicts_are_marked_and_headings_linked(rendered):
    assert '<span class="verdict not-reproduced">not reproduced</span>' in rendered
    assert '<span class="verdict reproduced">reproduced</span>' in rendered
    assert '<nav><a href="#one-part">One part</a></nav>' in rendered and '<h2 id="one-part">' in rendered
    assert rendered.index("First <em>") < rendered.index("<nav>") < rendered.index("<h2")


def test_captions_are_below_figures_and_listed_figures_are_folded_away(rendered):
    assert 'alt="with a caption"><figcaption>What it shows. From <code>run one</code>.</figcaption>' in rendered
    folded = rendered[rendered.index("<details>") : rendered.index("</details>")]
    assert "<summary>a second seed</summary><figure><img" in folded and rendered.count("<details>") == 1


def test_dark_light_and_narrow_screens_are_provided_for(rendered):
    assert "prefers-color-scheme: dark" in rendered and "width=device-width" in rendered
    assert re.search(r"<td[^>]* data-label=\"what\">", rendered)


@pytest.mark.parametrize("name, error", [("gone.png", FileNotFoundError), ("one.svg", ValueError)])
def test_figures_that_cannot_be_embedded(tmp_path, name, error):
    with pytest.raises(error, match=name):
        page.render(f"![a figure]({name})", tmp_path, "title")
