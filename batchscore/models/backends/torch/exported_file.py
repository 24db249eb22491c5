"""What a program of torch.export says of itself, `.pt2`, read as JSON in a zip, without torch."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchscore.errors import ModelError
from batchscore.messages.wording import one_line
from batchscore.models.backends.facts import DEFAULT_OUTPUT, FileTensor
from batchscore.models.file_kinds import ZIP_DAMAGE

_MODEL = "/models/model.json"
_MODEL_BYTES = 256 << 20
_ZIP = b"PK\x03\x04"
_AGAIN = "restore the file, or write it again with torch.export.save"
_SYMBOL = re.compile(r"(\w+)|Symbol\('(\w+)'(?:, \w+=True)*\)")
_TYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
}


@dataclass(frozen=True)
class ExportedFile:
    """What a file says.

    Args:
        version: Of the torch that wrote it.
        inputs: Its inputs, in its order.
        outputs: Its outputs, in its order.
        rows: The only number of rows that it takes; None if that is open.
        most: The most rows that it takes, if their number is open and has a bound.
        parameters: Numbers in its weights.
        operators: What its graph calls, each once.
    """

    version: str
    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]
    rows: int | None
    most: int | None
    parameters: int
    operators: tuple[str, ...]


def read_exported(content: bytes) -> ExportedFile:
    """Returns what the bytes of a `.pt2` file say.

    Raises:
        ModelError: It is no program of torch.export, damaged, or does not score rows.
    """
    if not content.startswith(_ZIP):
        raise ModelError(
            f"no program of torch.export: it begins with {content[:8]!r}; expected what "
            "torch.export.save writes"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (found,) = (each for each in archive.infolist() if f"/{each.filename}".endswith(_MODEL))
            if found.file_size > min(_MODEL_BYTES, len(content)):
                raise ValueError("its graph is compressed, or declared larger than its file")
            return _described(json.loads(archive.read(found)))
    except (
        *ZIP_DAMAGE,
        *(RecursionError, KeyError, TypeError, AttributeError, IndexError),
    ) as error:
        raise ModelError(
            f"no program of torch.export, or damaged ({type(error).__name__}: "
            f"{one_line(error, 80)}); {_AGAIN}"
        ) from error


def _described(program: Mapping[str, Any]) -> ExportedFile:
    own = program["graph_module"]
    values, signature = own["graph"]["tensor_values"], own["signature"]
    _refuse_changes(signature, own["graph"]["nodes"])
    taken = [each["user_input"]["arg"] for each in signature["input_specs"] if "user_input" in each]
    made = [each["user_output"]["arg"] for each in signature["output_specs"]]
    inputs = [_tensor(each, values, "input") for each in taken]
    outputs = [_tensor(each, values, "output") for each in made]
    rows = {json.dumps(values[each["as_tensor"]["name"]]["sizes"][0]) for each in taken}
    if len(rows) != 1:
        raise ModelError(
            "its inputs differ in their first size, which is the number of rows; export it with "
            "one dynamic dimension 0 for all inputs"
        )
    fixed, most = _rows(json.loads(rows.pop()), program["range_constraints"])
    names = _output_names(own["module_call_graph"][0]["signature"], outputs)
    renamed = [FileTensor(n, t.dtype, t.shape) for n, t in zip(names, outputs, strict=True)]
    weights = [_count(values[name]) for name in _weights(signature["input_specs"])]
    operators = {str(each["target"]) for each in own["graph"]["nodes"]}
    return ExportedFile(
        version=str(program["torch_version"]),
        inputs=tuple(inputs),
        outputs=tuple(renamed),
        rows=fixed,
        most=most,
        parameters=sum(weights),
        operators=tuple(sorted(operators)),
    )


def _refuse_changes(signature: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raises ModelError where a call changes what the next one computes with."""
    held = {*_weights(signature["input_specs"])}
    changed = [each["target"] for each in nodes if _changes(each) and _first(each) in held]
    kinds = {kind for each in signature["output_specs"] for kind in each} - {"user_output"}
    if changed or kinds:
        said = ", ".join([*map(str, changed), *sorted(kinds)])
        raise ModelError(
            f"each call changes the program's state ({one_line(said, 80)}), so that a row's score "
            "would depend on those before it; keep nothing in forward, and call eval() before "
            "torch.export"
        )


def _changes(node: Mapping[str, Any]) -> bool:
    """Tells whether an operator changes its first argument, as the end of its name says."""
    parts = str(node["target"]).split(".")
    return len(parts) > 1 and parts[-2].endswith("_")


def _first(node: Mapping[str, Any]) -> str | None:
    given = node["inputs"][0]["arg"] if node["inputs"] else {}
    return given["as_tensor"]["name"] if "as_tensor" in given else None


def _tensor(given: Mapping[str, Any], values: Mapping[str, Any], what: str) -> FileTensor:
    if "as_tensor" not in given:
        raise ModelError(
            f"an {what} of the program is {next(iter(given), 'nothing')[3:]}, and no tensor; "
            "export a module that takes and returns tensors alone"
        )
    name = str(given["as_tensor"]["name"])
    kind, sizes = _TYPES.get(values[name]["dtype"]), values[name]["sizes"]
    if kind is None or (kind == "bfloat16" and what == "input") or not sizes:
        raise ModelError(
            f"{what} {name!r} of the program is of torch's type {values[name]['dtype']} with "
            f"{len(sizes)} sizes; expected rows of numbers or booleans"
        )
    kind = "float32" if kind == "bfloat16" else kind
    return FileTensor(name, kind, tuple(_size(each) for each in sizes[1:]))


def _size(given: Mapping[str, Any]) -> int | None:
    return int(given["as_int"]) if "as_int" in given else None


def _rows(given: Mapping[str, Any], ranges: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Returns the number of rows that is fixed, or the bound of one that is open."""
    if "as_int" in given:
        return int(given["as_int"]), None
    said = str(given["as_expr"]["expr_str"])
    found = _SYMBOL.fullmatch(said)
    symbol = (found[1] or found[2]) if found else said
    if symbol not in ranges:
        raise ModelError(
            f"the program takes a number of rows of the form {one_line(said, 40)}; export it "
            "with a dimension 0 that is dynamic by itself"
        )
    most = ranges[symbol].get("max_val")
    return None, None if most is None else int(most)


def _output_names(signature: Mapping[str, Any], outputs: Sequence[FileTensor]) -> list[str]:
    """Returns keys of a dict that is returned, the default for a single tensor, or own names."""
    returned = json.loads(signature["out_spec"])[1]
    if returned["type"] == "builtins.dict":
        keys = json.loads(returned["context"])
        if len(keys) == len(outputs):
            return [str(key) for key in keys]
    return [DEFAULT_OUTPUT] if len(outputs) == 1 else [each.name for each in outputs]


def _weights(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    held = (each.get("parameter") or each.get("buffer") for each in specs)
    return [str(each["arg"]["name"]) for each in held if each]


def _count(value: Mapping[str, Any]) -> int:
    count = 1
    for size in value["sizes"]:
        count *= int(size["as_int"])
    return count
