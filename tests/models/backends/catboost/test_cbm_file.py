"""Tests of what a `.cbm` file says, read without CatBoost."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import ModelError
from batchscore.models.backends.catboost.cbm_file import read_cbm_file
from batchscore.models.backends.catboost.flatbuffer import root_of
from batchscore.models.backends.catboost.tree_checks import Splits
from tests.boosters import COLUMNS, trained

NAMES = ["binary", "many", "counts", "ctr", "hot", "unnamed", "early"]


def read(folder: Path, name: str) -> bytes:
    return (folder / f"{name}.cbm").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_what_catboost_says_of_it(name: str, catboost_models: Path) -> None:
    """Columns in order, which are categories, trees, loss function, classes and version."""
    import catboost

    own = catboost.CatBoost().load_model(str(catboost_models / f"{name}.cbm"))
    found = read_cbm_file(read(catboost_models, name))
    unnamed = [str(place) for place in range(len(found.columns))]
    assert [each.name or unnamed[n] for n, each in enumerate(found.columns)] == own.feature_names_
    texts = [place for place, each in enumerate(found.columns) if each.is_text]
    assert texts == own._get_cat_feature_indices()
    assert found.trees == own.tree_count_
    assert found.loss == own.get_all_params()["loss_function"].partition(":")[0]
    assert ".".join(map(str, found.version)) == catboost.__version__
    if name not in ("unnamed", "early"):
        assert [each.name for each in found.columns] == COLUMNS


def test_classes_are_the_labels_of_training(catboost_models: Path) -> None:
    """In the order of their probabilities: texts, booleans, or whole numbers."""
    labels = {name: read_cbm_file(read(catboost_models, name)).classes for name in NAMES}
    assert labels["many"] == ("low", "mid", "ü")
    assert labels["hot"] == (0, 1, 2)
    assert labels["binary"] == (False, True)
    assert labels["counts"] == ()


def test_a_sum_of_models_says_its_loss_function_too(catboost_models: Path, tmp_path: Path) -> None:
    """Such a file has no parameters of a training; when it is saved again, an empty text."""
    import catboost

    one = catboost.CatBoost().load_model(str(catboost_models / "early.cbm"))
    catboost.sum_models([one, one]).save_model(str(tmp_path / "sum.cbm"))
    catboost.CatBoost().load_model(str(tmp_path / "sum.cbm")).save_model(
        str(tmp_path / "again.cbm")
    )
    for name in ("sum", "again"):
        found = read_cbm_file(read(tmp_path, name))
        assert (found.loss, found.trees) == ("RMSE", 2 * one.tree_count_)


def test_reading_imports_no_catboost(catboost_models: Path) -> None:
    """A launcher inspects a file before it decides to import anything."""
    code = (
        "import sys, pathlib; from batchscore.models.backends.catboost.cbm_file import "
        "read_cbm_file; read_cbm_file(pathlib.Path(sys.argv[1]).read_bytes()); "
        "assert not {'catboost', 'pandas', 'pyarrow'} & {*sys.modules}, [*sys.modules]"
    )
    path = str(catboost_models / "many.cbm")
    subprocess.run([sys.executable, "-c", code, path], check=True)


@pytest.mark.parametrize(("name", "kind"), [("words", "text"), ("vector", "embedding")])
def test_features_that_are_not_scored_are_named(
    name: str, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The message says which feature it is, and what to train without."""
    folder = trained("texts", tmp_path_factory.mktemp("texts"))
    feature = {"words": "words", "vector": "vector"}[name]
    with pytest.raises(ModelError, match=f"with the {kind} feature '{feature}'"):
        read_cbm_file(read(folder, name))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it begins with b''"),
        (b"\x80\x04\x95 a pickle", "expected what CatBoost.save_model writes as cbm"),
        (b"CBM1", "0 bytes"),
        (b"CBM1\x10\x00\x00\x00short", "16 bytes are announced, and 5 are there"),
        (b"CBM1" + struct.pack("<I", 8) + b"\xff" * 8, "is pointed at"),
    ],
)
def test_what_is_no_model_is_refused(content: bytes, message: str) -> None:
    """A file under a wrong ending, and one that is cut off."""
    with pytest.raises(ModelError) as caught:
        read_cbm_file(content)
    if message != "0 bytes":
        assert message in str(caught.value)


@pytest.mark.parametrize("name", ["binary", "many"])
def test_a_split_or_leaf_that_is_not_there_is_refused(name: str, catboost_models: Path) -> None:
    """The library would follow it beyond its memory."""
    content = read(catboost_models, name)
    core = content[8:]
    trees = root_of(core).table(1)
    for field, dtype in ((1, "<i4"), (2, "<i4"), (3, "<i4"), (17, "<u4")):
        values = trees.array(field, dtype)
        place = core.index(values.tobytes())
        for spoilt in (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"):
            changed = core[:place] + spoilt + core[place + 4 :]
            with pytest.raises(ModelError, match="damaged"):
                read_cbm_file(content[:8] + changed)


def test_a_table_without_a_free_place_is_refused(catboost_models: Path) -> None:
    """The library would search it for an unseen category without an end."""
    content = read(catboost_models, "ctr")
    free = b"\xff" * 8
    places = [n for n in range(0, len(content) - 8) if content[n : n + 8] == free]
    changed = bytearray(content)
    for place in places:
        if changed[place : place + 8] == free:
            changed[place : place + 8] = struct.pack("<Q", place)
    with pytest.raises(ModelError, match="no free place"):
        read_cbm_file(bytes(changed))


def test_a_list_of_many_tables_is_refused() -> None:
    """All of them may lie at one place, so that a small file would take hours to read."""
    many = struct.pack("<I", 1 << 19) + bytes(4 << 19)
    # Where the table is; where its only field lies in it; the table, whose field leads to the list.
    content = struct.pack("<IHHHxxiI", 12, 6, 8, 4, 8, 4) + many
    with pytest.raises(ValueError, match="a list has 524,288 parts"):
        list(root_of(content).tables(0))


@given(st.binary(max_size=64), st.integers(0, 20))
def test_no_bytes_are_read_beyond_the_end(content: bytes, field: int) -> None:
    """Whatever a flatbuffer points at, it is in the buffer, or an error."""
    for ask in (
        lambda table: table.number(field, "i"),
        lambda table: table.text(field),
        lambda table: table.texts(field),
        lambda table: table.array(field, "<f8"),
        lambda table: [*table.tables(field)],
        lambda table: table.table(field),
    ):
        try:
            ask(root_of(content))
        except ValueError:
            continue


@given(st.lists(st.integers(0, 600), max_size=3), st.lists(st.integers(0, 300), max_size=2))
def test_each_split_has_a_byte_of_its_own(numbers: list[int], hot: list[int]) -> None:
    """No two splits are computed alike, and bytes are used from the first on."""
    found = Splits(numbers, hot, []).packed()
    assert len(found) == sum(numbers) + sum(hot)
    assert len(np.unique(found)) == len(found)
    used = np.unique(found["byte"])
    assert used.tolist() == [*range(len(used))]
