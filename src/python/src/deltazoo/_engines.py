"""Two engines behind one interface: the C library, and the reader in Python alone (pure.py). `_archive.Archive` is what users see."""

from __future__ import annotations

import os
import threading
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from . import _native
from ._types import BaseInfo, Damaged, Error, Quality, TaskInfo, TensorInfo

BaseTensor = Tuple[str, str, Tuple[int, ...]]  # name, dtype, shape


def failed(code: int, message: str) -> Exception:
    if code == _native.NOMEM:
        return MemoryError(message)
    return (Damaged if code == _native.DAMAGE else Error)(message)


class NativeEngine:
    """The C library. Its handle is for one thread at a time, so calls take turns; `clone` gives another thread its own."""

    name = "native"

    def __init__(self, path: str) -> None:
        self.path, self.lock, self.base_path = path, threading.RLock(), None  # type: str, Any, Optional[str]
        handle, message = _native.ffi.new("deltazoo_archive **"), _native.Message()
        with _native.opening:
            code = _native.lib.deltazoo_open(os.fsencode(path), handle, *message.args)
        if code:
            raise failed(code, str(message))
        self._handle: Any = handle[0]
        self._absolute = os.path.abspath(path)
        self._bases: Dict[str, Dict[str, Optional[BaseTensor]]] = {}
        self._base_numbers: Optional[Dict[str, int]] = None
        self._index: Dict[str, Tuple[int, List[TensorInfo], Dict[str, int]]] = {}
        number = _native.ffi.new("size_t *")
        self._stored = self._task(number[0]).name if _native.lib.deltazoo_stored_base(self.handle, number) == _native.OK else None
        self.numbers = {self._task(t).name: t for t in range(_native.lib.deltazoo_task_count(self.handle))}
        self.lost = [_native.text(_native.lib.deltazoo_lost(self.handle, i)) for i in range(_native.lib.deltazoo_lost_count(self.handle))]

    @property
    def handle(self) -> Any:
        """For use under `lock`: another thread may close the archive."""
        if self._handle is None:
            raise Error(f"{self.path}: the archive is closed")
        return self._handle

    def close(self) -> None:
        with self.lock:
            if self._handle is not None:
                _native.lib.deltazoo_close(self._handle)
            self._handle = None

    def clone(self) -> "NativeEngine":
        return NativeEngine(self.where())

    def where(self) -> str:
        """The file's path as it was given, or from the root if the working directory is another one now."""
        return self.path if os.path.abspath(self.path) == self._absolute else self._absolute

    def after_fork(self) -> None:
        self.lock = threading.RLock()  # files are read by pread, and HDF5 is not used after opening: the handle is as good in the child

    def _call(self, function: str, *args: Any) -> None:
        message = _native.Message()
        code = getattr(_native.lib, function)(self.handle, *args, *message.args)
        if code:
            raise failed(code, str(message))

    def _task(self, number: int) -> TaskInfo:
        t = _native.ffi.new("deltazoo_task *")
        with self.lock:
            _native.lib.deltazoo_task_at(self.handle, number, t)
            return TaskInfo(_native.text(t.name), _native.text(t.recipe), t.sparsity, t.gamma, t.trace_norm, t.source_bytes, t.stored_bytes,
                            _native.lib.deltazoo_tensor_count(self.handle, number), self._quality(number, _native.WHOLE))

    def _quality(self, task: int, tensor: int) -> Quality:
        q = _native.ffi.new("deltazoo_quality *")
        _native.lib.deltazoo_quality_of(self.handle, task, tensor, q)
        return Quality(q.cosine, q.gain, q.noise_to_delta, q.noise_to_base, q.delta, q.base, _native.text(q.verdict))

    def stored(self) -> Optional[str]:
        """The task that is the base itself, or None."""
        return self._stored

    def tasks(self) -> List[str]:
        self.handle  # none of a closed one
        return sorted(self.numbers)

    def task(self, name: str) -> TaskInfo:
        return self._task(self.numbers[name])

    def base(self) -> BaseInfo:
        b = _native.ffi.new("deltazoo_base *")
        with self.lock:
            _native.lib.deltazoo_base_info(self.handle, b)
            return BaseInfo(_native.text(b.name), _native.ffi.string(b.fingerprint).decode(), _native.text(b.origin), _native.text(b.revision), b.ntensors,
                            self.stored())

    def base_tensors(self) -> List[BaseTensor]:
        t, found = _native.ffi.new("deltazoo_tensor *"), []  # type: Any, List[BaseTensor]
        with self.lock:
            while _native.lib.deltazoo_base_at(self.handle, len(found), t) == _native.OK:
                found.append((_native.text(t.name), _native.text(t.dtype), tuple(t.shape[0:t.ndim])))
        return found

    def index(self, task: str) -> Tuple[int, List[TensorInfo], Dict[str, int]]:
        """The task's number, its tensors, and their numbers by name."""
        with self.lock:
            self.handle
            if task not in self._index:
                self._index[task] = self._read_index(self.numbers[task])
        return self._index[task]

    def _read_index(self, number: int) -> Tuple[int, List[TensorInfo], Dict[str, int]]:
        tensors: List[TensorInfo] = []
        t, lossy = _native.ffi.new("deltazoo_tensor *"), _native.ffi.new("deltazoo_lossy *")
        while _native.lib.deltazoo_tensor_at(self.handle, number, len(tensors), t) == _native.OK:
            policy = _native.text(t.policy)
            numbers = (0.0, 0, 0)
            if policy == "ultradelta" and _native.lib.deltazoo_lossy_at(self.handle, number, len(tensors), lossy) == _native.OK:
                numbers = (lossy.sparsity, lossy.bits, lossy.kept)
            tensors.append(TensorInfo(_native.text(t.name), _native.text(t.dtype), tuple(t.shape[0:t.ndim]), policy, t.nbytes, t.stored_bytes, *numbers,
                                      self._quality(number, len(tensors))))
        return number, tensors, {info.name: i for i, info in enumerate(tensors)}

    def tensors(self, task: str) -> List[TensorInfo]:
        return self.index(task)[1]

    def base_of(self, task: str, name: str) -> Optional[BaseTensor]:
        self.handle  # none of a closed one
        if task not in self._bases:
            self._bases[task] = self._read_bases(task)
        return self._bases[task][name]

    def _read_bases(self, task: str) -> Dict[str, Optional[BaseTensor]]:
        found: Dict[str, Optional[BaseTensor]] = {}
        t = _native.ffi.new("deltazoo_tensor *")
        with self.lock:
            number, _, named = self.index(task)
            for name, i in named.items():
                known = _native.lib.deltazoo_base_of(self.handle, number, i, t) == _native.OK
                found[name] = (_native.text(t.name), _native.text(t.dtype), tuple(t.shape[0:t.ndim])) if known else None
        return found

    def _set_base(self, path: Optional[str]) -> None:
        absolute = None if path is None else os.path.abspath(path)  # of two working directories one path can mean two models
        if self.base_path != absolute:
            self.base_path = None
            self._call("deltazoo_set_base", _native.ffi.NULL if path is None else os.fsencode(path))
            self.base_path = absolute

    def read_base(self, name: str, path: Optional[str], out: Any) -> None:
        """The bytes of a base tensor from the model at `path`, or as the archive holds it, digests checked."""
        if self._base_numbers is None:
            self._base_numbers = {t[0]: i for i, t in enumerate(self.base_tensors())}
        with self.lock:
            self._set_base(path)
            self._call("deltazoo_base_read", self._base_numbers[name], _native.address(out))

    def restore_into(self, task: str, name: str, first: int, count: int, base: Any, out: Any) -> None:
        """Elements of a tensor into memory. base: a path, the bytes of the whole base tensor, or None where it has none."""
        number, _, named = self.index(task)
        with self.lock:
            if isinstance(base, str) or (base is None and self.stored() is not None):
                self._set_base(base)
                base = None
            self._call("deltazoo_restore_part", number, named[name], first, count, _native.address(base), _native.address(out))

    def delta(self, task: str, name: str, out: np.ndarray) -> None:
        number, _, named = self.index(task)
        with self.lock:
            self._call("deltazoo_delta", number, named[name], _native.ffi.cast("float *", out.ctypes.data))

    def delta_sparse(self, task: str, name: str) -> Tuple[np.ndarray, np.ndarray]:
        number, tensors, named = self.index(task)
        info = tensors[named[name]]
        room = info.kept if info.bits < 17 else int(np.prod(info.shape, dtype=np.int64))
        where, what, count = np.empty(room, np.uint64), np.empty(room, np.float32), _native.ffi.new("uint64_t *", room)
        with self.lock:
            self._call("deltazoo_delta_sparse", number, named[name], count, _native.ffi.cast("uint64_t *", where.ctypes.data),
                       _native.ffi.cast("float *", what.ctypes.data))
        return where[:count[0]].astype(np.int64), what[:count[0]].copy()

    def restore_model(self, tasks: Sequence[str], weights: Sequence[float], sign_consensus: bool, base: Optional[str], out: str, force: bool,
                      sync: bool) -> None:
        self.handle  # none of a closed one
        made, message = _native.ffi.new("deltazoo_made *"), _native.Message()
        names = [_native.ffi.new("char[]", task.encode("utf-8", "surrogateescape")) for task in tasks]
        with _native.opening:
            code = _native.lib.deltazoo_restore_model(os.fsencode(self.where()), _native.ffi.new("char *[]", names), _native.ffi.new("double[]", list(weights)),
                                                      len(names), sign_consensus, _native.ffi.NULL if base is None else os.fsencode(base), os.fsencode(out), force, sync, made, *message.args)
        if code:
            raise failed(code, str(message))

    def verify(self, base: Optional[str]) -> Tuple[int, int, int]:
        self.handle  # none of a closed one
        checked, message = _native.ffi.new("deltazoo_checked *"), _native.Message()
        with _native.opening:
            code = _native.lib.deltazoo_verify(os.fsencode(self.where()), _native.ffi.NULL if base is None else os.fsencode(base), checked, *message.args)
        if code:
            raise failed(code, str(message))
        return checked.ntasks, checked.ntensors, checked.nblocks


def put(raw: np.ndarray, out: Any) -> None:
    if isinstance(out, int):
        import ctypes
        ctypes.memmove(out, raw.ctypes.data, raw.nbytes)
    elif out is not None:
        np.copyto(out, raw)


class PureEngine:
    """The reader in Python alone. One thread at a time, and its HDF5 file is opened anew in a child process."""

    name = "python"

    def __init__(self, source: Any) -> None:
        from . import pure
        self.pure, self.source, self.lock, self.lost = pure, source, threading.Lock(), []  # type: Any, Any, threading.Lock, List[str]
        self._absolute = "" if hasattr(source, "read") else os.path.abspath(source)
        self._open()

    def _open(self) -> None:
        with translated(self.pure):
            self.archive = self.pure.Archive(self.where())
        self.path, self.closed = self.archive.path, False
        self.process = os.getpid()

    def close(self) -> None:
        with self.lock:
            self.archive.close()
            self.closed = True

    def clone(self) -> "PureEngine":
        return PureEngine(self.where())

    def where(self) -> Any:
        if hasattr(self.source, "read") or os.path.abspath(self.source) == self._absolute:
            return self.source
        return self._absolute

    def after_fork(self) -> None:
        self.lock = threading.Lock()

    def _ready(self) -> Any:
        if self.closed:
            raise Error(f"{self.path}: the archive is closed")
        if self.process != os.getpid():
            if hasattr(self.source, "read"):
                raise Error(f"{self.path}: was opened as a file object by another process: open it in this one")
            self._open()
        return self.archive

    def stored(self) -> Optional[str]:
        return self._ready().stored

    def tasks(self) -> List[str]:
        with translated(self.pure):
            return list(self._ready().tasks)

    def task(self, name: str) -> TaskInfo:
        with translated(self.pure):
            numbers, tensors = self._ready().task(name), self._ready().tensors(name)
            numbers["quality"] = self._ready().quality(name)
        return TaskInfo(name, numbers["recipe"], numbers["sparsity"], numbers["gamma"], numbers["trace_norm"], numbers["source_bytes"],
                        sum(t.stored_bytes for t in tensors), len(tensors), Quality(*numbers["quality"]))

    def base(self) -> BaseInfo:
        archive = self._ready()
        attributes = archive.file["base"].attrs
        origin, revision = (self.pure.text(attributes.get(key, b"")) for key in ("origin", "revision"))
        return BaseInfo(archive.base_name, archive.fingerprint, origin, revision, len(archive.base), self.stored())

    def base_tensors(self) -> List[BaseTensor]:
        return [(t.name, t.dtype, t.shape) for t in self._ready().base]

    def tensors(self, task: str) -> List[TensorInfo]:
        with translated(self.pure):
            archive = self._ready()
            return [TensorInfo(*t, Quality(*archive.quality(task, t.name))) for t in archive.tensors(task)]

    def base_of(self, task: str, name: str) -> Optional[BaseTensor]:
        with translated(self.pure):
            base = self._ready()._row(task, name)[0].base
        return None if base is None else (base.name, base.dtype, base.shape)

    def read_base(self, name: str, path: Optional[str], out: Any) -> None:
        with self.lock, translated(self.pure):
            archive = self._ready()
            number = [t.name for t in archive.base].index(name)
            if path is None:
                raw = archive._stored_base(number)
            else:
                raw = archive._open_base(path)[name][2]
                archive._digests(number, raw, path)
        put(raw, out)

    def restore_into(self, task: str, name: str, first: int, count: int, base: Any, out: Any) -> None:
        with self.lock, translated(self.pure):
            raw = self._ready().restore_bytes(task, name, base)
            size = self.pure.SIZES.get(self._ready()._row(task, name)[1].tensor.dtype, 1)
        put(raw[first * size:(first + count) * size], out)

    def delta(self, task: str, name: str, out: np.ndarray) -> None:
        with self.lock, translated(self.pure):
            np.copyto(out, self._ready().delta(task, name).reshape(-1))

    def delta_sparse(self, task: str, name: str) -> Tuple[np.ndarray, np.ndarray]:
        with self.lock, translated(self.pure):
            return self._ready().delta_sparse(task, name)

    def restore_model(self, tasks: Sequence[str], weights: Sequence[float], sign_consensus: bool, base: Optional[str], out: str, force: bool,
                      sync: bool) -> None:
        if len(tasks) != 1 or weights[0] != 1:
            raise Error(f"{self.path}: a sum of tasks needs the C library: {_native.why_not}")
        with self.lock, translated(self.pure):
            self._ready().restore_model(tasks[0], base, out, force)

    def verify(self, base: Optional[str]) -> Tuple[int, int, int]:
        if base is not None:
            raise Error(f"{base}: only the C library verifies a base: {_native.why_not}")
        with self.lock, translated(self.pure):
            try:
                return self._ready().check()
            except self.pure.Error as error:
                raise type(error)(f"{self.path}: {error}") from None


class translated:
    """The Python reader's exceptions as the package's."""

    def __init__(self, pure: Any) -> None:
        self.pure = pure

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        if isinstance(value, self.pure.Error):
            raise (Damaged if isinstance(value, self.pure.Damaged) else Error)(str(value)) from None
