"""Patches (deltazoo export --format patch): the elements of a task that differ from its base, with their new values."""

from __future__ import annotations

import json
import os
import struct
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np
import xxhash

from ._archive import Path
from ._memory import NUMPY, SIZES, TORCH, bytes_of, torch_type
from ._types import Damaged, Error


class PatchTensor(NamedTuple):
    """A tensor that changes. indices: flat positions, ascending, int32; None: `values` is the whole tensor. values: numpy bytes in the tensor's type
    (of BF16 and F8 as unsigned integers of the same bits); `Patch.torch_values` gives torch's."""

    name: str
    dtype: str
    shape: Tuple[int, ...]
    indices: Optional[np.ndarray]
    values: np.ndarray


def fingerprint(tensors: Mapping[str, Any]) -> str:
    """The fingerprint of a model's tensors (FORMAT.md "Tiles"), torch tensors or numpy arrays by name. It does not depend on their order."""
    from .pure import tiling
    named = {name: (safetensors_type(t), tuple(int(d) for d in t.shape), t) for name, t in tensors.items()}
    hasher = xxhash.xxh3_128()
    for name, (dtype, shape, tensor) in sorted(named.items(), key=lambda item: item[0].encode()):
        raw, size = bytes_of(tensor, dtype), SIZES.get(dtype, 1)
        hasher.update(name.encode() + b"\0" + dtype.encode() + b"\0" + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        for begin, end in tiling(len(raw) // size):
            digest = xxhash.xxh3_128_intdigest(raw[begin * size:end * size])
            hasher.update(struct.pack("<QQ", digest >> 64, digest & (1 << 64) - 1))
    return hasher.hexdigest()


def safetensors_type(tensor: Any) -> str:
    kind = str(tensor.dtype).replace("torch.", "")
    for name, torch_name in TORCH.items():
        if kind == torch_name:
            return name
    raise Error(f"a tensor of type {kind}: patches have none such")


class Patch:
    """A patch file; its values are mapped, not read."""

    def __init__(self, path: Path) -> None:
        self.path = os.fspath(path)
        try:
            raw = np.memmap(self.path, np.uint8, "r")
            length = struct.unpack("<Q", raw[:8].tobytes())[0]
            header = json.loads(raw[8:8 + length].tobytes())
            about = json.loads(header["__metadata__"]["deltazoo"])
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise Error(f"{self.path}: {getattr(error, 'strerror', None) or 'not a patch of deltazoo export'}") from None
        if about.get("form") != "patch" or about.get("version") != 1:
            raise Error(f"{self.path}: form {about.get('form')!r}, version {about.get('version')!r}: not a patch that this version reads")
        self.task: str = about["task"]
        self.base_fingerprint: str = about["base_fingerprint"]
        self.target_fingerprint: str = about["target_fingerprint"]
        self.removed: List[str] = about["removed"]
        self._tensors = {name: self._read(raw, 8 + length, header, name, entry) for name, entry in about["tensors"].items()}

    def _read(self, raw: np.ndarray, data: int, header: Dict[str, Any], name: str, entry: Dict[str, Any]) -> PatchTensor:
        def part(end: str) -> Optional[np.ndarray]:
            found = header.get(f"{name}.{end}")
            if found is None:
                return None
            begin, stop = found["data_offsets"]
            if not 0 <= begin <= stop <= len(raw) - data:
                raise Damaged(f"{self.path}: {name}.{end} is cut off")
            return raw[data + begin:data + stop]

        values, indices, shape = part("values"), part("indices"), tuple(entry["shape"])
        size, count = SIZES.get(entry["dtype"], 1), int(np.prod(shape, dtype=np.int64))
        if values is None:
            raise Damaged(f"{self.path}: {name} has no values")
        if indices is not None:
            where = indices.view("<i4")
            if len(where) * size != len(values) or (len(where) and (where[0] < 0 or where[-1] >= count or np.any(np.diff(where) <= 0))):
                raise Damaged(f"{self.path}: {name}: its positions are not those of {len(values) // size} values in {list(shape)}")
            return PatchTensor(name, entry["dtype"], shape, where, values.view(f"<u{size}"))
        if entry["dtype"] in SIZES and len(values) != size * count:
            raise Damaged(f"{self.path}: {name}: {len(values)} bytes are not {entry['dtype']} {list(shape)}")
        return PatchTensor(name, entry["dtype"], shape, None, values.view(f"<u{size}"))

    def __iter__(self) -> Iterator[PatchTensor]:
        return iter(self._tensors.values())

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        changed = sum(t.values.size for t in self)
        return f"<deltazoo.Patch {self.path!r}: task {self.task!r}, {changed} elements in {len(self)} tensors, base {self.base_fingerprint[:8]}...>"

    def torch_values(self, tensor: PatchTensor) -> Any:
        """A tensor's new values as a torch tensor: flat, or whole in its shape."""
        import torch
        values = torch.from_numpy(np.array(tensor.values).view(np.uint8)).view(torch_type(tensor.dtype))
        return values if tensor.indices is not None else values.reshape(tensor.shape)

    def apply(self, target: Any, check: bool = True) -> None:
        """Changes a torch model or a dict of torch tensors or numpy arrays, in place, into the task. With check, a base of another fingerprint is
        refused before anything changes, and the result's fingerprint is compared. In a dict, tensors that the base has not are added, and those
        that the task has not are removed; a model must have exactly the task's."""
        model = not isinstance(target, dict)
        tensors: Dict[str, Any] = {name: t.data for name, t in target.state_dict(keep_vars=True).items()} if model else target
        own = without_ties(tensors)
        if check:
            self._compare(own, tensors, self.base_fingerprint, "not the base of this patch")
        strange = [t.name for t in self if t.name not in tensors or tuple(tensors[t.name].shape) != t.shape or safetensors_type(tensors[t.name]) != t.dtype]
        if model and (strange or self.removed):
            raise Error(f"{self.path}: the model has other tensors than the task: {', '.join((strange + self.removed)[:3])}: make the task's model, and load restored values")
        for t in self:
            if t.name in strange:
                if t.indices is not None:
                    raise Error(f"{self.path}: {t.name} is {t.dtype} {list(t.shape)} in the patch, and not so in what is patched")
                tensors[t.name] = self.torch_values(t) if any(hasattr(x, "detach") for x in tensors.values()) else numpy_values(t)
            elif hasattr(tensors[t.name], "detach"):
                self._put_torch(tensors[t.name], t)
            else:
                put_numpy(tensors[t.name], t)
        for name in self.removed:
            tensors.pop(name, None)
        if check:
            self._compare(without_ties(tensors), tensors, self.target_fingerprint, "patched, it is not the task's model: it is damaged, restore it from the archive")

    def _compare(self, own: Mapping[str, Any], tensors: Mapping[str, Any], wanted: str, what: str) -> None:
        found = fingerprint(own)
        if found != wanted and (len(own) == len(tensors) or fingerprint(tensors) != wanted):
            raise Error(f"{self.path}: {what} (fingerprint {found}, not {wanted})")

    def _put_torch(self, live: Any, t: PatchTensor) -> None:
        import torch
        values = self.torch_values(t).to(live.device)
        with torch.no_grad():
            if t.indices is None:
                live.copy_(values)
            else:
                flat = live.reshape(-1)
                flat[torch.from_numpy(np.array(t.indices)).long().to(live.device)] = values
                if flat.data_ptr() != live.data_ptr():  # a tensor whose elements do not follow each other
                    live.copy_(flat.reshape(live.shape))


def numpy_values(t: PatchTensor) -> np.ndarray:
    if t.dtype not in NUMPY:
        raise Error(f"{t.name}: numpy has no type {t.dtype}: give torch tensors")
    return np.array(t.values).view(NUMPY[t.dtype]).reshape(t.shape if t.indices is None else -1)


def put_numpy(array: np.ndarray, t: PatchTensor) -> None:
    values = numpy_values(t)
    if t.indices is None:
        array[...] = values
    else:
        array.reshape(-1)[t.indices] = values
        if not array.flags.c_contiguous:
            raise Error(f"{t.name}: an array whose elements do not follow each other cannot be patched in place")


def without_ties(tensors: Mapping[str, Any]) -> Dict[str, Any]:
    """Without names for memory that an earlier name has: checkpoints have one of them."""
    seen, own = set(), {}
    for name, t in tensors.items():
        place = (t.data_ptr(), tuple(t.shape), t.stride()) if hasattr(t, "data_ptr") and t.numel() else name
        if place not in seen:
            own[name] = t
        seen.add(place)
    return own


def open_patch(path: Path) -> Patch:
    """Opens a patch that `deltazoo export --format patch` made."""
    return Patch(path)
