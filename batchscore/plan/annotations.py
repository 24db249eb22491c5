"""The annotations that published columns carry: those of the shards, or those published before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from batchscore.errors import InputError
from batchscore.plan.footers import Footer
from batchscore.plan.published import published_types
from batchscore.stages.write import Target
from batchscore.worker.spec import Spec


def annotate(spec: Spec, footers: Sequence[Footer]) -> Target:
    """Returns what is written with the types that carry the shards' annotations.

    A column keeps the type that the job has published it with: earlier versions published UUID
    and JSON as binaries and texts, and what they could not annotate without annotation.

    Raises:
        InputError: A column has an annotation that cannot be written.
    """
    target, schema = spec.scoring.target, spec.scoring.source.schema
    distinct = list({id(each.logical): each for each in footers}.values())
    if not any(each.logical.marked or each.logical.unwritten for each in distinct):
        return target
    columns = [name for name in target.columns if name not in target.partition_by]
    marked = {n: kind for n in columns if (kind := _common_mark(distinct, schema, n)) is not None}
    unwritten = [(footer, name) for footer in distinct for name in footer.logical.unwritten]
    unwritten = [(footer, name) for footer, name in unwritten if name in columns]
    if not marked and not unwritten:
        return target
    before = published_types(spec.output, spec.job, spec.slice)
    for footer, name in unwritten:
        if before.get(name) != str(schema.field(name).type):
            raise _unwritable(footer, name)
    kept = [(n, kind) for n, kind in marked.items() if before.get(n) != str(schema.field(n).type)]
    return replace(target, marked=tuple(kept))


def _unwritable(footer: Footer, name: str) -> InputError:
    annotation = footer.logical.unwritten[name]
    return InputError(
        f"shard {footer.shard.path}: column {name!r} is {annotation}, an annotation that would be "
        "lost in the output; name the columns to keep in output.columns, without it, or write the "
        "shards with another type"
    )


def _common_mark(footers: Sequence[Footer], schema: pa.Schema, name: str) -> pa.DataType | None:
    """Returns the type of a column that all shards annotate alike, but those of nulls alone."""
    kind, marks = schema.field(name).type, set[pa.DataType]()
    for footer in footers:
        plain = footer.schema.field(name).type
        if not pa.types.is_null(plain):
            marks.add(footer.logical.marked.get(name, kind) if plain == kind else kind)
    return marks.pop() if len(marks) == 1 and marks != {kind} else None
