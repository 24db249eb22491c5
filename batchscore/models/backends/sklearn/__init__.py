"""Estimators and pipelines of scikit-learn, `.skops`; nothing else in batchscore imports it."""
