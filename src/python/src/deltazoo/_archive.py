"""An open archive."""

from __future__ import annotations

import atexit
import fnmatch
import html
import io
import math
import os
import queue
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple, Union

import numpy as np

from . import _native
from ._engines import NativeEngine, PureEngine
from ._memory import FLOATS, SIZES, bytes_of, check_framework, finished, new, widened
from ._types import BaseInfo, Damaged, Error, Quality, TaskInfo, TensorInfo

if TYPE_CHECKING:
    from ._live import Live

Path = Union[str, "os.PathLike[str]"]
Source = Any  # the path of an archive, or a file object that can seek and read bytes
Base = Any  # a path, a mapping from the base's names to its tensors, or (for one tensor) that tensor of the base

open_archives: "weakref.WeakSet[Archive]" = weakref.WeakSet()


def after_fork() -> None:
    for archive in list(open_archives):
        archive._engine.after_fork()
        archive._clones.clear()  # opened anew where they are needed


def at_exit() -> None:
    """h5py crashes where a file that it reads through a Python object is still open at the end."""
    for archive in list(open_archives):
        if hasattr(archive._source, "read"):
            archive.close()


os.register_at_fork(after_in_child=after_fork)
atexit.register(at_exit)


def size_text(nbytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if nbytes < 1000 or unit == "TB":
            break
        nbytes /= 1000
    return f"{nbytes:.3g} {unit}"


def table(rows: List[List[str]], right: Tuple[int, ...]) -> str:
    """Lines of columns as wide as need be; those of `right` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(w) if k in right else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths))).rstrip() for row in rows)


def html_table(title: str, rows: List[List[str]]) -> str:
    """The same for notebooks."""
    lines = [f"<caption>{html.escape(title)}</caption>"]
    for k, row in enumerate(rows):
        tag = "td" if k else "th"
        lines.append("<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return "<table>" + "".join(lines) + "</table>"


RIGHT = (2, 3, 4, 5, 6, 7)  # columns of numbers in a table of tasks
SHOWN = 60  # rows of a longer table, half of them from its end


def quality_cells(quality: Quality) -> List[str]:
    """Noise against delta and base, and the verdict."""
    return [f"{quality.noise_to_delta:.3g}", f"{quality.noise_to_base:.2g}", quality.verdict]


def shortened(rows: List[List[str]]) -> List[List[str]]:
    """A table whose middle is left out where it is long; the first row is its head."""
    left_out = len(rows) - 1 - SHOWN
    if left_out <= 0:
        return rows
    return rows[:1 + SHOWN // 2] + [[f"... {left_out} more: tensors() has them"] + [""] * (len(rows[0]) - 1)] + rows[-(SHOWN // 2):]


class Bar:
    """Progress in bytes, by tqdm if it is wanted and installed."""

    def __init__(self, wanted: bool, total: int, what: str) -> None:
        self.bar = None
        if wanted:
            try:
                from tqdm.auto import tqdm
                self.bar = tqdm(total=total, unit="B", unit_scale=True, desc=what)
            except ImportError:
                pass

    def add(self, nbytes: int) -> None:
        if self.bar is not None:
            self.bar.update(nbytes)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class Archive:
    """An archive, open for reading; `with` closes it. Objects can be sent to other processes (they open the file again there), and used in a child
    after fork.

    path: of the file, or a file object that can seek and read bytes, such as fsspec.open(URL).open(): of a remote archive only the index and the
    blocks that are asked for are read (by the Python reader; in one process).
    engine: "native" (the C library), "python", or None: the first that works."""

    def __init__(self, path: Source, engine: Optional[str] = None) -> None:
        remote = hasattr(path, "read")
        if isinstance(path, io.TextIOBase):
            raise Error(f"{getattr(path, 'name', path)!r} is open as text: open it with mode 'rb'")
        self._source = path if remote else os.fspath(path)
        self._wanted, self._infos = engine, {}  # type: Optional[str], Dict[str, Dict[str, TensorInfo]]
        if engine not in (None, "native", "python"):
            raise Error(f"engine {engine!r}: 'native' or 'python'")
        if remote and engine == "native":
            raise Error("engine 'native': reads files by their paths only")
        native = engine != "python" and not remote and _native.load()
        if engine == "native" and not native:
            raise Error(f"engine 'native': {_native.why_not}")
        self._engine: Any = NativeEngine(self._source) if native else PureEngine(self._source)
        self.path: str = self._engine.path
        self._clones: List[Any] = []
        open_archives.add(self)

    def __reduce__(self) -> Tuple[Any, ...]:
        return Archive, (self._engine.where(), self._wanted)

    def close(self) -> None:
        """Closes the file. Tensors that it gave stay."""
        for engine in (self._engine, *self._clones):
            engine.close()

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # -- what it has

    @property
    def engine(self) -> str:
        """What reads it: "native" or "python"."""
        return self._engine.name

    @property
    def tasks(self) -> List[str]:
        """The tasks' names, sorted. A base that the archive holds (base.task) is none of them."""
        stored = self._engine.stored()
        return [name for name in self._engine.tasks() if name != stored]

    @property
    def base(self) -> BaseInfo:
        """The base model that the archive was made from."""
        return self._engine.base()

    @property
    def lost(self) -> List[str]:
        """A line for each part that is damaged and cannot be read. (The Python reader raises Damaged where it meets one.)"""
        return list(self._engine.lost)

    def task(self, name: str) -> TaskInfo:
        """What is known of a task."""
        self._check_task(name)
        return self._engine.task(name)

    def tensors(self, task: str, pattern: str = "*") -> List[TensorInfo]:
        """The tensors of a task whose names match, in the order of its files."""
        self._check_task(task)
        return [t for t in self._engine.tensors(task) if fnmatch.fnmatchcase(t.name, pattern)]

    def base_of(self, task: str, name: str) -> Optional[Tuple[str, str, Tuple[int, ...]]]:
        """(name, dtype, shape) of the base's tensor that a tensor is restored from; None: it needs none."""
        self._info(task, name)
        return self._engine.base_of(task, name)

    def _check_task(self, task: str) -> None:
        if task not in self._engine.tasks():
            lost = next((line for line in self.lost if f"'{task}'" in line), None)
            raise Error(lost or f"{self.path}: no task {task!r}; it has {', '.join(self.tasks)}")

    def _info(self, task: str, name: str) -> TensorInfo:
        index = self._infos
        if task not in index:
            self._check_task(task)
            index[task] = {t.name: t for t in self._engine.tensors(task)}
        if name not in index[task]:
            raise Error(f"{self.path}: task {task} has no tensor {name!r}; tensors({task!r}) lists what it has")
        return index[task][name]

    # -- one tensor

    def _base_for(self, task: str, name: str, base: Base) -> Any:
        """What the engine takes as a tensor's base: a path, bytes, or None."""
        needed = self._engine.base_of(task, name)
        if needed is None:
            return None
        base_name, dtype, shape = needed
        if isinstance(base, Mapping):
            if base_name not in base:
                raise Error(f"{self.path}: task {task}: {name} needs the base's {base_name}, which the base given has not")
            base = base[base_name]
        if base is None and self._engine.stored() is not None:
            return None
        if base is None:
            raise Error(f"{self.path}: task {task}: {name} needs the base's {base_name} ({dtype}, {list(shape)}): give base=, a path or that tensor")
        if isinstance(base, (str, os.PathLike)):
            return os.fspath(base)
        try:
            raw = bytes_of(base, dtype)
        except Error as error:
            raise Error(f"{self.path}: task {task}: {name}: base: {error}; give a path, a mapping, or {base_name} ({dtype}, {list(shape)})") from None
        if dtype in SIZES and len(raw) != SIZES[dtype] * int(np.prod(shape, dtype=np.int64)):
            raise Error(f"{self.path}: task {task}: {name}: base has {len(raw)} bytes, {base_name} is {dtype} {list(shape)}")
        return raw

    def _fill(self, engine: Any, task: str, name: str, first: int, count: int, base: Base, out: Any) -> None:
        try:
            engine.restore_into(task, name, first, count, self._base_for(task, name, base), out)
        except Error as error:
            raise self._named(task, name, error) from None

    def _named(self, task: str, name: str, error: Error, advice: str = "") -> Error:
        """The error with file, task and tensor, if it has not got them."""
        line = str(error)
        return type(error)(line if name in line and self.path in line else f"{self.path}: task {task}: {name}: {line}{advice}")

    def _restore(self, engine: Any, task: str, name: str, base: Base, framework: str) -> Any:
        info = self._info(task, name)
        memory, out = new(info.dtype, info.shape, info.nbytes, framework)
        self._fill(engine, task, name, 0, info.nbytes // SIZES.get(info.dtype, 1), base, out)
        return finished(memory, info.dtype, info.shape)

    def restore(self, task: str, name: str, base: Base = None, framework: str = "np") -> Any:
        """A tensor as the task has it: a numpy array (of BF16 and F8 the f32 of the same values), or with framework="pt" a torch tensor.

        base: a path (of a .safetensors file, a folder, PyTorch's files), the base's tensor, or a mapping that has it; not needed for what has none.
        Checksums, and the base's digests, are checked."""
        return self._restore(self._engine, task, name, base, framework)

    def restore_bytes(self, task: str, name: str, base: Base = None) -> np.ndarray:
        """A tensor's bytes as they are in a .safetensors file, an array of u8."""
        info = self._info(task, name)
        raw = np.empty(info.nbytes, np.uint8)
        self._fill(self._engine, task, name, 0, info.nbytes // SIZES.get(info.dtype, 1), base, raw)
        return raw

    def _lossy(self, task: str, name: str, advice: str) -> TensorInfo:
        info = self._info(task, name)
        if info.policy == "tied":
            raise Error(f"{self.path}: task {task}: {name} is tied to another tensor: take that one's delta, or restore it")
        if info.policy != "ultradelta":
            raise Error(f"{self.path}: task {task}: {name} is {info.policy}, not ultradelta: {advice}")
        return info

    def delta_sparse(self, task: str, name: str) -> Tuple[np.ndarray, np.ndarray]:
        """(positions in the flat tensor, ascending, i64; values, f32) of what is not 0 in a lossy tensor's delta. No base is needed."""
        self._lossy(task, name, "delta(..., base=...) gives the difference")
        try:
            return self._engine.delta_sparse(task, name)
        except Error as error:
            raise self._named(task, name, error) from None

    def delta(self, task: str, name: str, base: Base = None) -> np.ndarray:
        """What a tensor adds to the base's, gamma and scale applied: a dense f32 array. One that is not lossy, or that is coded against another task,
        needs `base`: its delta is the difference, 0 beyond the base's elements."""
        info = self._info(task, name)
        if info.policy == "ultradelta":
            out = np.empty(int(np.prod(info.shape, dtype=np.int64)), np.float32)
            try:
                self._engine.delta(task, name, out)
                return out.reshape(info.shape)
            except Damaged:
                raise
            except Error as error:  # coded against another task
                if base is None and self._engine.stored() is None:
                    raise self._named(task, name, error, ": delta(..., base=...) gives the difference") from None
        needed = self._engine.base_of(task, name)
        if needed is None or info.dtype not in FLOATS:
            raise Error(f"{self.path}: task {task}: {name} has no delta ({info.dtype}, base {needed[0] if needed else 'none'}): restore it")
        dense = widened(self.restore_bytes(task, name, base), info.dtype).copy()
        raw = self._base_for(task, name, base)
        old = widened(self._base_bytes(task, name, raw) if raw is None or isinstance(raw, str) else raw, needed[1])[:dense.size]
        dense[:old.size] -= old
        dense[old.size:] = 0
        return dense.reshape(info.shape)

    def _base_bytes(self, task: str, name: str, path: Optional[str]) -> np.ndarray:
        base_name, dtype, shape = self._engine.base_of(task, name)
        raw = np.empty(SIZES[dtype] * int(np.prod(shape, dtype=np.int64)), np.uint8)
        self._engine.read_base(base_name, path, raw)
        return raw

    # -- many tensors

    def iter(self, task: str, base: Base = None, framework: str = "np", pattern: str = "*", progress: bool = False) -> Iterator[Tuple[str, Any]]:
        """(name, tensor) of a task, one made after the other: only the current one is in memory."""
        check_framework(framework)
        chosen = self.tensors(task, pattern)
        bar = Bar(progress, sum(t.nbytes for t in chosen), task)
        try:
            for info in chosen:
                yield info.name, self.restore(task, info.name, base, framework)
                bar.add(info.nbytes)
        finally:
            bar.close()

    def load_state_dict(self, task: str, base: Base = None, framework: str = "pt", pattern: str = "*", device: Any = None, dtype: Any = None,
                        threads: Optional[int] = None, progress: bool = False) -> Dict[str, Any]:
        """A task's model as {name: tensor}, without files in between, for torch's load_state_dict or transformers' from_pretrained(state_dict=...).

        Each tensor is made in its place; beside the model, memory for one tile (some 10 MB) is needed by each of `threads` (by default as many as this
        process has processors, at most 4; with the Python reader there is one). device, dtype: torch only, applied to each tensor as it is made
        (dtype: of floating-point ones)."""
        check_framework(framework)
        if (device is not None or dtype is not None) and framework != "pt":
            raise Error("device and dtype: only with framework='pt'")
        if dtype is not None and type(dtype).__name__ != "dtype" or type(dtype).__module__ == "numpy.dtypes":
            raise Error(f"dtype {dtype!r}: one of torch's, such as torch.float16")
        chosen = self.tensors(task, pattern)
        bar = Bar(progress, sum(t.nbytes for t in chosen), task)

        def made(engine: Any, info: TensorInfo) -> Any:
            tensor = self._restore(engine, task, info.name, base, framework)
            if device is not None or dtype is not None:
                tensor = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
            bar.add(info.nbytes)
            return tensor

        try:
            if threads is None:
                threads = min(4, len(os.sched_getaffinity(0)))
            if threads <= 1 or self.engine != "native":
                return {info.name: made(self._engine, info) for info in chosen}
            return self._by_threads(chosen, made, min(threads, max(len(chosen), 1)))
        finally:
            bar.close()

    def _by_threads(self, chosen: List[TensorInfo], made: Callable[[Any, TensorInfo], Any], threads: int) -> Dict[str, Any]:
        """The library leaves Python's lock while it decodes; each thread has a handle of its own."""
        free: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        while len(self._clones) < threads - 1:
            self._clones.append(self._engine.clone())
        for engine in (self._engine, *self._clones[:threads - 1]):
            free.put(engine)

        def run(info: TensorInfo) -> Any:
            engine = free.get()
            try:
                return made(engine, info)
            finally:
                free.put(engine)

        with ThreadPoolExecutor(threads) as pool:
            jobs = {info.name: pool.submit(run, info) for info in sorted(chosen, key=lambda t: -t.nbytes)}
            try:
                return {info.name: jobs[info.name].result() for info in chosen}
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def load_into(self, model: Any, task: Optional[str], base: Base = None, strict: bool = True, progress: bool = False) -> "Live":
        """Puts a task's values into a live torch model, in place. The Live that it returns swaps other tasks in and the old values back."""
        from ._live import Live
        live = Live(self, model, base, strict)
        live.load(task, progress)
        return live

    def open_task(self, task: str, base: Base = None, framework: str = "np") -> "TaskReader":
        """A task as safetensors' safe_open has a file: keys(), get_tensor(name), get_slice(name)[2:5]."""
        self._check_task(task)
        check_framework(framework)
        return TaskReader(self, task, base, framework)

    # -- models on disk

    def restore_model(self, task: Union[str, Mapping[str, float]], base: Optional[Path], out: Path, force: bool = False, sign_consensus: bool = False,
                      sync: bool = True) -> List[str]:
        """Makes all files of a task's model in the directory `out`, as `deltazoo restore` does; a mapping {task: weight} adds several tasks' deltas
        up. base: None where the archive holds it. Returns the files' paths in it. force: replaces the files of an earlier restore. Nothing is left of a restore that fails."""
        tasks = {task: 1.0} if isinstance(task, str) else dict(task)
        if not tasks:
            raise Error(f"{self.path}: no task is given; it has {', '.join(self.tasks)}")
        for name, weight in tasks.items():
            self._check_task(name)
            if not math.isfinite(weight):
                raise Error(f"{self.path}: task {name}: weight {weight} is no number")
        self._engine.restore_model(list(tasks), list(tasks.values()), sign_consensus, None if base is None else os.fspath(base), os.fspath(out), force, sync)
        found = [os.path.relpath(os.path.join(where, name), out) for where, _, names in os.walk(out) for name in names]
        return sorted(path for path in found if path != "deltazoo.json")

    def verify(self, base: Optional[Path] = None) -> Tuple[int, int, int]:
        """Checks the structure and every checksum, and decodes every block; with `base`, checks its digests too. Returns the numbers of tasks,
        tensors and blocks; raises Damaged with the first problem."""
        return self._engine.verify(None if base is None else os.fspath(base))

    # -- for notebooks

    def _rows(self) -> List[List[str]]:
        rows = [["task", "recipe", "tensors", "bytes", "stored", "ratio", "noise/delta", "noise/base", "quality"]]
        for name in self.tasks:
            t = self.task(name)
            rows.append([name, t.recipe, str(t.ntensors), size_text(t.source_bytes), size_text(t.stored_bytes), f"{t.source_bytes / max(t.stored_bytes, 1):.1f}",
                         *quality_cells(t.quality)])
        return rows

    def plot(self, task: Optional[str] = None, by: str = "layer") -> Any:
        """A matplotlib figure (pip install deltazoo[plot]) of bytes and noise: of the tasks, or of one task's layers (by="layer") or kinds of tensors
        (by="kind"). A notebook shows it; figure.savefig(FILE) keeps it."""
        from ._plots import plot_archive, plot_task
        if task is None:
            return plot_archive(self)
        self._check_task(task)
        return plot_task(self, task, by)

    def _title(self) -> str:
        return f"{self.path}: base {self.base.name or self.base.fingerprint}"

    def __repr__(self) -> str:
        try:
            return f"{self._title()}\n{table(self._rows(), RIGHT)}"
        except Exception as error:  # a closed one
            return f"<deltazoo.Archive {self.path!r}: {error}>"

    def _repr_html_(self) -> str:
        return html_table(self._title(), self._rows())


class TaskReader:
    """A task of an archive behind the calls of safetensors' safe_open. `with` is allowed; the archive stays open."""

    def __init__(self, archive: Archive, task: str, base: Base, framework: str) -> None:
        self.archive, self.task, self.base, self.framework = archive, task, base, framework

    def __enter__(self) -> "TaskReader":
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def keys(self) -> List[str]:
        """The tensors' names, in the order of the task's files."""
        return [t.name for t in self.archive.tensors(self.task)]

    def get_tensor(self, name: str) -> Any:
        return self.archive.restore(self.task, name, self.base, self.framework)

    def get_slice(self, name: str) -> "Slice":
        """A tensor of which only the tiles that are asked for are decoded."""
        return Slice(self, self.archive._info(self.task, name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def _rows(self) -> List[List[str]]:
        return [["tensor", "dtype", "shape", "policy", "bytes", "stored", "noise/delta", "noise/base", "quality"]] + [
            [t.name, t.dtype, "x".join(map(str, t.shape)) or "scalar", t.policy, str(t.nbytes), str(t.stored_bytes), *quality_cells(t.quality)]
            for t in self.archive.tensors(self.task)]

    def _title(self) -> str:
        t = self.archive.task(self.task)
        noise, _, verdict = quality_cells(t.quality)
        return (f"{self.archive.path}: task {self.task}: {size_text(t.source_bytes)} in {size_text(t.stored_bytes)}; quality {verdict}" +
                (f", noise/delta {noise}" if verdict != "exact" else ""))

    def plot(self, by: str = "layer") -> Any:
        """A matplotlib figure of bytes and noise by layer or by kind of tensor (Archive.plot)."""
        return self.archive.plot(self.task, by)

    def __repr__(self) -> str:
        try:
            return f"{self._title()}\n{table(shortened(self._rows()), (4, 5, 6, 7))}"
        except Exception as error:  # of a closed archive
            return f"<deltazoo.TaskReader {self.task!r} of {self.archive.path!r}: {error}>"

    def _repr_html_(self) -> str:
        return html_table(self._title(), shortened(self._rows()))


class Slice:
    """A tensor that is indexed before it is read, as safetensors' slices are."""

    def __init__(self, reader: TaskReader, info: TensorInfo) -> None:
        self.reader, self.info = reader, info

    def get_shape(self) -> List[int]:
        return list(self.info.shape)

    def get_dtype(self) -> str:
        return self.info.dtype

    def __getitem__(self, index: Any) -> Any:
        """Indexes as numpy does (integers, slices, ...). Along the first dimension only the rows in question are restored."""
        info, archive = self.info, self.reader.archive
        parts = index if isinstance(index, tuple) else (index,)
        if not info.shape or not parts or info.dtype not in SIZES or not isinstance(parts[0], (int, np.integer, slice)):
            return self.reader.get_tensor(info.name)[index]
        rows, row = info.shape[0], int(np.prod(info.shape[1:], dtype=np.int64))
        if isinstance(parts[0], slice):
            chosen = range(rows)[parts[0]]
            begin, end = (min(chosen), max(chosen) + 1) if len(chosen) else (0, 0)
            step = slice(None, None, parts[0].step) if parts[0].step is None or parts[0].step > 0 else None
            if step is None:
                return self.reader.get_tensor(info.name)[index]
            rest: Tuple[Any, ...] = (step, *parts[1:])
        else:
            begin = range(rows)[parts[0]]
            end, rest = begin + 1, (0, *parts[1:])
        shape = (end - begin, *info.shape[1:])
        memory, out = new(info.dtype, shape, (end - begin) * row * SIZES[info.dtype], self.reader.framework)
        if end > begin and row:
            archive._fill(archive._engine, self.reader.task, info.name, begin * row, (end - begin) * row, self.reader.base, out)
        return finished(memory, info.dtype, shape)[rest]


def open(path: Source, engine: Optional[str] = None) -> Archive:
    """Opens an archive, given by its path or a file object; `with` closes it. engine: "native" (the C library), "python" (the reader in Python alone), None: the first that works."""
    return Archive(path, engine)


def load_state_dict(archive: Union[Source, Archive], task: str, base: Base = None, **options: Any) -> Dict[str, Any]:
    """Archive.load_state_dict of an archive given by its path, a file object or open already."""
    if isinstance(archive, Archive):
        return archive.load_state_dict(task, base, **options)
    with open(archive) as z:
        return z.load_state_dict(task, base, **options)


def load_into(model: Any, archive: Union[Source, Archive], task: Optional[str], base: Base = None, **options: Any) -> "Live":
    """Archive.load_into of an archive given by its path, a file object or open already."""
    return (archive if isinstance(archive, Archive) else open(archive)).load_into(model, task, base, **options)


__all__ = ["Archive", "Slice", "TaskReader", "load_into", "load_state_dict", "open"]
