"""Tests of batchscore, in the folders of what they test."""

import os
from contextlib import nullcontext

from batchscore.system import imports

# Several processes share the cores: a thread of OpenMP that spins would take another's time.
# OpenMP reads it when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A run leaves it to a caller that froze what it imported, as tests and their servers do. To find
# that out it counts all that is frozen, which takes a fifth of a small run.
ASKING = vars(imports)["_frozen_unless_before"]
vars(imports)["_frozen_unless_before"] = nullcontext
