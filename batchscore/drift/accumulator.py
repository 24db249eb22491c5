"""What every accumulator of a profile is: mergeable, canonical, stored as tables of integers.

Suffixes: `_r` rows of a stored part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Part:
    """One table of an accumulator's content: r rows of integers, in an order of its own.

    Args:
        key_r: What is counted or summed: the prefix of a bucket, a hash, an index.
        count_r: How many of it, or the sum.
        shift_r: The low bits that a bucket's prefix leaves out; zeros elsewhere.
        value_r: Texts that the keys stand for, at most 64 bytes each; none but in labels.
    """

    key_r: NDArray[np.uint64]
    count_r: NDArray[np.int64]
    shift_r: NDArray[np.uint8] | None = None
    value_r: tuple[bytes, ...] = ()


class Accumulator(Protocol):
    """One aspect of a column: the same values give the same content in any split and order.

    `update` differs with what is accumulated; it changes the object, and so does `merge`, which
    leaves the other as it was.
    """

    kind: ClassVar[str]
    """Names the class in stored profiles: numbers, categories or vectors."""
    extra: ClassVar[frozenset[str]]
    """Parts that are stored in a file of their own, since they are large or approximate."""

    type: str
    """The Arrow type of the values."""

    @property
    def n(self) -> int:
        """How many values were taken."""

    def merge(self, other: Self) -> None:
        """Adds what `other`, an accumulator of the same class and settings, has taken."""

    def scalars(self) -> dict[str, Any]:
        """Returns JSON-able facts other than the parts; floats in hexadecimal, to be exact."""

    def parts(self) -> dict[str, Part]:
        """Returns the tables by name; canonical but for those of `extra`."""

    def summary(self) -> dict[str, Any]:
        """Returns JSON-able statistics for people."""

    @classmethod
    def restore(cls, type_: str, scalars: Mapping[str, Any], parts: Mapping[str, Part]) -> Self:
        """Reverses `scalars` and `parts`; those of `extra` may be missing.

        Raises:
            ValueError: No accumulator has such content, so that damage is not counted on.
        """
