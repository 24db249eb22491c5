"""A job file's text of unknown origin, read and parsed into plain values within fixed bounds."""

from __future__ import annotations

import difflib
import itertools
import os
import posixpath
import re
from collections.abc import Iterator
from typing import IO, Any, cast

import yaml

from batchscore.errors import JobFileError
from batchscore.job.parameters import printable, shown
from batchscore.messages.addresses import redacted_address
from batchscore.messages.wording import reason
from batchscore.storage.reading import TooLargeError, read_at_most

MAX_BYTES = 1 << 20
MAX_NODES = 100_000
MAX_DEPTH = 50


def read_job_file(path: str) -> bytes:
    """Return the bytes of a job file at a local path or an fsspec address.

    Raises JobFileError if it cannot be read or is over 1 MiB.
    """
    try:
        with _opened(path) as file:
            return read_at_most(file, MAX_BYTES)
    except FileNotFoundError:
        raise JobFileError(f"no such job file: {shown_path(path)}{_nearest_file(path)}") from None
    except IsADirectoryError:
        remedy = f"name the job file in it, such as {shown_path(posixpath.join(path, 'job.yaml'))}"
        raise JobFileError(f"{shown_path(path)}: is a folder; {remedy}") from None
    except TooLargeError:
        message = f"{shown_path(path)}: over 1 MiB; expected a job file, not data"
        raise JobFileError(message) from None
    except Exception as error:  # an object store's client raises errors of its own
        cause = reason(error).removeprefix(f"{shown_path(path)}: ")
        raise JobFileError(f"{shown_path(path)}: the job file cannot be read ({cause})") from None


def parse_yaml(content: bytes | str, source: str) -> Any:
    """Parse one YAML document into plain mappings, lists and scalars.

    As in YAML 1.2, only true and false are booleans (`NO` is a text) and `1e-3` is a number.
    Raises JobFileError, with `source`, line and column, for a syntax error, an unknown tag, a
    repeated key or one that is not text, over 100,000 nodes once aliases are expanded, or over
    50 levels.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        loader = yaml.SafeLoader(text)
    except UnicodeDecodeError as error:
        raise JobFileError(
            f"{source}: byte {error.start} is not UTF-8; name a job file, which is "
            "YAML, or save it as UTF-8"
        ) from None
    except yaml.YAMLError:
        raise JobFileError(f"{source}: has control characters; expected text") from None
    loader.yaml_implicit_resolvers = _RESOLVERS  # on this loader alone
    try:
        root = loader.get_single_node()
        return None if root is None else _plain(loader, root, 0, itertools.count(1), source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise JobFileError(f"{where}: not YAML: {_syntax_problem(error)}") from None
    except RecursionError:
        raise JobFileError(f"{source}: {_TOO_DEEP}") from None
    finally:
        loader.dispose()


def absolute_address(address: str, base: str) -> str:
    """Return a local path made absolute, or an fsspec address as it is.

    `base`, the folder that a relative path starts from, is itself a local path or an fsspec
    address. Raises ValueError if the path climbs out of the bucket or host of such an address.
    """
    if not address or "://" in address or "::" in address or os.path.isabs(address):
        return os.path.normpath(address) if os.path.isabs(address) else address
    scheme, separator, folder = base.rpartition("://")
    if not separator:
        return os.path.normpath(os.path.join(base, address))
    top = "/" if folder.startswith("/") else folder.partition("/")[0]
    joined = posixpath.normpath(posixpath.join(folder, address))
    if top == "/" or joined == top or joined.startswith(f"{top}/"):
        return f"{scheme}://{joined}"
    raise ValueError(f"{shown(address)} leaves {scheme}://{top}; write the whole address")


def folder_of(path: str) -> str:
    """Return the folder of a job file, as a local absolute path or an fsspec address."""
    return posixpath.dirname(path) if "://" in path else os.path.dirname(os.path.abspath(path))


def shown_path(path: str) -> str:
    """Return a path for a message: without passwords, its control characters escaped."""
    return redacted_address(path) if path.isprintable() and path else repr(path)


_TOO_DEEP = f"nested over {MAX_DEPTH} levels deep; a job file needs fewer than 10"
_TAG = "tag:yaml.org,2002:"
# PyYAML's own YAML 1.1 reads NO and off as booleans, 010 as 8, 12:30 as 750, 1e-3 as a text.
_RESOLVERS = {
    None: [
        (f"{_TAG}{name}", re.compile(rf"(?:{pattern})\Z"))
        for name, pattern in {
            "null": r"~|null|Null|NULL|",
            "bool": r"true|True|TRUE|false|False|FALSE",
            "int": r"[-+]?(0|[1-9][0-9]{0,17})",
            "float": r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
            "timestamp": r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?)?",
        }.items()
    ]
}


def _plain(loader: Any, node: yaml.Node, depth: int, count: Iterator[int], source: str) -> Any:
    if depth > MAX_DEPTH:
        raise JobFileError(f"{_at(node, source)}: {_TOO_DEEP}")
    if next(count) > MAX_NODES:
        raise JobFileError(f"{source}: over {MAX_NODES:,} values once its aliases are expanded")
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _key(loader, key_node, mapping, source)
            mapping[key] = _plain(loader, value_node, depth + 1, count, source)
        return mapping
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        return [_plain(loader, item, depth + 1, count, source) for item in node.value]
    return _scalar(loader, node, source)


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "syntax error"
    if " alias " in problem:  # its name may be an unquoted password
        return "no anchor has that alias's name; quote a text that begins with '*'"
    return problem


def _key(loader: Any, node: yaml.Node, mapping: dict[str, Any], source: str) -> str:
    key = _scalar(loader, node, source) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(key, str):
        found = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        raise JobFileError(
            f"{_at(node, source)}: key {printable(found)} is not a text; write it in quotes"
        )
    if key in mapping:
        raise JobFileError(f"{_at(node, source)}: key {printable(key)} appears twice; keep one")
    return key


def _scalar(loader: Any, node: yaml.Node, source: str) -> Any:
    known = isinstance(node, yaml.ScalarNode) and node.tag in (
        f"{_TAG}str",
        loader.resolve(yaml.ScalarNode, node.value, (True, False)),
    )
    if not known:
        raise JobFileError(
            f"{_at(node, source)}: an unknown tag; leave tags out, and quote a text that begins "
            "with '!'"
        )
    try:
        return loader.construct_object(node)
    except ValueError:
        raise JobFileError(
            f"{_at(node, source)}: no such date or time; expected YYYY-MM-DD, or a quoted text"
        ) from None


def _at(node: yaml.Node, source: str) -> str:
    return f"{source}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _opened(path: str) -> IO[bytes]:
    if "://" not in path:
        return open(path, "rb")
    from batchscore.storage import remote  # late: most job files are local

    return cast(IO[bytes], remote.download(*remote.connect(path, once=True), path))


def _name(path: str) -> str:
    return redacted_address(path) if path.isprintable() and path else repr(path)


def _nearest_file(path: str) -> str:
    if "://" in path:
        return ""
    try:
        names = os.listdir(os.path.dirname(path) or ".")
    except (OSError, ValueError):
        return "; there is no such folder either"
    matches = difflib.get_close_matches(os.path.basename(path), sorted(names)[:10_000], n=1)
    return f"; nearest: {matches[0]!r}" if matches else ""
