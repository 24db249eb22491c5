"""What an ONNX file says of itself, without onnx or onnxruntime, and without running anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from batchscore.errors import ModelError
from batchscore.messages.wording import one_line
from batchscore.models.backends.onnx.protobuf import Field, WireReader

_DEEPEST = 32
# What an attribute lists: floats, whole numbers and texts, millions of an ensemble of trees.
_LISTS = frozenset((7 << 3 | 5, 8 << 3 | 0, 9 << 3 | 2))
_MOST_DIMENSIONS = 64
_TENSOR, _SEQUENCE, _MAP, _SPARSE, _OPTIONAL = 1, 4, 5, 8, 9
_CONTAINERS = {_SEQUENCE: "sequence", _MAP: "map", _SPARSE: "sparse tensor", _OPTIONAL: "optional"}
_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}


@dataclass(frozen=True)
class Tensor:
    """An input or output of the graph.

    Args:
        name: Its name.
        kind: NumPy's name of its type, or what else it is, such as `string`, `sequence` or `map`.
        shape: Its dimensions, the batch first; None for one that varies. None: not said.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Operator:
    """A node of a graph, by what it does.

    Args:
        domain: Empty for the standard's own.
        name: Name of the operator.
        trains: Whether it is a dropout that may be in training mode.
    """

    domain: str
    name: str
    trains: bool = False


@dataclass(frozen=True)
class OnnxFile:
    """What a file says.

    Args:
        ir_version: Version of the file's form.
        producer: Name and version of what wrote it.
        opsets: Version of the operators, by domain.
        inputs: Inputs that have no value of their own.
        outputs: Outputs.
        operators: What its graphs and functions do, each once.
        functions: Domain and name of the functions that it defines.
        external: Paths of files that hold tensors, as the file has them.
        parameters: Numbers in its tensors.
        nodes: Nodes of all graphs and functions.
        metadata: Texts that the producer added, by key.
    """

    ir_version: int
    producer: str
    opsets: Mapping[str, int]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: frozenset[Operator]
    functions: frozenset[tuple[str, str]]
    external: tuple[str, ...]
    parameters: int
    nodes: int
    metadata: Mapping[str, str]


def read_model_file(content: bytes) -> OnnxFile:
    """Returns what the bytes of an `.onnx` file say.

    Raises:
        ModelError: It is no ONNX model, or damaged, or holds more than is read.
    """
    try:
        return _Parser().model(memoryview(content))
    except (ValueError, OverflowError) as error:
        raise ModelError(
            f"no ONNX model, or damaged ({one_line(error, 80)}); expected what onnx.save writes"
        ) from error


@dataclass
class _Parser:
    """Gathers what a file says while it is read.

    Args:
        reader: Bounds what is read.
    """

    reader: WireReader = field(default_factory=lambda: WireReader(_LISTS))
    operators: set[Operator] = field(default_factory=set)
    external: dict[str, None] = field(default_factory=dict)
    parameters: int = 0
    nodes: int = 0

    def model(self, content: memoryview) -> OnnxFile:
        """Reads a ModelProto."""
        said: dict[int, Field] = {}
        opsets, metadata = dict[str, int](), dict[str, str]()
        functions, graphs = set[tuple[str, str]](), list[memoryview]()
        for each in self.reader.fields(content):
            if each.number == 7:
                graphs.append(each.message)
            elif each.number == 8:
                opsets.update([self._opset(each.message)])
            elif each.number == 14:
                metadata.update([self._pair(each.message)])
            elif each.number == 25:
                functions.add(self._function(each.message))
            said[each.number] = each
        if len(graphs) != 1 or 1 not in said:
            raise ValueError(f"it has {len(graphs)} graphs, and a version: {1 in said}")
        inputs, outputs = self._graph(graphs[0], {}, 0)
        if not inputs or not outputs:
            raise ValueError("its graph has no input, or no output")
        producer = [said[number].text for number in (2, 3) if number in said]
        return OnnxFile(
            ir_version=said[1].integer,
            producer=one_line(" ".join(producer), 80),
            opsets={_domain(name): version for name, version in opsets.items()},
            inputs=inputs,
            outputs=outputs,
            operators=frozenset(self.operators),
            functions=frozenset(functions),
            external=tuple(self.external),
            parameters=self.parameters,
            nodes=self.nodes,
            metadata=metadata,
        )

    def _opset(self, content: memoryview) -> tuple[str, int]:
        said = {each.number: each for each in self.reader.fields(content)}
        return _text(said, 1), said[2].integer if 2 in said else 0

    def _pair(self, content: memoryview) -> tuple[str, str]:
        said = {each.number: each for each in self.reader.fields(content)}
        return _text(said, 1), _text(said, 2)

    def _function(self, content: memoryview) -> tuple[str, str]:
        said: dict[int, Field] = {}
        for each in self.reader.fields(content):
            if each.number == 7:
                self._node(each.message, {}, 1)
            elif each.number == 11:
                self._attribute(each.message, 1)
            said[each.number] = each
        return _domain(_text(said, 10)), _text(said, 1)

    def _graph(
        self, content: memoryview, outer: Mapping[str, bool | None], depth: int
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Reads a graph; `outer` has truth values of the tensors of graphs around it."""
        if depth > _DEEPEST:
            raise ValueError("its graphs are nested too deeply")
        every = [*self.reader.fields(content)]
        own = [self._tensor(each.message) for each in every if each.number == 5]
        for each in every:
            if each.number == 15:
                self._sparse(each.message)
        known = {**outer, **dict(own)}
        for each in every:
            if each.number == 1:
                self._node(each.message, known, depth)
        names = {name for name, _ in own}
        inputs = [self._value(each.message) for each in every if each.number == 11]
        outputs = [self._value(each.message) for each in every if each.number == 12]
        return tuple(each for each in inputs if each.name not in names), tuple(outputs)

    def _node(self, content: memoryview, known: Mapping[str, bool | None], depth: int) -> None:
        said: dict[int, Field] = {}
        inputs = list[str]()
        self.nodes += 1
        for each in self.reader.fields(content):
            if each.number == 1:
                inputs.append(each.text)
            elif each.number == 5:
                self._attribute(each.message, depth, known)
            said[each.number] = each
        name = _text(said, 4)
        # The third input of a dropout switches it on.
        switch = inputs[2] if name == "Dropout" and len(inputs) > 2 else ""
        trains = bool(switch) and known.get(switch) is not False
        self.operators.add(Operator(_domain(_text(said, 7)), name, trains))

    def _attribute(
        self, content: memoryview, depth: int, known: Mapping[str, bool | None] | None = None
    ) -> None:
        for each in self.reader.fields(content):
            if each.number in (5, 10):
                self._tensor(each.message)
            elif each.number in (6, 11):
                self._graph(each.message, known or {}, depth + 1)
            elif each.number in (22, 23):
                self._sparse(each.message)

    def _sparse(self, content: memoryview) -> None:
        for each in self.reader.fields(content):
            if each.number in (1, 2):
                self._tensor(each.message)

    def _tensor(self, content: memoryview) -> tuple[str, bool | None]:
        """Reads a tensor; returns its name, and its value if it is a single boolean."""
        said: dict[int, Field] = {}
        pairs, dimensions = dict[str, str](), list[int]()
        for each in self.reader.fields(content):
            if each.number == 1:
                dimensions += self._integers(each)
            elif each.number == 13:
                pairs.update([self._pair(each.message)])
            said[each.number] = each
        if len(dimensions) > _MOST_DIMENSIONS or any(each < 0 for each in dimensions):
            raise ValueError("a tensor has impossible dimensions")
        count = 1
        for each_size in dimensions:
            count *= each_size
        self.parameters += count
        if pairs or (14 in said and said[14].integer):
            self.external[pairs.get("location", "")] = None
        is_boolean = 2 in said and said[2].integer == 9 and count == 1
        return _text(said, 8), self._boolean(said) if is_boolean else None

    def _integers(self, of: Field) -> Iterable[int]:
        """Returns whole numbers, which come as one each, or many in a field."""
        if isinstance(of.value, int):
            return [of.integer]
        if len(of.value) > 16 * _MOST_DIMENSIONS:
            raise ValueError("a tensor has too many dimensions")
        found, place = [], 0
        while place < len(of.value):
            stop = place
            while stop < len(of.value) and of.value[stop] > 127:
                stop += 1
            parts = enumerate(of.value[place : stop + 1])
            found.append(sum((byte & 127) << 7 * position for position, byte in parts))
            place = stop + 1
        return found

    def _boolean(self, said: Mapping[int, Field]) -> bool | None:
        value = said.get(9, said.get(5))
        if value is None or (isinstance(value.value, int) and 9 in said):
            return None
        if isinstance(value.value, int):
            return bool(value.value)
        return any(value.value) if len(value.value) == 1 else None

    def _value(self, content: memoryview) -> Tensor:
        """Reads a ValueInfoProto."""
        said = {each.number: each for each in self.reader.fields(content)}
        if 2 not in said:
            return Tensor(_text(said, 1), "unknown", None)
        for each in self.reader.fields(said[2].message):
            if each.number == _TENSOR:
                kind, shape = self._tensor_type(each.message)
                return Tensor(_text(said, 1), kind, shape)
            if each.number in _CONTAINERS:
                return Tensor(_text(said, 1), _CONTAINERS[each.number], None)
        return Tensor(_text(said, 1), "unknown", None)

    def _tensor_type(self, content: memoryview) -> tuple[str, tuple[int | None, ...] | None]:
        kind, shape = "unknown", None
        for each in self.reader.fields(content):
            if each.number == 1:
                kind = _TYPES.get(each.integer, f"type {each.integer}")
            elif each.number == 2:
                shape = self._shape(each.message)
        return kind, shape

    def _shape(self, content: memoryview) -> tuple[int | None, ...]:
        found = list[int | None]()
        for dimension in self.reader.fields(content):
            if dimension.number != 1:
                continue
            sizes = [e.integer for e in self.reader.fields(dimension.message) if e.number == 1]
            # Some writers put 0 or -1 for what varies.
            found.append(sizes[0] if sizes and sizes[0] > 0 else None)
            if len(found) > _MOST_DIMENSIONS:
                raise ValueError("a shape has too many dimensions")
        return tuple(found)


def _text(said: Mapping[int, Field], number: int) -> str:
    return said[number].text if number in said else ""


def _domain(name: str) -> str:
    """Returns a domain; the standard's own has two names."""
    return "" if name == "ai.onnx" else name
