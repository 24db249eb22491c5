"""Writes the manifest's reference page, manifest.md, from the class that reads manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchscore.runs.manifest_model import manifest_schema
from docs.make_job_reference import kind

PAGE = Path(__file__).with_name("manifest.md")
INTRODUCTION = """\
# The manifest

<!-- Made by docs/make_manifest_reference.py from batchscore/runs/manifest_model.py; change it
there. -->

A run leaves one manifest, `_batchscore/runs/RUN/manifest.json`. It says what the run was given,
what it did with each row, and what it published. `batchscore run --json` and
`batchscore show --json` print it, `batchscore runs --json` prints all of them.
`batchscore schema --manifest` prints its [JSON Schema](https://json-schema.org).

```console
$ batchscore schema --manifest > manifest.schema.json
```

## Versions

`batchscore_manifest` is the version. batchscore reads these, from any commit that wrote them:

| version | is |
|---|---|
| 1 | A manifest with whole lists. Without the key it is of version 1. |
| 2 | `composed` names lists that are left out. What the run added to them is in `own`; \
what it keeps of earlier runs lies in [segments](output.md#what-lies-where). |

`--json` puts the lists together, so it always prints version 1. If the version is newer than
batchscore knows, the command ends with 1, names the run and asks for a newer batchscore.

A later release may add keys to a version. So a reader ignores keys that it does not know, as
batchscore does, and a release or rollback keeps them. A change that a reader must not ignore raises
the version. A key may be missing if its column says so: an earlier release did not write it, or the
run did not get so far.

## What is checked

Each time batchscore reads a manifest it checks the types of all values below. A wrong one gives one
message that names the key (exit 1). Items of `units`, `files`, `shards`, `inputs` and `bad_shards`
are checked when a command uses them, since there may be a million. A manifest has at most 256 MiB,
and 64 levels.
"""


def render() -> str:
    """Return the page."""
    schema = manifest_schema()
    parts = [INTRODUCTION, "## Keys", _table(schema)]
    for name, body in schema["$defs"].items():
        parts += [f"## {name}", body["description"], _table(body)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(model: dict[str, Any]) -> str:
    rows = ["| key | type | is there | meaning |", "|---|---|---|---|"]
    for key, field in model["properties"].items():
        there = "always" if key in model["required"] else "may be missing"
        rows.append(f"| `{key}` | {_kind(field)} | {there} | {field['description']} |")
    return "\n".join(rows)


def _kind(field: dict[str, Any]) -> str:
    """Say in words what a property's schema allows, with a link to the table of its keys."""
    if "anyOf" in field:
        return " or ".join(
            "null" if each.get("type") == "null" else _kind(each) for each in field["anyOf"]
        )
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}" if field.get("items") else "list"
    if field.get("format") == "date-time":
        return "time, ISO 8601"
    values = field.get("additionalProperties")
    if values:
        return f"mapping of {_kind(values)}"
    if "type" not in field and "enum" not in field:
        return "any value"
    return "mapping" if values == {} else kind(field)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
