"""Tests of each line of the table of what differs from training, for formats that name columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchscore as bs
from batchscore.models.features import Features
from batchscore.models.tree_features import Coded, Plain
from tests import factory
from tests.boosters import CODES, TRAINED, for_training, make_frame
from tests.models.backends.xgboost.test_jobs import (
    folder_of,
    job_of,
    own_scores,
    require_same,
    scores,
)

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[3] / "docs/model-folder.md"


@dataclass(frozen=True)
class Trained:
    """A format, the folder of its models, and one of them."""

    format: str
    models: Path
    file: Path
    float: Any

    def scored(self, folder: Path, change: Callable[[pa.Table], pa.Table] = lambda t: t) -> Any:
        """Runs a job on changed rows, and returns its result."""
        return factory.run_json("run", self.job(folder, change))

    def job(self, folder: Path, change: Callable[[pa.Table], pa.Table] = lambda t: t) -> Path:
        job = job_of(folder, self.file)
        rows = change(pq.read_table(folder / "in/rows.parquet"))
        pq.write_table(rows, folder / "in/rows.parquet")
        return job

    def require_own(self, folder: Path) -> None:
        require_same(scores(folder), own_scores(self.models, "binary_probability"))


@pytest.fixture(params=["xgboost", "lightgbm"])
def trained(request: pytest.FixtureRequest) -> Trained:
    """A model of each framework that names the columns of its training."""
    models = request.getfixturevalue(f"{request.param}_models")
    file = models / ("binary.json" if request.param == "xgboost" else "binary.txt")
    kind = "float32" if request.param == "xgboost" else "float64"
    return Trained(request.param, models, file, kind)


def refused(job: Path, *messages: str) -> None:
    """Requires a command to end before any work, with these words."""
    done = factory.run_cli("run", job)
    said = " ".join(done.output.split())
    assert done.exit_code == 2, said
    assert not [message for message in messages if message not in said], said


def order(trained: Trained, folder: Path) -> None:
    trained.scored(folder, lambda rows: rows.select(rows.schema.names[::-1]))
    trained.require_own(folder)


def further(trained: Trained, folder: Path) -> None:
    trained.scored(folder, lambda rows: rows.append_column("Size", pa.array(["x"] * len(rows))))
    trained.require_own(folder)


def missing(trained: Trained, folder: Path) -> None:
    def without(rows: pa.Table) -> pa.Table:
        return rows.rename_columns([{"colour": "color"}.get(n, n) for n in rows.schema.names])

    refused(trained.job(folder, without), "column 'colour' is not in", "nearest: 'color'")


def type_of_a_column(trained: Trained, folder: Path) -> None:
    def texts(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index("size")
        return rows.set_column(place, "size", rows["size"].cast(pa.string()))

    refused(trained.job(folder, texts), "column 'size' has type string, expected a number")


def table_of_a_card(trained: Trained, folder: Path) -> None:
    kind = trained.float
    members = (
        Plain(column="size", type=kind),
        Coded(column="colour", vocabulary=("green", "blue", "red"), type=kind),
        Coded(column="code", vocabulary=tuple(CODES), type=kind),
        Plain(column="count", type=kind),
        Plain(column="is_new", type=kind),
    )
    outputs = {"score": {"type": kind, "shape": []}}
    inputs = {"features": {"type": kind, "shape": [5]}}
    facts: dict[str, Any] = {"format": trained.format, "inputs": inputs, "outputs": outputs}
    folder_of(folder / "model", trained.file, Features({"features": members}), **facts)
    why = "column 'colour' has other categories than", "code 0 is 'green', and 'blue'"
    refused(job_of(folder, folder / "model"), *why)


def unseen(trained: Trained, folder: Path) -> None:
    done = trained.scored(folder)
    trained.require_own(folder)
    pink = pq.read_table(folder / "in/rows.parquet")["colour"].to_numpy() == "pink"
    counted = {each["column"]: each["failed"] for each in done["column_checks"]}
    assert counted["colour"] == pink.sum() > 0


def null(trained: Trained, folder: Path) -> None:
    done = trained.scored(folder)
    trained.require_own(folder)
    gaps = pq.read_table(folder / "in/rows.parquet")["colour"].null_count
    assert done["rows"]["rejected"] == 0
    assert done["profile"]["colour"]["nulls"] == gaps > 0


def _with_version(trained: Trained, path: Path, major: int) -> Path:
    text = trained.file.read_text()
    if trained.format == "lightgbm":
        path.write_text(text.replace("version=v4", f"version=v{major}", 1))
    else:
        path.write_text(re.sub(r'"version":\[\d+,', f'"version":[{major},', text))
    return path


def newer(trained: Trained, folder: Path) -> None:
    file = _with_version(trained, folder / trained.file.name, 99)
    refused(job_of(folder, file), " 99", " is installed, which is older", "; install ")


def other_major(trained: Trained, folder: Path) -> None:
    file = _with_version(trained, folder / trained.file.name, 2)
    refused(job_of(folder, file), " 2", " is installed, which may score otherwise; install ")
    _save(trained, folder / "model")
    weights = next(folder.glob("model/model.[ut]*"))
    golden = folder / "model/golden.parquet"
    _replace(folder / "model", weights.name, file.read_bytes())
    job = job_of(folder, folder / "model", drift={"on_fail": "warn"})
    assert factory.run_json("run", job)["status"] == "published"
    trained.require_own(folder)
    said = " ".join(factory.run_cli("show", job).output.split())
    assert "library written by" in said
    rows = pq.read_table(golden)
    place = rows.schema.get_field_index("score")
    spoilt = pa.array(rows["score"].to_numpy() + 0.25, rows.schema.field("score").type)
    pq.write_table(rows.set_column(place, "score", spoilt), golden)
    _replace(folder / "model", "golden.parquet", golden.read_bytes())
    done = factory.run_cli("run", job, "--rescore")
    assert done.exit_code == 3, done.output
    assert "golden" in done.output


def _save(trained: Trained, folder: Path) -> None:
    rows = for_training(make_frame()[:TRAINED])
    if trained.format == "xgboost":
        import xgboost

        bs.save_model(folder, xgboost.Booster(model_file=trained.file), rows)
    else:
        import lightgbm

        bs.save_model(folder, lightgbm.Booster(model_file=trained.file), rows)


def _replace(folder: Path, name: str, content: bytes) -> None:
    """Writes a file of a model folder again, and its hash into the card."""
    (folder / name).write_bytes(content)
    card = (folder / "model.yaml").read_text()
    line = f"{name}: {factory.sha256(folder / name)}"
    (folder / "model.yaml").write_text(re.sub(rf"{name}: [0-9a-f]{{64}}", line, card))


LINES: dict[str, Callable[[Trained, Path], None]] = {
    "order of the columns": order,
    "further columns": further,
    "a column is missing": missing,
    "type of a column": type_of_a_column,
    "category table of a card": table_of_a_card,
    "a value that no category has": unseen,
    "null": null,
    "a file of a newer framework": newer,
    "a file of another major version": other_major,
}


def test_each_line_of_the_table_is_tried() -> None:
    """The page has the lines that are tried here, and no other."""
    text = PAGE.read_text()
    table = text[text.index("| what differs | what happens |") :].split("\n\n")[0]
    lines = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert lines == [*LINES]


@pytest.mark.parametrize("line", LINES)
def test_what_differs_from_training(line: str, trained: Trained, tmp_path: Path) -> None:
    """Each line of the table holds for each format that names its columns."""
    LINES[line](trained, tmp_path)
