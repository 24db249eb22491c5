"""What a file is, by its content alone, under any name."""

from __future__ import annotations

import gzip
import pickle
import zipfile
import zlib
from pathlib import Path

import pytest

from batchscore.models.file_kinds import describe_file, format_by_content

UBJ = b"{L" + (7).to_bytes(8, "big") + b"learner"
KINDS = {
    "pickle of protocol 0": (pickle.dumps(Path("x"), 0), "a pickle of objects of", None),
    "pickle of protocol 1": (pickle.dumps({"a": [1, 2, 3]}, 1), "a pickle", None),
    "pickle of protocol 2": (pickle.dumps(Path("x"), 2), "a pickle of objects of", None),
    "pickle of today": (pickle.dumps(Path("x")), "a pickle of objects of", None),
    "joblib, compressed": (
        zlib.compress(pickle.dumps([1])),
        "compressed with zlib, as joblib",
        None,
    ),
    "gzip": (gzip.compress(b"x"), "compressed with gzip", None),
    "XGBoost, .ubj": (UBJ, "an XGBoost model", "xgboost"),
    "XGBoost, .json": (b'{"learner":{}}', "an XGBoost model", "xgboost"),
    "LightGBM of Windows": (b"tree\r\nversion=v4", "a LightGBM model", "lightgbm"),
    "CatBoost": (b"CBM1xxxx", "a CatBoost model", "catboost"),
    "PMML": (b'<?xml version="1.0"?>\n<PMML version="4.4">', "a PMML model", None),
}


@pytest.mark.parametrize(("content", "what", "form"), KINDS.values(), ids=KINDS)
def test_a_file_is_named_by_its_content(
    tmp_path: Path, content: bytes, what: str, form: str | None
) -> None:
    """The first bytes tell what a file is and which format reads it, not its ending."""
    (tmp_path / "model.txt").write_bytes(content)
    found = describe_file(tmp_path / "model.txt")
    assert found is not None
    assert found.startswith(what)
    assert format_by_content(found) == form


@pytest.mark.parametrize("content", [b"", b"hello.", b"The quick brown fox.", b"a,b\n1,2\n."])
def test_a_text_is_no_pickle(tmp_path: Path, content: bytes) -> None:
    """A text that ends as a pickle does is still of no known kind."""
    (tmp_path / "notes").write_bytes(content)
    assert describe_file(tmp_path / "notes") is None


def test_nothing_of_an_archive_is_unpacked(tmp_path: Path) -> None:
    """A member that unpacks to a gigabyte is named by its name alone."""
    with zipfile.ZipFile(tmp_path / "m.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", bytes(50_000_000))
    assert describe_file(tmp_path / "m.skops") == "a skops archive of a scikit-learn model"
