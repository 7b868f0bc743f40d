"""A self-contained web page from the Markdown that the report writes: figures embedded, dark and light, wide tables scroll.

Only that Markdown is understood: headings, paragraphs, pipe tables, fenced code, lists of one level, figures on a line of their
own, and within a line code, bold, emphasis and links. A line in emphasis below a figure, after a hard break, is its caption; a
figure that is a list's item, as a link, is folded away. On a narrow screen each row of a table becomes a card.
"""

import base64
import html
import re
from itertools import groupby
from urllib.parse import unquote

MEDIA = {".png": "image/png", ".gif": "image/gif"}
STYLE = """
:root { color-scheme: light dark; --ground: #fbfbf9; --card: #fff; --ink: #1d2125; --faint: #5c6670; --line: #e2e4e6;
  --accent: #2458a6; --good: #17663a; --good-ground: #e0f3e7; --bad: #9a2318; --bad-ground: #fbe5e2; --open: #6a5310;
  --open-ground: #f7efd6; --code: #f1f2f3; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --card: #1c2024; --ink: #e4e7ea; --faint: #9aa4ad;
  --line: #31373d; --accent: #8db8ff; --good: #86dda8; --good-ground: #173626; --bad: #ffab9f; --bad-ground: #43201c;
  --open: #ecd489; --open-ground: #3a3117; --code: #272c31; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 88rem; margin: 0 auto; padding: 1.5rem clamp(0.9rem, 3vw, 2.5rem) 4rem; }
h1 { font-size: 1.9rem; margin: 0.5rem 0; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 0.8rem; padding-top: 0.8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 0.4rem; }
p, li { max-width: 52rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem; margin: 1rem 0; font-size: 0.92rem; }
nav a { text-decoration: none; }
.table { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 0.8rem 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.5rem 0.65rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td { min-width: 4.5rem; overflow-wrap: anywhere; }
td.long { min-width: 12rem; }
td.essay { min-width: 18rem; }
tr:last-child td { border-bottom: 0; }
th { color: var(--faint); font-weight: 600; white-space: nowrap; }
code { font: 0.86em/1.5 ui-monospace, monospace; background: var(--code); padding: 0.1em 0.3em; border-radius: 4px; }
pre { background: var(--code); border-radius: 10px; padding: 0.9rem 1.1rem; overflow-x: auto; }
pre code { padding: 0; background: none; }
.verdict { display: inline-block; white-space: nowrap; padding: 0.05rem 0.6rem; border-radius: 1rem; font-weight: 600; }
.reproduced { color: var(--good); background: var(--good-ground); }
.not-reproduced { color: var(--bad); background: var(--bad-ground); }
.not-measured { color: var(--open); background: var(--open-ground); }
@media (max-width: 44rem) {
  thead { display: none; }
  tr { display: block; }
  td, td.long, td.essay { display: grid; grid-template-columns: 6.5rem 1fr; gap: 0.6rem; min-width: 0; }
  tr { padding: 0.5rem 0; border-bottom: 1px solid var(--line); }
  tr:last-child { border-bottom: 0; }
  td { border: 0; padding: 0.15rem 0.8rem; overflow-wrap: anywhere; }
  td:has(div:empty) { display: none; }
  td::before { content: attr(data-label); color: var(--faint); }
}
figure { margin: 1rem 0; }
figure img { max-width: 100%; background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 0.5rem; }
figcaption { color: var(--faint); font-size: 0.92rem; max-width: 58rem; overflow-wrap: anywhere; }
figcaption:empty { display: none; }
details { margin: 0.3rem 0; }
summary { color: var(--accent); cursor: pointer; overflow-wrap: anywhere; }
"""
VERDICTS = ("reproduced", "not reproduced", "not measured")
FIGURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
LINKED_FIGURE = re.compile(rf"\[([^\]]+)\]\(([^)]+(?:{'|'.join(map(re.escape, MEDIA))}))\)")
LONG_CELL, ESSAY = 22, 180  # characters from which a cell gets room, and prose more of it


def render(markdown, folder, title):
    """The page, a string; figures are read from their paths relative to `folder`, other links are kept as they are.

    Raises FileNotFoundError for a figure that is not there, ValueError for one of a kind that cannot be embedded.
    """
    blocks = list(_blocks(markdown.splitlines()))
    body = [_block(lines, folder) for lines in blocks]
    headings = [lines[0][3:] for lines in blocks if lines[0].startswith("## ")]
    links = "".join(f'<a href="#{_anchor(heading)}">{_inline(heading)}</a>' for heading in headings)
    # The list of contents stands behind the title.
    first = next((number for number, lines in enumerate(blocks) if lines[0].startswith("## ")), len(body))
    body.insert(first, f"<nav>{links}</nav>")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body><main>",
            *body,
            "</main></body>",
            "</html>",
            "",
        ]
    )


def _blocks(lines):
    """Groups of lines that belong together: fenced code whole, otherwise what blank lines separate, a heading by itself."""
    block, fenced = [], False
    for line in lines:
        if line.startswith("```"):
            if not fenced and block:
                yield block
                block = []
            block.append(line)
            if fenced:
                yield block
                block = []
            fenced = not fenced
        elif fenced:
            block.append(line)
        elif not line.strip() or line.startswith(("#", "<!--")):
            if block:
                yield block
            block = []
            if line.startswith("#"):
                yield [line]
        else:
            block.append(line)
    if block:
        yield block


def _block(lines, folder):
    first = lines[0]
    if first.startswith("```"):
        return f"<pre><code>{html.escape(chr(10).join(lines[1:-1]))}</code></pre>"
    if first.startswith("#"):
        level = len(first) - len(first.lstrip("#"))
        text = first[level:].strip()
        return f'<h{level} id="{_anchor(text)}">{_inline(text)}</h{level}>'
    if first.startswith("|"):
        return _table(lines)
    if first.startswith("- "):
        items = "\n".join(lines).removeprefix("- ").split("\n- ")
        if all(LINKED_FIGURE.fullmatch(item) for item in items):
            return "\n".join(_folded_figure(item, folder) for item in items)
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
    if first.endswith("\\") and FIGURE.fullmatch(first[:-1]):
        return _figure(*FIGURE.fullmatch(first[:-1]).groups(), folder, " ".join(lines[1:]).strip("*"))
    # Figures on successive lines stand one below the other; text between them is a paragraph.
    parts = []
    for is_figure, group in groupby(lines, key=lambda line: bool(FIGURE.fullmatch(line.strip()))):
        group = list(group)
        if is_figure:
            parts += [_figure(*FIGURE.fullmatch(line.strip()).groups(), folder) for line in group]
        else:
            parts.append(f"<p>{_inline(chr(10).join(group))}</p>")
    return "\n".join(parts)


def _table(lines):
    heading, _, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in heading)
    body = "".join("<tr>" + "".join(map(_cell, row, heading)) + "</tr>\n" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _cell(text, label):
    plain = text.strip("*")
    if plain in VERDICTS:
        content, room = f'<span class="verdict {plain.replace(" ", "-")}">{plain}</span>', ""
    else:
        content, room = _inline(text), _room(text)
    return f'<td{room} data-label="{html.escape(label)}"><div>{content}</div></td>'


def _room(text):
    return ' class="essay"' if len(text) > ESSAY and "](" not in text else ' class="long"' if len(text) > LONG_CELL else ""


def _figure(name, target, folder, caption=None):
    """A figure embedded; its caption is by default its name."""
    path = folder / unquote(target)
    if path.suffix not in MEDIA:
        raise ValueError(f"{path} cannot be embedded: its name must end in one of {', '.join(MEDIA)}")
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img src="data:{MEDIA[path.suffix]};base64,{data}" alt="{html.escape(name)}">'
        f"<figcaption>{_inline(name if caption is None else caption)}</figcaption></figure>"
    )


def _folded_figure(item, folder):
    name, target = LINKED_FIGURE.fullmatch(item).groups()
    return f"<details><summary>{_inline(name)}</summary>{_figure(name, target, folder, '')}</details>"


def _inline(text):
    """Code, bold and links of a line; in code nothing else is looked for."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        f"<code>{html.escape(part[1:-1])}</code>" if number % 2 else _marked(part) for number, part in enumerate(parts)
    )


def _marked(text):
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text))
    text = re.sub(r"(?<!\*)\*(?![\s*])([^*]+)(?<!\s)\*", r"<em>\1</em>", text)
    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", r'<a href="\2">\1</a>', text)


def _anchor(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
