"""An environment for each peer, made with uv in `.bench/`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands import ROOT, PeerError, run

HOME = ROOT / ".bench"
PYTHON = "3.11"  # the newest that all peers have wheels for


def environment(name: str, requirements: Sequence[str]) -> Path:
    """Returns the Python that has the requirements, and makes its environment if there is none.

    Without requirements it is the Python that runs this.

    Raises:
        PeerError: They cannot be installed.
    """
    if not requirements:
        return Path(sys.executable)
    folder = HOME / name
    python, ready = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join((PYTHON, "with bytecode", *requirements))
    if not ready.exists() or ready.read_text() != wanted:
        sibling = Path(sys.executable).with_name("uv")
        uv = str(sibling) if sibling.exists() else shutil.which("uv")
        if uv is None:
            raise PeerError("uv is not there to install it")
        run([uv, "venv", "--quiet", "--clear", "--python", PYTHON, str(folder)])
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode"]
        run([*install, "--python", str(python), *requirements])
        ready.write_text(wanted)
    return python
