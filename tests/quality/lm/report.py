#!/usr/bin/env python3
"""Table and plot from experiment.py's rows.

usage: report.py OUT REPORT PLOT.png"""
import json
import os
import statistics
import sys

import evaluate
import experiment
import matplotlib
import settings

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "paper"))
from provenance import provenance  # noqa: E402


READING = "## What it says\n"


def rows_of(out, family):
    """{name: rows of all seeds}, of the given programs, in the order of experiment.ROWS."""
    marks = {p: experiment.fingerprint(path) if path else None for p, path in ((experiment.NEW, experiment.DELTAZOO), (experiment.OLD, experiment.REFERENCE), (None, None))}
    found = {name: [] for name in experiment.ROWS}
    folder = os.path.join(out, "rows")
    for file in sorted(os.listdir(folder)):
        if file.endswith(".json"):
            row = json.load(open(os.path.join(folder, file)))
            if row["family"] == family and row["name"] in found and row["fingerprint"] == marks[row["program"]]:
                found[row["name"]].append(row)
    return {name: rows for name, rows in found.items() if rows}


def shares(rows, task):
    return [row["tasks"][task]["share"] for row in rows]


def cell(rows, task):
    values = shares(rows, task)
    mean = lambda key: statistics.mean(row["tasks"][task][key] for row in rows)
    text = f"{mean('bytes') / 1e6:.1f} | {8 * mean('lossy_bytes') / mean('lossy_parameters'):.3f} | " if mean("lossy_parameters") else f"{mean('bytes') / 1e6:.1f} | - | "
    text += f"{mean('nsr'):.3g} | {statistics.mean(values):.3f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values) / len(values) ** 0.5:.3f} ({min(values):.3f})"
    return text


def family_text(out, family, found):
    tasks = list(settings.TASKS[family])
    lines = [f"## {family}", "", "| task | trained on | loss of the base | fine-tuned | gain ± standard error | elements that moved | rel |", "|---" * 7 + "|"]
    for task in tasks:
        r = json.load(open(os.path.join(out, family, task + ".json"))) | evaluate.gain(out, family, task)
        lines.append(f"| {task} | {r['task'].removeprefix('Task')} | {r['base']:.3f} | {r['tuned']:.3f} | {r['gain']:.4f} ± {r['gain_error']:.4f} | {100 * r['moved']:.1f} % | {r['rel']:.2g} |")
    done = {name: [r for r in rows if "tasks" in r] for name, rows in found.items()}
    whole = lambda rows: f"{statistics.mean(r['archive'] for r in rows) / 1e6:.1f}"
    gains = {task: evaluate.gain(out, family, task)["gain"] for task in tasks}
    lost = lambda rows: statistics.mean((1 - r["tasks"][t]["share"]) * gains[t] for r in rows for t in tasks)
    each = lambda rows: [statistics.mean(shares(rows, t)) for t in tasks]
    lines += ["", "All tasks together. Share: mean over tasks and seeds, and the worst task (mean of its seeds). Loss: nats above the fine-tuned model, mean over tasks and seeds.", "",
              "| method | seeds | archive, MB | share, mean | worst task | loss |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | {len(rows)} | {whole(rows)} | {statistics.mean(each(rows)):.3f} | {min(each(rows)):.3f} ({tasks[each(rows).index(min(each(rows)))]}) | {lost(rows):.4f} |" if rows
              else f"| {name} | - | skipped: {found[name][0]['refused']} | | | |" for name, rows in done.items()]
    for task in tasks:
        lines += ["", f"### {family}: {task}", "", "| method | MB, everything | bits a lossy element | nsr | share ± standard error of the mean (worst seed) |", "|---|---|---|---|---|"]
        lines += [f"| {name} | {cell(rows, task)} |" for name, rows in done.items() if rows]
        error = statistics.mean(r["tasks"][task]["error"] for rows in done.values() for r in rows)
        lines += ["", f"Seeds: {max(len(rows) for rows in done.values())}. The held-out text alone makes a share uncertain by {error:.3f} (mean over the rows); methods are compared on the same text."]
    return lines, done


def main():
    out, text_path, plot_path = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3]
    here = provenance()
    families = [family for family in settings.TASKS if rows_of(out, family)]
    panels = [(family, task) for family in families for task in settings.TASKS[family]]
    figure, axes = plt.subplots(2, 3, figsize=(15, 8))
    text = ["# Quality on language models", "", "    make quality-lm      # tests/quality/lm/run.sh: zoo, all methods, three noise seeds, this report", "",
            f"SmolLM2-135M-Instruct and MiniLM-L6-v2, fully fine-tuned (tests/quality/lm/settings.py). Share: part of the fine-tuning gain in held-out loss that the restored model keeps. "
            f"nsr: energy of restored minus true delta over the true one's, all lossy tensors, measured. LoRA: mergekit's algorithm, done here. "
            f"Commit {here['commit']}. Machine: {here['machine']}.", "", f"![share against bits]({os.path.basename(plot_path)})", ""]
    for family in families:
        lines, done = family_text(out, family, rows_of(out, family))
        text += [*lines, ""]
        for axis, (owner, task) in zip(axes.flat, panels):
            if owner != family:
                continue
            for i, (name, rows) in enumerate(done.items()):
                bits = [8 * r["tasks"][task]["lossy_bytes"] / max(1, r["tasks"][task]["lossy_parameters"]) for r in rows]
                if rows and min(bits) > 0:
                    values = shares(rows, task)
                    axis.errorbar(statistics.mean(bits), statistics.mean(values), yerr=[[statistics.mean(values) - min(values)], [max(values) - statistics.mean(values)]],
                                  marker="os^vD*"[i % 6], color=plt.cm.tab20(i % 20), label=name, capsize=2, linestyle="")
            axis.axhline(1, color="grey", linewidth=0.8, linestyle="--")
            axis.set(xscale="log", xlabel="bits a lossy element, on disk", ylabel="share of the gain kept", title=f"{family}: {task}")
            axis.set_ylim(max(-0.2, axis.get_ylim()[0]), max(1.05, min(1.3, axis.get_ylim()[1])))
            axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=7)
    for axis in axes.flat[len(panels):]:
        axis.set_visible(False)
    figure.tight_layout()
    figure.savefig(plot_path, dpi=110)
    reading = ""  # written by hand, and kept
    if os.path.exists(text_path):
        reading = open(text_path, encoding="utf-8").read().partition(READING)[2]
    with open(text_path, "w", encoding="utf-8") as f:
        f.write("\n".join(text).rstrip() + "\n" + (f"\n{READING}{reading}" if reading else ""))


if __name__ == "__main__":
    main()
