"""OUT/paper.md and its plots from the tables that run.py measured. Nothing is measured here."""
import os

from models import MODELS

MB = 1e6


def number(text, digits=1):
    return "-" if text == "" else f"{float(text):.{digits}f}"


def percent(x):
    return f"{100 * x:.2g} %"


def density(line):
    return int(line["kept"]) / int(line["parameters"])


def verdict(key, line):
    """Is the row above the paper's first headline, and if not, why."""
    first, ours = MODELS[key[1]].first, float(line["lossy_on_disk"])
    if ours > first:
        return "yes"
    if key[6].startswith("auto"):
        return f"no: {key[6].split()[-1]} was asked for" if " at " in key[6] else "no: the target was missed"
    if "positions coded" in key[6]:
        return f"no: this row pays for positions, as the last version counts ({float(line['positions_coded']):.1f})"
    headline, p, formula = 16 / (4 * first), 1 - float(line["sparsity"]), float(line["value_bits"])
    if p > 1.01 * headline:
        return f"no: the headline is of p = {percent(headline)}, here p = {percent(p)}; there its formula gives {formula:.1f}, ours is {'above' if ours > formula else 'below'} that"
    return f"no: {ours / first:.3f} of it"


def model_label(key):
    m = MODELS[key[1]]
    return m.name + (f" ({key[2]} of {m.blocks} blocks)" if int(key[2]) != m.blocks else "")


def distinct(lines, column):
    return ", ".join(sorted({line[column] for line in lines}))


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *("| " + " | ".join(r) + " |" for r in rows), ""]


def headline_section(paper, times):
    rows, above = [], 0
    for key, line in ((k, v) for k, v in paper.items() if k[0] == "headline"):
        m, time, why = MODELS[key[1]], times[key], verdict(key, line)
        above += why == "yes"
        rows.append([model_label(key), key[3], key[4], key[5], key[6], f"{float(line['sparsity']):.4f}", f"{m.first:g}", f"{m.last:g}", number(line["value_bits"]),
                     number(line["positions_coded"]), f"**{number(line['lossy_on_disk'])}**", number(line["whole_on_disk"]), why, number(line["relative_error"], 2),
                     number(line["cosine"], 3), time["ranks"], number(time["seconds"], 2), number(float(time["task_bytes_per_second"]) / MB, 0),
                     number(float(time["peak_memory_bytes"]) / MB, 0)])
    return [f"{above} of {len(rows)} rows are above the paper's first headline; each of the others says why not.", "",
            *table(["model", "dtype", "deltas", "tasks", "recipe", "sparsity", "paper, first headline", "paper, last headline", "16/(b p)", "16/(H(p) + b p)", "ours on disk, lossy",
                    "ours on disk, whole model", "above the first headline", "relative error", "cosine", "ranks", "seconds", "task MB/s", "MB a rank"], rows)]


def sweep_section(paper):
    rows = [[model_label(k), k[3], k[4], f"{float(v['sparsity']):.3f}", f"**{number(v['lossy_on_disk'])}**", number(v["whole_on_disk"]),
             f"{int(v['lossy_stored_bytes']) / float(v['kept_values']):.3f}", number(v["value_bits"]), number(v["positions_coded"])]
            for k, v in paper.items() if k[0] == "sweep"]
    return table(["model", "dtype", "deltas", "sparsity", "lossy", "whole", "over the entropy", "16/(b p)", "16/(H(p) + b p)"], rows)


def bytes_section(paper, scale):
    names = ("kept_values", "positions_and_codes", "checks", "index", "structures", "exact_tensors")
    rows = []
    for key, line in paper.items():
        if key[0] == "headline" and key[4] == "gauss" and (key[5] == "2" or scale == "full") and key[6] in ("paper", "paper, positions coded"):
            rows.append([model_label(key), key[6], *(f"{float(line[n]):,.0f}" for n in names), f"{int(line['shared_bytes']):,}", f"{int(line['archive_bytes']):,}"])
    return table(["model", "recipe", "kept values (entropy)", "positions, code tables, heads", "checksums, lengths", "index", "HDF5", "exact tensors", "shared tables", "archive"], rows)


def plan_section(plan, paper):
    rows = []
    for (model, blocks, recipe), line in plan.items():
        measured = next((v for k, v in paper.items() if k[0] == "headline" and k[1] == model and k[4] == "gauss" and k[6] == recipe), None)
        lossy, predicted = int(line["lossy_bytes"]), int(line["predicted_lossy_stored_bytes"])
        rows.append([model, blocks, recipe, line["tensors"], f"{lossy / 1e9:.2f} GB", f"{int(line['lossless_bytes']) / 1e9:.2f} GB", f"{predicted / MB:.1f} MB" if predicted else "-", f"{lossy / predicted:.1f}" if predicted else "-",
                     number(measured["lossy_on_disk"]) if measured else "-"])
    return table(["model", "blocks", "recipe", "tensors", "lossy, bytes in", "exact, bytes in", "lossy, predicted", "predicted ratio", "measured on the blocks above"], rows)


def norms_section(norms, times):
    rows = [[*k, v["exact"], v["slq"], f"{100 * float(v['relative_error']):+.2f} %", f"{100 * float(v['standard_error']):.2f} %", number(times[k]["exact_seconds"], 3), number(times[k]["slq_seconds"], 4),
             f"{float(times[k]['exact_seconds']) / float(times[k]['slq_seconds']):.0f}"] for k, v in norms.items()]
    return table(["matrix", "deltas", "sparsity", "exact (LAPACK)", "slq", "error", "standard error reported", "exact, s", "slq, s", "times faster"], rows)


def ranks_section(ranks):
    phases = ("open", "statistics", "histogram", "code", "trace_norm", "write")
    one = float(ranks[("1",)]["seconds"])
    rows = [[k[0] + (" (more than cores)" if v["oversubscribed"] == "yes" else ""), number(v["seconds"], 2), f"{one / float(v['seconds']):.2f}", *(number(v[p], 2) for p in phases),
             number(float(v["peak_memory_bytes"]) / MB, 0)] for k, v in ranks.items()]
    return table(["ranks", "seconds", "speed-up", *(p.replace("_", " ") for p in phases), "MB a rank"], rows)


BEGIN, END = "<!-- begin: from paper.csv by tests/paper/report.py -->\n", "<!-- end -->\n"


def digest(paper):
    """A line for each model: normal deltas, two tasks."""
    rows = []
    for m in MODELS.values():
        of = {k[6]: (k, v) for k, v in paper.items() if k[0] == "headline" and k[1] == m.name and k[4:6] == ("gauss", "2")}
        if not {"paper", "auto", "paper, positions coded"} <= of.keys():
            continue
        key, line = of["paper"]
        auto, coded = of["auto"][1], of["paper, positions coded"][1]
        rows.append([model_label(key), percent(1 - float(line["sparsity"])), f"{m.first:g}", f"{m.last:g}", number(line["value_bits"]), f"**{number(line['lossy_on_disk'])}**",
                     f"{int(line['lossy_source_bytes']) / float(line['kept_values']):.1f}", number(line["whole_on_disk"]), number(coded["lossy_on_disk"]), number(auto["lossy_on_disk"])])
    return table(["model", "density", "paper, first", "paper, last", "16/(b p)", "ours on disk, lossy", "entropy bound", "whole model", "positions coded, lossy", "auto, lossy"], rows)


def refresh(path, paper):
    """The digest in OUT/README.md, where there is one."""
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as file:
        before, _, rest = file.read().partition(BEGIN)
    _, end, after = rest.partition(END)
    if end:
        with open(path, "w", encoding="utf-8") as file:
            file.write(before + BEGIN + "\n" + "\n".join(digest(paper)) + "\n" + END + after)


def picture(name, what, out, scale):
    file = f"paper-{'full-' if scale == 'full' else ''}{name}.png"
    return [f"![{what}]({file})", ""] if os.path.exists(os.path.join(out, file)) else []


def write(tables, out, scale):
    try:
        import plots
        plots.draw(tables, out, scale)
    except ImportError as error:
        print(f"no plots: {error}")
    paper, times = tables["paper"], tables["paper-times"]
    command = {"small": "make experiments", "full": "sbatch jobs/experiments.sbatch", "tiny": "tests/paper/run.py --scale tiny"}[scale]
    stem = "paper-full" if scale == "full" else "paper"
    tasks = "eight tasks, two of LLaMA" if scale == "full" else "two tasks"
    show = lambda name, what: picture(name, what, out, scale)
    text = [f"# The paper's models at true shape{', full scale' if scale == 'full' else ''}", "",
            f"Command: `{command}` (tests/paper/run.py; cheap rows alone: `tests/paper/run.py --rows cheap --write`). Commit {distinct(times.values(), 'commit')}. Machine: "
            f"{distinct(times.values(), 'machine')}. Figures: `{stem}*.csv`; a second run gives the same but for `*-times.csv` and the times below. Whole models unless blocks are named.", "",
            "Weights are synth's (`deltazoo synth --seed 11`): true names and shapes, random deltas. `gauss`: normal, the hardest to code; `t8`, `t4`: Student's t of 8 and 4 degrees of freedom with a",
            "rank-8 part of 30 % of the energy, ever heavier tails, which stretch the min-max grid: such deltas code to less and say less. Ratios need no training; accuracy does, and results/quality.md has it.",
            "*On disk* is bytes of the tensors in their files over bytes they really take, everything counted, as `info --json` tells; *paper* columns are the headlines of the abstracts (v1, v3 of arXiv",
            "2505.13563), \"up to\" for each family; the two formulas are those versions' ways of counting, at this row's own density. Relative error and cosine: of task-1's restored delta against the true one.", "",
            "## Beside the headlines", "", *headline_section(paper, times)]
    if any(k[0] == "sweep" for k in paper):
        text += ["## Ratio against sparsity", "", f"Default recipe, {tasks}. *Over the entropy*: stored bytes of the lossy tensors over kept values times the entropy of their levels.", "",
                 *show("sparsity", "ratio against sparsity"), *sweep_section(paper)]
    text += ["## Where the bytes go", "", f"Paper's recipe, normal deltas, {tasks}; bytes, as `info --json` splits them. *Kept values*: at the entropy of their levels, the bound for any code of theirs.", "",
             *show("bytes", "where the bytes go"), *bytes_section(paper, scale)]
    if tables["paper-plan"]:
        text += ["## LLaMA in full, planned", "", "`deltazoo plan` on headers of every block (no data is read).", "", *plan_section(tables["paper-plan"], paper)]
    if tables["paper-norms"]:
        text += ["## Trace norm against the exact SVD", "", "One pruned matrix, one rank: stochastic Lanczos quadrature (`tracenorm: slq`) against LAPACK's singular values (`exact`). In a model of many matrices the",
                 "errors, which are independent, average out.", "", *show("norms", "trace norm"), *norms_section(tables["paper-norms"], tables["paper-norms-times"])]
    if tables["paper-ranks-times"]:
        text += ["## Ranks", "", "ViT-B/32, 8 tasks, paper's recipe; medians of three. The archives of all runs have the same bytes.", "", *show("ranks", "scaling over ranks"), *ranks_section(tables["paper-ranks-times"])]
    text += ["## Error per layer", "", f"`{stem}-layers.csv`: |restored - true| / |true delta|, Frobenius, of each lossy tensor of ViT-B/32's task-1. Most of it is the noise of sampling, sqrt(k/p) for values of",
             "second moment k: it exceeds the delta itself and averages out over a row (results/quality.md).", "", *show("layers", "error per layer")]
    with open(os.path.join(out, stem + ".md"), "w", encoding="utf-8") as file:
        file.write("\n".join(text).rstrip() + "\n")
    if scale == "small":
        refresh(os.path.join(out, "README.md"), paper)
    print(f"{out}/{stem}.md")
