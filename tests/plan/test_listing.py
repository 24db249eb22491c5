"""Test that every form of an input names the shards that other readers find, links among them."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import InputError
from batchscore.plan.listing import find_shards
from batchscore.stages.read import Source, check_unchanged, read_unit
from batchscore.units.unit import Shard
from tests.factory import make_rows, plan_units, run_json, write_job, write_shard
from tests.outputs import rename_shards
from tests.servers import ObjectStore, running_s3

Rows = Counter[tuple[Any, ...]]


def read(*addresses: object) -> Rows:
    """The rows that our reader finds, with their hive keys."""
    units, schema = plan_units(addresses)
    batches = [b.batch for u in units for b in read_unit(u, Source(schema, None, 1_000))]
    return count(pa.Table.from_batches(batches))


def count(table: pa.Table) -> Rows:
    names = [name for name in ("id", "m", "n") if name in table.column_names]
    columns = [map(str, table.column(name).to_pylist()) for name in names]
    return Counter(zip(*columns, strict=True))


def duck(path: str) -> Rows:
    """The rows that DuckDB finds behind a pattern."""
    found = duckdb.sql(f"FROM read_parquet('{path}', hive_partitioning = true)")
    assert found is not None
    return count(found.to_arrow_table())


def arrow(path: object) -> Rows:
    """The rows that Arrow's datasets find in a folder or in files."""
    return count(ds.dataset(path, partitioning="hive").to_table())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain files, hive folders whose files are links to one blob, and linked folders."""
    root = tmp_path_factory.mktemp("forms")
    for number, name in enumerate(("a b", "ü", "p%20q", "r[1]", "s#t?u")):
        write_shard(root / f"flat/{name}.parquet", make_rows(10 + number, 100 * number))
    (root / "flat/link.parquet").symlink_to("a b.parquet")
    blob = write_shard(root / "blobs/0", make_rows(20, 1_000))
    for month in (1, 2):
        (root / f"hive/m={month}").mkdir(parents=True)
        (root / f"hive/m={month}/0.parquet").symlink_to(blob)
        os.link(blob, root / f"hive/m={month}/hard.parquet")
    write_shard(root / "elsewhere/x.parquet", make_rows(5, 2_000))
    (root / "hive/m=3").symlink_to("../elsewhere")
    (root / "hive/m=4").symlink_to("m=3")
    (root / "linked").symlink_to("hive")
    (root / "again").symlink_to("linked")
    for sub in ("x/y", "x/z"):
        write_shard(root / f"deep/{sub}/0.parquet", make_rows(3, 3_000))
    (root / "deep/flat").symlink_to("../flat")
    return root


FORMS = {
    "a file": (["flat/a b.parquet"], ["flat/a b.parquet"]),
    "a file with brackets": (["flat/r[1].parquet"], ["flat/r[1].parquet"]),
    "a file with signs": (["flat/s#t?u.parquet"], ["flat/s#t?u.parquet"]),
    "a percent sign": (["flat/p%20q.parquet"], ["flat/p%20q.parquet"]),
    "a link to a file": (["flat/link.parquet"], ["flat/a b.parquet"]),
    "a folder": (["flat"], "flat"),
    "a trailing slash": (["flat/"], "flat"),
    "dots": (["hive/../flat/./"], "flat"),
    "a nested folder": (["deep"], "deep"),
    "a hive folder of links": (["hive"], "hive"),
    "a linked folder": (["linked"], "hive"),
    "a link to a link": (["again/"], "hive"),
    "one hive folder": (["hive/m=1"], ["hive/m=1/0.parquet", "hive/m=1/hard.parquet"]),
    "one linked hive folder": (["hive/m=4"], ["hive/m=4/x.parquet"]),
    "a list of hive folders": (["hive/m=1", "hive/m=2", "hive/m=3", "hive/m=4"], "hive"),
    "a list of files": (
        ["hive/m=1/0.parquet", "hive/m=2/0.parquet"],
        ["hive/m=1/0.parquet", "hive/m=2/0.parquet"],
    ),
    "a glob of files": (["hive/*/*.parquet"], "hive"),
    "a glob through links": (["again/m=*/*.parquet"], "hive"),
    "a glob of folders": (["hive/m=*"], "hive"),
    "a glob of a letter": (
        ["hive/m=?/[0h]*"],
        [
            "hive/m=1/0.parquet",
            "hive/m=1/hard.parquet",
            "hive/m=2/0.parquet",
            "hive/m=2/hard.parquet",
        ],
    ),
    "two stars": (["deep/**/*.parquet"], "deep"),
    "overlapping": (["hive", "hive/m=*/*.parquet", "hive/m=4", "hive/../hive/m=1/"], "hive"),
    "under two names": (["linked", "hive", "again"], "hive"),
}


@pytest.mark.parametrize(("addresses", "wanted"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("form", ["absolute", "relative", "file"])
def test_every_form_of_an_input_has_the_rows_that_others_find(
    root: Path, addresses: list[str], wanted: Any, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and hive keys are those of Arrow's datasets, however the input is named."""
    monkeypatch.chdir(root)
    start = {"absolute": f"{root}/", "relative": "", "file": f"file://{root}/"}[form]
    files = [str(root / each) for each in wanted] if isinstance(wanted, list) else root / wanted
    assert read(*(start + each for each in addresses)) == arrow(files)


def test_links_count_as_duckdb_counts_them(root: Path) -> None:
    """A pattern over links to one blob has the blob's rows once for each link."""
    assert read(root / "hive/*/*.parquet") == duck(f"{root}/hive/*/*.parquet")
    assert read(root / "flat") == duck(f"{root}/flat/*.parquet")
    assert sum(read(root / "hive").values()) == 4 * 20 + 2 * 5


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    """An S3 server for all tests here."""
    with running_s3() as found:
        yield found


@pytest.mark.slow
def test_every_form_on_s3_has_the_rows_that_others_find(root: Path, server: ObjectStore) -> None:
    """Folders, globs and lists of a bucket have the rows of the files that were put there."""
    bucket = server.make_bucket("forms")
    for name in ("flat", "hive", "deep"):
        shutil.copytree(root / name, server.folder / "forms" / name)
    forms = [name for name in FORMS if name not in ("dots", "overlapping", "a file with signs")]
    with server.at():
        for name in forms:
            addresses, wanted = FORMS[name]
            if any("linked" in each or "again" in each for each in addresses):
                continue
            listed = isinstance(wanted, list)
            files = [str(root / each) for each in wanted] if listed else root / str(wanted)
            assert read(*(f"{bucket}/{each}" for each in addresses)) == arrow(files), name
        assert read(f"{bucket}/hive", f"{bucket}/hive/m=*/*.parquet") == arrow(root / "hive")


def paths(folder: Path, *addresses: str) -> list[str]:
    """The paths by which shards are known, relative to a folder."""
    found = find_shards([str(folder / address) for address in addresses])
    return [os.path.relpath(shard.path, folder) for shard in found]


def test_a_shard_is_known_by_its_path_below_the_folder_that_is_named(tmp_path: Path) -> None:
    """Links are resolved in the named folder, as before, but neither below it nor in hive keys."""
    write_shard(tmp_path / "disk/in/m=1/0.parquet")
    (tmp_path / "disk/in/m=2").symlink_to("m=1")
    (tmp_path / "data").symlink_to("disk/in")
    wanted = ["disk/in/m=1/0.parquet", "disk/in/m=2/0.parquet"]
    for address in ("data", "disk/in", "data/m=*", "data/*/0.parquet", "data/"):
        assert paths(tmp_path, address) == wanted
    assert paths(tmp_path, "data/m=2") == wanted[1:]
    assert paths(tmp_path, "data/m=2/0.parquet") == wanted[1:]


def test_links_that_lead_in_a_circle_are_not_followed(tmp_path: Path) -> None:
    """A link to a folder above, or two that lead to each other, end; all files are there once."""
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}/0.parquet")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/b").symlink_to(tmp_path / "b")
    (tmp_path / "b/a").symlink_to(tmp_path / "a")
    assert paths(tmp_path, "a") == ["a/0.parquet", "a/b/0.parquet"]
    assert paths(tmp_path, "a/**") == ["a/0.parquet", "a/b/0.parquet"]


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8))
def test_whatever_links_there_are_listing_ends_and_loses_no_file(
    tmp_path_factory: pytest.TempPathFactory, links: list[tuple[int, int]]
) -> None:
    """Every file that can be reached is listed, and none under a path with a circle."""
    root = tmp_path_factory.mktemp("links")
    for number in range(4):
        (root / f"in/{number}").mkdir(parents=True)
        (root / f"in/{number}/f{number}").write_bytes(b"x")
    for position, (source, target) in enumerate(links):
        (root / f"in/{source}/l{position}").symlink_to(root / f"in/{target}")
    found = find_shards([str(root / "in")])
    assert {os.path.basename(shard.real) for shard in found} == {f"f{n}" for n in range(4)}
    for shard in found:
        folders = [os.path.realpath(p) for p in Path(shard.path).parents if p != root.parent]
        assert len(folders) == len(set(folders))


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    """A link to nothing or to itself, a pipe, and a name that is not UTF-8 are errors."""
    write_shard(tmp_path / "a/0.parquet")
    for name, target in (("gone", "nowhere"), ("self", "self")):
        link = tmp_path / f"{name}/x.parquet"
        link.parent.mkdir()
        link.symlink_to(tmp_path / name / ("x.parquet" if target == "self" else target))
        for address in (link.parent, link, f"{link.parent}/*"):
            with pytest.raises(InputError, match=rf"{name}/x\.parquet: is a link to .*; restore"):
                find_shards([str(address)])
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe/x.parquet")
    with pytest.raises(InputError, match=r"pipe/x\.parquet: is a pipe"):
        find_shards([str(tmp_path / "pipe")])
    (tmp_path / "bytes").mkdir()
    open(os.path.join(os.fsencode(tmp_path), b"bytes", b"\xe8.parquet"), "wb").close()
    with pytest.raises(InputError, match=r"udce8\.parquet: its name is not UTF-8"):
        find_shards([str(tmp_path / "bytes")])


def test_a_link_that_leads_elsewhere_is_a_changed_shard(tmp_path: Path) -> None:
    """Two files of one size and time behind a link are distinguished, also while a run reads."""
    table = make_rows(10)
    for name in ("one", "two"):
        os.utime(write_shard(tmp_path / name, table), (1, 1))
    link = tmp_path / "in/0.parquet"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "one")
    (before,) = find_shards([str(link.parent)])
    shard = Shard(before.path, before.size, before.mark, 10)
    check_unchanged(shard)
    link.unlink()
    link.symlink_to(tmp_path / "two")
    (after,) = find_shards([str(link.parent)])
    assert (after.path, after.size) == (before.path, before.size)
    assert after.mark != before.mark
    with pytest.raises(Exception, match="was rewritten after planning"):
        check_unchanged(shard)


@pytest.mark.slow
def test_links_into_the_output_are_seen(tmp_path: Path) -> None:
    """A run that would read what it wrote through a link is refused."""
    job = write_job(tmp_path)
    assert run_json("run", job)["status"] == "published"
    (tmp_path / "in/more").symlink_to(tmp_path / "out/data")
    found = run_json("run", job)
    assert (found["exit_code"], "would read what it wrote" in found["error"]) == (2, True)


@pytest.mark.slow
def test_linked_shards_of_an_earlier_version_stay_unchanged(tmp_path: Path) -> None:
    """What was published under paths without links stays, and a link that was lost is added."""
    job = write_job(tmp_path)
    for number in range(2):
        shutil.move(tmp_path / f"in/{number}.parquet", tmp_path / f"blob{number}")
        (tmp_path / f"in/{number}.parquet").symlink_to(tmp_path / f"blob{number}")
    first = run_json("run", job)
    rename_as_before(tmp_path / "out")
    assert run_json("run", job)["status"] == "unchanged"
    (tmp_path / "in/2.parquet").symlink_to(tmp_path / "blob1")
    added = run_json("run", job)
    assert added["status"] == "published"
    assert added["rows"]["reused"] == first["rows"]["input"] == 500
    assert added["rows"]["input"] == 700


def rename_as_before(output: Path) -> None:
    """Give shards the names of an earlier version: paths without links, marks of files alone."""
    rename_shards(output, _without_links)


def _without_links(shard: dict[str, Any]) -> dict[str, Any]:
    mark = shard["mark"].partition(" -> ")[0]
    return {**shard, "path": os.path.realpath(shard["path"]), "mark": mark}


@pytest.mark.slow
def test_a_bucket_that_does_not_exist_is_named(server: ObjectStore) -> None:
    """It is no folder that happens to be empty."""
    bucket = server.make_bucket("nothing-inside")
    with server.at():
        with pytest.raises(InputError, match="there is no bucket 'none-of-these'"):
            find_shards(["s3://none-of-these/in"])
        with pytest.raises(InputError, match="no shard found; correct the path"):
            find_shards([f"{bucket}/in"])


def test_credentials_that_have_expired_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 says no more than `Bad Request` for a look at an object then."""

    def refuse(_: str) -> None:
        raise OSError("Bad Request")

    monkeypatch.setattr("batchscore.plan.listing.open_filesystem", refuse)
    with pytest.raises(InputError, match=r"\(Bad Request\); renew the credentials if they have"):
        find_shards(["s3://bucket/in"])
