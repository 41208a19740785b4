"""What the package raises and returns."""

from __future__ import annotations

from typing import NamedTuple, Optional, Tuple


class Error(Exception):
    """What cannot be done, and what to do about it, in one line that names file, tensor and value."""


class Damaged(Error):
    """The archive is not what it was when it was written."""


class BaseInfo(NamedTuple):
    """The base model as the archive knows it; "" for what it does not know. fingerprint: hexadecimal. task: the name under which the archive holds
    the base itself, which restoring then needs no other copy of; None: it does not."""

    name: str
    fingerprint: str
    origin: str
    revision: str
    ntensors: int
    task: Optional[str] = None


class Quality(NamedTuple):
    """What restoring is expected to cost. cosine: between the restored and the true delta. gain: the share of the delta that is restored.
    noise_to_delta, noise_to_base: energy of the noise over that of the delta at this gain, and over that of the base's weights. delta, base: these
    energies, sums of squares. verdict: "exact", "high", "balanced", "small", "poor"; "unknown" of archives of format version 1 with the Python reader."""

    cosine: float = 1.0
    gain: float = 1.0
    noise_to_delta: float = 0.0
    noise_to_base: float = 0.0
    delta: float = 0.0
    base: float = 0.0
    verdict: str = "exact"


class TaskInfo(NamedTuple):
    """A task. source_bytes: of all its tensors. stored_bytes: what they take in the archive; the Python reader counts the payload only, the C
    library index and file structures too."""

    name: str
    recipe: str
    sparsity: float
    gamma: float
    trace_norm: float
    source_bytes: int
    stored_bytes: int
    ntensors: int
    quality: Quality = Quality()


class TensorInfo(NamedTuple):
    """A tensor of a task. dtype: safetensors' name ("BF16"). policy: "ultradelta" (lossy), "lossless", "equal", "drop" or "tied". sparsity, bits and
    kept (elements) are 0 unless it is lossy."""

    name: str
    dtype: str
    shape: Tuple[int, ...]
    policy: str
    nbytes: int
    stored_bytes: int
    sparsity: float
    bits: int
    kept: int
    quality: Quality = Quality()
