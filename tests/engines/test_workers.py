"""Test that the server that workers are forked from is left alone by a terminal's Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPTED = """
import os, signal, sys, time
import psutil
from batchscore.engines.workers import start_server

if __name__ == "__main__":
    signals = []
    os.setpgrp()
    signal.signal(signal.SIGINT, lambda *_: signals.append("signals"))
    context = start_server()
    children = psutil.Process().children
    while not any(child.cpu_times().user > 0.2 for child in children()):
        time.sleep(0.01)
    os.killpg(0, signal.SIGINT)
    process = context.Process(target=os.getpid)
    process.start()
    process.join()
    print(*signals, process.exitcode)
"""


@pytest.mark.slow
def test_a_ctrl_c_while_the_server_imports_reaches_the_launcher_alone(tmp_path: Path) -> None:
    """The launcher gets the signal, the server keeps importing, and nothing prints a traceback."""
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "signals 0\n", done.stderr
    assert "Traceback" not in done.stderr
