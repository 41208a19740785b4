#!/usr/bin/python3
"""Tables and plot from experiment.py's files.

usage: report.py OUT.md OUT.png FILE.json..."""
import json
import os
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "paper"))
from provenance import provenance  # noqa: E402

BESIDE = "## Beside an older version\n"
CURVES = {"ultradelta, positions coded": "UltraDelta, positions coded (paper)", "+tngr": "UltraDelta, seeded positions", "auto": "auto",
          "dare": "DARE, fp16, seeded", "magnitude": "magnitude, fp16"}


def groups(rows):
    """{(method, setting): rows of all seeds}, in order."""
    out = {}
    for row in rows:
        out.setdefault((row["method"], row["sets"][-1] if row["sets"] else ""), []).append(row)
    return out


def mean(rows, key):
    return statistics.mean(r[key] for r in rows)


def spread(rows):
    values = [r["accuracy"] for r in rows]
    return f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""


def at_bits(points, bits):
    """Accuracy of a curve at a size, by linear interpolation in log bits; None outside it."""
    import math
    points = sorted(points)
    for (b0, a0), (b1, a1) in zip(points, points[1:]):
        if b0 <= bits <= b1:
            w = (math.log(bits) - math.log(b0)) / (math.log(b1) - math.log(b0))
            return a0 + w * (a1 - a0)
    return None


def family_text(data):
    rows, tuned = data["rows"], next(r["accuracy"] for r in data["rows"] if r["method"] == "fine-tuned")
    base = next(r["accuracy"] for r in rows if r["method"] == "base")
    by = groups(rows)
    curve = {m: [(mean(r, "bits"), mean(r, "accuracy")) for (name, _), r in by.items() if name == m] for m in CURVES}
    out = [f"## {data['family']}", "", f"Mean accuracy, {data['split']} split: base {base:.1f}, fine-tuned {tuned:.1f}.", "",
           "| auto, target ratio | real ratio | bits per parameter | accuracy | loss | UltraDelta, positions coded, at equal bytes | UltraDelta, seeded, at equal bytes |",
           "|---|---|---|---|---|---|---|"]
    for (method, setting), r in by.items():
        if method == "auto":
            other = [at_bits(curve[m], mean(r, "bits")) for m in ("ultradelta, positions coded", "+tngr")]
            out.append(f"| {setting.split('=')[1]}x | {mean(r, 'ratio'):.1f}x | {mean(r, 'bits'):.4f} | {mean(r, 'accuracy'):.1f}{spread(r)} | "
                       f"{tuned - mean(r, 'accuracy'):.1f} | " + " | ".join("-" if o is None else f"{o:.1f}" for o in other) + " |")
    sparsities = sorted({s for m, s in by if m == "dare"})
    out += ["", "Ablation (accuracy; bits per parameter on disk):", "", "| | " + " | ".join(s.split("=")[1] for s in sparsities) + " |", "|---" * (len(sparsities) + 1) + "|"]
    for m in ("dare", "+dac", "+msa", "+tngr"):
        out.append(f"| {m} | " + " | ".join(f"{mean(by[m, s], 'accuracy'):.1f}{spread(by[m, s])} ({mean(by[m, s], 'bits'):.3f})" for s in sparsities) + " |")
    out += ["", "Variants, one seed (accuracy; bits per parameter):", "", "| | " + " | ".join(s.split("=")[1] for s in sparsities[1:]) + " |", "|---" * len(sparsities) + "|"]
    for m in sorted({m for m, _ in by if m.startswith(("ultradelta", "magnitude"))}):
        out.append(f"| {m} | " + " | ".join(f"{mean(by[m, s], 'accuracy'):.1f} ({mean(by[m, s], 'bits'):.3f})" if (m, s) in by else "-" for s in sparsities[1:]) + " |")
    for (m, s), r in by.items():
        if m == "bitdelta":
            out += ["", f"bitdelta: {mean(r, 'accuracy'):.1f} at {mean(r, 'bits'):.3f} bits."]
    return out, curve, tuned, base


def seeds_of(path):
    """How many, and how many of method auto where that differs."""
    rows = json.load(open(path))["rows"]
    count = lambda auto: 1 + max((r["seed"] for r in rows if (r["method"] == "auto") == auto), default=-1)
    return f"{count(False)}" + (f" (auto {count(True)})" if count(True) != count(False) else "")


def main():
    text_path, plot_path, files = sys.argv[1], sys.argv[2], sys.argv[3:]
    here = provenance()
    figure, axes = plt.subplots(1, len(files), figsize=(6.5 * len(files), 4.5), squeeze=False)
    text = ["# Quality at a given size", "", "Command: `make experiments` (tests/quality/run.sh): trains the zoos, compresses and restores them with the program, measures accuracy. "
            "Bits per parameter are the lossy tensors' bytes on disk, everything counted. ±: standard deviation over seeds. Seeds: " +
            ", ".join(f"{f.split('/')[-1]} {seeds_of(f)}" for f in files) + f". Commit {here['commit']}. Machine: {here['machine']}.", "", "![accuracy against bits](quality.png)", ""]
    for axis, path in zip(axes[0], files):
        data = json.load(open(path))
        lines, curve, tuned, base = family_text(data)
        text += [*lines, ""]
        for method, label in CURVES.items():
            points = sorted(curve[method])
            axis.plot([b for b, _ in points], [a for _, a in points], marker="o", markersize=3.5, label=label)
        axis.axhline(tuned, color="grey", linewidth=0.8, linestyle="--")
        axis.axhline(base, color="grey", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xlabel="bits per lossy parameter, on disk", ylabel="mean accuracy, %", title=f"{data['family']}, {data['split']} split")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(plot_path, dpi=110)
    kept = ""  # made by beside.py
    if os.path.exists(text_path):
        kept = open(text_path, encoding="utf-8").read().partition(BESIDE)[2]
    with open(text_path, "w", encoding="utf-8") as f:
        f.write("\n".join(text).rstrip() + "\n" + (f"\n{BESIDE}{kept}" if kept else ""))


if __name__ == "__main__":
    main()
