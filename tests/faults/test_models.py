"""Tests of what damages models, and of what it takes for a defect."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.faults.model_files import FORMS
from tests.faults.models import defect_of, tried
from tests.faults.spoilt_files import damaged_copies


def test_damage_is_of_each_way_and_the_same_for_a_seed() -> None:
    """Copies differ from the file, and some archives have other members and right checksums."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a", b"123 456" * 20)
        archive.writestr("empty", b"")
    copies = damaged_copies(made.getvalue(), 60, Random(1))
    assert copies == damaged_copies(made.getvalue(), 60, Random(1))
    assert made.getvalue() not in copies
    sound = 0
    for copy in copies:
        try:
            sound += zipfile.ZipFile(io.BytesIO(copy)).testzip() is None
        except Exception:
            continue
    assert sound > 20


@pytest.mark.slow
def test_each_damaged_file_has_one_end(tmp_path: Path) -> None:
    """Of thirty files of weights some load with other scores, which the hash of the file stops."""
    found = tried("safetensors", tmp_path, 30, Random(2))
    assert not [each for each in found if defect_of(FORMS["safetensors"], each)]
    ends = Counter("error" in each for each in found)
    assert ends[True] >= 10
    assert ends[False] >= 5


@pytest.mark.parametrize(
    ("form", "facts", "why"),
    [
        ("onnx", {"status": -11}, "ended the launcher with -11"),
        ("onnx", {"read": 0.1, "grown": 1, "status": -11}, ""),
        ("pt", {"read": 0.1, "grown": 1, "status": -11}, "no trial is made"),
        ("onnx", {"read": 0.1, "grown": 1, "loaded": True, "status": -11}, "ended a worker"),
        ("onnx", {"read": 30.0, "grown": 1, "error": "no model"}, "reading took 30.0 s"),
        ("onnx", {"late": True, "seconds": 120.0}, "took more than 120 s"),
        ("onnx", {"raised": "KeyError: 1"}, "raised KeyError"),
        ("onnx", {"error": "Traceback (most"}, "its message is"),
        ("onnx", {"error": "no ONNX model, or damaged"}, ""),
    ],
)
def test_what_is_a_defect(form: str, facts: dict[str, Any], why: str) -> None:
    """The launcher and a worker never end, and each file has one message at most."""
    found = defect_of(FORMS[form], {"status": 0, "late": False, **facts})
    assert why in found
    assert bool(why) == bool(found)
