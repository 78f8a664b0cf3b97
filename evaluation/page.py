"""Pages: one HTML file each, which needs nothing else: no script, no network, light or dark as the reader has it."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

STYLE = (Path(__file__).parent / "report.css").read_text()


def text(content: object) -> str:
    """Text for the page; a number keeps its percent sign on its line."""
    return html.escape(str(content)).replace(" %", "&nbsp;%")


def section(title: str, inside: str, note: str = "") -> str:
    """A heading, a note below it, and what it is about; nothing if there is nothing inside."""
    note = f'<p class="note">{text(note)}</p>' if note else ""
    return f"<section>\n<h2>{text(title)}</h2>\n{note}\n{inside}\n</section>" if inside else ""


def headline(over: str, title: str, sentences: Iterable[str]) -> str:
    """What the reader is to know first."""
    below = "\n".join(f'<p class="verdict">{text(sentence)}</p>' for sentence in sentences)
    return f'<p class="over">{text(over)}</p>\n<h1>{text(title)}</h1>\n{below}'


def card(caption: str, inside: str, kind: str = "") -> str:
    """A plot or the like with its title, which is HTML too."""
    return f'<figure class="card {kind}"><figcaption>{caption}</figcaption>{inside}</figure>'


def grid(cards: Sequence[str], kind: str = "") -> str:
    """Cards beside and below each other; nothing if there are none."""
    return f'<div class="grid {kind}">{"".join(cards)}</div>' if cards else ""


def facts(entries: dict[str, object]) -> str:
    """A list of names and what they stand for."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in entries.items())
    return f'<dl class="facts">{rows}</dl>'


def wide_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls in a box of its own where it is wider than the page. Its first column stays in sight.

    Args:
        head: HTML of the header cells.
        rows: HTML of the cells, row by row.
    """
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return (
        f'<div class="scroll wide-table" tabindex="0" role="region" aria-label="table"><table>\n'
        f"<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def data(kind: str, content: bytes) -> str:
    """A file as an address that holds its content."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """A whole page. `style`: more of CSS, for what only this page has."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n"
        "<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )
