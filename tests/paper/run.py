#!/usr/bin/python3
"""The paper's models at true shape, compressed by this program: sizes as `deltazoo info --json` counts them, beside the paper's headlines.

usage: run.py [--scale small|full|tiny] [--parts rows,plan,norms,ranks] [--rows all|cheap] [--write | --check] [--out DIR] [--work DIR] [--ranks N]

  small   whole models but LLaMA's, of which a few blocks (minutes on two cores)      full   LLaMA-2-7B whole, more tasks (40 GB in --work)
  tiny    one block of ViT-B/32 and stand-ins for LLaMA: only to see that all runs
  --write (the default) merges what was measured into OUT/paper*.csv and makes OUT/paper.md and the plots from them; paper-full* for the full scale
  --check measures the rows again and compares with the committed ones: exit 1 unless the largest relative difference is 0

*-times.csv hold what differs from run to run; all other CSV files are the same in every run of one version. DELTAZOO names the program."""
import argparse
import csv
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass

sys.path[:0] = [os.path.dirname(__file__), os.path.join(os.path.dirname(__file__), "..")]
import report  # noqa: E402
from launcher import environment  # noqa: E402
from models import MODELS, ROOT  # noqa: E402
from provenance import provenance  # noqa: E402

DELTAZOO = os.environ.get("DELTAZOO", os.path.join(ROOT, "build", "deltazoo"))
ENV = environment()
LAUNCH = os.environ.get("LAUNCH", "mpirun").split()
SEED = "11"
TAILS = ("gauss", "t8", "t4")
SWEEP = ("0.90", "0.95", "0.97", "0.98", "0.99", "0.995", "0.998")
SWEPT = ("vit-b-32", "roberta-base", "llama-2-7b")
LAYERED = ("vit-b-32",)  # whose error is kept tensor by tensor
EQUAL = ("auto at 200x", "auto", ("target_ratio=200",))  # about the bytes of the paper's recipe for ViT-B/32
STAND_INS = ("llama-2-7b", "vit-b-32")  # at the tiny scale
# What stays the same in every run, and what does not.
KEY = ("part", "model", "blocks", "dtype", "tails", "tasks", "recipe")
PARTS = ("kept_values", "positions_and_codes", "checks", "exact_tensors", "index", "structures")
FIGURES = ("sparsity", "parameters", "kept", "source_bytes", "archive_bytes", "shared_bytes", "lossy_source_bytes", "lossy_stored_bytes", "lossy_on_disk",
           "whole_on_disk", "value_bits", "positions_coded", "gamma_min", "trace_norm_error", "relative_error", "cosine", *PARTS)
TIMES = ("ranks", "seconds", "task_bytes_per_second", "peak_memory_bytes", "commit", "machine")


@dataclass(frozen=True)
class Zoo:
    model: str
    blocks: int
    tails: str
    tasks: int


@dataclass(frozen=True)
class Row:
    zoo: Zoo
    part: str    # headline | sweep
    recipe: str  # how the table calls it
    file: str    # of config/paper/MODEL
    sets: tuple = ()
    cheap: bool = False

    def key(self):
        m = MODELS[self.zoo.model]
        return tuple(map(str, (self.part, m.name, self.zoo.blocks, m.dtype, self.zoo.tails, self.zoo.tasks, self.recipe)))


def rows_of(scale):
    found = []
    for m in MODELS.values():
        if scale == "tiny" and m.name not in STAND_INS:
            continue
        llama = m.name.startswith("llama")
        blocks = (1 if scale == "tiny" else m.cut_full if scale == "full" else m.cut) or m.blocks
        for tails in TAILS[:1] if scale == "tiny" else TAILS:
            zoo = Zoo(m.name, blocks, tails, 8 if scale == "full" and not llama else 2)
            cheap = scale == "small" and (m.name, tails) in (("vit-b-32", "gauss"), ("vit-b-32", "t4"), ("roberta-base", "gauss"))
            found += [Row(zoo, "headline", "paper", "paper", (), cheap), Row(zoo, "headline", "default", "default"),
                      Row(zoo, "headline", "auto", "auto", (), cheap and m.name == "vit-b-32" and tails == "gauss")]
            if tails == "gauss":
                found.append(Row(zoo, "headline", "paper, positions coded", "paper", ("positions=golomb",)))
            if m.name in LAYERED:
                found.append(Row(zoo, "headline", *EQUAL))
            if m.name in SWEPT and tails in ("gauss", "t4"):
                found += [Row(zoo, "sweep", f"default at {s}", "default", (f"sparsity={s}",)) for s in (SWEEP[1::3] if scale == "tiny" else SWEEP)]
        if scale == "small" and m.name in ("vit-b-32", "t5-base"):
            found += [Row(Zoo(m.name, blocks, "gauss", 8), "headline", r, r) for r in ("paper", "auto")]
    return found


def call(*args, ranks=1):
    command = [*LAUNCH, "-n", str(ranks), DELTAZOO] if ranks > 1 else [DELTAZOO]
    done = subprocess.run([*command, *args], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"deltazoo {' '.join(args)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def make_zoo(zoo, work, ranks, scale):
    shape = "tiny" if scale == "tiny" and zoo.model.startswith("llama") else MODELS[zoo.model].shape
    path = os.path.join(work, "zoo")
    shutil.rmtree(path, ignore_errors=True)
    call("synth", "-q", "--shape", shape, "--layers", str(zoo.blocks), "--tasks", str(zoo.tasks), "--dtype", MODELS[zoo.model].dtype, "--tails", zoo.tails,
         "--seed", SEED, "-o", path, ranks=ranks)
    return path


def compress(zoo, archive, ranks, recipe, sets=()):
    job = archive + ".json"
    call("compress", "-q", "--force", os.path.join(zoo, "zoo.yaml"), "-o", archive, "--recipe", recipe, "--report", job, *(x for s in sets for x in ("--set", s)), ranks=ranks)
    with open(job, encoding="utf-8") as file:
        return json.load(file)["job"]


def total(tasks, *path):
    def at(task):
        for key in path:
            task = task[key]
        return task
    return sum(map(at, tasks))


def measure(row, zoo, work, ranks):
    """(figures, times, tensors) of one archive."""
    archive = os.path.join(work, "a.h5")
    job = compress(zoo, archive, ranks, MODELS[row.zoo.model].recipe(row.file), row.sets)
    reported = json.loads(call("info", archive, "--json"))
    tasks, compared = reported["tasks"], None
    if row.part == "headline":
        compared = json.loads(call("compare", archive, "-q", "--task", "task-1", "--base", f"{zoo}/base", "--finetuned", f"{zoo}/task-1", "--json", ranks=ranks))
        exact = [t for t in compared["tensors"] if t["policy"] != "ultradelta"]
        if not all(t["identical"] for t in exact):
            sys.exit(f"{row}: a tensor that should be exact is not")
    auto = row.file == "auto"
    mean = lambda *path: total(tasks, *path) / len(tasks)
    figures = {
        "sparsity": mean("sparsity"), "parameters": total(tasks, "lossy", "parameters"), "kept": total(tasks, "lossy", "kept"), "source_bytes": total(tasks, "source_bytes"),
        "archive_bytes": reported["archive_bytes"], "shared_bytes": reported["shared_bytes"], "lossy_source_bytes": total(tasks, "lossy", "source_bytes"),
        "lossy_stored_bytes": total(tasks, "lossy", "stored_bytes"),
        "lossy_on_disk": total(tasks, "lossy", "source_bytes") / total(tasks, "lossy", "stored_bytes"), "whole_on_disk": total(tasks, "source_bytes") / reported["archive_bytes"],
        "value_bits": "" if auto else mean("lossy", "ratio", "value_bits"), "positions_coded": "" if auto else mean("lossy", "ratio", "positions_coded"),
        "gamma_min": min(t["gamma"] for t in tasks),
        "trace_norm_error": "" if auto else max(t["trace_norm_error"] / t["trace_norm"] for t in tasks),
        "relative_error": compared["lossy"]["relative_error"] if compared else "", "cosine": compared["lossy"]["cosine"] if compared else "",
        **{p: total(tasks, "bytes", p) for p in PARTS}}
    times = {"ranks": job["ranks"], "seconds": job["seconds"], "task_bytes_per_second": figures["source_bytes"] / job["seconds"], "peak_memory_bytes": job["peak_memory_bytes"]}
    return figures, times, compared["tensors"] if compared else []


def measure_rows(rows, work, ranks, scale, here, tables, keep):
    for zoo in sorted(dict.fromkeys(r.zoo for r in rows), key=lambda z: z.model.startswith("llama")):  # the largest last
        path = make_zoo(zoo, work, ranks, scale)
        for row in (r for r in rows if r.zoo == zoo):
            figures, times, tensors = measure(row, path, work, ranks)
            tables["paper"][row.key()] = {k: str(figures[k]) for k in FIGURES}
            tables["paper-times"][row.key()] = {k: str(v) for k, v in {**times, **here}.items()}
            if zoo.model in LAYERED and (zoo.tasks == 2 or scale == "full"):
                for t in (t for t in tensors if t["policy"] == "ultradelta"):
                    tables["paper-layers"][(*row.key()[1:], t["name"])] = {"relative_error": str(t["relative_error"]), "cosine": str(t["cosine"])}
            print(f"{' '.join(row.key()):<70} {figures['lossy_on_disk']:8.1f}x  {times['seconds']:6.2f} s", flush=True)
        shutil.rmtree(path)
        keep()


def grow(path, blocks):
    """A model of one block becomes one of many: its header, and a hole where the data would be."""
    file = os.path.join(path, "model.safetensors")
    with open(file, "rb") as model:
        header = json.loads(model.read(struct.unpack("<Q", model.read(8))[0]))
    grown, at = {}, 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        for copy in [name.replace("layers.0.", f"layers.{i}.") for i in range(blocks)] if "layers.0." in name else [name]:
            grown[copy] = {**entry, "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(grown).encode()
    with open(file, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + at)


def measure_plans(work, ranks, scale, tables):
    """What `plan` says of the LLaMAs in full: it reads headers only, so that the data may be a hole."""
    for m in (m for m in MODELS.values() if m.name.startswith("llama")):
        path = make_zoo(Zoo(m.name, 1, "gauss", 1), work, ranks, scale)
        for model in ("base", "task-1"):
            grow(os.path.join(path, model), m.blocks)
        for recipe in ("paper", "default"):
            task = json.loads(call("plan", os.path.join(path, "zoo.yaml"), "--recipe", m.recipe(recipe), "--json"))["tasks"][0]
            tables["paper-plan"][(m.name, str(m.blocks), recipe)] = {"tensors": str(len(task["tensors"])), **{k: str(int(task[k])) for k in
                                                                     ("lossy_bytes", "lossless_bytes", "lossy_parameters", "predicted_lossy_stored_bytes")}}
        shutil.rmtree(path)


# Matrices alone: (shape, tensor, only at the full scale).
MATRICES = (("tiny", "*layers.0.self_attn.q_proj.weight", "256 x 256", False), ("tiny", "*layers.0.mlp.up_proj.weight", "688 x 256", False),
            ("vit-b-32", "*resblocks.0.attn.out_proj.weight", "768 x 768", False), ("vit-b-32", "*resblocks.0.mlp.c_fc.weight", "3072 x 768", False),
            ("vit-l-14", "*resblocks.0.attn.out_proj.weight", "1024 x 1024", False), ("vit-l-14", "*resblocks.0.mlp.c_fc.weight", "4096 x 1024", False),
            ("llama2-7b", "*layers.0.self_attn.q_proj.weight", "4096 x 4096", False), ("llama2-7b", "*layers.0.mlp.up_proj.weight", "11008 x 4096", True))


def measure_norms(work, ranks, scale, tables, here):
    """Trace norm of one pruned matrix, by Lanczos quadrature and by LAPACK's singular values, one rank."""
    matrices = [m for m in MATRICES if (scale == "full" or not m[3]) and (scale != "tiny" or m[0] == "tiny")]
    recipe, archive, path = os.path.join(work, "one.yaml"), os.path.join(work, "n.h5"), os.path.join(work, "zoo")
    for shape in dict.fromkeys(m[0] for m in matrices):
        for tails in ("gauss", "t4"):
            shutil.rmtree(path, ignore_errors=True)
            call("synth", "-q", "--shape", shape, "--layers", "1", "--tasks", "1", "--dtype", "bf16", "--tails", tails, "--seed", SEED, "-o", path, ranks=ranks)
            for _, tensor, size, _ in (m for m in matrices if m[0] == shape):
                with open(recipe, "w", encoding="utf-8") as out:
                    out.write(f"sparsity: 0.97\nallocation: uniform\ntensors:\n  - {{match: \"{tensor}\", policy: ultradelta}}\n  - {{match: \"*\", policy: drop}}\n")
                for sparsity in ("0.97",) if shape == "llama2-7b" and tails == "t4" else ("0.97", "0.995"):
                    values, key = {}, (size, tails, sparsity)
                    for method in ("slq", "exact"):
                        job = compress(path, archive, 1, recipe, (f"sparsity={sparsity}", f"tracenorm={method}"))
                        task = json.loads(call("info", archive, "--json"))["tasks"][0]
                        values[method], values[method + "_error"] = task["trace_norm"], task["trace_norm_error"]
                        values[method + "_seconds"] = job["phase_seconds"]["trace norm"]
                    error = values["slq"] / values["exact"] - 1
                    # Singular values come from the machine's LAPACK: six digits are common to all of them.
                    tables["paper-norms"][key] = {"exact": f"{values['exact']:.6g}", "slq": f"{values['slq']:.6g}", "relative_error": f"{error:.4f}",
                                                  "standard_error": f"{values['slq_error'] / values['slq']:.4f}"}
                    tables["paper-norms-times"][key] = {"exact_seconds": str(values["exact_seconds"]), "slq_seconds": str(values["slq_seconds"]), **here}
                    print(f"trace norm {' '.join(key)}: {100 * error:+.2f} %, {values['exact_seconds']:.2f} s and {values['slq_seconds']:.3f} s", flush=True)
            shutil.rmtree(path)


def measure_ranks(work, ranks, scale, tables, here):
    """The same job on more and more ranks: medians of three."""
    zoo = Zoo("vit-b-32", 1 if scale == "tiny" else 12, "gauss", 8)
    path, cores, archive, digests = make_zoo(zoo, work, ranks, scale), os.cpu_count(), os.path.join(work, "a.h5"), set()
    n, counts = 1, []
    while n <= 2 * max(ranks, 2):
        counts.append(n)
        n *= 2
    for n in counts:
        runs = []
        for _ in range(1 if scale == "tiny" else 3):
            runs.append(compress(path, archive, n, MODELS[zoo.model].recipe("paper")))
            digests.add(subprocess.run(["sha256sum", archive], stdout=subprocess.PIPE, check=True).stdout[:64])
        job = sorted(runs, key=lambda j: j["seconds"])[len(runs) // 2]
        tables["paper-ranks-times"][(str(n),)] = {"oversubscribed": "yes" if n > cores else "no", "seconds": str(job["seconds"]), **{p.replace(" ", "_"): str(s) for p, s in
                                                  job["phase_seconds"].items()}, "peak_memory_bytes": str(job["peak_memory_bytes"]), **here}
        print(f"{n} ranks: {job['seconds']:.2f} s", flush=True)
    if len(digests) != 1:
        sys.exit("the archive's bytes depend on the number of ranks")
    shutil.rmtree(path)


# Of each table: how many columns are its key.
HEADS = {"paper": KEY, "paper-times": KEY, "paper-layers": (*KEY[1:], "tensor"), "paper-plan": ("model", "blocks", "recipe"), "paper-norms": ("size", "tails", "sparsity"),
         "paper-norms-times": ("size", "tails", "sparsity"), "paper-ranks-times": ("ranks",)}


def table_path(out, name, scale):
    return os.path.join(out, name.replace("paper", "paper-full", 1) + ".csv" if scale == "full" else name + ".csv")


def load(out, scale):
    tables = {}
    for name, head in HEADS.items():
        tables[name] = {}
        path = table_path(out, name, scale)
        if os.path.exists(path):
            with open(path, encoding="utf-8", newline="") as file:
                for line in csv.DictReader(file):
                    tables[name][tuple(line.pop(k) for k in head)] = line
    return tables


def save(tables, out, scale):
    order = {row.key(): i for i, row in enumerate(rows_of(scale))}
    for name, head in HEADS.items():
        table = tables[name]
        if name in ("paper", "paper-times"):  # rows that are no longer made go
            table = {k: table[k] for k in sorted(table.keys() & order.keys(), key=order.get)}
        if not table:
            continue
        with open(table_path(out, name, scale), "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            fields = list(next(iter(table.values())))
            writer.writerow([*head, *fields])
            writer.writerows([*key, *(line[f] for f in fields)] for key, line in table.items())


def difference(committed, made):
    """The largest relative difference, and where."""
    worst = (0.0, "")
    for key, line in made.items():
        for column, value in line.items():
            other = committed.get(key, {}).get(column)
            if other == value:
                continue
            if other is None:
                d = float("inf")
            else:
                a, b = (float(x) if x else float("nan") for x in (other, value))
                d = abs(a - b) / max(abs(a), abs(b)) if a == a and b == b else float("inf")
            if d > worst[0]:
                worst = (d, f"{' '.join(key)}: {column}: {other}, made again {value}")
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=("small", "full", "tiny"), default="small")
    parser.add_argument("--parts", default="rows,plan,norms,ranks")
    parser.add_argument("--rows", choices=("all", "cheap"), default="all")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", default=os.path.join(ROOT, "results"))
    parser.add_argument("--work", default=os.environ.get("TMPDIR", "/tmp"))
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    parts = ["rows"] if options.rows == "cheap" or options.check else options.parts.split(",")
    rows = [r for r in rows_of(options.scale) if options.rows == "all" or r.cheap]
    committed, here = load(options.out, options.scale), provenance()
    made = {name: {} for name in HEADS}
    os.makedirs(options.out, exist_ok=True)
    work = tempfile.mkdtemp(prefix="deltazoo-paper.", dir=options.work)

    def keep():  # again and again, so that a job that is cut short has not worked for nothing
        if not options.check:
            for name, table in made.items():
                committed[name].update(table)
            save(committed, options.out, options.scale)

    try:
        for part, measured in (("rows", lambda: measure_rows(rows, work, options.ranks, options.scale, here, made, keep)), ("plan", lambda: measure_plans(work, options.ranks, options.scale, made)),
                               ("ranks", lambda: measure_ranks(work, options.ranks, options.scale, made, here)), ("norms", lambda: measure_norms(work, options.ranks, options.scale, made, here))):
            if part in parts:
                measured()
                keep()
    finally:
        shutil.rmtree(work)
    if options.check:
        worst, where = difference(committed["paper"], made["paper"])
        print(f"{len(made['paper'])} rows made again, largest relative difference from the committed ones: {worst:g}" + (f" ({where})" if where else ""))
        return worst != 0 or not made["paper"]
    report.write(load(options.out, options.scale), options.out, options.scale)
    return 0


if __name__ == "__main__":
    sys.exit(main())
