"""Test what readers and writers make of a list of published files that was edited by hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from batchscore.commands.decide import undo
from batchscore.commands.verify import verify_output
from batchscore.errors import RecordError
from batchscore.runs.history import published_files
from batchscore.runs.publication import is_pending
from batchscore.runs.publish import publish
from batchscore.runs.snapshot import listing_path, read_listing
from batchscore.storage.store import Store
from tests.factory import published, run_cli, run_json, write_job
from tests.faults.sleepers import (
    SLICE,
    World,
    copy_world,
    make_world,
    run,
    wanted,
)
from tests.runs.test_publish import OLD, begin, visible
from tests.runs.test_publish import SLICE as TWO_DAYS

Edit = Callable[[bytes], bytes]

HARMLESS: dict[str, Edit] = {
    "no last line break": lambda raw: raw.rstrip(b"\n"),
    "CRLF": lambda raw: raw.replace(b"\n", b"\r\n"),
    "CRLF without the last": lambda raw: raw.rstrip(b"\n").replace(b"\n", b"\r\n"),
    "blank lines": lambda raw: b"\n" + raw.replace(b"\n", b"\n\n") + b" \n",
    "byte order mark": lambda raw: b"\xef\xbb\xbf" + raw,
    "another order": lambda raw: b"".join(reversed(raw.splitlines(True))),
}
HARMFUL: dict[str, Edit] = {
    "empty": lambda raw: b"",
    "a file less": lambda raw: b"".join(raw.splitlines(True)[1:]),
    "cut": lambda raw: raw[:-9],
    "a file twice": lambda raw: raw + raw.splitlines(True)[0],
    "absolute": lambda raw: raw + b"/etc/passwd\n",
    "outside": lambda raw: raw + b"data/../../secret.parquet\n",
    "not below data": lambda raw: raw + b"_batchscore/staging/x.parquet\n",
    "backslash": lambda raw: raw.replace(b"/", b"\\"),
    "control character": lambda raw: raw.replace(b"data/", b"data/\x1b", 1),
    "line breaks of old": lambda raw: raw.replace(b"\n", b"\r"),
    "no text": lambda raw: b"\xff\xfe" + raw,
    "somebody else's": lambda raw: b"data/theirs.parquet\n",
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two shards, published by one run."""
    folder = tmp_path_factory.mktemp("listed")
    return make_world(folder, str(folder / "before"), "rescoring")


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    """A copy of the output."""
    return copy_world(template, tmp_path / "out")


def edit(world: World, how: Edit) -> None:
    path = listing_path(SLICE)
    world.store.write(path, how(world.store.read(path)))


@pytest.mark.slow
@pytest.mark.parametrize("how", HARMLESS)
def test_a_list_that_says_the_same_is_published_upon(world: World, how: str) -> None:
    """It is read as it was written, and the next publication is complete, no row twice."""
    files = published_files(world.store, SLICE)
    edit(world, HARMLESS[how])
    assert published_files(world.store, SLICE) == files
    assert verify_output(world.store, SLICE).problems == []
    run(world, world.store, "r2", 2, "2.0")
    assert world.rows() == wanted(2, "2.0")
    edit(world, HARMLESS[how])
    undo(world.store, "r2", SLICE, "why")
    assert world.rows() == wanted(2, "1.0")
    assert verify_output(world.store, SLICE).problems == []
    assert not is_pending(world.store, SLICE)


@pytest.mark.slow
@pytest.mark.parametrize("how", HARMFUL)
def test_a_list_that_says_something_else_is_refused(world: World, how: str) -> None:
    """Readers get an error, and a publication that rescores replaces it."""
    edit(world, HARMFUL[how])
    with pytest.raises(RecordError, match=r"current\.txt.*by hand.*--rescore"):
        published_files(world.store, None)
    assert {problem.kind for problem in verify_output(world.store, SLICE).problems} >= {"snapshot"}
    run(world, world.store, "r2", 2, "2.0")
    assert world.rows() == wanted(2, "2.0")
    assert verify_output(world.store, SLICE).problems == []


def test_a_list_that_is_replaced_during_a_publication_is_left_with_its_rows(
    tmp_path: Path,
) -> None:
    """Where the compare-and-swap fails, what was moved goes back, and no reader sees rows twice."""
    planned = begin(tmp_path)
    before = visible(tmp_path)

    class EditedStore(Store):
        def exchange(
            self, relative: str, old: bytes | None, new: bytes, flush: bool = True
        ) -> bool:
            if relative == listing_path(TWO_DAYS):
                Store(self.address).write(relative, min(OLD).encode())
            return super().exchange(relative, old, new, flush)

    with pytest.raises(Exception, match="published by another"):
        publish(EditedStore(str(tmp_path)), TWO_DAYS, planned)
    assert visible(tmp_path) == before
    store = Store(str(tmp_path))
    assert read_listing(store, TWO_DAYS).files == (min(OLD),)
    assert all(store.exists(staged) for staged, _ in planned.moves)
    assert not is_pending(store, TWO_DAYS)


@pytest.mark.slow
def test_the_command_line_names_the_list_and_its_remedy_works(tmp_path: Path) -> None:
    """`files` ends with 1 and prints no file; a run says the same, and --rescore repairs it."""
    job = write_job(tmp_path)
    run_json("run", job)
    path = tmp_path / "out" / listing_path("small")
    path.write_text("data/../../secret.parquet\n")
    for command in ("files", "run"):
        done = run_cli(command, job)
        assert done.exit_code == 1
        assert "current.txt" in done.output + done.stderr
        assert f"secret.parquet{os.linesep}" not in done.stdout
    assert run_json("run", job, "--rescore")["status"] == "published"
    assert run_cli("files", job).exit_code == 0
    assert published(tmp_path / "out")["id"].to_pylist() == list(range(500))
