"""Plots for notebooks, by matplotlib (pip install deltazoo[plot]): bytes beside noise, of an archive's tasks, or of the layers or kinds of one task."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Sequence, Tuple

from ._types import Error, Quality, TensorInfo

if TYPE_CHECKING:
    from ._archive import Archive

COLOURS = {"exact": "#2a7f62", "high": "#4c9f70", "balanced": "#e0a030", "small": "#d9772b", "poor": "#c0392b", "unknown": "#888888"}


def figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise Error("plots need matplotlib: pip install 'deltazoo[plot]'") from None
    return Figure


def layer_of(name: str) -> str:
    """The first number of a tensor's name: "layer 7"; "other" where there is none."""
    found = re.search(r"(?:^|[._])(\d+)(?=[._]|$)", name)
    return f"layer {int(found[1])}" if found else "other"


def kind_of(name: str) -> str:
    """A tensor's name without numbers, and without what only says that it is a weight of a model."""
    parts = [part for part in name.split(".") if not part.isdigit()]
    if len(parts) > 1 and parts[-1] == "weight":
        parts.pop()
    return ".".join(parts[-2:])


GROUPS: Dict[str, Callable[[str], str]] = {"layer": layer_of, "kind": kind_of}


def together(qualities: Sequence[Quality]) -> Tuple[float, float]:
    """(noise to delta, noise to base) of several tensors: energies are added up (METHODS.md "Noise"). nan: not known."""
    delta = sum(q.delta for q in qualities)
    noise = sum(q.noise_to_delta * q.gain * q.gain * q.delta for q in qualities if q.gain)
    inner, base = sum(q.gain * q.delta for q in qualities), sum(q.base for q in qualities)
    if delta == 0:
        return 0.0, 0.0
    return noise * delta / inner ** 2 if inner else math.inf, noise / base if base else math.nan


def grouped(tensors: Sequence[TensorInfo], by: str) -> List[Tuple[str, int, float, float]]:
    """(group, stored bytes, noise to delta, noise to base) by layer, in their order with others last, or by kind, the largest first."""
    if by not in GROUPS:
        raise Error(f"by={by!r}: 'layer' or 'kind'")
    found: Dict[str, List[TensorInfo]] = {}
    for t in tensors:
        found.setdefault(GROUPS[by](t.name), []).append(t)
    rows = [(group, sum(t.stored_bytes for t in own), *together([t.quality for t in own if t.policy != "tied"])) for group, own in found.items()]
    if by == "layer":
        return sorted(rows, key=lambda row: (row[0] == "other", int(row[0].split()[1]) if row[0] != "other" else 0))
    return sorted(rows, key=lambda row: -row[1])


def bars(names: Sequence[str], nbytes: Sequence[float], noises: Sequence[float], colours: Sequence[str], title: str) -> Any:
    """Two panels of horizontal bars: stored bytes, and noise in units of the delta's energy. What is exact has no bar there, and says so."""
    figure = figure_class()(figsize=(9, max(2.0, 0.6 + 0.24 * len(names))), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = list(range(len(names)))
    left.barh(places, [n / 1e6 for n in nbytes], color=colours)
    left.set_yticks(places, list(names))
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_xlabel("stored, MB")
    right.barh(places, [noise if math.isfinite(noise) else 0 for noise in noises], color=colours)
    right.set_xlim(left=0)
    right.set_xlabel("noise / energy of the delta")
    for place, noise in zip(places, noises):
        if noise == 0 or not math.isfinite(noise):
            right.text(0, place, " exact" if noise == 0 else " nothing restored" if math.isinf(noise) else " unknown", va="center", fontsize="small")
    figure.suptitle(title)
    return figure


def plot_archive(archive: "Archive") -> Any:
    """A figure of the tasks: stored bytes, and noise, coloured by verdict."""
    tasks = [archive.task(name) for name in archive.tasks]
    names = [f"{t.name} ({t.quality.verdict})" for t in tasks]
    return bars(names, [t.stored_bytes for t in tasks], [t.quality.noise_to_delta for t in tasks], [COLOURS[t.quality.verdict] for t in tasks],
                archive._title())


def plot_task(archive: "Archive", task: str, by: str) -> Any:
    """A figure of one task's layers or kinds."""
    rows, verdict = grouped(archive.tensors(task), by), archive.task(task).quality.verdict
    return bars([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], [COLOURS[verdict]] * len(rows),
                f"{archive.path}: task {task}, by {by}; quality {verdict}")
