"""Golden rows, whose scores are known, put through a model as a process loaded it."""

from __future__ import annotations

import math
import secrets
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.columnar.arrays import Array, to_arrow, to_numpy
from batchscore.errors import InputError, ModelError, StepError
from batchscore.models.backends.protocol import Predictor
from batchscore.models.loadable import localize
from batchscore.stages.block import Block
from batchscore.stages.preprocess import InputColumns
from batchscore.units.unit import Piece, Shard, Unit
from batchscore.worker.golden_results import golden_prefix, golden_results
from batchscore.worker.scoring import infer_step, load, preprocess_step
from batchscore.worker.spec import RunSpec, Spec

_NO_NUMBER = "NonFiniteScore"


def record_golden(spec: RunSpec, predictor: Predictor) -> None:
    """Writes what this process's model makes of the golden rows next to its units.

    Raises:
        ModelError: The golden rows cannot be read, or do not fit the model.
    """
    found = measure_golden(spec, predictor)
    if found is not None:
        spec.output.write_json(f"{golden_prefix(spec)}{secrets.token_hex(4)}.json", found)


def ensure_golden(spec: RunSpec) -> None:
    """Scores the golden rows where no process of this run or of one before did it.

    Raises:
        ModelError: The model cannot be loaded, or its golden rows do not fit it.
    """
    if golden_prefix(spec) and not golden_results(spec):
        record_golden(spec, load(spec))


def measure_golden(spec: Spec, predictor: Predictor) -> dict[str, Any] | None:
    """Returns the number of golden rows and each output's largest difference to its known values.

    The rows hold the columns that the model's own preprocessing reads, or without it a column for
    each model input, and one for each of the model's outputs, by their names. A row that is
    rejected differs by infinity. None where the model has no golden rows.

    Raises:
        ModelError: The golden rows cannot be read, or do not fit the model.
    """
    name = spec.scoring.model.golden
    if name is None:
        return None
    rest, known = _read_golden(spec, name)
    scored = _score(spec, predictor, rest)
    gaps = {output: _gap(scored, output, known_b) for output, known_b in known.items()}
    return {"rows": rest.num_rows, "gaps": gaps}


def score_golden(spec: Spec, predictor: Predictor) -> Block | None:
    """Returns what a model makes of the golden rows; None where the model has none.

    Raises:
        ModelError: The golden rows cannot be read, or do not fit the model.
    """
    name = spec.scoring.model.golden
    return None if name is None else _score(spec, predictor, _read_golden(spec, name)[0])


def _read_golden(spec: Spec, name: str) -> tuple[pa.RecordBatch, dict[str, Array]]:
    """Returns the golden rows without their known outputs, and these."""
    model = spec.scoring.model
    try:
        # `read_table` imports Arrow's datasets, and with them pandas.
        with pq.ParquetFile(localize(model) / name) as file:
            table = file.read()
        batch = table.combine_chunks().to_batches()[0]
        names = [output.name for output in model.outputs]
        known = {name: to_numpy(batch.column(name)) for name in names}
        return batch.select([n for n in batch.schema.names if n not in names]), known
    except (OSError, pa.ArrowException, KeyError, IndexError, ValueError) as error:
        raise ModelError(
            f"golden rows {name} of model {model.name!r}: cannot be read ({error}); "
            "write them again with the model"
        ) from error


def _score(spec: Spec, predictor: Predictor, batch: pa.RecordBatch) -> Block:
    """Puts rows through what the model folder describes, without the job's own functions."""
    rows, block, plain = batch.num_rows, _block(spec, batch), _plain(spec, batch.num_rows)
    try:
        scored = infer_step(plain, predictor)(preprocess_step(plain)(block))
    except (InputError, StepError) as error:
        raise _misfit(spec, str(error)) from error
    _check_fit(spec, scored, rows)
    return scored


def _block(spec: Spec, batch: pa.RecordBatch) -> Block:
    rows = batch.num_rows
    shard = Shard(str(spec.scoring.model.golden), 0, "", rows)
    unit = Unit("golden", (Piece(shard, (0,), (0,), (rows,)),))
    return Block(unit, 0, to_arrow(np.arange(rows, dtype=np.int64)), batch)


def _plain(spec: Spec, rows: int) -> Spec:
    """Returns a spec whose stages take golden rows, without the job's own preprocessing."""
    inputs = tuple(
        InputColumns(each.name, each.dtype, each.shape, (each.name,), each.varying)
        for each in spec.scoring.model.inputs
    )
    # Without an identity it shares no trial: golden rows say nothing of the run's own rows.
    scoring = replace(spec.scoring, preprocess=None, inputs=inputs)
    execution = replace(spec.execution, max_rejects=rows, fresh=True)
    return Spec(spec.job, spec.slice, spec.output, scoring, execution)


def golden_sample(spec: Spec) -> tuple[Spec, Block] | None:
    """Returns the golden rows and a spec whose stages take them; None where the model has none.

    Raises:
        ModelError: The golden rows cannot be read.
    """
    name = spec.scoring.model.golden
    if name is None:
        return None
    batch, _ = _read_golden(spec, name)
    return _plain(spec, batch.num_rows), _block(spec, batch)


def _check_fit(spec: Spec, scored: Block, rows: int) -> None:
    """Raises ModelError when no row came as far as a score, even one that is not a number."""
    unfit = [reject for reject in scored.rejects if reject.error != _NO_NUMBER]
    if sum(len(reject.rows_r) for reject in unfit) == rows:
        raise _misfit(spec, unfit[0].texts[0].as_py() or unfit[0].message)


def _misfit(spec: Spec, why: str) -> ModelError:
    return ModelError(
        f"golden rows {spec.scoring.model.golden} of model {spec.scoring.model.name!r}: do not "
        f"fit the model ({why}); write them again with the model"
    )


def _gap(block: Block, name: str, known_b: Array) -> float:
    if block.rejects or block.values is None:
        return math.inf
    made_b = to_numpy(block.values.column(name))
    if made_b.shape != known_b.shape:
        return math.inf
    gaps_b = np.abs(made_b.astype(np.float64) - known_b.astype(np.float64))
    return float(gaps_b.max(initial=0.0))
