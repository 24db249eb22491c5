"""Adds to the documentation site what lies outside docs/, and points links there (mkdocs hook).

Pages of the repository's root become pages of the site. Any other file that a page links to is
copied into the site, so that links work in the repository and on the site alike.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "data/samples/README.md": "flights.md",
    "jobs/digits/README.md": "digits.md",
    "jobs/flight_delays/README.md": "demo.md",
    "jobs/flight_delays_trees/README.md": "demo-trees.md",
    "jobs/schedules/README.md": "schedules.md",
}
COPIES = "files"
LINK = re.compile(r"(?<=\]\()(?!#|\w+:)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of the root, and each other file outside docs/ that a page links to."""
    pages = [ROOT / name for name in PAGES]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        name = page.relative_to(ROOT).as_posix()
        files.append(File.generated(config, PAGES[name], content=_relinked(text, name)))
    for target in sorted(set().union(*map(_targets, [*pages, *ROOT.glob("docs/*.md")]))):
        if _place(target).startswith(f"{COPIES}/"):
            files.append(_copy(config, target))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Points a page's links to where their files lie on the site."""
    if page.file.src_uri in PAGES.values():
        return markdown
    return _relinked(markdown, f"docs/{page.file.src_uri}")


def _copy(config: Any, target: str) -> File:
    source, level = str(ROOT / target), InclusionLevel.NOT_IN_NAV
    return File.generated(config, _place(target), abs_src_path=source, inclusion=level)


def _relinked(text: str, page: str) -> str:
    """Returns a page's text with links that are relative to the page's place on the site."""
    folder = posixpath.dirname(_place(page))
    return LINK.sub(lambda link: posixpath.relpath(_place(_target(page, link[1])), folder), text)


def _targets(page: Path) -> set[str]:
    name = page.relative_to(ROOT).as_posix()
    return {_target(name, link) for link in LINK.findall(page.read_text(encoding="utf-8"))}


def _target(page: str, link: str) -> str:
    """Returns the path, from the root, of the file that a page links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _place(path: str) -> str:
    """Returns where a file of the repository lies on the site."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{COPIES}/{path}"
