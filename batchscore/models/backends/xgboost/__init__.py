"""Gradient-boosted trees of XGBoost, `.ubj` and `.json`; nothing else in batchscore imports it."""
