"""Many files, read as one table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from . import RecordBatch, Schema, Table
from .compute import Expression
from .compute import field as field
from .fs import FileSystem

class FragmentScanOptions: ...

class Fragment:
    @property
    def partition_expression(self) -> Expression: ...

class ParquetFileFragment(Fragment):
    @property
    def physical_schema(self) -> Schema: ...
    @property
    def row_groups(self) -> list[Any]: ...
    def split_by_row_group(
        self, filter: Expression | None = None, schema: Schema | None = None
    ) -> list[ParquetFileFragment]: ...
    def subset(
        self,
        filter: Expression | None = None,
        schema: Schema | None = None,
        row_group_ids: Sequence[int] | None = None,
    ) -> ParquetFileFragment: ...

class FileFormat:
    @property
    def default_fragment_scan_options(self) -> FragmentScanOptions: ...

class ParquetFileFormat(FileFormat):
    def __init__(
        self,
        read_options: Any = None,
        default_fragment_scan_options: FragmentScanOptions | None = None,
        **kwargs: Any,
    ) -> None: ...
    def make_fragment(
        self,
        file: Any,
        filesystem: FileSystem | None = None,
        partition_expression: Expression | None = None,
        row_groups: Sequence[int] | None = None,
        *,
        file_size: int | None = None,
    ) -> ParquetFileFragment: ...

class Partitioning: ...
class PartitioningFactory: ...

class Dataset:
    @property
    def schema(self) -> Schema: ...
    def count_rows(self, filter: Expression | None = None, **options: Any) -> int: ...
    def filter(self, expression: Expression) -> Dataset: ...
    def get_fragments(self, filter: Expression | None = None) -> Iterator[Fragment]: ...
    def head(
        self,
        num_rows: int,
        columns: Sequence[str] | Mapping[str, Expression] | None = None,
        filter: Expression | None = None,
        **options: Any,
    ) -> Table: ...
    def to_batches(
        self,
        columns: Sequence[str] | Mapping[str, Expression] | None = None,
        filter: Expression | None = None,
        **options: Any,
    ) -> Iterator[RecordBatch]: ...
    def to_table(
        self,
        columns: Sequence[str] | Mapping[str, Expression] | None = None,
        filter: Expression | None = None,
        **options: Any,
    ) -> Table: ...

class FileSystemDataset(Dataset):
    @property
    def files(self) -> list[str]: ...

def dataset(
    source: Any,
    schema: Schema | None = None,
    format: FileFormat | str | None = None,
    filesystem: FileSystem | Any = None,
    partitioning: Partitioning | PartitioningFactory | str | Sequence[str] | None = None,
    partition_base_dir: str | None = None,
    exclude_invalid_files: bool | None = None,
    ignore_prefixes: Sequence[str] | None = None,
) -> FileSystemDataset: ...
def partitioning(
    schema: Schema | None = None,
    field_names: Sequence[str] | None = None,
    flavor: Literal["hive", "filename"] | None = None,
    dictionaries: Mapping[str, Any] | Literal["infer"] | None = None,
) -> Partitioning | PartitioningFactory: ...
