"""Test that folders of table formats are refused, however they are named, and plain ones read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from batchscore.errors import InputError
from batchscore.plan.listing import find_shards
from tests.factory import change_job, run_cli, run_json, write_job, write_shard
from tests.servers import ObjectStore, running_s3

MARKS = {
    "Delta Lake": "_delta_log/00000000000000000000.json",
    "Hudi": ".hoodie/hoodie.properties",
    "Iceberg": "metadata/00000-abc.metadata.json",
    "Spark structured streaming": "_spark_metadata/0",
    "Hive ACID": "base_0000001/x.parquet",
}
FORMATS = [
    *MARKS.items(),
    ("Iceberg", "metadata/version-hint.text"),
    ("Iceberg", "metadata/v12.gz.metadata.json"),
]


def write_table(folder: Path, mark: str) -> Path:
    """A table with two files, in `data` and in a partition, and what marks its format."""
    for name in ("data/0.parquet", "data/k=1/0.parquet"):
        write_shard(folder / name)
    (folder / mark).parent.mkdir(parents=True, exist_ok=True)
    (folder / mark).write_bytes(b"{}")
    return folder


ADDRESSES = ["", "/", "/data", "/data/k=1", "/data/*.parquet", "/**", "/*", "/data/k=*/*.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mark"), FORMATS)
def test_a_table_is_refused_however_it_is_named(tmp_path: Path, name: str, mark: str) -> None:
    """Its folder, one above or below it, and patterns in it are errors that name the format."""
    table = write_table(tmp_path / "lake/t", mark)
    (tmp_path / "link").symlink_to(table / "data")
    inside = [f"{table}{each}" for each in ADDRESSES]
    if name == "Hive ACID":
        inside = [str(table), f"{table}/**", f"{table}/base_0000001", f"{table}/base_*/*.parquet"]
    else:
        inside.append(f"{tmp_path}/link")
    for address in (*inside, f"{tmp_path}/lake", f"{tmp_path}/lak*", f"file://{table}"):
        with pytest.raises(InputError, match=rf"lake/t is a table of {name}, .* snapshot|{name}"):
            find_shards([address])


@pytest.mark.parametrize(("name", "mark"), FORMATS)
def test_files_of_a_table_that_are_listed_are_read(tmp_path: Path, name: str, mark: str) -> None:
    """The remedy that the error names, a list of a snapshot's files, works."""
    table = write_table(tmp_path / "t", mark)
    assert len(find_shards([f"{table}/data/0.parquet", f"{table}/data/k=1/0.parquet"])) == 2


def test_a_plain_folder_that_looks_alike_is_read(tmp_path: Path) -> None:
    """Folders of metadata, versions and dates, and what other tools write, make no table."""
    for name in PLAIN:
        write_shard(tmp_path / "in" / name / "0.parquet")
    (tmp_path / "in/metadata/_notes.json").write_text("{}")
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/train.metadata.json").write_text("{}")
    (tmp_path / "in/_versions").mkdir()
    (tmp_path / "in/_versions/notes").write_text("{}")
    for name in PLAIN:
        assert len(find_shards([str(tmp_path / "in" / name)])) == 1
    assert len(find_shards([str(tmp_path / "in")])) == len(PLAIN)
    assert len(find_shards([str(tmp_path / "in/*/*.parquet")])) == len(PLAIN)


PLAIN = ["metadata", "base_1", "base_20240131", "delta_20240101_20240131", "delta_x", "versions"]


def test_a_link_into_a_table_is_refused(tmp_path: Path) -> None:
    """Whichever way leads to a linked folder of a table; a link to one file names that file."""
    table = write_table(tmp_path / "lake/t", "_delta_log/0.json")
    for name, target in (("one/a/x", table / "data/k=1"), ("two/x", tmp_path / "between")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).symlink_to(target)
    (tmp_path / "between").mkdir()
    (tmp_path / "between/y").symlink_to(table / "data")
    for address in ("one", "one/a", "one/a/x", "one/*", "one/*/*/*.parquet", "two", "two/x/*"):
        with pytest.raises(InputError, match=r"lake/t is a table of Delta Lake"):
            find_shards([str(tmp_path / address)])
    (tmp_path / "three").mkdir()
    (tmp_path / "three/0.parquet").symlink_to(table / "data/0.parquet")
    assert len(find_shards([str(tmp_path / "three")])) == 1


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    """An S3 server for all tests here."""
    with running_s3() as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mark"), FORMATS)
def test_a_table_on_s3_is_refused(
    server: ObjectStore, tmp_path: Path, name: str, mark: str
) -> None:
    """As on a disk, and a list of its files is read."""
    bucket = server.make_bucket(f"tables-{FORMATS.index((name, mark))}")
    folder = server.folder / bucket.partition("://")[2]
    shutil.copytree(write_table(tmp_path / "t", mark), folder / "lake/t")
    table = f"{bucket}/lake/t"
    inside = ["", "/**"] if name == "Hive ACID" else ["/data/k=1", "/data/*.parquet"]
    with server.at():
        inside = [f"{table}{each}" for each in inside]
        inside.append(f"{bucket}/*/t/base_*/*" if name == "Hive ACID" else f"{bucket}/*/t/data/*")
        for address in (*inside, f"{bucket}/lake", bucket):
            with pytest.raises(InputError, match=rf"lake/t is a table of {name}, "):
                find_shards([address])
        assert len(find_shards([f"{table}/data/0.parquet", f"{table}/data/k=1/0.parquet"])) == 2
        write_shard(folder / "lake/plain/0.parquet")
        assert len(find_shards([f"{bucket}/lake/pl*/*.parquet"])) == 1


@pytest.mark.slow
def test_every_command_refuses_a_table(tmp_path: Path) -> None:
    """Run, check, profile and compare name the table, its format and the remedy, with exit 2."""
    job = write_job(tmp_path)
    table = write_table(tmp_path / "t", "_delta_log/0.json")
    change_job(tmp_path, {"input.path": "t"})
    plain = tmp_path / "in"
    commands = [("run", job), ("check", job), ("profile", table)]
    for command in (*commands, ("compare", table, plain), ("compare", plain, table)):
        done = run_cli(*command)
        assert done.exit_code == 2
        assert f"{table} is a table of Delta Lake" in done.stderr
        assert "file_uris()" in done.stderr
    change_job(tmp_path, {"input.path": ["t/data/0.parquet"]})
    assert run_json("run", job)["status"] == "published"


def test_a_list_of_folders_looks_once_at_those_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a store each look is a request, and a list may name each day of a year."""
    folders = [write_shard(tmp_path / f"in/d={n}/0.parquet").parent for n in range(3)]
    looks, exists = list[str](), LocalFileSystem.exists

    def look(self: LocalFileSystem, path: str) -> bool:
        looks.append(path)
        return bool(exists(self, path))

    monkeypatch.setattr(LocalFileSystem, "exists", look)
    assert len(find_shards(list(map(str, folders)))) == 3
    assert len(looks) == len(set(looks))
    assert {os.path.join(folder, ".hoodie") for folder in (*folders, tmp_path)} <= {*looks}
