"""Models that are made once for all tests of their formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boosters import trained
from tests.keras_models import built
from tests.onnx_models import made as onnx_models_made
from tests.pipelines import trained_pipelines


@pytest.fixture(scope="session")
def xgboost_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with models of XGBoost and their own scores."""
    return trained("xgboost", tmp_path_factory.mktemp("xgboost"))


@pytest.fixture(scope="session")
def lightgbm_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with models of LightGBM and their own scores."""
    return trained("lightgbm", tmp_path_factory.mktemp("lightgbm"))


@pytest.fixture(scope="session")
def catboost_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with models of CatBoost and their own scores."""
    return trained("catboost", tmp_path_factory.mktemp("catboost"))


@pytest.fixture(scope="session")
def onnx_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with ONNX models and onnxruntime's own scores."""
    return onnx_models_made(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="session")
def keras_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with models of Keras and their own scores."""
    return built(tmp_path_factory.mktemp("keras"))


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with pipelines of scikit-learn and their own scores."""
    return trained_pipelines(tmp_path_factory.mktemp("sklearn"))


@pytest.fixture(scope="session")
def pt2_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a program of torch.export."""
    import torch

    folder, rows = tmp_path_factory.mktemp("pt2"), torch.export.Dim("rows", min=2)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    program = torch.export.export(net.eval(), (torch.randn(4, 3),), dynamic_shapes=({0: rows},))
    torch.export.save(program, folder / "net.pt2")
    return folder
