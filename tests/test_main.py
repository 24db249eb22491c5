"""Test the entry of the command line: a Ctrl-C while the command still imports."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from tests.pages import ROOT

# Gets a Ctrl-C while the command line is imported, in front of its first heavy import.
INTERRUPTED = textwrap.dedent(
    """
    import os, runpy, signal, sys

    class Interrupt:
        def find_spec(self, name, path=None, target=None):
            if name == "click":
                sys.meta_path.remove(self)
                os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.{handler})
    sys.meta_path.insert(0, Interrupt())
    runpy.run_module("batchscore", run_name="__main__")
    """
)


def start(handler: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command that gets a Ctrl-C while it imports, with a handler that it inherits."""
    program = [sys.executable, "-c", INTERRUPTED.format(handler=handler), *words]
    return subprocess.run(program, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_ctrl_c_while_the_command_imports_is_one_line(words: tuple[str, ...]) -> None:
    """It ends with exit code 130, and as one JSON document where that is asked for."""
    done = start("default_int_handler", "show", "out", *words)
    assert done.returncode == 130
    message = "stopped before anything was started"
    assert done.stderr == f"INTERRUPTED  {message}\n"
    if words:
        expected = {"status": "interrupted", "exit_code": 130, "error": message}
        assert json.loads(done.stdout) == expected
    else:
        assert done.stdout == ""


def test_a_ctrl_c_that_is_ignored_stays_ignored() -> None:
    """A command that a shell runs in the background goes on."""
    done = start("SIG_IGN", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("batchscore, version ")
