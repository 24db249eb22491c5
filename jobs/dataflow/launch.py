"""What a launched flex template runs: it turns the template's parameters into `batchscore run`.

Dataflow's launcher starts it in the image with each parameter and each of its own options as
`--name=value`. `metadata.json` has the parameters and their forms. The run is left once the job is
described, since Dataflow starts the job when this program has ended.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

METADATA = Path(__file__).with_name("metadata.json")
KEYS = {
    "output": "output.path",
    "device": "runtime.device",
    "accelerator": "runtime.dataflow.accelerator",
    "min_ram": "runtime.dataflow.min_ram",
    "processes": "runtime.dataflow.processes",
    "sdk_container_image": "runtime.dataflow.image",
}
"""Parameters that replace a key of the job file."""
OPTIONS = {
    "project": "runtime.dataflow.project",
    "region": "runtime.dataflow.region",
    "temp_location": "runtime.dataflow.temp_location",
    "service_account_email": "runtime.dataflow.service_account",
    "subnetwork": "runtime.dataflow.subnetwork",
    "machine_type": "runtime.dataflow.machine_type",
    "worker_machine_type": "runtime.dataflow.machine_type",
    "num_workers": "runtime.dataflow.vms",
    "max_num_workers": "runtime.dataflow.max_vms",
}
"""Options of Dataflow's launcher that replace a key of the job file."""
OTHERS = ("job", "params", "rescore")
"""Parameters that are arguments of `batchscore run`."""
UNUSED = ("runner",)


def main(words: Sequence[str]) -> None:
    """Runs the command; ends the process with its exit code, or 2 if a parameter is wrong."""
    given = read(words)
    problems = wrong(given)
    if problems:
        print(*(f"INVALID  {problem}" for problem in problems), sep="\n", file=sys.stderr)
        sys.exit(2)
    from batchscore.cli import main as batchscore

    sys.argv = ["batchscore", *command(given)]
    batchscore()


def read(words: Sequence[str]) -> dict[str, str]:
    """Returns the values of options by name; those without a value are empty, or not there."""
    pairs = (word.removeprefix("--").partition("=") for word in words)
    return {name: value for name, is_set, value in pairs if value or not is_set}


def parameters() -> list[dict[str, Any]]:
    """Returns the template's parameters, as Dataflow knows them."""
    found: list[dict[str, Any]] = json.loads(METADATA.read_text(encoding="utf-8"))["parameters"]
    return found


def wrong(given: Mapping[str, str]) -> list[str]:
    """Returns what is wrong with the values of the template's parameters."""
    found = []
    for each in parameters():
        name, value = each["name"], given.get(each["name"])
        expected = f"expected: {each['helpText']} Correct it, and launch the template again"
        if value is None and not each.get("isOptional"):
            found.append(f"template parameter {name}: is not set; {expected}")
        if value is not None and not any(re.fullmatch(form, value) for form in each["regexes"]):
            found.append(f"template parameter {name}: found {value[:200]!r}; {expected}")
    return found


def command(given: Mapping[str, str]) -> list[str]:
    """Returns the words of the command that the template stands for, without its name."""
    pairs = [pair for pair in given.get("params", "").split(";") if pair]
    settings = {key: given[name] for name, key in {**OPTIONS, **KEYS}.items() if name in given}
    ours = {*KEYS, *OPTIONS, *OTHERS, *UNUSED}
    beams = {name: value for name, value in given.items() if name not in ours}
    return [
        *("run", given["job"], "--engine", "dataflow", "--detach"),
        *(word for pair in pairs for word in ("--param", pair)),
        *(word for key, value in settings.items() for word in ("--set", f"{key}={_yaml(value)}")),
        *(["--rescore"] if given.get("rescore") == "true" else []),
        "--",
        *(f"--{name}={value}" if value else f"--{name}" for name, value in beams.items()),
    ]


def _yaml(value: str) -> str:
    """Returns a value as the job file has it: a number as it is, and else a text."""
    return value if value.isdecimal() else json.dumps(value)


if __name__ == "__main__":
    main(sys.argv[1:])
