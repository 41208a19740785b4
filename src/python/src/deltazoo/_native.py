"""The C library (include/deltazoo.h, src/lib/model.h) through cffi. It is in the package as libdeltazoo.so; `load` says whether it can be used."""

from __future__ import annotations

import os
import threading
from typing import Any, Optional

import numpy as np

DECLARATIONS = """
typedef struct deltazoo_archive deltazoo_archive;
typedef struct { const char *name, *recipe; double sparsity, gamma, trace_norm; uint64_t source_bytes, stored_bytes; } deltazoo_task;
typedef struct { const char *name, *dtype, *policy; uint32_t ndim; uint64_t shape[8]; uint64_t nbytes, stored_bytes; } deltazoo_tensor;
typedef struct { double sparsity; uint32_t bits; uint64_t kept; double nsr, gain, delta_rms, base_rms; } deltazoo_lossy;
typedef struct { double cosine, gain, noise_to_delta, noise_to_base, delta, base; const char *verdict; } deltazoo_quality;
typedef struct { const char *name, *origin, *revision; char fingerprint[33]; uint64_t ntensors; } deltazoo_base;
typedef struct { uint64_t ntensors, nbytes, nfiles; } deltazoo_made;
typedef struct { uint64_t ntasks, ntensors, nblocks, nproblems; } deltazoo_checked;
const char *deltazoo_version(void);
int deltazoo_open(const char *, deltazoo_archive **, char *, size_t);
void deltazoo_close(deltazoo_archive *);
size_t deltazoo_task_count(const deltazoo_archive *);
int deltazoo_task_at(const deltazoo_archive *, size_t, deltazoo_task *);
size_t deltazoo_lost_count(const deltazoo_archive *);
const char *deltazoo_lost(const deltazoo_archive *, size_t);
size_t deltazoo_tensor_count(const deltazoo_archive *, size_t);
int deltazoo_tensor_at(const deltazoo_archive *, size_t, size_t, deltazoo_tensor *);
int deltazoo_base_of(const deltazoo_archive *, size_t, size_t, deltazoo_tensor *);
int deltazoo_lossy_at(const deltazoo_archive *, size_t, size_t, deltazoo_lossy *);
int deltazoo_quality_of(const deltazoo_archive *, size_t, size_t, deltazoo_quality *);
void deltazoo_base_info(const deltazoo_archive *, deltazoo_base *);
int deltazoo_base_at(const deltazoo_archive *, size_t, deltazoo_tensor *);
int deltazoo_stored_base(const deltazoo_archive *, size_t *);
int deltazoo_set_base(deltazoo_archive *, const char *, char *, size_t);
int deltazoo_base_read(deltazoo_archive *, size_t, void *, char *, size_t);
int deltazoo_restore_part(deltazoo_archive *, size_t, size_t, uint64_t, uint64_t, const void *, void *, char *, size_t);
int deltazoo_delta(deltazoo_archive *, size_t, size_t, float *, char *, size_t);
int deltazoo_delta_sparse(deltazoo_archive *, size_t, size_t, uint64_t *, uint64_t *, float *, char *, size_t);
int deltazoo_restore_model(const char *, const char *const *, const double *, size_t, int, const char *, const char *, int, int, deltazoo_made *,
                           char *, size_t);
int deltazoo_verify(const char *, const char *, deltazoo_checked *, char *, size_t);
"""

OK, FAIL, USAGE, DAMAGE, NOMEM = 0, 1, 2, 3, 5
WHOLE = 2 ** 64 - 1  # in place of a tensor: the task
ROOM = 4096  # of a message

ffi: Any = None
lib: Any = None
why_not: Optional[str] = "not loaded yet"
opening = threading.Lock()  # the HDF5 library in the package is for one thread at a time; only opening uses it


def load() -> bool:
    """Loads the library once. False: `why_not` has the reason."""
    global ffi, lib, why_not
    if why_not != "not loaded yet":
        return lib is not None
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libdeltazoo.so")
    try:
        import cffi
        maker = cffi.FFI()
        maker.cdef(DECLARATIONS)
        loaded = maker.dlopen(path)
        loaded.deltazoo_version
        ffi, lib, why_not = maker, loaded, None
    except (ImportError, OSError, AttributeError) as error:
        why_not = "the package was built without it" if not os.path.exists(path) else str(error)
    return lib is not None


def forget_locks() -> None:
    """In a child process: nobody holds the lock there."""
    global opening
    opening = threading.Lock()


os.register_at_fork(after_in_child=forget_locks)


def text(pointer: Any) -> str:
    return "" if pointer == ffi.NULL else ffi.string(pointer).decode("utf-8", "surrogateescape")


class Message:
    """Where the library puts the text of a failure."""

    def __init__(self) -> None:
        self.room = ffi.new("char[]", ROOM)
        self.args = (self.room, ROOM)

    def __str__(self) -> str:
        return ffi.string(self.room).decode("utf-8", "replace")


def address(memory: Any) -> Any:
    """A pointer to a buffer (numpy array, bytes, memoryview), or an address as a number."""
    if memory is None:
        return ffi.NULL
    if isinstance(memory, int):
        return ffi.cast("void *", memory)
    if isinstance(memory, np.ndarray):
        return ffi.cast("void *", memory.ctypes.data)
    return ffi.from_buffer(memory)
