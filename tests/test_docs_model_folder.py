"""Test that docs/model-folder.md says what a card and its preprocessing may hold, and do."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import yaml

from batchscore.columnar.arrays import to_numpy
from batchscore.models.backends.built_in import format_of
from batchscore.models.card import ModelCard
from batchscore.models.features import Feature, encode, input_shapes, load_features

PAGE = (Path(__file__).parents[1] / "docs/model-folder.md").read_text(encoding="utf-8")
CARD, *OTHERS = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
JOBS = [each["model"] for each in OTHERS if "model" in each]
(CALL,) = (each for each in OTHERS if "call" in each)
(VARYING,) = (each for each in OTHERS if "inputs" in each)
(PREPROCESSING,) = re.findall(r"```json\n(.*?)```", PAGE, re.S)


def test_the_cards_shown_are_valid_and_name_every_key() -> None:
    """The complete card has each key that a card may have; the page's table explains each."""
    card = ModelCard.model_validate(CARD)
    assert set(CARD) | set(CALL) == set(ModelCard.model_fields)
    assert ModelCard.model_validate({**CARD, **CALL}).call is not None
    paths = [each if isinstance(each, str) else each["path"] for each in JOBS]
    assert {format_of(path) for path in paths} >= {"catboost", "keras", "onnx", "pt2", "xgboost"}
    table = PAGE.partition("\n## The card\n")[2].partition("\n## The network\n")[0]
    explained = re.findall(r"^\| (`[^|]+) \|", table, re.M)
    assert {name for row in explained for name in re.findall(r"`(\w+)`", row)} == {*CARD, *CALL}
    varying = ModelCard.model_validate({**CARD, **VARYING, "preprocessing": None})
    assert varying.inputs["ids"].max_length == 512
    shapes = input_shapes(load_features(PREPROCESSING))
    assert {name: (each.type, each.shape) for name, each in card.inputs.items()} == shapes


def test_the_features_shown_make_the_values_that_the_page_says() -> None:
    """Values, nulls, unknown categories and local time become what the table of kinds promises."""
    features = load_features(PREPROCESSING)
    # 2026-11-30, 02:00 in UTC, is still Sunday in New York: weekday 6.
    instant = pa.array([1_796_004_000, None], pa.int64()).cast(pa.timestamp("s", "UTC"))
    batch = pa.RecordBatch.from_pydict(
        {
            "distance": pa.array([9000.0, None]),
            "hour": pa.array([23, 24]),
            "time": instant,
            "carrier": pa.array(["B6", "??"]),
            "gate": pa.array([None, 3]),
        }
    )
    made = {name: to_numpy(column) for name, column in encode(features, batch).items()}
    angle = 2 * math.pi * 6 / 7
    expected = [
        [(4983 - 1000) / 500, 1, math.sin(angle), math.cos(angle)],
        [(872 - 1000) / 500, 0.5, 0, 0],
    ]
    assert np.allclose(made["numbers"], expected, atol=1e-6)
    assert made["categories"].tolist() == [[3, 0], [1, 2]]


def test_every_kind_of_feature_has_its_keys_on_the_page() -> None:
    """Each kind has a row with each of its keys, and a row with the types of its column."""
    keys_of = dict(re.findall(r"^\| `(\w+)` \| (.*?`column`.*?) \|", PAGE, re.MULTILINE))
    types_of = PAGE.partition("| kind | types of the column |")[2].partition("\n\n")[0]
    kinds = {each.model_fields["kind"].default: each for each in get_args(get_args(Feature)[0])}
    assert kinds.keys() == keys_of.keys() == set(re.findall(r"^\| `(\w+)`", types_of, re.MULTILINE))
    for kind, each in kinds.items():
        assert each.model_fields.keys() - {"kind"} <= set(re.findall(r"`(\w+)`", keys_of[kind]))
