"""Test how a model's card declares inputs of varying length, and which errors it gets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from batchscore.columnar.ragged import Varying
from batchscore.errors import ModelError
from batchscore.models.card import InputTensor, ModelCall, ModelCard
from batchscore.models.folder import read_model_folder
from batchscore.models.inputs import ModelInput
from tests.conftest import ROOT
from tests.factory import write_model

IDS = {"type": "int64", "shape": [None], "max_length": 512}


def _read(folder: Path, **inputs: Any) -> tuple[ModelInput, ...]:
    return read_model_folder(str(write_model(folder / "m", inputs=inputs))).inputs


def test_a_null_in_the_shape_is_a_length_of_each_rows_own(tmp_path: Path) -> None:
    """The longest, the pad and whether to cut off are read, with defaults; the rest is as ever."""
    mask = {**IDS, "type": "float32", "shape": [None, 16], "pad": -0.5}
    assert _read(tmp_path, ids=IDS, mask=mask, age={"type": "float32"}) == (
        ModelInput("ids", "int64", (), ("ids",), Varying(512, 0, False)),
        ModelInput("mask", "float32", (16,), ("mask",), Varying(512, -0.5, False)),
        ModelInput("age", "float32", (), ("age",)),
    )
    cut = {**IDS, "pad": 1, "truncate": True}
    assert _read(tmp_path, ids=cut)[0].varying == Varying(512, 1, True)


def test_a_card_says_no_more_than_it_was_given(tmp_path: Path) -> None:
    """A written card shows null for the length, and nothing of it where there is one length."""
    _read(tmp_path, ids=IDS, age={"type": "float32", "shape": [3]})
    text = (tmp_path / "m/model.yaml").read_text()
    assert "shape: [null]\n    max_length: 512\n" in text
    assert yaml.safe_load(text)["inputs"]["age"] == {"type": "float32", "shape": [3]}


def test_what_is_padded_how_is_part_of_the_model(tmp_path: Path) -> None:
    """Another pad or limit makes other scores, so it is another model."""
    identities = {
        read_model_folder(str(write_model(tmp_path / "m", inputs={"ids": ids}))).identity
        for ids in (IDS, {**IDS, "pad": 1}, {**IDS, "max_length": 9}, {**IDS, "truncate": True})
    }
    assert len(identities) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_length": None}, r"shape \[null\] needs max_length"),
        ({"shape": [3]}, r"max_length: only for a shape that begins with null, .* found \[3\]"),
        ({"shape": [2, None]}, r"only the first number of shape \[2, null\] may be null"),
        ({"shape": [None, None]}, r"only the first number of shape \[null, null\]"),
        ({"max_length": 0}, "inputs.ids.max_length: expected at least 1, found 0"),
        ({"max_length": 2**31}, "inputs.ids.max_length: .*less than 2147483648"),
        ({"pad": 0.5}, "model input 'ids': pad 0.5 is no int64"),
        ({"type": "int8", "pad": 128}, "pad 128 is no int8"),
        ({"type": "uint8", "pad": -1}, "pad -1 is no uint8"),
        ({"type": "bool", "pad": 2}, "pad 2 is no bool"),
        ({"max_length": True}, "inputs.ids.max_length: "),
        ({"max_length": "4"}, "inputs.ids.max_length: "),
        ({"type": "float32", "pad": 1e300}, "pad 1e.300 is no float32"),
        ({"type": "float32", "pad": 10**400}, "pad 10+ is no float32"),
        ({"type": "float16", "pad": 70_000}, "pad 70000 is no float16"),
        ({"max_lenght": 5}, "inputs.ids.max_lenght: unknown key, .*max_length"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_a_declaration_that_cannot_be_is_reported(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    """The error names the key, what was found and what is expected."""
    with pytest.raises(ModelError, match=words):
        _read(tmp_path, ids={**IDS, **changes})


@pytest.mark.parametrize("change", [{"max_length": 256}, {"truncate": True}], ids=str)
def test_inputs_of_one_row_share_its_length(tmp_path: Path, change: dict[str, Any]) -> None:
    """Two inputs that allow different lengths are an error that names both."""
    with pytest.raises(
        ModelError, match=r"'ids' and 'mask' are of varying length.*make them agree"
    ):
        _read(tmp_path, ids=IDS, mask={**IDS, **change})


PAGE = (ROOT / "docs/model-folder.md").read_text(encoding="utf-8")


def test_the_page_on_the_model_folder_names_every_key() -> None:
    """Its tables hold the keys of a card, of its `call` and of an input, and nothing else."""
    card, inputs = PAGE.partition("## Inputs")[::2]
    found = [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| (.*?) \|", card, re.M)]
    known = {*ModelCard.model_fields, *ModelCall.model_fields}
    assert {key for keys in found for key in keys} == known
    table = inputs.partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == [*InputTensor.model_fields]


def test_the_inputs_shown_on_the_page_are_read(tmp_path: Path) -> None:
    """The card's lines in docs/model-folder.md declare two inputs of one length."""
    section = PAGE.partition("## Rows of varying length")[2]
    (shown,) = re.findall(r"```yaml\n(.*?)```", section, re.S)
    ids, mask = _read(tmp_path, **yaml.safe_load(shown)["inputs"])
    assert ids.varying == mask.varying == Varying(512)
