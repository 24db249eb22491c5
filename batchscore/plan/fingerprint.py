"""What decides a row's scores, and whether a run would publish the same rows again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscore import __version__
from batchscore.drift.storage import VERSION
from batchscore.job import LoadedJob, Preprocess, UserFunction
from batchscore.runs.layout import HOME
from batchscore.spec import RunSpec
from batchscore.stages.block import TILE_ROWS
from batchscore.storage import is_local
from batchscore.units import Piece

# A larger file beside a function is no part of its code.
_READ_BYTES = 16 << 20
_NOT_READ = (".yaml", ".yml", ".md", ".log")
_PACKAGES = ("apache-beam", "pyarrow", "numpy", "pandas", "torch", "safetensors")
_CHANGES_BITS = ("precision", "compile")
# Python and Beam carry rows but compute nothing of them.
_NO_INFLUENCE = ("apache-beam", "python")


def score_facts(loaded: LoadedJob, spec: RunSpec, shards: Collection[str]) -> dict[str, str]:
    """Returns all that scores depend on but the rows, by what a person would call it.

    Args:
        shards: paths of the input, which are no code though they may lie beside it.
    """
    sections = loaded.job.model_dump(mode="json", include={"preprocess", "postprocess"})
    versions = package_versions()
    facts = {
        "model": spec.model.identity,
        "profiles of units": f"format {VERSION}",
        "model inputs": [str(each) for each in spec.inputs],
        "preprocess": sections["preprocess"],
        "postprocess": sections["postprocess"],
        **_inference_facts(loaded, spec),
        "input.filters": str(spec.source.filters),
        "columns that are read": str(spec.source.schema),
        "columns that are written": _written(spec),
        **{f"code {name}": value for name, value in _code_hashes(loaded, shards).items()},
        **{f"version of {k}": v for k, v in versions.items() if k not in _NO_INFLUENCE},
    }
    return {
        name: value if isinstance(value, str) else _hash(value) for name, value in facts.items()
    }


def _written(spec: RunSpec) -> list[tuple[str, ...]]:
    target = spec.target
    # Units that were finished when all folders had encoded names are not mixed with others.
    plain = [target.plain_keys] if target.plain_keys else []
    return [target.columns, target.partition_by, *plain]


def _inference_facts(loaded: LoadedJob, spec: RunSpec) -> dict[str, str]:
    runtime = loaded.job.runtime
    facts = {f"runtime.{key}": str(getattr(runtime, key)) for key in _CHANGES_BITS}
    as_auto = spec.call_rows == TILE_ROWS and not spec.device.startswith("cuda")
    facts["runtime.micro_batch"] = "auto" if as_auto else str(runtime.micro_batch)
    if runtime.precision != "float32" or runtime.compile:
        # It decides there whether scores that differ from float32's may be made at all.
        facts["the model's tolerance"] = str(spec.model.tolerance)
    return facts


def score_hash(facts: Mapping[str, str]) -> str:
    """Returns the hash under which units that were scored alike share a ledger."""
    return _hash(facts)


def fingerprint(
    score: str, pieces: Sequence[Piece], bad_files: Sequence[tuple[str, int, str]]
) -> str:
    """Returns a hash of all that the published rows depend on, however it is cut into units."""
    groups = defaultdict[tuple[str, int, str], list[int]](list)
    for piece in pieces:
        groups[piece.shard.path, piece.shard.size, piece.shard.mark] += piece.row_groups
    read = sorted((*shard, sorted(found)) for shard, found in groups.items())
    return _hash([score, read, sorted(bad_files)])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _code_hashes(loaded: LoadedJob, shards: Collection[str]) -> dict[str, str]:
    """The files beside those that the job calls, and code below: they may be imported or read.

    One that is missing is left out here; loading it says so.
    """
    job = loaded.job
    steps = (job.preprocess, *job.postprocess)
    calls = [step.function for step in steps if isinstance(step, (Preprocess, UserFunction))]
    calls += [job.model.architecture] if job.model.architecture else []
    if not calls or not is_local(loaded.base):
        return {}
    base = Path(loaded.base)
    folders = {(base / call.partition(":")[0]).parent for call in calls}
    found = {path for folder in folders for path in (*folder.glob("*"), *_code_below(folder))}
    paths = sorted(p for p in found if _may_be_read(p) and os.path.realpath(p) not in shards)
    return {
        str(path.relative_to(base)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def _code_below(folder: Path) -> Iterator[Path]:
    """Yields Python files of a folder and those in it, but for environments, outputs and caches."""
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


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that scores depend on."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"batchscore": __version__, "python": platform.python_version(), **found}
