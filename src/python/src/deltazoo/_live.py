"""Tasks swapped into a live torch model."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

import torch

from ._archive import Archive, Bar
from ._memory import TORCH, new
from ._types import Error, TensorInfo


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's bytes, on its device."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


class Live:
    """A torch model in which an archive's tasks take turns. Parameters and buffers keep their places in memory, so whoever refers to them sees the
    change; optimizers, hooks and compiled graphs stay valid.

    base: a path: tensors that the model has as the base has them are read from there again when a task leaves; of all others a copy is kept in
    main memory (they come back bit for bit too). None: the model itself is the base, and a copy is kept of what tasks change.
    strict: the task must have all tensors of the model's state_dict, and no others.

    `with` puts the old values back at its end. A load that fails puts them back, too."""

    def __init__(self, archive: Archive, model: torch.nn.Module, base: Any = None, strict: bool = True) -> None:
        if not isinstance(base, (str, os.PathLike, Mapping, type(None))):
            raise Error("base: a path, a mapping from names to tensors, or None where the model is the base")
        self.archive, self.strict = archive, strict
        self.base: Any = base
        self.task: Optional[str] = None
        self.tensors: Dict[str, torch.Tensor] = {name: t.data for name, t in model.state_dict(keep_vars=True).items() if isinstance(t, torch.Tensor)}
        self._places: Dict[Any, str] = {}  # the first name of each place in memory: tied parameters share one
        self._first = {name: self._places.setdefault((t.device, t.data_ptr(), tuple(t.shape), t.stride()) if t.numel() else name, name)
                       for name, t in self.tensors.items()}
        self._listed: Optional[Dict[str, Tuple[str, str, Tuple[int, ...]]]] = None  # the base's tensors
        self._kept: Dict[str, torch.Tensor] = {}
        self._as_base: Set[str] = set()  # had the base's values before the first task came
        self._changed: Set[str] = set()

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *_: Any) -> None:
        self.unload()

    def __repr__(self) -> str:
        return f"<deltazoo.Live {self.archive.path!r}: task {self.task!r}, {len(self._changed)} of {len(self._places)} tensors changed>"

    def load(self, task: Optional[str], progress: bool = False) -> "Live":
        """Swaps a task in; None: the old values."""
        if task is None:
            return self.unload()
        chosen = self._matched(task)
        bar = Bar(progress, sum(t.nbytes for t in chosen), task)
        try:
            with torch.no_grad():
                targets = {self._first[t.name] for t in chosen}
                for name in sorted(self._changed - targets):
                    self._put_back(name)
                done: Set[str] = set()
                for info in chosen:
                    self._put(task, info, done)
                    bar.add(info.nbytes)
        except BaseException:
            self.unload()
            raise
        finally:
            bar.close()
        self.task = task
        return self

    def unload(self) -> "Live":
        """Puts the old values back."""
        with torch.no_grad():
            for name in sorted(self._changed):
                self._put_back(name)
        self.task = None
        return self

    def _matched(self, task: str) -> List[TensorInfo]:
        """The task's tensors that the model has. Mistakes are found before anything is changed."""
        tensors = self.archive.tensors(task)
        chosen = [t for t in tensors if t.name in self.tensors]
        where = f"{self.archive.path}: task {task}"
        strange = [t.name for t in tensors if t.name not in self.tensors]
        filled = {self._first[t.name] for t in chosen}
        missing = [name for name, first in self._first.items() if first not in filled]
        if self.strict and strange:
            raise Error(f"{where}: the model has no {', '.join(strange[:3])}" + (f" and {len(strange) - 3} more" if len(strange) > 3 else "") +
                        " (strict=False loads the others)")
        if self.strict and missing:
            raise Error(f"{where}: has no {', '.join(missing[:3])}" + (f" and {len(missing) - 3} more" if len(missing) > 3 else "") +
                        ", which the model has (strict=False leaves them)")
        for t in chosen:
            live = self.tensors[t.name]
            if tuple(live.shape) != tuple(t.shape):
                raise Error(f"{where}: {t.name} is {list(t.shape)}, in the model {list(live.shape)}")
            if live.is_meta:
                raise Error(f"{where}: {t.name} is on the meta device: the model has no values yet")
        return chosen

    # -- the base

    def _original(self, name: str) -> torch.Tensor:
        """The model's own value of a tensor, before any task."""
        first = self._first[name]
        if first in self._kept:
            return self._kept[first]
        return self.tensors[first]

    def _base_value(self, task: str, name: str) -> Any:
        """What the archive restores the tensor from."""
        if self.base is not None:
            return self.base
        needed = self.archive._engine.base_of(task, name)
        if needed is None:
            return None
        base_name, dtype, shape = needed
        if base_name not in self.tensors:
            raise Error(f"{self.archive.path}: task {task}: {name} needs the base's {base_name}, which the model has not: give base=PATH")
        value = self._original(base_name)
        if value.dtype != getattr(torch, TORCH.get(dtype, ""), None):
            raise Error(f"{self.archive.path}: task {task}: {base_name} is {value.dtype} in the model, {dtype} in the base: give base=PATH")
        return value

    def _from_base(self, name: str) -> Optional[torch.Tensor]:
        """The tensor of this name of the base in the model's type, where `base` is given and has one of its shape."""
        live = self.tensors[name]
        if isinstance(self.base, Mapping):
            value = self.base.get(name)
            value = None if value is None else torch.as_tensor(value)
        else:
            found = self._base_tensors().get(name)
            if found is None or tuple(found[2]) != tuple(live.shape) or found[1] not in TORCH:
                return None
            value, out = new(found[1], found[2], live.numel() * getattr(torch, TORCH[found[1]]).itemsize, "pt")
            if out is not None:
                self.archive._engine.read_base(name, os.fspath(self.base), out)
        return None if value is None or value.shape != live.shape else value.to(live.device, live.dtype)

    def _base_tensors(self) -> Dict[str, Tuple[str, str, Tuple[int, ...]]]:
        if self._listed is None:
            self._listed = {t[0]: t for t in self.archive._engine.base_tensors()}
        return self._listed

    # -- one tensor

    def _remember(self, first: str) -> None:
        """Before a tensor is changed for the first time."""
        if first in self._kept or first in self._as_base:
            return
        live = self.tensors[first]
        base = None if self.base is None else self._from_base(first)
        if base is not None and same(base, live):
            self._as_base.add(first)
        else:
            self._kept[first] = live.detach().to("cpu", copy=True)

    def _put_back(self, first: str) -> None:
        value = self._kept[first] if first in self._kept else self._from_base(first)
        self.tensors[first].copy_(value)
        self._changed.discard(first)

    def _put(self, task: str, info: TensorInfo, done: Set[str]) -> None:
        first, live = self._first[info.name], self.tensors[info.name]
        kind = getattr(torch, TORCH.get(info.dtype, ""), None)
        if first in done:  # tied in the model: the task must have the same values twice
            value = self.archive.restore(task, info.name, self._base_value(task, info.name), "pt").to(live.device, live.dtype)
            if not same(value, live):
                raise Error(f"{self.archive.path}: task {task}: {info.name} and {first} are one tensor in the model, and differ in the task")
            return
        self._remember(first)
        base = self._base_value(task, info.name)  # a copy now, where it is the live tensor itself
        self._changed.add(first)
        if live.dtype == kind and live.device.type == "cpu" and live.is_contiguous() and live.numel():
            count = live.numel()
            self.archive._fill(self.archive._engine, task, info.name, 0, count, base, live.data_ptr())
        else:
            live.copy_(self.archive.restore(task, info.name, base, "pt"))
        done.add(first)
