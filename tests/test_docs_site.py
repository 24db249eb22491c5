"""Test that the documentation site builds, holds every page, and loads nothing from elsewhere."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import batchscore as bs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return place


def test_the_site_documents_every_exported_name(site: Path) -> None:
    """The API reference has an entry for each name of `batchscore.__all__` and no other."""
    page = (site / "reference.html").read_text(encoding="utf-8")
    found = set(re.findall(r'id="batchscore\.(\w+)"', page))
    assert found == set(bs.__all__)
    assert "Scores a job's input and publishes the result" in html.unescape(page)


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """No page takes a script, style, font or picture from another host."""
    loaded = re.compile(r'<(?:script|img|iframe)[^>]*src="(\w+:)?//|<link[^>]*href="(\w+:)?//')
    pages = [*site.rglob("*.html")]
    assert [page.name for page in pages if loaded.search(page.read_text(encoding="utf-8"))] == []
    assert len(pages) > 12


def test_links_to_files_of_the_tree_are_fixed(site: Path) -> None:
    """A page that links to a file outside docs/ leads to a copy of that file on the site."""
    card = "jobs/flight_delays/model/model.yaml"
    page = (site / "model-folder.html").read_text(encoding="utf-8")
    assert f'href="files/{card}"' in page
    assert (site / "files" / card).read_bytes() == (ROOT / card).read_bytes()


def test_the_navigation_names_every_page() -> None:
    """Each Markdown file in docs/ is in the navigation, once."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"([\w-]+\.md)$", yaml.safe_dump(yaml.safe_load(text)["nav"]), re.M)
    assert len(named) == len(set(named))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(named)
