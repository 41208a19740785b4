"""Accuracy of a small model trained here: the program's ablation against an independent one in numpy; and the errors that `info` and `plan` expect."""
import json

import numpy as np

from common import check, good, info, st_bytes, st_parse, tiny_zoo, to_dtype, to_float, with_scratch, write

WIDTH, HIDDEN, BLOCKS, CLASSES = 48, 96, 3, 12
NAMES = [f"model.layers.{b}.mlp.{p}_proj.weight" for b in range(BLOCKS) for p in ("up", "down")]
SEEDS = 5
SPARSITY = 0.85
STEPS = {"dare": ("method=dare",), "+dac": ("allocation=uniform", "tracenorm=off"), "+msa": ("allocation=thirds", "tracenorm=off"),
         "+tngr": ("allocation=thirds", "rescale=global", "tracenorm=exact")}


# ---- a residual network of NAMES on random examples, whose labels a random network gives

def forward(w, x):
    states, hidden = [x], []
    for b in range(BLOCKS):
        hidden.append(np.maximum(states[-1] @ w[NAMES[2 * b]].T, 0))
        states.append(states[-1] + hidden[-1] @ w[NAMES[2 * b + 1]].T)
    return states, hidden


def drawn(seed, scale):
    rng = np.random.default_rng(seed)
    return {n: (rng.standard_normal((HIDDEN, WIDTH) if "up" in n else (WIDTH, HIDDEN)) * scale).astype(np.float32) for n in NAMES}


READ = np.random.default_rng(9).standard_normal((CLASSES, WIDTH)).astype(np.float32) / 7


def labels(teacher, x):
    return (forward(teacher, x)[0][-1] @ READ.T).argmax(1)


def trained(start, teacher, steps, rate):
    w = {n: a.copy() for n, a in start.items()}
    m, v = {n: np.zeros_like(a) for n, a in w.items()}, {n: np.zeros_like(a) for n, a in w.items()}
    rng = np.random.default_rng(3)
    for t in range(1, steps + 1):
        x = rng.standard_normal((128, WIDTH)).astype(np.float32)
        y = labels(teacher, x)
        states, hidden = forward(w, x)
        p = np.exp(states[-1] @ READ.T)
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(y)), y] -= 1
        back, grad = p @ READ / len(y), {}
        for b in reversed(range(BLOCKS)):
            up, down = NAMES[2 * b], NAMES[2 * b + 1]
            grad[down] = back.T @ hidden[b]
            inner = (back @ w[down]) * (hidden[b] > 0)
            grad[up] = inner.T @ states[b]
            back = back + inner @ w[up]
        for n, g in grad.items():
            m[n] = 0.9 * m[n] + 0.1 * g
            v[n] = 0.99 * v[n] + 0.01 * g * g
            w[n] -= rate * m[n] / (1 - 0.9**t) / (np.sqrt(v[n] / (1 - 0.99**t)) + 1e-8)
    return w


def accuracy(w, teacher):
    x = np.random.default_rng(77).standard_normal((4000, WIDTH)).astype(np.float32)
    return 100 * float((labels(w, x) == labels(teacher, x)).mean())


# ---- METHODS.md once more: "UltraDelta" and "Baselines"

def pruned(delta, rng, what):
    if what == "dare":
        return {n: d.astype(np.float16).astype(np.float32) * (rng.random(d.shape) >= SPARSITY) / (1 - SPARSITY) for n, d in delta.items()}
    grids, sparsity = {}, dict.fromkeys(delta, SPARSITY)
    for n, d in delta.items():
        lo, step = d.min(), (d.max() - d.min()) / 15
        grids[n] = (lo, step, np.rint((d - lo) / step))
    if what != "+dac":
        order = sorted(delta, key=lambda n: grids[n][1] * grids[n][2].std())
        third, step = len(order) // 3, min(0.01, (1 - SPARSITY) / 3)  # tensors of one size
        for n in order[:third]:
            sparsity[n] = SPARSITY + step
        for n in order[2 * third:]:
            sparsity[n] = SPARSITY - step
    out = {}
    for n, (lo, step, level) in grids.items():
        kept = np.zeros(level.size, bool)
        for g in range(16):
            members = np.flatnonzero(level.ravel() == g)
            kept[rng.permutation(members)[:len(members) - int(np.rint(len(members) * sparsity[n]))]] = True
        out[n] = (lo + step * level) * kept.reshape(level.shape) / (1 - SPARSITY)
    return out


def mean_accuracies(base, tuned, teachers, what):
    """Of SEEDS runs, the mean over the tasks."""
    found = []
    for seed in range(SEEDS):
        rng = np.random.default_rng([seed, 5])
        deltas = {t: pruned({n: w[n] - base[n] for n in NAMES}, rng, what) for t, w in tuned.items()}
        trace = {t: sum(np.linalg.svd(d, compute_uv=False).sum() for d in delta.values()) for t, delta in deltas.items()}
        gamma = {t: min(trace.values()) / trace[t] if what == "+tngr" else 1 for t in trace}
        found.append(np.mean([accuracy({n: base[n] + np.float32(gamma[t]) * deltas[t][n].astype(np.float32) for n in NAMES}, teachers[t]) for t in tuned]))
    return np.array(found)


@with_scratch
def test_quality_of_the_ablation_is_that_of_an_independent_one(folder):
    def put(name, w):
        write(f"{folder}/{name}/model.safetensors", st_bytes([(n, "F32", a.shape, to_dtype(a, "F32")) for n, a in w.items()]))

    first = drawn(1, 0.12)
    base = trained(drawn(2, 0.08), first, 600, 2e-3)
    teachers = {f"t{i}": {n: first[n] + 0.5 * d for n, d in drawn(10 + i, 0.12).items()} for i in range(3)}
    tuned = {t: trained(base, teacher, 200 + 150 * i, 1e-3) for i, (t, teacher) in enumerate(teachers.items())}  # traces that differ
    put("base", base)
    for t, w in tuned.items():
        put(t, w)
    write(f"{folder}/recipe.yaml", 'tensors:\n  - {match: "*", policy: ultradelta}\n')
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n" + "".join(f"  - {{name: {t}, path: {t}}}\n" for t in tuned))
    plain, best = (np.mean([accuracy(base if w is None else w[t], teachers[t]) for t in tuned]) for w in (None, tuned))
    reported = {}
    for what, sets in STEPS.items():
        want, got = mean_accuracies(base, tuned, teachers, what), []
        for seed in range(SEEDS):
            good(["compress", "zoo.yaml", "-o", "a.h5", "--force", "-q", "--recipe", "recipe.yaml", *(x for s in (*sets, f"sparsity={SPARSITY}", f"seed={seed}") for x in ("--set", s))], cwd=folder)
            runs = []
            for t in tuned:
                good(["restore", "a.h5", "--task", t, "--base", "base", "-o", f"r/{what}{seed}{t}", "-q"], cwd=folder)
                have = st_parse(f"{folder}/r/{what}{seed}{t}")
                runs.append(accuracy({n: to_float(have[n][2], "F32").reshape(have[n][1]) for n in NAMES}, teachers[t]))
            got.append(np.mean(runs))
        spread = max(want.std(ddof=1), np.std(got, ddof=1), 0.2)
        reported[what] = f"{np.mean(got):.2f} here, {want.mean():.2f} there, spread {spread:.2f}"
        check(plain + 2 < want.mean() < best - 0.5, f"{what}: {want.mean():.2f} does not tell methods apart between {plain:.2f} and {best:.2f}")
        check(abs(np.mean(got) - want.mean()) < 2.5 * spread, f"{what}: accuracy {reported[what]} (base {plain:.2f}, fine-tuned {best:.2f})")


def expected_case(sets, low, high, near=0.1):
    """The error that `info` expects is the one `compare` measures; `plan` expects it before."""
    def test(folder):
        zoo = tiny_zoo("f32")
        options = [x for s in sets for x in ("--set", s)]
        good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q", *options], cwd=folder)
        compared = json.loads(good(["compare", "a.h5", "--task", "task-1", "--base", f"{zoo}/base", "--finetuned", f"{zoo}/task-1", "--json"], cwd=folder).out)
        planned = json.loads(good(["plan", f"{zoo}/zoo.yaml", "--json", *options], cwd=folder).out)
        reported = info("a.h5", "task-1", folder)["tasks"][0]
        before = {t["name"]: t for t in planned["tasks"][0]["tensors"]}
        measured = compared["lossy"]["relative_error"]
        check(low < reported["lossy"]["expected_relative_error"] / measured < high, f"expected {reported['lossy']}, measured {measured}")
        for t in reported["tensors"]:
            if t["policy"] == "ultradelta":
                check(abs(before[t["name"]]["expected_relative_error"] / t["expected_relative_error"] - 1) < near, f"{before[t['name']]} planned, {t} done")
        check(abs(compared["lossy"]["cosine"] / reported["lossy"]["cosine"] - 1) < 0.1, f"cosine {reported['lossy']}, measured {compared['lossy']}")
        poor = [reported["lossy"]["verdict"] == "poor", any("quality poor" in w for w in reported["warnings"]), any("will be poor" in w for w in planned["warnings"])]
        check(len(set(poor)) == 1, f"warnings {reported['warnings']}, {planned['warnings']}, {reported['lossy']}")

    return with_scratch(test)


test_quality_expected_of_auto = expected_case(("method=auto", "sparsity=0.9"), 0.95, 1.05)
test_quality_expected_of_auto_when_sparse = expected_case(("method=auto", "sparsity=0.995"), 0.9, 1.1)
test_quality_expected_of_dare = expected_case(("method=dare", "sparsity=0.97"), 0.93, 1.07)
test_quality_expected_of_ultradelta = expected_case(("sparsity=0.97", "allocation=uniform", "tracenorm=off"), 0.9, 1.1, 0.3)  # the range of a sample is less than the whole
test_quality_expected_of_bitdelta = expected_case(("method=bitdelta",), 0.85, 1.15)
