"""Embeddings and heads of tokens: with fixed accuracy they are lossy too, held to limits of their own, with noise in proportion to what each row has moved."""
import json

import numpy as np

from common import RANKS, check, equal, good, info, refused, sha256, st_bytes, st_parse, to_dtype, to_float, with_scratch, write
from test_channels import compress, reads_alike

TOKENS, WIDTH = 5000, 64
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SHARE = 0.2  # of the limits
LIMITS = {"high": (1.2, 0.002), "balanced": (5, 0.01), "small": (12, 0.02)}
SIZES = np.exp(0.8 * np.random.default_rng(4).standard_normal(TOKENS)) * 0.004  # how far each row moves, rms
STILL = slice(100, 400)  # tokens that tuning did not meet


def values(rng, base, name, scale=1.0, dtype="F32"):
    """A tuned tensor."""
    if name in (EMBEDDING, HEAD):
        x = base[name].copy()
        move = rng.standard_normal((TOKENS, x.shape[1])) * SIZES[:, None] * scale
        move[STILL] = 0
        x[:TOKENS] += move.astype(np.float32)
        return x
    return base[name] + (rng.standard_normal(base[name].shape) * 0.002).astype(np.float32)


def names(head=True, layers=2):
    body = [f"model.layers.{i}.mlp.{k}_proj.weight" for i in range(layers) for k in ("up", "down")]
    return [EMBEDDING] + body + ([HEAD] if head else [])


def make_zoo(folder, dtype="F32", head=True, scale=1.0, tasks=1, tokens=TOKENS, manifest=None, width=WIDTH, task_dtype=None):
    rng = np.random.default_rng(8)
    shapes = {EMBEDDING: (tokens, width), HEAD: (tokens, width)}
    base = {n: (rng.standard_normal(shapes.get(n, (192, width) if "up" in n else (width, 192))) * 0.05).astype(np.float32) for n in names(head)}
    base = {n: to_float(to_dtype(x.ravel(), dtype), dtype).reshape(x.shape) for n, x in base.items()}
    for t in range(tasks + 1):
        of, own = (dtype, base) if t == 0 else (task_dtype or dtype, {n: values(rng, base, n, scale) for n in base})
        write(f"{folder}/{f'task-{t}' if t else 'base'}/model.safetensors", st_bytes([(n, of, x.shape, to_dtype(x.ravel(), of)) for n, x in own.items()]))
    write(f"{folder}/zoo.yaml", manifest or "base: base\ntasks:\n" + "".join(f"  - {{name: task-{t}, path: task-{t}}}\n" for t in range(1, tasks + 1)))


def rows(folder, task="task-1"):
    return {t["name"]: t for t in info("a.h5", task, folder)["tasks"][0]["tensors"]}


def restored(folder, task="task-1", dtype="F32"):
    good(["restore", "a.h5", "--task", task, "--base", "base", "-o", "r", "-q", "--force"], cwd=folder)
    return {n: to_float(t[2], dtype).reshape(t[1]).astype(np.float64) for n, t in st_parse(f"{folder}/r").items()}


def true(folder, task="task-1", dtype="F32"):
    return {n: to_float(t[2], dtype).reshape(t[1]).astype(np.float64) for n, t in st_parse(f"{folder}/{task}").items()}


def compared(folder, task="task-1"):
    return json.loads(good(["compare", "a.h5", "--task", task, "--base", "base", "--finetuned", task, "--json"], cwd=folder).out)


@with_scratch
def test_each_quality_keeps_a_share_of_its_limits(folder):
    for scale in (1, 20):  # by the delta's energy, by the base's
        make_zoo(folder, scale=scale)
        own, base = true(folder), true(folder, "base")
        for quality, (to_delta, to_base) in LIMITS.items():
            compress(folder, "--quality", quality)
            back = restored(folder)
            for name in (EMBEDDING, HEAD):
                noise, delta = ((back[name] - own[name]) ** 2).sum(), ((own[name] - base[name]) ** 2).sum()
                nsr, rho = noise / delta / SHARE / to_delta, noise / (base[name] ** 2).sum() / SHARE / to_base
                check(nsr < 1.1 and rho < 1.1, f"{quality}, {name}: {nsr} and {rho} of its share of the limits")
                check(max(nsr, rho) > 0.85, f"{quality}, {name}: {nsr} and {rho} of its share: more bytes than were asked for")
            out, expected = compared(folder)["lossy"], info("a.h5", "task-1", folder)["tasks"][0]["lossy"]
            check(out["verdict"] == expected["verdict"] == quality, f"{quality}: info says {expected['verdict']}, compare {out['verdict']}")


@with_scratch
def test_noise_goes_where_rows_have_moved(folder):
    make_zoo(folder)
    for quality in ("balanced", "high"):  # by messages and by levels
        compress(folder, "--quality", quality)
        back, own = restored(folder), true(folder)
        for name in (EMBEDDING, HEAD):
            noise = ((back[name] - own[name]) ** 2).mean(1) ** 0.5
            moved = np.ones(TOKENS, bool)
            moved[STILL] = False
            slope = np.polyfit(np.log(SIZES[moved]), np.log(noise[moved]), 1)[0]
            check(0.85 < slope < 1.15, f"{quality}, {name}: noise goes as the row's delta to the power of {slope}, not 1")
            check(np.median(noise[STILL]) < 0.1 * np.median(noise[moved]), f"{quality}, {name}: rows that did not move get {np.median(noise[STILL])}")
        reads_alike(folder)


def same_bytes_everywhere(folder):
    wanted = sha256(compress(folder, "--mem-per-rank", "256M"))
    for ranks in RANKS:
        equal(sha256(compress(folder, ranks=ranks)), wanted, f"{ranks} ranks")
    for kernels in ("portable", "avx2", "avx512"):
        equal(sha256(compress(folder, env={"DZ_KERNELS": kernels})), wanted, kernels)
    good(["verify", "a.h5", "--base", "base"], ranks=2, cwd=folder)
    reads_alike(folder, task="task-2")


@with_scratch
def test_the_same_bytes_everywhere(folder):
    """A table of several tiles, the borders of which are in rows."""
    make_zoo(folder, tasks=2, tokens=70001, width=112, head=False)
    same_bytes_everywhere(folder)


@with_scratch
def test_what_stays_exact(folder):
    """A fixed rate, the published method, vocabulary: exact; heads of classes and small tables."""
    make_zoo(folder)
    for more in (("--target-ratio", "50"), ("--recipe", "ultradelta"), ("--set", "vocabulary=exact"), ("--method", "bitdelta")):
        compress(folder, *more)
        check(all(rows(folder)[n]["policy"] == "lossless" for n in (EMBEDDING, HEAD)), f"{more}: {rows(folder)[EMBEDDING]}")
    refused(folder, ["compress", "zoo.yaml", "-o", "b.h5", "--set", "vocabulary=off"], 2, "vocabulary: 'off' is not one of lossy, exact")
    rng = np.random.default_rng(1)
    shapes = {"model.embed_tokens.weight": (1000, 64), "classifier.weight": (6000, 64), "model.layers.0.up_proj.weight": (128, 64), "model.layers.1.up_proj.weight": (128, 64)}
    for who in ("base", "task-1"):
        write(f"{folder}/{who}/model.safetensors", st_bytes([(n, "F32", s, (rng.standard_normal(s) * 0.1).astype(np.float32).tobytes()) for n, s in shapes.items()]))
    compress(folder)
    policies = {n: t["policy"] for n, t in rows(folder).items()}
    equal(policies, {n: "ultradelta" if "layers" in n else "lossless" for n in shapes}, "policies")


@with_scratch
def test_tokens_that_were_added(folder):
    """Rows beyond the base's are exact."""
    make_zoo(folder)
    own = {n: (t[0], t[1], t[2]) for n, t in st_parse(f"{folder}/task-1").items()}
    more = np.random.default_rng(3).standard_normal((7, WIDTH)).astype(np.float32) * 0.05
    write(f"{folder}/task-1/model.safetensors", st_bytes([(n, d, (s[0] + 7, s[1]), b + more.tobytes()) if n in (EMBEDDING, HEAD) else (n, d, s, b) for n, (d, s, b) in own.items()]))
    compress(folder, ranks=3)
    back = restored(folder)
    for name in (EMBEDDING, HEAD):
        equal(back[name][TOKENS:].astype(np.float32).tobytes(), more.tobytes(), "the new rows")
        check(rows(folder)[name]["policy"] == "ultradelta", f"{rows(folder)[name]}")
    measured, expected = compared(folder)["lossy"]["noise_to_delta"], info("a.h5", "task-1", folder)["tasks"][0]["lossy"]["noise_to_delta"]
    check(abs(measured / expected - 1) < 0.05, f"compare counts the new rows as delta: {measured}, {expected} expected")
    reads_alike(folder)


@with_scratch
def test_half_precision_does_not_overflow_and_stays_lossy(folder):
    make_zoo(folder, dtype="F16", scale=5)
    compress(folder)
    check(rows(folder)[EMBEDDING]["policy"] == "ultradelta", f"{rows(folder)[EMBEDDING]}")
    check(np.isfinite(restored(folder, dtype="F16")[EMBEDDING]).all(), "not finite")


@with_scratch
def test_children_of_a_task(folder):
    make_zoo(folder, tasks=2, manifest="base: base\ntasks: [{name: task-1, path: task-1}, {name: task-2, path: task-2, parent: task-1}]\n")
    wanted = sha256(compress(folder))
    equal(sha256(compress(folder, ranks=3)), wanted, "3 ranks")
    own, base, back = true(folder, "task-2"), true(folder, "base"), restored(folder, "task-2")
    for name in (EMBEDDING, HEAD):
        nsr = ((back[name] - own[name]) ** 2).sum() / ((own[name] - base[name]) ** 2).sum()
        check(nsr < 1.1 * SHARE * LIMITS["balanced"][0], f"{name}: noise {nsr} of the delta")
    reads_alike(folder, task="task-2")


@with_scratch
def test_a_step_in_rows_that_the_parent_left_alone(folder):
    """The parent's noise is in other rows than what the child adds: what is coded goes by other rows than what is left of it."""
    rng = np.random.default_rng(11)
    make_zoo(folder, manifest="base: base\ntasks: [{name: task-1, path: task-1}, {name: task-2, path: task-2, parent: task-1}]\n")
    base = true(folder, "base")
    first, second = rng.permutation(TOKENS).reshape(2, -1)
    one = {n: x + rng.standard_normal(x.shape) * 0.0005 for n, x in base.items()}
    for n in (EMBEDDING, HEAD):
        one[n] = base[n].copy()
        one[n][first] += rng.standard_normal((len(first), WIDTH)) * 0.0005
    for quality, step in (("balanced", 0.0001), ("small", 0.0002)):
        two = {n: x + rng.standard_normal(x.shape) * 0.0001 for n, x in one.items()}
        for n in (EMBEDDING, HEAD):
            two[n] = one[n].copy()
            two[n][second] += rng.standard_normal((len(second), WIDTH)) * step
        for who, x in (("task-1", one), ("task-2", two)):
            write(f"{folder}/{who}/model.safetensors", st_bytes([(n, "F32", v.shape, to_dtype(v.ravel(), "F32")) for n, v in x.items()]))
        wanted = sha256(compress(folder, "--quality", quality))
        equal(sha256(compress(folder, "--quality", quality, ranks=3)), wanted, "3 ranks")
        back, own = restored(folder, "task-2"), true(folder, "task-2")
        for name in (EMBEDDING, HEAD):
            nsr, expected = ((back[name] - own[name]) ** 2).sum() / ((own[name] - base[name]) ** 2).sum(), rows(folder, "task-2")[name]["noise_to_delta"]
            check(abs(nsr / expected - 1) < 0.05, f"{quality}, {name}: noise {nsr} of the delta, {expected} expected")
            check(nsr < 1.1 * SHARE * LIMITS[quality][0], f"{quality}, {name}: noise {nsr} of the delta")
        reads_alike(folder, task="task-2")


@with_scratch
def test_plan_says_it_before(folder):
    make_zoo(folder)
    for quality in LIMITS:
        plan = json.loads(good(["plan", "zoo.yaml", "--quality", quality, "--json"], cwd=folder).out)["tasks"][0]
        compress(folder, "--quality", quality)
        task = info("a.h5", "task-1", folder)["tasks"][0]
        check(abs(plan["predicted_stored_bytes"] / task["stored_bytes"] - 1) < 0.06, f"{quality}: {plan['predicted_stored_bytes']}, came to {task['stored_bytes']}")
        check(plan["verdict"] == task["lossy"]["verdict"] == quality, f"{quality}: plan says {plan['verdict']}, info {task['lossy']['verdict']}")


@with_scratch
def test_a_vocabulary_hides_no_noise_of_the_body_and_the_other_way_round(folder):
    """The verdict is the worse of both, however much energy one of them has."""
    make_zoo(folder, scale=30)
    compress(folder, "--set", "noise_to_delta=40", "--set", "noise_to_base=1")
    check(rows(folder)[EMBEDDING]["noise_to_delta"] < 9, f"{rows(folder)[EMBEDDING]}")
    equal(info("a.h5", "task-1", folder)["tasks"][0]["lossy"]["verdict"], "poor", "verdict of a noisy body")
    write(f"{folder}/r.yaml", f"method: auto\nquality: high\ntensors:\n  - {{match: \"*embed*\", policy: ultradelta, sparsity: 0.99}}\n  - {{match: \"*\", policy: structure}}\n")
    make_zoo(folder, scale=0.01)
    compress(folder, "--recipe", "r.yaml")
    equal(info("a.h5", "task-1", folder)["tasks"][0]["lossy"]["verdict"], "poor", "verdict of a noisy vocabulary")
    equal(compared(folder)["lossy"]["verdict"], "poor", "by compare")
