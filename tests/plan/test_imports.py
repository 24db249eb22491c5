"""Test that planning imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import factory


def test_what_is_left_is_found_without_heavy_imports(tmp_path: Path) -> None:
    """A run that has nothing to do, and the server of workers, need not wait for pandas."""
    program = (
        "import sys\nfrom batchscore.job import load_job\n"
        "from batchscore.plan import make_plan, settle\n"
        f"assert settle(make_plan(load_job({str(factory.write_job(tmp_path))!r}))).units\n"
        "print(sorted({'apache_beam', 'pandas', 'scipy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
