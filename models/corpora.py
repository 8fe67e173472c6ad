"""The small English corpora that gensim ships for its tests."""

from __future__ import annotations

from models.packages import Archive

FOLDER = "gensim/test/test_data"


def text(archive: Archive, file: str) -> str:
    """A whole corpus; gensim's are latin-1."""
    return archive.read(f"{FOLDER}/{file}").decode("latin-1")


def lines(archive: Archive, file: str) -> list[str]:
    """The lines of a corpus without empty ones and comments."""
    content = text(archive, file).splitlines()
    return [line for line in content if line.strip() and not line.startswith("#")]


def background(archive: Archive) -> list[str]:
    """300 news articles of some 200 words."""
    return lines(archive, "lee_background.cor")


def background_text(archive: Archive) -> str:
    """The same articles as one text."""
    return text(archive, "lee_background.cor")


def documents(archive: Archive) -> list[str]:
    """The 50 news summaries of Lee, Pincombe and Welsh (2005)."""
    return lines(archive, "lee.cor")


def document_ratings(archive: Archive) -> list[list[float]]:
    """Mean similarity that people gave to each pair of the 50; the upper triangle counts."""
    rows = lines(archive, "similarities0-1.txt")
    return [[float(value) for value in row.split()] for row in rows]


def word_pairs(archive: Archive, file: str) -> list[tuple[str, str, float]]:
    """Rated pairs of words of `wordsim353.tsv` or `simlex999.txt`."""
    rows = [line.split("\t") for line in lines(archive, file)]
    return [(first, second, float(rating)) for first, second, rating in rows]
