"""With what precision a network computes: float32, TensorFloat-32, bfloat16 or float16."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def computing(device: str, precision: str) -> AbstractContextManager[object]:
    """Returns the context that a network is called in.

    bf16 and fp16 cast where torch holds it to be safe (autocast); weights and inputs stay as they
    are. On a GPU products and convolutions of float32 use TensorFloat-32 with tf32 alone: torch's
    own default lets convolutions use it.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        _allow_tf32(precision == "tf32")
    if precision in _HALF:
        return torch.autocast(kind, dtype=_HALF[precision])
    return nullcontext()


def _allow_tf32(allowed: bool) -> None:
    """Sets what torch keeps for the whole process."""
    if torch.backends.cuda.matmul.allow_tf32 != allowed:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    if torch.backends.cudnn.allow_tf32 != allowed:
        torch.backends.cudnn.allow_tf32 = allowed
