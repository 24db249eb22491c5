"""What `hash()` returns in another process."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import pytest

from batchscore.models.afresh import other_hash

NUMBERS = [
    7,
    -1,
    2**63,
    0.5,
    True,
    Decimal("0.1"),
    timedelta(1),
    (),
    ((1, 2.5), 3),
    frozenset((1, 2)),
]
TEXTS = [
    "a",
    b"a",
    date(2024, 1, 1),
    datetime(2024, 1, 1),
    time(1),
    PurePosixPath("a"),
    (1, ("a", 2)),
    frozenset("ab"),
]
SHOW = """import sys
from datetime import *
from decimal import Decimal
from pathlib import PurePosixPath
print([hash(value) for value in eval(sys.argv[1].replace('datetime.', ''))])
"""


@pytest.fixture(autouse=True)
def _no_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)


def _hashes(values: list[Any]) -> list[int]:
    """The hashes of values in a process with a seed of its own."""
    command = [sys.executable, "-c", SHOW, repr(values)]
    found: list[int] = eval(subprocess.check_output(command, text=True))
    return found


def test_what_has_a_seed_has_another_hash() -> None:
    """Exactly the values whose hash differs between processes get another one."""
    here, there = _hashes([*NUMBERS, *TEXTS]), _hashes([*NUMBERS, *TEXTS])
    assert [a == b for a, b in zip(here, there, strict=True)] == [
        other_hash(value) == hash(value) for value in [*NUMBERS, *TEXTS]
    ]
    assert [a == b for a, b in zip(here, there, strict=True)].count(True) == len(NUMBERS)


@pytest.mark.parametrize("value", [*NUMBERS, *TEXTS], ids=lambda each: type(each).__name__)
def test_equal_values_have_equal_hashes(value: Any) -> None:
    """Such a hash is the same each time, and that of Python where a seed is given."""
    assert other_hash(value) == other_hash(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "7")
        assert other_hash(value) == hash(value)
