"""Ways to damage a model's file: its bytes, or the members of its archive with right checksums."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from itertools import cycle
from random import Random

Spoil = Callable[[bytes, Random], bytes]
_EXTREMES = (
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\x00\x00\xc0\x7f",
    bytes(8),
    b"\xff" * 8,
)
_WORDS = (b"-1", b"0", b"99999999", b"2147483648", b"1e999", b"nan", b"null", b"", b"[]", b'"')
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def _cut(content: bytes, chance: Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _flip(content: bytes, chance: Random) -> bytes:
    """Flips one bit of one to three bytes."""
    spoilt = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
    return bytes(spoilt)


def _overwrite(content: bytes, chance: Random) -> bytes:
    return _put(content, chance, chance.randbytes(chance.randint(1, 8)))


def _extreme(content: bytes, chance: Random) -> bytes:
    """Puts the largest or smallest of numbers, or a NaN, where four or eight bytes were."""
    return _put(content, chance, chance.choice(_EXTREMES))


def _put(content: bytes, chance: Random, piece: bytes) -> bytes:
    place = chance.randrange(len(content))
    return (content[:place] + piece + content[place + len(piece) :])[: len(content)]


def _insert(content: bytes, chance: Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + chance.randbytes(chance.randint(1, 16)) + content[place:]


def _remove(content: bytes, chance: Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + content[place + chance.randint(1, 16) :]


def _swap(content: bytes, chance: Random) -> bytes:
    """Swaps two blocks of one size."""
    size = max(1, min(chance.choice((4, 16, 512)), len(content) // 2))
    first = chance.randrange(len(content) - 2 * size + 1)
    second = chance.randrange(first + size, len(content) - size + 1)
    a, b = content[first : first + size], content[second : second + size]
    return content[:first] + b + content[first + size : second] + a + content[second + size :]


def _zero(content: bytes, chance: Random) -> bytes:
    return _put(content, chance, bytes(chance.choice((4, 64, 4096))))


def _number(content: bytes, chance: Random) -> bytes:
    """Puts another word in the place of a number that is spelled in digits."""
    start = chance.randrange(len(content))
    found = _NUMBER.search(content, start) or _NUMBER.search(content)
    if found is None:
        return _flip(content, chance)
    return content[: found.start()] + chance.choice(_WORDS) + content[found.end() :]


_SPOILS: tuple[Spoil, ...] = (
    _cut,
    _flip,
    _overwrite,
    _extreme,
    _insert,
    _remove,
    _swap,
    _zero,
    _number,
)


def _member(content: bytes, chance: Random) -> bytes:
    """Damages one member of an archive, whose checksums and places are right again after."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as own, zipfile.ZipFile(made, "w") as archive:
        members = [each for each in own.infolist() if each.file_size > 1]
        chosen = chance.choice(members)
        for each in own.infolist():
            inner = own.read(each)
            if each is chosen:
                inner = chance.choice(_SPOILS)(inner, chance)
            archive.writestr(each, inner)
    return made.getvalue()


def damaged_copies(content: bytes, count: int, chance: Random) -> list[bytes]:
    """Returns other contents than that of a file, damaged in each way in turn."""
    is_archive = zipfile.is_zipfile(io.BytesIO(content))
    # Where a checksum finds any other damage, most of it is what a checksum does not find.
    ways = cycle([*_SPOILS, *[_member] * (2 * len(_SPOILS) if is_archive else 0)])
    made = list[bytes]()
    while len(made) < count:
        spoilt = next(ways)(content, chance)
        if spoilt != content:
            made.append(spoilt)
    return made
