"""What decides a row's scores, and whether a run would publish the same rows again."""

from __future__ import annotations

import hashlib
import json
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from batchscore import __version__
from batchscore.job import LoadedJob, Preprocess, UserFunction
from batchscore.models.backends.facts import DEFAULT_KERNELS, TILE_ROWS
from batchscore.models.backends.registry import backend_of
from batchscore.models.imported import imported_files
from batchscore.plan.spelling import (
    spell_filters,
    spell_inputs,
    spell_preprocess,
    spell_schema,
    spell_steps,
    spell_type,
)
from batchscore.stages.reasons import Explaining
from batchscore.system.packages import version
from batchscore.units.unit import Piece
from batchscore.worker.spec import Spec

# Raise it when the scores of a job change though job, model and rows do not: every published slice
# is then scored again. A faster way to the same scores, and another format of profiles or of these
# facts, leave it alone.
SCORING_VERSION = 1
# Raise it when facts are spelled in another way, and translate those of published runs, as
# `legacy_facts.py` and `format2_facts.py` do: what is only spelled otherwise is not scored again.
FACTS_FORMAT = "format 3"
FORMAT, CODE, VERSION_OF, EXPLAIN = "facts", "code ", "version of ", "explain"

_PACKAGES = ("apache-beam", "pyarrow", "numpy", "pandas", "torch", "safetensors")
_CHANGES_BITS = ("precision", "compile")


def score_facts(loaded: LoadedJob, spec: Spec) -> dict[str, str]:
    """Returns all that scores depend on but the rows, by what a person would call it."""
    job = loaded.job
    facts = {
        FORMAT: FACTS_FORMAT,
        "scoring": f"version {SCORING_VERSION}",
        "model": spec.scoring.model.identity,
        "model inputs": spell_inputs(spec.scoring.inputs),
        "preprocess": spell_preprocess(job.preprocess),
        "postprocess": spell_steps(job.postprocess),
        **_inference_facts(loaded, spec),
        **_explain_facts(spec.scoring.reasons),
        "input.filters": spell_filters(job.input.filters),
        "columns that are read": spell_schema(spec.scoring.seen_schema),
        "columns that are written": _written(spec),
        **{f"{CODE}{name}": value for name, value in spec.scoring.code.items()},
        **{f"{VERSION_OF}{name}": version(name) for name in needed_packages(loaded, spec)},
    }
    return {
        name: value if isinstance(value, str) else sha256_of(value) for name, value in facts.items()
    }


def _written(spec: Spec) -> list[Any]:
    target = spec.scoring.target
    # Units that were finished when all folders had encoded names are not mixed with others.
    plain = [list(target.plain_keys)] if target.plain_keys else []
    return [list(target.columns), list(target.partition_by), *plain]


def _inference_facts(loaded: LoadedJob, spec: Spec) -> dict[str, str]:
    runtime = loaded.job.runtime
    facts = {f"runtime.{key}": str(getattr(runtime, key)) for key in _CHANGES_BITS}
    as_auto = spec.execution.call_rows == TILE_ROWS and not spec.execution.device.startswith("cuda")
    facts["runtime.micro_batch"] = "auto" if as_auto else str(runtime.micro_batch)
    if runtime.kernels != DEFAULT_KERNELS:
        facts["runtime.kernels"] = runtime.kernels
    if runtime.precision != "float32" or runtime.compile or runtime.kernels != DEFAULT_KERNELS:
        # It decides there whether scores that differ from float32's may be made at all.
        facts["the model's tolerance"] = str(spec.scoring.model.tolerance)
    return facts


def _explain_facts(reasons: Explaining | None) -> dict[str, Any]:
    if reasons is None:
        return {}
    above = "" if reasons.above is None else f", above {reasons.above:g}"
    of = "" if reasons.score is None else f" of {reasons.score}"
    named = [list(reasons.named), list(reasons.columns)]
    return {EXPLAIN: f"top {reasons.top}{above}{of}", f"{EXPLAIN}: columns": named}


def needed_packages(loaded: LoadedJob, spec: Spec) -> list[str]:
    """Returns the packages whose version can change this job's scores.

    Sums, products, comparisons and roundings to the nearest number are the same in any version, so
    fitted features need no package. Beam, Python and safetensors only carry rows and weights.
    """
    job = loaded.job
    steps = (job.preprocess, *job.postprocess)
    functions = [step for step in steps if isinstance(step, (Preprocess, UserFunction))]
    needed = set(backend_of(spec.scoring.model.format).packages)
    if any(step.needs_numpy for step in job.postprocess):
        needed.add("numpy")  # its exp differs in the last bit from version to version
    if functions:
        needed |= {"numpy", "pyarrow"}
    if any(_takes_pandas(step, loaded) for step in functions):
        needed.add("pandas")
    if job.preprocess is None and _has_decimals(spec):
        needed.add("pyarrow")  # its cast of large decimals to floats rounds more than once
    return sorted(needed)


def _takes_pandas(step: Preprocess | UserFunction, loaded: LoadedJob) -> bool:
    """Tells whether a function takes DataFrames, without running its file.

    Where the job does not say so, the annotation of its first argument does. A file with such an
    annotation holds one of these words, or imports a file that does.
    """
    if step.batch is not None:
        return step.batch == "pandas"
    texts = imported_files(loaded.base, step.function.partition(":")[0]).values()
    return any(b"pandas" in text or b"DataFrame" in text for text in texts)


def _has_decimals(spec: Spec) -> bool:
    schema = spec.scoring.source.schema
    read = [name for name in spec.scoring.model_columns if name in schema.names]
    return any('"decimal"' in json.dumps(spell_type(schema.field(name).type)) for name in read)


def score_hash(facts: Mapping[str, str]) -> str:
    """Returns the hash under which units that were scored alike share a ledger."""
    return sha256_of(facts)


def fingerprint(
    score: str, pieces: Sequence[Piece], bad_files: Sequence[tuple[str, int, str]]
) -> str:
    """Returns a hash of all that the published rows depend on, however it is cut into units."""
    groups = defaultdict[tuple[str, int, str], list[int]](list)
    for piece in pieces:
        groups[piece.shard.path, piece.shard.size, piece.shard.mark] += piece.row_groups
    read = sorted((*shard, sorted(found)) for shard, found in groups.items())
    return sha256_of([score, read, sorted(bad_files)])


def sha256_of(value: Any) -> str:
    """Returns the hash of plain JSON values; TypeError for any other."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def package_versions(format_: str) -> dict[str, str]:
    """Returns the versions of Python and of packages for a manifest.

    Args:
        format_: The model's format, whose backend names the packages that compute.
    """
    found = {name: version(name) for name in (*_PACKAGES, *backend_of(format_).packages)}
    return {"batchscore": __version__, "python": platform.python_version(), **found}
