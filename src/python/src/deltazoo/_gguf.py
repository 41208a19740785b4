"""Adapters (deltazoo export --format lora) for llama.cpp: one GGUF file, written by gguf-py, which also knows its names of tensors."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np

from . import pure
from ._archive import Path
from ._memory import widened
from ._types import Error

ROTARY = ("llama", "mistral")  # llama.cpp turns pairs of neighbours where these models turn halves: rows of q and k change places
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3", "phi3": "phi3"}
TYPES = ("F32", "F16", "BF16")


class GgufLora(NamedTuple):
    """What was written. architecture: llama.cpp's."""

    path: str
    architecture: str
    rank: int
    modules: int


def json_of(path: str) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise Error(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def tensors_of(path: str) -> Dict[str, Tuple[str, Tuple[int, ...], np.ndarray]]:
    """(dtype, shape, bytes) of a safetensors file's tensors, mapped."""
    try:
        raw = np.memmap(path, np.uint8, "r")
        entries, data = pure.safetensors_header(raw, path)
        return {name: (dtype, shape, raw[data + begin:data + end]) for name, dtype, shape, begin, end in entries}
    except (OSError, ValueError, KeyError, TypeError, pure.Error) as error:
        raise Error(f"{path}: {getattr(error, 'strerror', None) or 'not a safetensors file'}") from None


def check_out(out: str, force: bool, reader: Any) -> None:
    """--force replaces an adapter, and nothing else."""
    if not os.path.lexists(out):
        return
    if not force:
        raise Error(f"{out}: exists: give another name, or --force")
    try:
        kind = reader(out).get_field("general.type").contents()
    except Exception:  # whatever gguf-py makes of what is no GGUF file
        kind = None
    if kind != "adapter":
        raise Error(f"{out}: exists and is no adapter in GGUF: --force replaces only such: give another name")


def halves_to_pairs(b: np.ndarray, heads: int, name: str) -> np.ndarray:
    """Rows of each head: the i-th of either half become neighbours."""
    if heads <= 0 or b.shape[0] % (2 * heads):
        raise Error(f"{name}: {b.shape[0]} rows are not those of {heads} heads: wrong base?")
    return b.reshape(heads, 2, b.shape[0] // heads // 2, b.shape[1]).swapaxes(1, 2).reshape(b.shape)


def gguf_lora(adapter: Path, base: Path, out: Path, force: bool = False) -> GgufLora:
    """Writes the adapter in the folder `adapter` as a GGUF file `out`, which llama.cpp takes beside the base's GGUF (--lora). base: the base model's
    folder, of which config.json alone is read. Values keep the adapter's type. Needs gguf (pip install "deltazoo[gguf]")."""
    try:
        import gguf
    except ImportError:
        raise Error('gguf-lora needs the package gguf: pip install "deltazoo[gguf]"') from None
    adapter, base, out = os.fspath(adapter), os.fspath(base), os.fspath(out)
    about = json_of(os.path.join(adapter, "adapter_config.json"))
    config = json_of(os.path.join(base, "config.json") if os.path.isdir(base) else base)
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise Error(f"{base}: model_type {kind!r}: none of {', '.join(ARCHITECTURES)}: llama.cpp's convert_lora_to_gguf.py takes the folder {adapter}")
    check_out(out, force, gguf.GGUFReader)
    name = ARCHITECTURES[kind]
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == name)
    names = gguf.get_tensor_name_map(arch, int(config.get("num_hidden_layers", 0)))
    weights = tensors_of(os.path.join(adapter, "adapter_model.safetensors"))
    pairs: List[Tuple[str, str, np.ndarray]] = []  # name in GGUF, type, values as f32
    ranks = set()
    for key in weights:
        if not key.startswith("base_model.model.") or not key.endswith((".lora_A.weight", ".lora_B.weight")):
            raise Error(f"{adapter}: {key}: not of an adapter that deltazoo export --format lora makes")
    for key in [k for k in weights if k.endswith(".lora_A.weight")]:
        module = key[len("base_model.model."):-len(".lora_A.weight")]
        own = [weights.get(f"base_model.model.{module}.lora_{x}.weight") for x in "AB"]
        if any(t is None or t[0] not in TYPES or len(t[1]) != 2 for t in own):
            raise Error(f"{adapter}: {module}: has not both of A and B, of {', '.join(TYPES)}")
        (_, shape_a, _), (_, shape_b, _) = own
        target = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if target is None:
            raise Error(f"{adapter}: {module}: llama.cpp's {name} has no such tensor: export with --tensor, or check --base")
        a, b = (widened(t[2], t[0]).reshape(t[1]) for t in own)
        if shape_a[0] != shape_b[1]:
            raise Error(f"{adapter}: {module}: A is {list(shape_a)}, B is {list(shape_b)}")
        heads = {"q_proj": config.get("num_attention_heads"), "k_proj": config.get("num_key_value_heads", config.get("num_attention_heads"))}.get(module.rsplit(".", 1)[-1])
        if kind in ROTARY and heads is not None:
            b = halves_to_pairs(b, int(heads), f"{adapter}: {module}")
        ranks.add(shape_a[0])
        pairs += [(f"{target}.lora_a", own[0][0], a), (f"{target}.lora_b", own[1][0], b)]
    if not pairs or ranks != {about.get("r")}:
        raise Error(f"{adapter}: adapter_config.json has rank {about.get('r')!r}, its tensors {sorted(ranks)}")
    staged = f"{out}.{os.getpid()}.part"
    writer = gguf.GGUFWriter(staged, name)
    try:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(about["lora_alpha"]))
        for title, dtype, values in pairs:
            if dtype == "BF16":
                writer.add_tensor(title, gguf.quants.quantize(np.ascontiguousarray(values), gguf.GGMLQuantizationType.BF16), raw_dtype=gguf.GGMLQuantizationType.BF16)
            else:
                writer.add_tensor(title, np.ascontiguousarray(values, np.float16 if dtype == "F16" else np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(staged, out)
    except BaseException:
        writer.close()
        if os.path.exists(staged):
            os.remove(staged)
        raise
    return GgufLora(out, name, ranks.pop(), len(pairs) // 2)
