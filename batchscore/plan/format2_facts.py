"""Facts as versions up to commit 020ad64 wrote them, so that what they scored is not scored again.

Frozen: for these versions each file in the folder of a function was part of the job's code.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from batchscore.job import LoadedJob
from batchscore.plan.code_files import called_files
from batchscore.plan.fingerprint import CODE, FORMAT
from batchscore.runs.layout import HOME
from batchscore.storage.store import is_local

_FORMAT = "format 2"
_READ_BYTES = 16 << 20
_NOT_READ = (".yaml", ".yml", ".md", ".log")


def is_earlier(facts: Mapping[str, str]) -> bool:
    """Tells whether a version up to that commit wrote them."""
    return facts.get(FORMAT, _FORMAT) == _FORMAT


def without_neighbours(before: Mapping[str, str], facts: Mapping[str, str]) -> dict[str, str]:
    """Returns facts of then, in today's format, without files that count no more.

    Args:
        before: Facts of an earlier run; later ones are returned as they are.
        facts: Facts of today, for a job's files.
    """
    if not is_earlier(before):
        return dict(before)
    kept = {k: v for k, v in before.items() if not k.startswith(CODE) or k in facts}
    return kept | {FORMAT: facts[FORMAT]} if FORMAT in before else kept


def named_neighbours(
    before: Mapping[str, str], facts: Mapping[str, str], base: str
) -> dict[str, str]:
    """Returns today's facts of files that counted then, and that the job's code names.

    Nobody declares them, but the published rows may have been scored with what they held. A name
    counts in quotes, as in `"vocab.json"`. Whether code reads a file whose name it computes cannot
    be known here; a run that scores refuses it.

    Args:
        before: Facts of an earlier run; there are none for later ones.
        facts: Facts of today, for a job's files.
        base: The job's folder.
    """
    left = [k.removeprefix(CODE) for k in before if k.startswith(CODE) and k not in facts]
    if not left or not is_earlier(before) or not is_local(base):
        return {}
    code = [k.removeprefix(CODE) for k in facts if k.startswith(CODE) and k.endswith(".py")]
    texts = b"\n".join(Path(base, file).read_bytes() for file in code)
    named = [file for file in left if _is_quoted(Path(file).name, texts)]
    return {f"{CODE}{file}": _sha256(Path(base, file)) for file in named}


def _is_quoted(name: str, texts: bytes) -> bool:
    return re.search(rb"[\"'/]" + re.escape(os.fsencode(name)) + rb"[\"']", texts) is not None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"


def respell_code(
    facts: Mapping[str, str], loaded: LoadedJob, shards: Collection[str]
) -> dict[str, str] | None:
    """Returns a job's facts of today in the words of then; None where then had no word for one.

    Args:
        shards: Paths of the input, which were no code though they may be next to it.
    """
    old = {f"{CODE}{name}": value for name, value in _code_hashes(loaded, shards).items()}
    if any(name.startswith(CODE) and name not in old for name in facts):
        return None
    kept = {name: value for name, value in facts.items() if not name.startswith(CODE)}
    return {**kept, FORMAT: _FORMAT, **old}


def _code_hashes(loaded: LoadedJob, shards: Collection[str]) -> dict[str, str]:
    base, files = Path(loaded.base), _code_files(loaded)
    if not files:  # no shard has to be looked at
        return {}
    shards = {os.path.realpath(shard) for shard in shards if shard.startswith("/")}
    paths = [path for path in files if os.path.realpath(path) not in shards]
    return {
        str(path.relative_to(base)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def _code_files(loaded: LoadedJob) -> list[Path]:
    if not is_local(loaded.base):
        return []
    folders = {Path(loaded.base, file).parent for file in called_files(loaded.job)}
    found = {path for folder in folders for path in (*folder.glob("*"), *_code_below(folder))}
    return sorted(path for path in found if _may_be_read(path))


def _code_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        paths = {name: Path(parent, name) for name in folders}
        folders[:] = [name for name, path in paths.items() if _may_hold_code(path)]
        yield from (Path(parent, name) for name in files if name.endswith(".py"))


def _may_hold_code(folder: Path) -> bool:
    foreign = (folder / "pyvenv.cfg", folder / HOME)
    return not folder.name.startswith((".", "__")) and not any(path.exists() for path in foreign)


def _may_be_read(path: Path) -> bool:
    visible = not path.name.startswith(".") and path.suffix not in _NOT_READ
    return visible and path.is_file() and path.stat().st_size <= _READ_BYTES
