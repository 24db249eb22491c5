"""Damages models of each format a thousand times, and prints what became of the files.

    python -m tests.faults.models [--files 1000] [--formats onnx,skops] [--seed N]

Each file ends in one message, ends the process in which loading is tried and no other, or loads.
If it loads with other scores, its SHA-256 stops it; the table says how often golden rows do, too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random, randrange
from typing import Any

from batchscore.errors import ModelError
from batchscore.models.backends.registry import backend_of
from tests.faults.model_files import FORMS, Form
from tests.faults.spoilt_files import damaged_copies

ROOT = Path(__file__).parents[2]
_ENDS = ("message", "its process died", "equal scores", "other scores")
_HEAD = ("format", "files", *_ENDS, "by golden rows", "slowest s", "most MiB", "wrong")
_READ_SECONDS, _READ_KIB = 10.0, 1 << 20
_MOST_CHARACTERS = 2_000


def main() -> int:
    """Tries each format; 1 if anything does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.models", description=__doc__)
    parser.add_argument("--files", type=int, default=1000, help="of each format (default 1000)")
    parser.add_argument("--formats", default=",".join(FORMS), help="by comma (default all)")
    parser.add_argument("--seed", type=int, default=randrange(2**32), help="of the damage")
    asked = parser.parse_args()
    print(f"seed {asked.seed}\n{' | '.join(_HEAD)}", flush=True)
    wrong = 0
    for name in asked.formats.split(","):
        folder = Path(tempfile.mkdtemp(prefix=f"faults-{name}-"))
        found = tried(name, folder, asked.files, Random(asked.seed))
        defects = [(each, why) for each in found if (why := defect_of(FORMS[name], each))]
        print(" | ".join(map(str, _row(name, found, len(defects)))), flush=True)
        for each, why in defects:
            print(f"  {each['file']}: {why}", flush=True)
        wrong += len(defects)
        if defects:
            print(f"  the files lie in {folder}")
        else:
            shutil.rmtree(folder)
    return int(wrong > 0)


def tried(name: str, folder: Path, files: int, chance: Random) -> list[Mapping[str, Any]]:
    """Returns what became of each damaged file."""
    form = FORMS[name]
    form.make(folder)
    _write_damaged(form, folder, files, chance)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.faults.damaged_model", name, str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if len(found) != files:
        raise SystemExit(f"{name}: ended after {len(found)} files: {done.stderr[-2000:]}")
    return found


def _write_damaged(form: Form, folder: Path, files: int, chance: Random) -> None:
    """Writes the files, and sees that the hash of a sound one stops each."""
    (folder / "damaged").mkdir()
    for code in folder.glob("*.py"):
        shutil.copy(code, folder / "damaged")
    for place, name in enumerate(form.names):
        sound = folder / f"{name}.{form.ending}"
        known = form.model(sound).sha256[sound.name]
        count = (files + place) // len(form.names)
        for number, content in enumerate(damaged_copies(sound.read_bytes(), count, chance)):
            path = folder / f"damaged/{name}.{number:04d}.{form.ending}"
            path.write_bytes(content)
            _require_refused_by_hash(form, path, known)


def _require_refused_by_hash(form: Form, path: Path, known: str) -> None:
    try:
        form.model(path, known)
    except ModelError as error:
        if known in str(error):
            return
    raise AssertionError(f"{path}: is not refused for its hash")


def _end(found: Mapping[str, Any]) -> str:
    if "error" in found:
        return "message"
    return f"{found['scores']} scores" if "scores" in found else "its process died"


def defect_of(form: Form, found: Mapping[str, Any]) -> str:
    """Returns what is wrong with how a file ended; empty if nothing is."""
    text = str(found.get("error", ""))
    if found["late"]:
        return f"took more than {found['seconds']:.0f} s"
    if "raised" in found:
        return f"raised {found['raised']}"
    if "read" not in found and "error" not in found:
        return f"ended the launcher with {found['status']}"
    if found.get("read", 0) > _READ_SECONDS or found.get("grown", 0) > _READ_KIB:
        return f"reading took {found['read']:.1f} s and {found['grown']} KiB"
    if _end(found) == "its process died" and not backend_of(form.format).is_fragile:
        return f"ended a process with {found['status']}, and no trial is made of its format"
    if "loaded" in found and "scores" not in found and "error" not in found:
        return f"passed the trial, and ended a worker with {found['status']}"
    if "Traceback" in text or "\n" in text or len(text) > _MOST_CHARACTERS:
        return f"its message is {text[:300]!r}"
    return ""


def _row(name: str, found: list[Mapping[str, Any]], wrong: int) -> tuple[object, ...]:
    ends = Counter(map(_end, found))
    golden = sum(bool(each.get("golden")) for each in found)
    slowest, peak = (max(each[key] for each in found) for key in ("seconds", "peak"))
    counts = (ends[each] for each in _ENDS)
    return (name, len(found), *counts, golden, f"{slowest:.1f}", int(peak) >> 20, wrong)


if __name__ == "__main__":
    sys.exit(main())
