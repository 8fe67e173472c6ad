"""Text that the decoder is trained, calibrated and judged on, split by article."""

from __future__ import annotations

import bz2
import html
import re
from collections.abc import Iterator

from models import corpora
from models.packages import Archive

WIKIPEDIA = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SHARES = 20
"""Of so many articles in turn the first is for evaluation, the second for calibration."""

_SHORTEST = 200
_DROPPED = (
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"<ref[^>]*/>|<ref.*?</ref>", re.DOTALL),
    re.compile(r"<(math|gallery|source|timeline|table)\b.*?</\1>", re.DOTALL),
)
_INNERMOST = re.compile(r"\{\{[^{}]*\}\}|\{\|[^{}]*\|\}|\[\[(?:File|Image):[^\[\]]*\]\]")
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_OUTSIDE = re.compile(r"\[https?://\S*\s?([^\]]*)\]")
_TAG = re.compile(r"</?\w[^>]*>")
_PROSE = re.compile(r"[A-Z\"']")


def plain(wikitext: str) -> str:
    """The paragraphs of an article, without templates, tables, notes, pictures and headings."""
    text = html.unescape(wikitext)
    for pattern in _DROPPED:
        text = pattern.sub("", text)
    for _ in range(8):  # templates in templates
        text = _INNERMOST.sub("", text)
    text = _LINK.sub(r"\1", text)
    text = _TAG.sub("", _OUTSIDE.sub(r"\1", text)).replace("'''", "").replace("''", "")
    lines = (line.strip() for line in text.splitlines())
    kept = (line for line in lines if len(line) >= _SHORTEST and _PROSE.match(line))
    return "\n".join(line for line in kept if not re.search(r"[\[\]{}|]", line))


def wikipedia(archive: Archive) -> Iterator[str]:
    """The articles of the excerpt of Wikipedia that gensim tests with, as plain text."""
    dump = bz2.decompress(archive.read(f"{corpora.FOLDER}/{WIKIPEDIA}")).decode()
    for found in re.finditer(r"<text[^>]*>(.*?)</text>", dump, re.DOTALL):
        text = plain(found[1])
        if text:
            yield text


def splits(archive: Archive) -> tuple[str, str, str]:
    """Text for training, calibration and evaluation; no article is in two of them."""
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for number, article in enumerate([*wikipedia(archive), *corpora.background(archive)]):
        place = number % SHARES
        parts[{0: 2, 1: 1}.get(place, 0)].append(article)
    train, calibration, evaluation = ("\n\n".join(part) for part in parts)
    return train, calibration, evaluation
