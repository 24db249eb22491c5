"""Tests of batchscore, in the folders of what they test."""

import os

# Several processes share the cores: a thread of OpenMP that spins would take another's time.
# OpenMP reads it when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
