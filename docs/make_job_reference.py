"""Writes the job file's reference page, job-file.md, from the models' descriptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from batchscore.job import job_schema
from batchscore.job.steps.all_steps import STEPS
from docs.job_notes import NOTES

PAGE = Path(__file__).with_name("job-file.md")
SECTIONS = {
    "params.<name>": "Parameter",
    "input": "Input",
    "model": "ModelSection",
    "model.inputs.<name>": "InputSpec",
    "model.outputs.<name>": "TensorSpec",
    "preprocess": "Preprocess",
    "output": "Output",
    "explain": "Explain",
    "on_change": "OnChange",
    "rejects": "Rejects",
    "checks": "Checks",
    "checks.rows": "RowsCheck",
    "drift": "Drift",
    "drift.reference": "EarlierRuns",
    "drift.reference.<number>": "ListedReference",
    "drift.mute.<number>": "Mute",
    "runtime": "Runtime",
    "runtime.flink": "Flink",
    "runtime.dataflow": "Dataflow",
    "notify": "Notify",
}
INTRODUCTION = """\
# The job file

<!-- Made by docs/make_job_reference.py from the models in batchscore/job; change it there. -->

One YAML file describes a job. `name`, `input.path`, `model` and `output.path` are all that is
needed. As a step of another Beam pipeline ([`bs.Score`](pipelines.md)) a job needs `model` alone:

```yaml
name: flight_delays
params: {date: {type: date}}
input:
  path: data/flights
  filters: [[month, "==", "${date.month}"]]
model: model
postprocess:
  - sigmoid
  - threshold: {at: 0.4}
output:
  path: out/flight_delays/${date}
```

Placeholders stand for parameter values, in values but not in keys. A value that is one whole
placeholder keeps the parameter's type; in a longer text a date is written as 2026-11-20.

| placeholder | of | is |
|---|---|---|
| `${name}` | any parameter | its value |
| `${name.year}`, `.month`, `.day`, `.isoweekday` | a date | a number; Monday is 1 |
| `${name:%Y-%m-%d}` | a date | a text; also `%y %j %u %G %V %%` |
| `${name:03d}`, `${name:.2f}` | an integer, a number | a text |
| `$${` | | the text `${` |

`--set dotted.key=value` changes a key for one run; its value is YAML, and the key of a list's item
is its position from 0. A relative path in the file starts from the file's folder, one in `--set`
from the current directory. The YAML is that of version 1.2: only `true` and `false` are booleans.
A key that appears twice is an error, and so are a file over 1 MiB, one nested over 50 levels, and
one of over 100,000 values.
"""


def render() -> str:
    """Return the page."""
    schema = job_schema()
    definitions = schema["$defs"]
    parts = [INTRODUCTION, "## Top level", _table(schema)]
    for key, name in SECTIONS.items():
        parts += [f"## `{key}`", definitions[name]["description"], _table(definitions[name])]
        parts += [NOTES[key]] if key in NOTES else []
    parts.append("## Steps of `postprocess`")
    for key, model in STEPS.items():
        body = definitions[model.__name__]
        parts += [f"### `{key}`", body["description"], _table(body)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(model: dict[str, Any]) -> str:
    required = model.get("required", [])
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, field in model["properties"].items():
        default = "required" if key in required else _default(field)
        meaning = field["description"].replace("|", "\\|")
        rows.append(f"| `{key}` | {kind(field)} | {default} | {meaning} |")
    return "\n".join(rows)


def _default(field: dict[str, Any]) -> str:
    value = field.get("default", {})
    return "" if value is None or isinstance(value, dict) else f"`{json.dumps(value)}`"


def kind(field: dict[str, Any]) -> str:
    """Say in words what a property's schema allows."""
    if "anyOf" in field:
        kinds = (kind(option) for option in field["anyOf"] if option.get("type") != "null")
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in field or "const" in field:
        choices = field.get("enum", [field.get("const")])
        return ", ".join(f"`{choice}`" for choice in choices)
    if field.get("type") == "array":
        return _fixed(field) if "prefixItems" in field else f"list of {kind(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"mapping of {kind(field['additionalProperties'])}"
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return {"JsonValue": "any value", "Step": "step"}.get(name, "mapping")
    words = {"string": "text", "number": "number", "integer": "integer", "boolean": "true or false"}
    lowest = f" from {field['minimum']:g}" if "minimum" in field else ""
    highest = f" to {field['maximum']:g}" if "maximum" in field else ""
    return words.get(field.get("type", ""), "mapping") + lowest + highest


def _fixed(field: dict[str, Any]) -> str:
    first, *others = map(kind, field["prefixItems"])
    return "condition" if first == "text" else f"[{', '.join([first, *others])}]"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
