"""Documents as JSON-able values: what the standard library gives, without its copies."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from batchscore.storage.typed import plain

ATOMS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False)


@dataclass(frozen=True)
class Inner:
    """A document's part."""

    name: str
    values: Any


@dataclass(frozen=True)
class Outer:
    """A document with parts in each kind of container."""

    parts: tuple[Inner, ...]
    by_name: dict[str, Any]
    rest: list[Any] = field(default_factory=list)


VALUES = st.recursive(
    ATOMS,
    lambda each: (
        st.lists(each, max_size=3)
        | st.lists(each, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), each, max_size=3)
        | st.builds(Inner, st.text(max_size=3), each)
    ),
    max_leaves=12,
)
INNERS = st.lists(st.builds(Inner, st.text(max_size=3), VALUES), max_size=3).map(tuple)
OUTERS = st.builds(
    Outer, INNERS, st.dictionaries(st.text(max_size=3), VALUES, max_size=3), st.lists(VALUES)
)


@given(OUTERS)
def test_a_document_is_what_the_standard_library_makes_of_it(document: Outer) -> None:
    """Dataclasses become mappings at any depth; tuples stay tuples, and lists lists."""
    assert repr(plain(document)) == repr(asdict(document))
