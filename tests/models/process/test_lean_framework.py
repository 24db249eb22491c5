"""Tests of what a process of the model alone leaves out of a framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from batchscore.models.backends.registry import backend_of
from batchscore.models.folder import read_model_folder

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import json, sys
import numpy as np
from batchscore.models.backends.registry import backend_of
from batchscore.models.process.child import _import_framework
backend = backend_of(sys.argv[1])
_import_framework(backend)
found = [name for name in ("pandas", "sklearn", "torch") if name in sys.modules]
from batchscore.models.folder import read_model_folder
model = backend.load(read_model_folder(sys.argv[2]), "cpu")
rows = np.random.default_rng(0).standard_normal((50, int(sys.argv[3])))
print(json.dumps([found, model({model.given: rows})[model.made].tolist()]))
"""


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_trees_score_the_same_without_scikit_learn(name: str) -> None:
    """A process of the model alone imports no scikit-learn, and returns the same bits."""
    folder = str(ROOT / "jobs/flight_delays_trees" / f"model_{name}")
    model = read_model_folder(folder)
    given = model.inputs[0]
    rows = np.random.default_rng(0).standard_normal((50, *given.shape))
    command = [sys.executable, "-c", SCRIPT, name, folder, str(rows.shape[1])]
    done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, text=True)
    (made,) = backend_of(name).load(model, "cpu")({given.name: rows}).values()
    assert json.loads(done.stdout) == [[], made.tolist()]
