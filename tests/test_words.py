"""Test that texts and names avoid words that many readers have to decode."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = ("batchscore", "benchmarks", "data", "docs", "jobs", "tests", "tools")
# A model folder pins the bytes of its files, and this file names the words.
EXCEPT = {"jobs/flight_delays/model/net.py", "jobs/flight_delays/net.py", "tests/test_words.py"}
# Old or unusual English, and what to say in its place.
WORDS = {
    "anew": "again",
    "be it": "whether",
    "begun": "started",
    "besides?": "next to, alongside, in addition",
    "by turns": "alternating",
    "(?:come|comes|came|coming) out": "is, results in",
    "heed(?:s|ed)?": "honour",
    "held against": "compared with",
    "lets? go": "release",
    "mend(?:s|ed|ing)?": "fix",
    "of nobody": "orphaned",
    "stands?(?! for|_)|stood": "is, is listed",
    "told": "reported, distinguished",
}
ANY = re.compile(rf"(?<![a-z])(?:{'|'.join(f'({word})' for word in WORDS)})(?![a-z])")
# Of a function's or class's docstring: what follows the name of an argument or error.
SECTION = re.compile(r"^( +)(?:Args|Raises):\n((?:\1 {4}.*\n|\n)+)", re.M)
ENTRY = re.compile(r"^[\w*, .`]+: (.*)$", re.M)
# It continues the name, and does not describe it.
FRAGMENT = re.compile(r"[a-z]+[ ,.;:]")


def _files() -> Iterator[Path]:
    """Yields all sources and pages."""
    yield from ROOT.glob("*.md")
    for folder in CODE:
        yield from (ROOT / folder).rglob("*.py")
        yield from (ROOT / folder).rglob("*.md")


def _found(text: str) -> list[str]:
    """Returns each such word of a text with what is around it, and what to say in its place."""
    line, better = " ".join(text.lower().replace("#", " ").split()), list(WORDS.values())
    hits = [(hit.span(), better[(hit.lastindex or 1) - 1]) for hit in ANY.finditer(line)]
    return [f"…{line[max(0, a - 30) : b + 30]}…: say {word}" for (a, b), word in hits]


def test_no_text_has_to_be_decoded() -> None:
    """No source, test or page has one of the words, in a text or as a part of a name."""
    names = {path.relative_to(ROOT).as_posix(): path for path in _files()}
    texts = {name: names[name].read_text(encoding="utf-8") for name in names.keys() - EXCEPT}
    assert len(texts) > 500
    assert {name: words for name, text in texts.items() if (words := _found(text))} == {}


def test_each_word_is_found_wherever_it_is() -> None:
    """A word counts over a line's end and within a name, and not as a part of another word."""
    found = _found("which comes\n    # out, as it is told; _beside = 1")
    assert [each.rpartition("say ")[2].partition(",")[0] for each in found] == [
        "is",
        "reported",
        "next to",
    ]
    assert _found("recommend, understand, standard, toldest, what it stands for") == []


def test_arguments_and_errors_are_described_by_phrases() -> None:
    """What `Args:` and `Raises:` say of a name starts a phrase of its own, or with code."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "batchscore").rglob("*.py")]
    sections = [(len(i) + 4, s) for text in sources for i, s in SECTION.findall(text)]
    lines = [line[n:] for n, section in sections for line in section.splitlines()]
    described = [entry[1] for line in lines if (entry := ENTRY.match(line))]
    assert len(described) > 1000
    assert [each for each in described if FRAGMENT.match(each)] == []
