"""Test that shards are found, their schemas made one, and row groups kept, or named in an error."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import InputError
from batchscore.plan.footers import keep_row_groups, read_footers
from batchscore.plan.hive import hive_keys
from batchscore.plan.listing import InputFile, find_shards
from batchscore.plan.schemas import unify_schemas
from batchscore.storage.store import Store
from tests.factory import make_rows, write_shard
from tests.parquet_faults import claim_rows
from tests.servers import answering


def names(folder: Path, *addresses: str) -> list[str]:
    """The shards that addresses below a folder name, relative to it."""
    found = find_shards([str(folder / address) for address in addresses])
    return [str(Path(shard.path).relative_to(folder)) for shard in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Shards in hive folders, one next to them, and files that are no shards."""
    for path in ("m=1/a.parquet", "m=1/b.parquet", "m=2/a.parquet", "x.parquet"):
        write_shard(tmp_path / path)
    for path in ("m=1/_SUCCESS", "m=1/.a.crc", "_temporary/c.parquet", ".hidden/d.parquet"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    return tmp_path


def test_shards_by_file_glob_folder_and_list(folder: Path) -> None:
    """Each form names its files, sorted, each once; hidden ones and markers are no shards."""
    every = ["m=1/a.parquet", "m=1/b.parquet", "m=2/a.parquet", "x.parquet"]
    assert names(folder, "x.parquet") == ["x.parquet"]
    assert names(folder, "m=*/a.parquet") == ["m=1/a.parquet", "m=2/a.parquet"]
    assert names(folder, ".") == every
    assert names(folder, "m=2", "x.parquet", "m=*/*.parquet", "m=2/a.parquet") == every
    assert names(folder, "m=*") == every[:3]
    for nothing in ("nothing", "no*"):
        with pytest.raises(InputError, match=r"no shard found; correct the path"):
            names(folder, "x.parquet", nothing)
        assert find_shards([str(folder / nothing)], allow_empty=True) == []


def test_brackets_in_a_name_are_no_pattern_where_it_is_there(tmp_path: Path) -> None:
    """A path that names a file literally is that file."""
    write_shard(tmp_path / "a[1].parquet")
    assert names(tmp_path, "a[1].parquet") == ["a[1].parquet"]


def test_shards_of_a_store_in_memory() -> None:
    """An fsspec address lists as a folder does, and gives addresses that can be opened."""
    store = Store("memory://inputs-test")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), sink)
    store.write("m=3/a.parquet", bytes(sink.getvalue()))
    (shard,) = find_shards(["memory://inputs-test"])
    (footer,) = read_footers([shard]).good
    assert footer.shard.path.startswith("memory://")
    assert (footer.shard.rows, footer.shard.keys) == (1, (("m", 3),))
    store.remove("")


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("/x/month=9/a.parquet", (("month", "9"),)),
        ("/x/y=1/m=a%2Fb/a.parquet", (("y", "1"), ("m", "a/b"))),
        ("/env=prod/flights/month=9/a.parquet", (("month", "9"),)),
        ("/x/m=__HIVE_DEFAULT_PARTITION__/a.parquet", (("m", None),)),
        ("/x/=1/a.parquet", ()),
        ("/x/a=b.parquet", ()),
    ],
)
def test_hive_keys(path: str, keys: tuple[tuple[str, str | None], ...]) -> None:
    """Keys are the unbroken run of folders right above the file, decoded."""
    assert hive_keys(path) == keys


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["1", "12"], pa.int64()), (["01", "12"], pa.int64()), (["1", "x"], pa.string())],
)
def test_hive_keys_have_one_type(tmp_path: Path, values: list[str], kind: pa.DataType) -> None:
    """A key is a number where all of its values are."""
    for value in values:
        write_shard(tmp_path / f"k={value}/a.parquet")
    footers = read_footers(find_shards([str(tmp_path)])).good
    assert unify_schemas(footers, ["k"]).field("k").type == kind


def test_other_hive_keys_are_named(folder: Path) -> None:
    """A shard that is laid out differently is an error, since its column would be missing."""
    with pytest.raises(InputError, match=r"x\.parquet: has hive keys \[\], expected \['m'\]"):
        read_footers(find_shards([str(folder)]))


def schema_of(tmp_path: Path, *kinds: pa.DataType) -> pa.DataType:
    """The type that shards with these types of one column, and one value, get."""
    for number, kind in enumerate(kinds):
        value: Any = {pa.string(): "x", pa.large_string(): "x"}.get(kind, 0)
        value = ["x", None][kind == pa.null()] if kind in (DICTIONARY, pa.null()) else value
        table = pa.table({"c": pa.array([[0] if pa.types.is_list(kind) else value, None], kind)})
        write_shard(tmp_path / f"{number}.parquet", table)
    footers = read_footers(find_shards([str(tmp_path)])).good
    return unify_schemas(footers, None).field("c").type


DICTIONARY = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int16(), pa.int8(), pa.int16()),
        (pa.uint8(), pa.uint32(), pa.uint32()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.string(), DICTIONARY, pa.string()),
        (pa.large_string(), pa.string(), pa.large_string()),
        (pa.null(), pa.int32(), pa.int32()),
        (pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("us")),
    ],
    ids=str,
)
def test_types_that_fit(
    tmp_path: Path, first: pa.DataType, second: pa.DataType, wanted: pa.DataType
) -> None:
    """Widths, dictionaries and null columns give one type, whichever shard comes first."""
    assert schema_of(tmp_path / "a", first, second) == wanted
    assert schema_of(tmp_path / "b", second, first) == wanted


@pytest.mark.skipif(not hasattr(pa, "json_"), reason="this pyarrow has no type for JSON")
@pytest.mark.parametrize("filters", [None, [[("x", ">", 4)]]], ids=["all", "filtered"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize(
    ("logical", "plain", "value"),
    [("json_", pa.string(), "{}"), ("uuid", pa.binary(16), bytes(16))],
    ids=["json", "uuid"],
)
def test_json_and_uuid_are_their_plain_types(
    tmp_path: Path, logical: str, plain: pa.DataType, value: Any, first: bool, filters: Any
) -> None:
    """Other writers' logical types are plain texts and bytes, with a filter and without."""
    values = pa.array([value] * 10, plain)
    marked = pa.ExtensionArray.from_storage(getattr(pa, logical)(), values)
    for name, column in (("0" if first else "2", marked), ("1", values)):
        table = pa.table({"x": range(10), "u": column})
        pq.write_table(table, tmp_path / f"{name}.parquet", store_schema=False)
    footers = read_footers(find_shards([str(tmp_path)]), 0, filters).good
    assert unify_schemas(footers, None).field("u").type == plain


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.int32(), pa.string()),
        (pa.int64(), pa.float64()),
        (pa.int8(), pa.uint8()),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.date32(), pa.timestamp("us")),
        (pa.list_(pa.field("element", pa.int32())), pa.int32()),
    ],
    ids=str,
)
def test_types_that_do_not_fit(tmp_path: Path, first: pa.DataType, second: pa.DataType) -> None:
    """The error names shard, column, the expected and the found type."""
    with pytest.raises(InputError) as caught:
        schema_of(tmp_path, first, second)
    words = ("1.parquet", "'c'", f"is {second}", f"expected {first}")
    assert all(word in str(caught.value) for word in words)


def test_order_of_columns_does_not_matter_but_their_presence_does(tmp_path: Path) -> None:
    """Columns are found by name; one that only some shards have is an error that names both."""
    write_shard(tmp_path / "0.parquet", pa.table({"a": [1], "b": [2]}))
    write_shard(tmp_path / "1.parquet", pa.table({"b": [2], "a": [1]}))
    footers = read_footers(find_shards([str(tmp_path)])).good
    assert unify_schemas(footers, None).names == ["a", "b"]
    write_shard(tmp_path / "2.parquet", pa.table({"b": [2], "a": [1], "c": [3]}))
    footers = read_footers(find_shards([str(tmp_path)])).good
    with pytest.raises(InputError, match=r"2\.parquet: has a column 'c'.*name the columns"):
        unify_schemas(footers, None)
    assert unify_schemas(footers, ["b"]).names == ["b"]


@pytest.mark.slow
@given(
    groups=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    bound=st.integers(-1, 30),
    key=st.sampled_from([1, 2, 3]),
)
def test_a_filter_keeps_every_row_group_that_may_match(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], bound: int, key: int
) -> None:
    """No row that the filter keeps lies in a row group that is left out, hive keys among them."""
    folder = tmp_path_factory.mktemp("groups")
    for month in (1, 2):
        path = folder / f"m={month}/a.parquet"
        path.parent.mkdir()
        table = pa.table({"v": range(sum(groups))})
        with pq.ParquetWriter(path, table.schema) as writer:
            for index, size in enumerate(groups):
                writer.write_table(table.slice(sum(groups[:index]), size))
    filters = [[("v", ">=", bound), ("m", "==", key)]]
    pieces = keep_row_groups(read_footers(find_shards([str(folder)]), 0, filters).good)
    wanted = ds.dataset(folder, partitioning="hive").count_rows(
        filter=(ds.field("v") >= bound) & (ds.field("m") == key)
    )
    rows = [
        (dict(piece.shard.keys)["m"], row)
        for piece in pieces
        for start, size in zip(piece.starts, piece.sizes, strict=True)
        for row in range(start, start + size)
    ]
    assert len([1 for month, row in rows if row >= bound and month == key]) == wanted
    assert all(month == key for month, _ in rows)
    assert len(rows) <= wanted + max(groups)


@pytest.mark.parametrize("filters", [[[("x", "!=", 5.0)]], [[("x", "not in", [5.0])]]])
def test_statistics_do_not_decide_what_they_do_not_know(tmp_path: Path, filters: Any) -> None:
    """A row group of one value and a NaN, which the filter keeps, is read."""
    write_shard(tmp_path / "a.parquet", pa.table({"x": [5.0, 5.0, float("nan"), 5.0]}))
    assert len(keep_row_groups(read_footers(find_shards([str(tmp_path)]), 0, filters).good)) == 1


@pytest.mark.parametrize(
    "filters",
    [[[("x", ">", "text")]], [[("y", "==", 1)]], [[("x", "in", [1, "a"])]]],
)
def test_a_filter_that_misfits_excludes_nothing(tmp_path: Path, filters: Any) -> None:
    """Where statistics cannot be compared with a filter, as of another type, all is kept."""
    write_shard(tmp_path / "a.parquet", pa.table({"x": [5.0, 6.0]}))
    (footer,) = read_footers(find_shards([str(tmp_path)]), 0, filters).good
    assert footer.kept == (0,)


def test_shards_that_are_alike_share_one_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of columns holds for each shard, while equal schemas are compared once."""
    # Two threads that begin at the same time may each make one.
    monkeypatch.setattr("batchscore.plan.footers._LOCAL_THREADS", 1)
    tables = [pa.table({"a": [1]}), pa.table({"a": [1.5]}), pa.table({"a": [2.5]})]
    for number, table in enumerate(tables):
        write_shard(tmp_path / f"{number}.parquet", table)
    footers = read_footers(find_shards([str(tmp_path / "[12].parquet")])).good
    assert footers[0].schema is footers[1].schema
    footers = read_footers(find_shards([str(tmp_path)])).good
    assert [footer.schema.field("a").type for footer in footers] == [
        pa.int64(),
        pa.float64(),
        pa.float64(),
    ]


BAD_FILES = {
    "empty": (b"", "is empty; expected"),
    "text": (b"id,a,b\n1,2,3\n", "not a readable Parquet file"),
    "cut": (None, "not a readable Parquet file"),
    "gone": (None, "not a readable Parquet file"),
}


def _with_bad_files(folder: Path) -> list[InputFile]:
    """Good shards between bad ones, listed before one is removed."""
    for name, (content, _) in BAD_FILES.items():
        path = write_shard(folder / f"{name}.parquet")
        if content is not None:
            path.write_bytes(content)
    for number in range(3):
        write_shard(folder / f"{number}.parquet", make_rows(10 + number))
    os.truncate(folder / "cut.parquet", 900)
    found = find_shards([str(folder)])
    (folder / "gone.parquet").unlink()
    return found


def test_bad_files_are_left_out_where_that_is_allowed(tmp_path: Path) -> None:
    """Quarantine tells path, size, mark and reason of each file, and keeps the others in order."""
    found = _with_bad_files(tmp_path)
    footers = read_footers(found, max_bad_shards=4)
    assert [footer.shard.rows for footer in footers.good] == [10, 11, 12]
    by_name = {Path(bad.path).stem: bad for bad in footers.bad}
    assert set(by_name) == set(BAD_FILES)
    for name, (_, words) in BAD_FILES.items():
        assert words in by_name[name].reason
    listed = {shard.path: (shard.size, shard.mark) for shard in found}
    assert all((bad.size, bad.mark) == listed[bad.path] for bad in footers.bad)


def test_more_bad_files_than_allowed_are_an_error(tmp_path: Path) -> None:
    """The error has the figures and the first few files; where none is allowed, the first file."""
    found = _with_bad_files(tmp_path)
    with pytest.raises(InputError) as caught:
        read_footers(found, max_bad_shards=3)
    words = ("4 shards", "max_bad_shards allows 3", "cut.parquet", "empty.parquet", "; …")
    assert [word for word in words if word not in str(caught.value)] == []
    with pytest.raises(InputError, match=r"^shard .*cut\.parquet: not a readable .*; write"):
        read_footers(found)


def test_an_input_of_bad_files_alone_is_an_error(tmp_path: Path) -> None:
    """With no good shard left there is nothing to score, however many may be bad."""
    (tmp_path / "a.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match=r"none of 1 shard \(.*a\.parquet: not a readable"):
        read_footers(find_shards([str(tmp_path)]), max_bad_shards=10)


@pytest.mark.parametrize(("field", "rows"), [("group", 1 << 40), ("group", 7)])
def test_a_footer_that_contradicts_itself_is_not_believed(
    tmp_path: Path, field: str, rows: int
) -> None:
    """A row group has a value for each of its rows in each column."""
    path = write_shard(tmp_path / "a.parquet")
    path.write_bytes(claim_rows(path.read_bytes(), field, rows))
    with pytest.raises(InputError, match=r"a\.parquet: not a readable .*(its footer|a row group)"):
        read_footers(find_shards([str(path)]))


@pytest.mark.slow
def test_a_server_that_does_not_answer_differs_from_a_file_that_is_not_there() -> None:
    """An address of a server that cannot be reached says so; one that answers 404 has no shard."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        unused = server.getsockname()[1]
    with pytest.raises(InputError, match=r"be listed \(.*[Cc]onnect.*\); correct the a"):
        find_shards([f"http://127.0.0.1:{unused}/a.parquet"])
    with pytest.raises(InputError, match=r"a\.parquet\?version=\*\*\*: cannot be listed"):
        find_shards([f"http://127.0.0.1:{unused}/a.parquet?version=3"])
    with _serve(404) as port, pytest.raises(InputError, match="no shard found"):
        find_shards([f"http://127.0.0.1:{port}/a.parquet"])
    with _serve(503) as port, pytest.raises(InputError, match=r"cannot be listed \(503"):
        find_shards([f"http://127.0.0.1:{port}/a.parquet"])


@contextmanager
def _serve(status: int) -> Iterator[int]:
    """A server that answers everything with one status; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        do_HEAD = do_GET  # noqa: N815

    with answering(Handler) as port:
        yield port
