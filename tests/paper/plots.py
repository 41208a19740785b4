"""The plots of paper.md, from the measured tables."""
import math
import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from models import MODELS  # noqa: E402

COLOURS = {"vit-b-32": "tab:blue", "roberta-base": "tab:orange", "llama-2-7b": "tab:green"}


def save(figure, out, scale, name):
    figure.tight_layout()
    figure.savefig(os.path.join(out, f"paper-{'full-' if scale == 'full' else ''}{name}.png"), dpi=80, metadata={"Software": None})
    plt.close(figure)


def formulas(p):
    entropy = -p * math.log2(p) - (1 - p) * math.log2(1 - p)
    return 16 / (4 * p), 16 / (entropy + 4 * p)


def sparsity(paper, out, scale):
    rows = [(k, v) for k, v in paper.items() if k[0] == "sweep"]
    if not rows:
        return
    figure, axes = plt.subplots(figsize=(9, 6))
    ps = [0.1 * 50 ** (-i / 60) for i in range(61)]
    axes.plot(ps, [formulas(p)[0] for p in ps], "k--", lw=1.2, label="16/(b p): paper, first version")
    axes.plot(ps, [formulas(p)[1] for p in ps], "k:", lw=1.6, label="16/(H(p) + b p): paper, last version")
    for model in COLOURS:
        for tails, style, marker in (("gauss", "-", "o"), ("t4", "-.", "^")):
            curve = sorted((1 - float(v["sparsity"]), v) for k, v in rows if k[1] == model and k[4] == tails)
            if curve:
                xs = [p for p, _ in curve]
                axes.plot(xs, [float(v["lossy_on_disk"]) for _, v in curve], style, marker=marker, ms=5, color=COLOURS[model], label=f"{model}, {tails}: on disk")
                axes.plot(xs, [int(v["lossy_source_bytes"]) / float(v["kept_values"]) for _, v in curve], "_", ms=14, color=COLOURS[model])
    axes.plot([], [], "_", ms=14, color="grey", label="entropy bounds")
    axes.set(xscale="log", yscale="log", xlabel="share of the elements that is kept, p = 1 - sparsity", ylabel="ratio of the lossy tensors (16-bit source)")
    axes.invert_xaxis()
    ticks = [0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002]
    axes.set_xticks(ticks, [f"{100 * p:g} %" for p in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, loc="upper left")
    save(figure, out, scale, "sparsity")


PARTS = (("kept_values", "kept values (entropy)", "tab:blue"), ("positions_and_codes", "positions, code tables, heads", "tab:orange"), ("checks", "checksums, lengths", "tab:red"),
         ("index", "index", "tab:purple"), ("structures", "HDF5 structures", "tab:brown"), ("shared_bytes", "shared by tasks", "tab:pink"), ("exact_tensors", "exact tensors", "lightgrey"))


def parts(paper, out, scale):
    rows = [(k, v) for k, v in paper.items() if k[0] == "headline" and k[4] == "gauss" and (k[5] == "2" or scale == "full") and k[6] in ("paper", "paper, positions coded")]
    figure, panels = plt.subplots(1, 2, figsize=(13, 0.36 * len(rows) + 2), sharey=True)
    labels = [f"{k[1]}{'' if int(k[2]) == MODELS[k[1]].blocks else f' ({k[2]} of {MODELS[k[1]].blocks} blocks)'}{', pos. coded' if 'coded' in k[6] else ''}" for k, _ in rows]
    for axes, names, title in ((panels[0], PARTS, "everything"), (panels[1], PARTS[:-1], "without the exact tensors")):
        left = [0.0] * len(rows)
        for column, label, colour in names:
            share = [100 * float(v[column]) / sum(float(v[c]) for c, _, _ in names) for _, v in rows]
            axes.barh(range(len(rows)), share, left=left, color=colour, label=label)
            left = [a + b for a, b in zip(left, share)]
        axes.set(xlabel="share of the archive's bytes, %", title=title, xlim=(0, 100))
    panels[0].set_yticks(range(len(rows)), labels)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, ncol=4, loc="lower center", fontsize=9)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(os.path.join(out, f"paper-{'full-' if scale == 'full' else ''}bytes.png"), dpi=80, metadata={"Software": None})
    plt.close(figure)


def norms(table, times, out, scale):
    sizes = list(dict.fromkeys(k[0] for k in table))
    sizes.sort(key=lambda s: math.prod(map(int, s.split(" x "))))
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5))
    settings = sorted({k[1:] for k in table})
    for i, (tails, s) in enumerate(settings):
        points = [(sizes.index(k[0]), table[k]) for k in table if k[1:] == (tails, s)]
        left.errorbar([x + 0.15 * (i - 1.5) for x, _ in points], [100 * float(v["relative_error"]) for _, v in points], yerr=[200 * float(v["standard_error"]) for _, v in points], fmt="o", ms=4,
                      capsize=3, label=f"{tails}, sparsity {s}")
    left.axhline(0, color="k", lw=0.8)
    left.set(ylabel="error of the trace norm, %", title="quadrature against singular values; bars: 2 standard errors as reported")
    for method, label, marker in (("exact_seconds", "exact: LAPACK, one core", "s"), ("slq_seconds", "slq", "o")):
        mean = [[float(v[method]) for k, v in times.items() if k[0] == size] for size in sizes]
        right.plot(range(len(sizes)), [sum(m) / len(m) for m in mean], marker=marker, label=label)
    right.set(yscale="log", ylabel="seconds, one rank, mean", title="time for one matrix")
    for axes in (left, right):
        axes.set_xticks(range(len(sizes)), sizes, rotation=25, ha="right")
        axes.set_xlabel("matrix")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    save(figure, out, scale, "norms")


def ranks(table, out, scale):
    phases = ("open", "statistics", "histogram", "code", "trace_norm", "write")
    keys = sorted(table, key=lambda k: int(k[0]))
    figure, axes = plt.subplots(figsize=(8, 5))
    bottom = [0.0] * len(keys)
    for phase in phases:
        seconds = [float(table[k][phase]) for k in keys]
        axes.bar(range(len(keys)), seconds, bottom=bottom, label=phase.replace("_", " "), width=0.6)
        bottom = [a + b for a, b in zip(bottom, seconds)]
    one = float(table[keys[0]]["seconds"])
    axes.plot(range(len(keys)), [one / int(k[0]) for k in keys], "k_", ms=40, mew=2, label="one rank's time\nover ranks")
    axes.set_xticks(range(len(keys)), [f"{k[0]} rank{'s' if k[0] != '1' else ''}" + ("\nmore than cores" if table[k]["oversubscribed"] == "yes" else "") for k in keys])
    axes.set(ylabel="seconds (slowest rank of each phase)", title="ViT-B/32, 8 tasks, the paper's recipe")
    axes.legend(fontsize=9, markerscale=0.4, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.grid(axis="y", alpha=0.3)
    save(figure, out, scale, "ranks")


KINDS = (("attn.in_proj", "o"), ("attn.out_proj", "s"), ("mlp.c_fc", "^"), ("mlp.c_proj", "v"))


def layers(table, out, scale):
    tails = list(dict.fromkeys(k[3] for k in table))
    recipes = ("paper", "auto at 200x")
    shown = [float(v["relative_error"]) for k, v in table.items() if k[5] in recipes]
    figure, panels = plt.subplots(1, len(tails), figsize=(4 * len(tails) + 2, 5), sharey=True, squeeze=False)
    for axes, law in zip(panels[0], tails):
        for recipe, colour in zip(recipes, ("tab:blue", "tab:red")):
            for kind, marker in KINDS:
                points = sorted((int(k[6].split("resblocks.")[1].split(".")[0]), float(v["relative_error"])) for k, v in table.items() if k[3] == law and k[5] == recipe and kind in k[6])
                axes.plot(*zip(*points), marker=marker, ms=5, lw=0.8, color=colour, label=f"{recipe}: {kind}")
        axes.set(yscale="log", xlabel="block", title=f"deltas: {law}")
        axes.set_xticks(range(0, 12, 1 if len(tails) < 3 else 2))
        axes.grid(alpha=0.3, which="both")
    ticks = [t for t in (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100) if min(shown) * 0.9 <= t <= max(shown) * 1.1]
    panels[0][0].set_ylim(min(shown) * 0.9, max(shown) * 1.1)
    panels[0][0].set_yticks(ticks, [str(t) for t in ticks])
    panels[0][0].set_yticks([], minor=True)
    panels[0][0].set_ylabel("|restored - true| / |true delta|")
    panels[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    save(figure, out, scale, "layers")


def draw(tables, out, scale):
    sparsity(tables["paper"], out, scale)
    parts(tables["paper"], out, scale)
    if tables["paper-norms"]:
        norms(tables["paper-norms"], tables["paper-norms-times"], out, scale)
    if tables["paper-ranks-times"]:
        ranks(tables["paper-ranks-times"], out, scale)
    if tables["paper-layers"]:
        layers(tables["paper-layers"], out, scale)
