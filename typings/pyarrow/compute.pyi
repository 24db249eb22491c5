"""Functions of values, and expressions of columns."""

from typing import Any, Literal, Protocol, TypeAlias, overload

from . import (
    Array,
    ChunkedArray,
    DataType,
    ListArray,
    MemoryPool,
    Scalar,
    StructArray,
    StructScalar,
)

_Kind: TypeAlias = DataType | str
_Nulls: TypeAlias = Literal["at_start", "at_end"]

class CastOptions: ...

class Expression:
    def cast(
        self,
        type: _Kind | None = None,
        safe: bool | None = None,
        options: CastOptions | None = None,
    ) -> Expression: ...
    def equals(self, other: Expression) -> bool: ...
    def is_null(self, nan_is_null: bool = False) -> Expression: ...
    def is_nan(self) -> Expression: ...
    def is_valid(self) -> Expression: ...
    def isin(self, values: Any) -> Expression: ...
    def __invert__(self) -> Expression: ...
    def __and__(self, other: Any, /) -> Expression: ...
    def __or__(self, other: Any, /) -> Expression: ...
    def __eq__(self, other: object, /) -> Expression: ...  # type: ignore[override]
    def __ne__(self, other: object, /) -> Expression: ...  # type: ignore[override]
    def __lt__(self, other: Any, /) -> Expression: ...
    def __le__(self, other: Any, /) -> Expression: ...
    def __gt__(self, other: Any, /) -> Expression: ...
    def __ge__(self, other: Any, /) -> Expression: ...

def field(*name_or_index: str | int | tuple[str | int, ...]) -> Expression: ...
def scalar(value: Any) -> Expression: ...

class _OfOne(Protocol):
    """A value for each value: the same container comes out that went in."""

    @overload
    def __call__(self, values: Array, /, **options: Any) -> Array: ...
    @overload
    def __call__(self, values: ChunkedArray, /, **options: Any) -> ChunkedArray: ...
    @overload
    def __call__(self, values: Scalar, /, **options: Any) -> Scalar: ...
    @overload
    def __call__(self, values: Expression, /, **options: Any) -> Expression: ...

class _OfTwo(Protocol):
    """A value for each pair; a scalar goes with every value of the other."""

    @overload
    def __call__(self, x: Array, y: Array | Scalar | float | str, /) -> Array: ...
    @overload
    def __call__(self, x: Scalar | float | str, y: Array, /) -> Array: ...
    @overload
    def __call__(
        self, x: ChunkedArray, y: ChunkedArray | Array | Scalar | float | str, /
    ) -> ChunkedArray: ...
    @overload
    def __call__(self, x: Array | Scalar | float | str, y: ChunkedArray, /) -> ChunkedArray: ...
    @overload
    def __call__(self, x: Expression, y: Expression | Scalar | float | str, /) -> Expression: ...

class _OfAll(Protocol):
    """One scalar of all values."""

    def __call__(
        self, array: Array | ChunkedArray, /, *, skip_nulls: bool = True, min_count: int = 1
    ) -> Scalar: ...

is_null: _OfOne
is_valid: _OfOne
is_nan: _OfOne
invert: _OfOne
binary_length: _OfOne
utf8_length: _OfOne
list_value_length: _OfOne
list_flatten: _OfOne
list_parent_indices: _OfOne
month: _OfOne
day: _OfOne
day_of_week: _OfOne
day_of_year: _OfOne
iso_week: _OfOne
hour: _OfOne
minute: _OfOne

add: _OfTwo
multiply: _OfTwo
divide: _OfTwo
equal: _OfTwo
not_equal: _OfTwo
greater: _OfTwo
and_: _OfTwo

any: _OfAll
all: _OfAll
max: _OfAll

def min_max(
    array: Array | ChunkedArray,
    /,
    *,
    skip_nulls: bool = True,
    min_count: int = 1,
    options: Any = None,
    memory_pool: MemoryPool | None = None,
) -> StructScalar: ...
def ascii_rpad(
    strings: Array,
    /,
    width: int,
    padding: str = " ",
    lean_left_on_odd_padding: bool = True,
    *,
    options: Any = None,
    memory_pool: MemoryPool | None = None,
) -> Array: ...
def value_counts(
    array: Array | ChunkedArray, /, *, memory_pool: MemoryPool | None = None
) -> StructArray: ...
def array_sort_indices(
    array: Array,
    /,
    order: Literal["ascending", "descending"] = "ascending",
    *,
    null_placement: _Nulls = "at_end",
    options: Any = None,
    memory_pool: MemoryPool | None = None,
) -> Array: ...
@overload
def cast(
    arr: Array,
    target_type: _Kind | None = None,
    safe: bool | None = None,
    options: CastOptions | None = None,
    memory_pool: MemoryPool | None = None,
) -> Array: ...
@overload
def cast(
    arr: ChunkedArray,
    target_type: _Kind | None = None,
    safe: bool | None = None,
    options: CastOptions | None = None,
    memory_pool: MemoryPool | None = None,
) -> ChunkedArray: ...
@overload
def fill_null(values: Array, fill_value: Any) -> Array: ...
@overload
def fill_null(values: ChunkedArray, fill_value: Any) -> ChunkedArray: ...
@overload
def fill_null(values: Scalar, fill_value: Any) -> Scalar: ...
def if_else(
    cond: Array, left: Any, right: Any, /, *, memory_pool: MemoryPool | None = None
) -> Array: ...
@overload
def is_in(
    values: Array,
    /,
    value_set: Any,
    *,
    skip_nulls: bool = False,
    options: Any = None,
    memory_pool: MemoryPool | None = None,
) -> Array: ...
@overload
def is_in(
    values: ChunkedArray,
    /,
    value_set: Any,
    *,
    skip_nulls: bool = False,
    options: Any = None,
    memory_pool: MemoryPool | None = None,
) -> ChunkedArray: ...
def index_in(
    values: Array,
    /,
    value_set: Any,
    *,
    skip_nulls: bool = False,
    options: Any = None,
    memory_pool: MemoryPool | None = None,
) -> Array: ...
def binary_join_element_wise(
    *strings: Array | Scalar | str,
    null_handling: Literal["emit_null", "skip", "replace"] = "emit_null",
    null_replacement: str = "",
    options: Any = None,
    memory_pool: MemoryPool | None = None,
) -> Array: ...
def binary_slice(
    strings: Array,
    /,
    start: int,
    stop: int | None = None,
    step: int = 1,
    *,
    options: Any = None,
    memory_pool: MemoryPool | None = None,
) -> Array: ...
def utf8_slice_codeunits(
    strings: Array,
    /,
    start: int,
    stop: int | None = None,
    step: int = 1,
    *,
    options: Any = None,
    memory_pool: MemoryPool | None = None,
) -> Array: ...
def split_pattern(
    strings: Array,
    /,
    pattern: str,
    *,
    max_splits: int | None = None,
    reverse: bool = False,
    options: Any = None,
    memory_pool: MemoryPool | None = None,
) -> ListArray: ...
