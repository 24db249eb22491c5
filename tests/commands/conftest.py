"""Models that tests of commands look at, save and score."""

from tests.models.conftest import lightgbm_models, xgboost_models

__all__ = ["lightgbm_models", "xgboost_models"]
