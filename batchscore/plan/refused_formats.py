"""Folders of table formats, whose files alone do not say which rows the table has."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batchscore.errors import InputError
from batchscore.messages.terms import DataAddress

_THREADS = 16
_MARK = re.compile(
    r"(?:^|/)(?:(?P<delta>_delta_log)|(?P<hudi>\.hoodie)|(?P<spark>_spark_metadata)"
    # Seven digits with a leading zero, since `base_20240131` may as well be a person's folder.
    r"|(?P<acid>(?:base_0[0-9]{6}|(?:delete_)?delta_0[0-9]{6}_0[0-9]{6}(?:_[0-9]{4})?)(?:_v[0-9]+)?)"
    # Other tools write `NAME.metadata.json`: Iceberg's names begin with a version.
    r"|(?P<iceberg>metadata/(?:version-hint\.text"
    r"|(?:v[0-9]+|[0-9]+-[^/]+?)(?:\.gz)?\.metadata\.json(?:\.gz)?)(?=$))"
    r")(?:/|$)"
)
# What a probe looks for in a folder; Iceberg's folder must be listed, and ACID's is in the path.
_FOLDERS = ("_delta_log", ".hoodie", "_spark_metadata")
_ICEBERG = "metadata"


@dataclass(frozen=True)
class _Format:
    """A table format.

    Args:
        name: The name that people know it by.
        remedy: What helps, with `{data}` for the user's name for the addresses.
    """

    name: str
    remedy: str


_EXPORT = "export one snapshot as Parquet and score that"
_FORMATS = {
    "delta": _Format(
        "Delta Lake",
        f"{_EXPORT}, or list the snapshot's files in {{data}}, as DeltaTable(…).file_uris() of "
        "deltalake names them (not where it has deletion vectors)",
    ),
    "hudi": _Format(
        "Hudi",
        f"{_EXPORT}, or list the files of its latest slices in {{data}} (not where it has log "
        "files)",
    ),
    "iceberg": _Format(
        "Iceberg",
        f"{_EXPORT}, or list the snapshot's files in {{data}}, as scan().plan_files() of "
        "pyiceberg names them (not where it has delete files)",
    ),
    "spark": _Format(
        "Spark structured streaming",
        "list the committed files in {data}, as spark.read.parquet(…).inputFiles() names them",
    ),
    "acid": _Format("Hive ACID", f"{_EXPORT}, as INSERT OVERWRITE DIRECTORY of Hive writes it"),
}


def check_no_table(
    address: DataAddress, paths: Iterable[str], folders: Collection[str] | None = None
) -> None:
    """Raises InputError where one of the paths is what marks a folder as a table's.

    Args:
        address: The address as the user gives it.
        paths: Paths of folders and files, such as `t/_delta_log` or `t/metadata/v1.metadata.json`.
        folders: Folders that must not be a table's; None: any.
    """
    for path in paths:
        found = _MARK.search(path)
        if found and found.lastgroup and (folders is None or path[: found.start()] in folders):
            table = _FORMATS[found.lastgroup]
            remedy = table.remedy.format(data=address.terms.data)
            raise InputError(
                f"{address}: {path[: found.start()] or '/'} is a table of {table.name}, "
                f"and its folder also holds rows that were removed or replaced; {remedy}"
            )


def check_above(
    address: DataAddress, filesystem: Any, folders: Iterable[str], plain: set[tuple[Any, str]]
) -> None:
    """Raises InputError where a folder, or one above it, is a table's.

    A folder that may not be looked into is taken for a plain one.

    Args:
        address: The address as the user gives it.
        filesystem: Where the folders are.
        folders: Folders to look into.
        plain: Filesystems and folders that are known to be no table's; gains these and those above.
    """
    looked = {(filesystem, each) for folder in folders for each in and_above(folder)} - plain
    above = sorted(folder for _, folder in looked)
    # A folder within a transaction's folder has no mark of its own but its path.
    check_no_table(address, [folder for folder in above if _MARK.search(folder)])
    with ThreadPoolExecutor(_THREADS) as pool:
        probes = [f"{folder.rstrip('/')}/{name}" for folder in above for name in _FOLDERS]
        there = pool.map(lambda path: _exists(filesystem, path), probes)
        check_no_table(
            address, [path for path, exists in zip(probes, there, strict=True) if exists]
        )
        listed = pool.map(lambda folder: [*_iceberg(filesystem, folder)], above)
        check_no_table(address, [path for paths in listed for path in paths])
    plain |= looked


def and_above(folder: str) -> Iterator[str]:
    """Yields a folder and those above it."""
    while True:
        yield folder
        parent = posixpath.dirname(folder)
        if parent in ("", folder):
            return
        folder = parent


def _exists(filesystem: Any, path: str) -> bool:
    with suppress(Exception):  # a store's client raises errors of its own
        return bool(filesystem.exists(path))
    return False


def _iceberg(filesystem: Any, folder: str) -> Iterator[str]:
    path = f"{folder.rstrip('/')}/{_ICEBERG}"
    with suppress(Exception):  # a store's client raises errors of its own
        if filesystem.exists(path):
            yield from map(str, filesystem.ls(path, detail=False))
