"""The type of NumPy arrays, for modules that do without Arrow."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
