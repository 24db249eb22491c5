"""What an HDF5 file of Keras holds, read without the HDF5 library, which a made-up file may crash.

Keras writes the oldest form of such files: groups, plain datasets and small attributes. Whatever
else the form allows is refused: links to other files, data of other files, compression, chunks.
So a file holds no more numbers than it has bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from batchscore.errors import ModelError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_NOWHERE = 0xFFFFFFFFFFFFFFFF
_DEEPEST = 64
_MOST_OBJECTS = 200_000
_MOST_MESSAGES = 10_000
_SOFT_LINK = 2
_DATASPACE, _DATATYPE, _LAYOUT, _ATTRIBUTE, _MORE, _GROUP = 1, 3, 8, 12, 16, 17
# In addition: padding, fill values, and when an object was changed.
_KNOWN = {0, _DATASPACE, _DATATYPE, 4, 5, _LAYOUT, _ATTRIBUTE, 14, _MORE, _GROUP, 18}
_REFUSED = {
    2: "links of a newer form, which may lead to other files",
    6: "links of a newer form, which may lead to other files",
    7: "numbers that lie in other files",
    11: "compressed numbers",
}
# Whole numbers, floats, texts, bits, bytes, and names for numbers such as booleans.
_PLAIN_TYPES = {0, 1, 3, 4, 5, 8}
_TEXT, _VARYING = 3, 9


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Args:
        texts: Attributes of the root that are texts, by name.
        datasets: Shape of each dataset, by its path.
    """

    texts: Mapping[str, bytes]
    datasets: Mapping[str, tuple[int, ...]]


def read_hdf5(content: bytes) -> Contents:
    """Returns what a file holds, after a look at all of its structure.

    Raises:
        ModelError: It is no such file, damaged, or of a form that Keras does not write.
    """
    if not content.startswith(SIGNATURE):
        raise ModelError(f"no HDF5 file: it begins with {content[:8]!r}")
    try:
        return _Walker(memoryview(content)).read()
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise ModelError(
            f"damaged HDF5 file, or of a form that Keras does not write ({str(error)[:100]}); "
            "restore the file, or save the model again with model.save"
        ) from error


@dataclass
class _Walker:
    """Walks through a file, each object once.

    Args:
        content: The whole file.
        seen: Addresses of the objects that were read.
        datasets: Those that were found.
    """

    content: memoryview
    seen: set[int] = field(default_factory=set)
    datasets: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def read(self) -> Contents:
        version, sizes = self.content[8], bytes(self.content[13:15])
        if version != 0 or sizes != b"\x08\x08" or self._number(24) != 0:
            raise ValueError(f"its superblock is of version {version}")
        root = self._number(64)
        texts = dict(self._texts(root))
        self._object(root, "", 0)
        return Contents(texts, self.datasets)

    def _number(self, place: int) -> int:
        return int(struct.unpack_from("<Q", self.content, place)[0])

    def _part(self, place: int, size: int) -> memoryview:
        if not 0 <= place <= place + size <= len(self.content):
            raise ValueError("it ends too early")
        return self.content[place : place + size]

    def _messages(self, address: int) -> Iterator[tuple[int, memoryview]]:
        """Yields kind and content of what is said of an object."""
        version, _, _, _, size = struct.unpack_from("<BBHII", self.content, address)
        if version != 1:
            raise ValueError(f"an object header of version {version}")
        blocks, count = [(address + 16, size)], 0
        while blocks:
            place, size = blocks.pop(0)
            block, at = self._part(place, size), 0
            while at + 8 <= len(block):
                kind, length, flags = struct.unpack_from("<HHB", block, at)
                said = block[at + 8 : at + 8 + length]
                if len(said) < length or flags & 2 or (count := count + 1) > _MOST_MESSAGES:
                    raise ValueError("an object header that does not fit")
                if kind == _MORE:
                    blocks.append(struct.unpack_from("<QQ", said))
                yield kind, said
                at += 8 + length

    def _object(self, address: int, path: str, depth: int) -> None:
        if address in self.seen or depth > _DEEPEST or len(self.seen) >= _MOST_OBJECTS:
            raise ValueError(f"{path[:60]!r} is linked again, or lies too deep")
        self.seen.add(address)
        said = dict[int, memoryview]()
        for kind, message in self._messages(address):
            if kind not in _KNOWN:
                raise ValueError(f"{path[:60]!r} has {_REFUSED.get(kind, f'a message {kind}')}")
            if kind == _ATTRIBUTE:
                self._check_attribute(_attribute(message), path)
            said[kind] = message
        if _GROUP in said:
            tree, heap = struct.unpack_from("<QQ", said[_GROUP])
            for name, place in self._members(tree, self._names(heap), 0):
                self._object(place, f"{path}/{name}", depth + 1)
        elif _LAYOUT in said:
            self.datasets[path.lstrip("/")] = self._dataset(said, path)

    def _names(self, heap: int) -> memoryview:
        """Returns the names of a group's members, each up to a zero."""
        if bytes(self._part(heap, 4)) != b"HEAP":
            raise ValueError("a group without names")
        return self._part(self._number(heap + 24), self._number(heap + 8))

    def _members(self, node: int, names: memoryview, depth: int) -> Iterator[tuple[str, int]]:
        kind = bytes(self._part(node, 4))
        if node in self.seen or depth > _DEEPEST:
            raise ValueError("a group that holds itself")
        self.seen.add(node)
        if kind == b"SNOD":
            (count,) = struct.unpack_from("<H", self.content, node + 6)
            for place in range(node + 8, node + 8 + 40 * count, 40):
                at, address, cached = struct.unpack_from("<QQI", self.content, place)
                if cached == _SOFT_LINK:
                    raise ValueError("a link in place of numbers")
                end = bytes(names[at : at + 4096]).find(b"\0")
                yield bytes(names[at : at + max(end, 0)]).decode(), address
            return
        if kind != b"TREE" or self.content[node + 4] != 0:
            raise ValueError("a group without members")
        (count,) = struct.unpack_from("<H", self.content, node + 6)
        for place in range(node + 32, node + 32 + 16 * count, 16):
            yield from self._members(self._number(place), names, depth + 1)

    def _dataset(self, said: Mapping[int, memoryview], path: str) -> tuple[int, ...]:
        """Returns a dataset's shape, if the file holds each of its numbers."""
        if _DATASPACE not in said or _DATATYPE not in said:
            raise ValueError(f"{path[:60]!r} has numbers without a shape, or a type")
        shape = _shape(said[_DATASPACE])
        kind, size = said[_DATATYPE][0] & 15, struct.unpack_from("<I", said[_DATATYPE], 4)[0]
        layout = said[_LAYOUT]
        needed = math.prod(shape) * size
        if kind not in _PLAIN_TYPES or layout[0] != 3 or layout[1] not in (0, 1):
            raise ValueError(f"{path[:60]!r} does not hold plain numbers in one piece")
        if layout[1] == 0:
            held = struct.unpack_from("<H", layout, 2)[0]
            held = min(held, len(layout) - 4)
        else:
            place, held = struct.unpack_from("<QQ", layout, 2)
            if held and place != _NOWHERE:
                self._part(place, held)
            elif needed:
                held = 0
        if needed > held:
            raise ValueError(f"{path[:60]!r} of shape {list(shape)} is not in the file")
        return shape

    def _texts(self, root: int) -> Iterator[tuple[str, bytes]]:
        for kind, said in self._messages(root):
            if kind == _ATTRIBUTE:
                found = _attribute(said)
                if found.kind == _TEXT:
                    yield found.name, bytes(found.value).rstrip(b"\0")
                elif found.kind == _VARYING and found.count:
                    yield found.name, self._varying(*struct.unpack_from("<IQI", found.value))

    def _check_attribute(self, found: _Attribute, path: str) -> None:
        """Requires an attribute to be in the file: the library makes room before it looks."""
        is_varying = found.kind == _VARYING
        if not is_varying and found.kind not in _PLAIN_TYPES:
            raise ValueError(f"{path[:60]!r} has an attribute of type {found.kind}")
        if found.count * found.size > len(found.value) or (is_varying and found.size != 16):
            raise ValueError(f"{path[:60]!r} has an attribute that is not in the file")
        for place in range(0, 16 * found.count if is_varying else 0, 16):
            self._varying(*struct.unpack_from("<IQI", found.value, place))

    def _varying(self, size: int, collection: int, index: int) -> bytes:
        """Returns a text of varying length, which lies in a heap of its own."""
        if bytes(self._part(collection, 4)) != b"GCOL":
            raise ValueError("a text without its heap")
        place, end = collection + 16, collection + self._number(collection + 8)
        self._part(collection, end - collection)
        while place + 16 <= end:
            found, _, _, length = struct.unpack_from("<HHIQ", self.content, place)
            if found == index and size <= length:
                return bytes(self._part(place + 16, size))
            if not found:
                break
            place += 16 + (length + 7) // 8 * 8
        raise ValueError("a text that is not in its heap")


def _shape(said: memoryview) -> tuple[int, ...]:
    version, rank, start = said[0], said[1], 8 if said[0] == 1 else 4
    if version not in (1, 2) or rank > 32:
        raise ValueError("a dataset without a shape")
    return struct.unpack_from(f"<{rank}Q", said, start)


@dataclass(frozen=True)
class _Attribute:
    """An attribute.

    Args:
        name: Its name.
        kind: The class of its type.
        size: Bytes of a value.
        count: How many values it has.
        value: Its bytes.
    """

    name: str
    kind: int
    size: int
    count: int
    value: memoryview


def _attribute(said: memoryview) -> _Attribute:
    version, flags, named, typed, spaced = struct.unpack_from("<BBHHH", said)
    if version not in (1, 2, 3) or (version > 1 and flags):
        raise ValueError(f"an attribute of version {version}")
    at = 9 if version == 3 else 8
    sizes = [(n + 7) // 8 * 8 if version == 1 else n for n in (named, typed, spaced)]
    kind, shape, value = (at + sum(sizes[:n]) for n in (1, 2, 3))
    name = bytes(said[at : at + named]).rstrip(b"\0").decode(errors="replace")
    (size,) = struct.unpack_from("<I", said, kind + 4)
    is_empty = said[shape] == 2 and said[shape + 3] == 2
    count = 0 if is_empty else math.prod(_shape(said[shape:value]))
    return _Attribute(name, said[kind] & 15, size, count, said[value:])
