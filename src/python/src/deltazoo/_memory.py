"""Tensors in memory: bytes of what users give, arrays and torch tensors of what they get."""

from __future__ import annotations

import importlib
from typing import Any, Tuple

import numpy as np

from ._types import Error

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
         "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
WIDENED = ("BF16", "F8_E4M3", "F8_E5M2")  # numpy has no such types: arrays have the f32 of the same values
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2",
         "U8": "u1", "BOOL": "?", "C64": "<c8"}
TORCH = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "I64": "int64",
         "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
         "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu", "F4": "float4_e2m1fn_x2"}


def check_framework(framework: str) -> None:
    if framework not in ("np", "pt"):
        raise Error(f"framework {framework!r}: 'np' or 'pt'")


def widened(raw: np.ndarray, dtype: str) -> np.ndarray:
    """The f32 values of floats given as bytes."""
    if dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype in NUMPY:
        return raw.view(NUMPY[dtype]).astype(np.float32)
    pure: Any = importlib.import_module(".pure", __package__)  # h5py and more: only where it is needed
    return np.array(pure.to_f32(raw.tobytes(), dtype))


def bytes_of(tensor: Any, dtype: str) -> np.ndarray:
    """The bytes of a tensor in memory as an array of u8: bytes, a numpy array or a torch tensor; of BF16 and F8 also f32 of the same values."""
    if hasattr(tensor, "detach"):
        import torch
        if tensor.is_meta:
            raise Error("the tensor given is on the meta device: it has no values")
        tensor = tensor.detach().cpu()
        if tensor.dtype == torch.float32 and dtype in WIDENED:
            tensor = tensor.numpy()
        elif tensor.dtype not in (torch_type(dtype), torch.uint8):
            raise Error(f"the tensor given is {tensor.dtype}, not {dtype}")
        else:
            tensor = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    if isinstance(tensor, (bytes, bytearray, memoryview)):
        return np.frombuffer(tensor, np.uint8)
    if not isinstance(tensor, (np.ndarray, np.generic)):
        raise Error(f"a tensor, an array or bytes is needed, not {type(tensor).__name__}")
    if tensor.dtype.hasobject:
        raise Error("the array given holds Python objects")
    if dtype in NUMPY and tensor.dtype not in (np.dtype(NUMPY[dtype]), np.dtype(np.uint8)):
        raise Error(f"the array given is {tensor.dtype}, not {dtype}")
    tensor = np.ascontiguousarray(tensor)
    if tensor.dtype == np.float32 and dtype in WIDENED:
        pure: Any = importlib.import_module(".pure", __package__)
        return np.frombuffer(pure.from_f32(tensor.reshape(-1), dtype), np.uint8)
    return tensor.reshape(-1).view(np.uint8)


def torch_type(dtype: str) -> Any:
    import torch
    kind = getattr(torch, TORCH.get(dtype, ""), None)
    if kind is None:
        raise Error(f"this torch has no type for {dtype} (restore_bytes gives its bytes)")
    return kind


def new(dtype: str, shape: Tuple[int, ...], nbytes: int, framework: str) -> Tuple[Any, Any]:
    """Memory for a tensor: (what `finished` takes, where its bytes go)."""
    check_framework(framework)
    if framework == "np":
        raw = np.empty(nbytes, np.uint8)
        return raw, raw
    import torch
    kind = torch_type(dtype)
    if dtype == "F4":  # a byte of torch's has two
        shape = (*shape[:-1], shape[-1] // 2)
    tensor = torch.empty(shape, dtype=kind)
    return tensor, tensor.data_ptr() if nbytes else None


def finished(memory: Any, dtype: str, shape: Tuple[int, ...]) -> Any:
    """The tensor whose bytes are all there."""
    if not isinstance(memory, np.ndarray):
        return memory
    if dtype in WIDENED:
        return widened(memory, dtype).reshape(shape)
    return memory.view(NUMPY.get(dtype, np.uint8)).reshape(shape if dtype in NUMPY else -1)
