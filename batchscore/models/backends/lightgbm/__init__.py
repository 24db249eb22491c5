"""Gradient-boosted trees of LightGBM, `.txt`; nothing else in batchscore imports it."""
