"""Whatever is damaged in an output, a command ends with one message, and its remedy helps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.damage import OTHER, SLICE, SPOILS, World, build_world, change, copy, ids, reported

pytestmark = pytest.mark.slow

STATE = f"_batchscore/slices/{SLICE}"
LEASE = f"_batchscore/slices/{OTHER}/lease/00000002.json"
CODES = (0, 1, 2, 3, 4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The output, of which each test damages a copy."""
    return build_world(tmp_path_factory.mktemp("world"))


# The document, and the commands that need it, or look at it.
DOCUMENTS: dict[str, tuple[Callable[[World], str], tuple[str, ...]]] = {
    "the published manifest": (
        lambda w: w.home("second", "manifest.json"),
        ("runs", "show", "verify", "trace", "report", "check", "run", "rollback"),
    ),
    "a superseded manifest": (
        lambda w: w.home("first", "manifest.json"),
        ("runs", "report", "run", "rollback"),
    ),
    "a held manifest": (
        lambda w: w.home("held", "manifest.json"),
        ("runs", "release", "discard"),
    ),
    "what release needs": (lambda w: w.home("held", "held.json"), ("release", "discard")),
    "the format": (lambda w: "_batchscore/format.json", ("files", "verify", "check", "run")),
    "a lease": (lambda w: LEASE, ("verify", "next", "discard")),
    "the list": (lambda w: f"{STATE}/current.txt", ("files", "verify", "check", "run")),
    "the marker": (lambda w: f"{STATE}/_SUCCESS", ("runs", "verify", "check", "run")),
    "a superseded record": (lambda w: w.record("first"), ("verify", "run", "rollback")),
}


@pytest.mark.parametrize("spoil", ["deep", "digits", "half a character", "a folder", "null"])
@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_damaged_document_is_one_message(
    world: World, tmp_path: Path, document: str, spoil: str
) -> None:
    """No command ends in a defect's message, or in an exit code that is not documented."""
    path, commands = DOCUMENTS[document]
    output = copy(world, tmp_path)
    SPOILS[spoil](output / path(world))
    words = world.commands(output)
    assert all(reported(words[name])[0] in CODES for name in commands)


Remedy = Callable[[World, Path, Path], None]


def restore(world: World, output: Path, path: Path) -> None:
    """Restore the file from a copy."""
    if path.is_dir():
        path.rmdir()
    shutil.copy(world.output / path.relative_to(output), path)


def remove(world: World, output: Path, path: Path) -> None:
    """Remove the file."""
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def rescore(world: World, output: Path, path: Path) -> None:
    """Score the slice again with --rescore."""
    assert reported(world.commands(output)["rescore"])[0] == 0


def mark(world: World, output: Path, path: Path) -> None:
    """Write the line into the file that the message shows."""
    path.write_text('{"batchscore_output": 1}')


def nothing(world: World, output: Path, path: Path) -> None:
    """Do nothing: the next run puts it right."""


# The document, the words of its message (none where `check` ends well), and a remedy.
REMEDIES: dict[str, tuple[str, str, Remedy]] = {
    "manifest, restored": ("the published manifest", "restore it from a copy", restore),
    "manifest, scored again": ("the published manifest", "--rescore", rescore),
    "format, restored": ("the format", "restore it from a copy", restore),
    "format, written": ("the format", 'write {"batchscore_output": 1} into it', mark),
    "list, restored": ("the list", "restore it", restore),
    "list, run again": ("the list", "", nothing),
    "list, scored again": ("the list", "", rescore),
    "marker, restored": ("the marker", "restore it from a copy", restore),
    "marker, run again": ("the marker", "restore it from a copy", nothing),
    "superseded manifest": ("a superseded manifest", "", nothing),
    "superseded record": ("a superseded record", "", nothing),
}


@pytest.mark.parametrize("spoil", ["gone", "no text"])
@pytest.mark.parametrize("case", REMEDIES)
def test_a_remedy_helps(world: World, tmp_path: Path, case: str, spoil: str) -> None:
    """Who does what a message says has a run that works, and each row once under `data/`."""
    document, message, remedy = REMEDIES[case]
    output = copy(world, tmp_path)
    words, path = world.commands(output), output / DOCUMENTS[document][0](world)
    SPOILS[spoil](path)
    if message and spoil != "gone":
        code, text = reported(words["check"])
        assert (code in (1, 2), message in text) == (True, True), text
    remedy(world, output, path)
    assert reported(words["run"])[0] == 0
    assert reported(words["verify"])[0] == 0
    assert ids(output) == ids(world.output)


def test_other_documents_have_remedies_that_help(world: World, tmp_path: Path) -> None:
    """A lease is removed; a held run whose publication is damaged is judged again by a run."""
    output = copy(world, tmp_path)
    words, lease = world.commands(output), output / LEASE
    SPOILS["deep"](lease)
    code, text = reported(words["discard"])
    assert (code, "remove the file" in text) == (1, True)
    lease.unlink()
    SPOILS["deep"](output / world.home("held", "held.json"))
    code, text = reported(words["release"])
    assert (code, "run the job again" in text) == (1, True)
    assert reported(words["next"])[0] == 0
    assert reported(words["verify"])[0] == 0
    assert set(ids(output).values()) == {1}


@pytest.mark.parametrize(
    "gone",
    [
        ("current.txt",),
        ("_SUCCESS",),
        ("current.txt", "_SUCCESS"),
        ("",),
        ("current.txt", "manifest"),
        ("", "manifest"),
    ],
    ids=str,
)
def test_what_is_gone_leaves_no_row_twice(
    world: World, tmp_path: Path, gone: tuple[str, ...]
) -> None:
    """Whatever of a slice's state was deleted, `data/` has each row once after a run."""
    output = copy(world, tmp_path)
    for name in gone:
        path = output / (world.home("second", "manifest.json") if name == "manifest" else STATE)
        path = path / name if name != "manifest" else path
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    words = world.commands(output)
    if reported(words["run"])[0] == 1:
        assert reported(words["rescore"])[0] == 0
    assert reported(words["verify"])[0] == 0
    assert ids(output) == ids(world.output)


def test_an_emptied_list_is_restored_from_the_manifest(world: World, tmp_path: Path) -> None:
    """A run writes the list again that its manifest and the marker agree on."""
    output = copy(world, tmp_path)
    (output / STATE / "current.txt").write_bytes(b"")
    assert reported(world.commands(output)["run"])[0] == 0
    path = f"{STATE}/current.txt"
    assert (output / path).read_bytes() == (world.output / path).read_bytes()


def test_an_output_without_its_records_is_refused(world: World, tmp_path: Path) -> None:
    """Where `_batchscore` is gone the files of `data/` are somebody else's, and stay."""
    output = copy(world, tmp_path)
    shutil.rmtree(output / "_batchscore")
    code, text = reported(world.commands(output)["run"])
    assert (code, "is not an output of batchscore" in text) == (2, True)
    assert ids(output) == ids(world.output)


@pytest.mark.parametrize("spoil", ["gone", "no text"])
def test_verify_reports_the_format(world: World, tmp_path: Path, spoil: str) -> None:
    """An output whose format is gone or damaged does not verify, though it can be read."""
    output = copy(world, tmp_path)
    SPOILS[spoil](output / "_batchscore/format.json")
    code, text = reported(world.commands(output)["verify"])
    assert (code, "format.json" in text) == (1, True), text


def test_a_newer_format_is_refused(world: World, tmp_path: Path) -> None:
    """The message names both formats and what to install, whatever the command."""
    output = copy(world, tmp_path)
    change(output / "_batchscore/format.json", batchscore_output=3)
    for name in ("files", "verify", "check", "run", "release"):
        code, text = reported(world.commands(output)[name])
        assert (code, "format 3" in text, "up to 2" in text) == (2, True, True), text
        assert "install a newer batchscore" in text


def test_one_damaged_slice_blocks_no_other(world: World, tmp_path: Path) -> None:
    """The other slice is listed, verified and published; the damaged one is named."""
    output = copy(world, tmp_path)
    for name in ("current.txt", "_SUCCESS"):
        SPOILS["no text"](output / STATE / name)
    SPOILS["deep"](output / world.home("second", "manifest.json"))
    words = world.commands(output)
    code, text = reported(words["runs"])
    (row,) = [line for line in text.splitlines() if "  damaged  " in line]
    assert (code, world.runs["other"]["run"] in text) == (0, True)
    assert f"run {row.split()[0]}: manifest " in text
    code, text = reported(words["verify"])
    assert code == 1
    assert any(line.startswith("OK") and OTHER in line for line in text.splitlines())
    assert reported(words["next"])[0] == 0


def test_texts_of_a_manifest_command_no_terminal(world: World, tmp_path: Path) -> None:
    """Control characters that somebody put into a manifest are not printed."""
    output = copy(world, tmp_path)
    change(output / world.home("second", "manifest.json"), actor="\x1b[31mred", device="\x1b]0;x")
    for name in ("runs", "show"):
        code, text = reported(world.commands(output)[name])
        assert (code, "\x1b" in text) == (0, False)


def test_files_are_those_of_the_list_where_a_manifest_does_not_tell_them(
    world: World, tmp_path: Path
) -> None:
    """A manifest whose list of files is damaged leaves `files` with the slice's list."""
    output = copy(world, tmp_path)
    change(output / world.home("second", "manifest.json"), files=[0])
    code, text = reported(world.commands(output)["files"])
    assert (code, len(text.split())) == (0, 2)
