"""Which ONNX models are scored, and why others are not, before a runtime sees the file."""

from __future__ import annotations

import re
from collections.abc import Collection

from batchscore.errors import ModelError
from batchscore.messages.wording import one_line
from batchscore.models.backends.onnx.model_file import OnnxFile, Operator, Tensor

_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
_STANDARD = ("", "ai.onnx.ml")
_OLDEST = 7
# What onnxruntime's own tools write when they quantize a network or fuse its layers.
_OF_RUNTIME = {
    "Attention",
    "BiasGelu",
    "BiasSplitGelu",
    "DequantizeLinear",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "EmbedLayerNormalization",
    "FastGelu",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "Gelu",
    "GemmFloat8",
    "GroupQueryAttention",
    "MatMulBnb4",
    "MatMulInteger16",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MultiHeadAttention",
    "QAttention",
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMul",
    "QLinearReduceMean",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QLinearWhere",
    "QMoE",
    "QuantizeLinear",
    "QuickGelu",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
}
_FOR_GAPS = {
    "Imputer",
    "IsNaN",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
}
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NUMBERS = {
    "bool",
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
}


def takes_gaps(found: OnnxFile) -> bool:
    """Tells whether a model was made for rows in which numbers are missing, which come as NaN."""
    return any(each.name in _FOR_GAPS for each in found.operators)


def check_file(found: OnnxFile, listed: Collection[str]) -> None:
    """Refuses a model that gives random scores, or needs code or files that are not its own.

    Args:
        found: What its file says.
        listed: Names of the files of its folder whose SHA-256 is known.

    Raises:
        ModelError: The message says what to do.
    """
    _check_opsets(found)
    for each in sorted(found.operators, key=lambda each: (each.domain, each.name)):
        _check_operator(each, found)
    for each_path in found.external:
        _check_external(each_path, listed)


def _check_opsets(found: OnnxFile) -> None:
    version = found.opsets.get("", _OLDEST)
    if version < _OLDEST:
        raise ModelError(
            f"it uses opset {version}, whose dropout is random by default; expected {_OLDEST} or "
            "newer: convert it with onnx.version_converter, or export it again"
        )


def _check_operator(each: Operator, found: OnnxFile) -> None:
    shown = one_line(each.name, 60)
    if each.domain == "" and each.name in _RANDOM:
        raise ModelError(
            f"its graph draws random numbers (operator {shown}), so that a row has another score "
            "each time; export the model without it"
        )
    if each.trains:
        raise ModelError(
            "its graph has a Dropout that can be switched on by an input, which draws random "
            "numbers; call model.eval() before the export"
        )
    is_own = (each.domain, each.name) in found.functions or each.domain in _STANDARD
    if is_own or (each.domain == "com.microsoft" and each.name in _OF_RUNTIME):
        return
    raise ModelError(
        f"its graph has operator {shown} of domain {one_line(each.domain, 60)}, which the ONNX "
        "standard does not define, and which may be code of a library of its own; export the "
        "model with standard operators alone"
    )


def _check_external(path: str, listed: Collection[str]) -> None:
    shown = one_line(repr(path), 120)
    if not _PLAIN.fullmatch(path):
        raise ModelError(
            f"its tensors lie in {shown}, which is no plain file name in the model's own folder; "
            "save it with onnx.save_model(model, path, save_as_external_data=True, "
            "location='model.onnx.data'), or in one file"
        )
    if path not in listed:
        raise ModelError(
            f"its tensors lie in a second file, {shown}, whose SHA-256 nobody says; write a model "
            "folder, which lists it, with bs.save_model('model', 'model.onnx', sample=rows), or "
            "save the model in one file"
        )


def check_input(each: Tensor) -> None:
    """Refuses an input that columns of numbers or texts cannot fill.

    Raises:
        ModelError: The message says what to do.
    """
    where = f"input {one_line(repr(each.name), 60)}"
    if each.kind not in {*_NUMBERS, "string"}:
        raise ModelError(
            f"{where} takes {each.kind}; expected a tensor of {', '.join(sorted(_NUMBERS))} or "
            "string: export the model with inputs of such a type"
        )
    if each.kind == "string" and any(size != 1 for size in (each.shape or ())[1:]):
        raise ModelError(
            f"{where} takes several texts per row; export the model with an input of its own for "
            "each column of texts, as skl2onnx does for a DataFrame"
        )
    if not each.shape:
        raise ModelError(
            f"{where} has no dimension for rows; export the model with inputs of shape [N, ...]"
        )


def check_output(each: Tensor) -> None:
    """Refuses an output that is no column of scores.

    Raises:
        ModelError: The message says what to do.
    """
    where = f"output {one_line(repr(each.name), 60)}"
    if each.kind in ("sequence", "map"):
        raise ModelError(
            f"{where} is a {each.kind}, as skl2onnx writes the probabilities of classes by "
            "default; convert the model with to_onnx(model, rows, "
            "options={id(model): {'zipmap': False}}), or name the outputs to write: model.outputs "
            "in a job, outputs= of bs.save_model"
        )
    if each.kind not in {*_NUMBERS, "uint16", "uint32"}:
        raise ModelError(
            f"{where} is of {each.kind}, which is no score; name the outputs to write "
            "(model.outputs in a job, outputs= of bs.save_model), or export the model without it"
        )
