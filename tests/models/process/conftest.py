"""Models for processes: one of which rows say how it fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from batchscore.models.folder import read_model_folder
from batchscore.models.loadable import Model
from batchscore.models.process.host import Host
from tests.backends import installed


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model of the format `faulty`, whose backend is installed meanwhile."""
    site = tmp_path_factory.mktemp("site")
    points = {"npz": "tests.backends.linear:BACKEND", "faulty": "tests.backends.faulty:BACKEND"}
    installed.install(site, **points)
    sys.path.insert(0, str(site))
    folder = installed.write_linear_model(site / "line", np.ones(2, np.float32), 0.0)
    yield replace(read_model_folder(str(folder)), format="faulty")
    sys.path.remove(str(site))


@pytest.fixture(scope="module")
def host(faulty: Model) -> Iterator[Host]:
    """One process for the tests that leave it as it was."""
    host = Host("faulty", 60.0)
    yield host
    host.close()
