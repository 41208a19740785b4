"""Task arithmetic: restore with weights is base + sum of weight * delta, each delta that of a restore by itself."""
import glob

import numpy as np

from common import check, equal, good, hashes, refused, st_bytes, st_parse, tiny_zoo, to_float, with_scratch, write


def ulp(x, dtype):
    """The distance to the next number of the type, at least that of its smallest normal number."""
    bits, least = {"F32": (23, 2.0 ** -126), "F16": (10, 2.0 ** -14), "BF16": (7, 2.0 ** -126)}[dtype]
    return 2.0 ** (np.floor(np.log2(np.maximum(np.abs(x), least))) - bits)


def values(folder):
    return {name: (dtype, to_float(data, dtype).astype(np.float64)) for name, (dtype, shape, data) in st_parse(folder).items() if dtype in ("F32", "F16", "BF16")}


def merged(folder, zoo, names, weights, ranks):
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q"], 2, cwd=folder)
    for name in names:
        good(["restore", "a.h5", "--task", name, "--base", f"{zoo}/base", "-o", name, "-q"], cwd=folder)
    tasks = [x for n, w in zip(names, weights) for x in ("--task", f"{n}={w}")]
    good(["restore", "a.h5", *tasks, "--base", f"{zoo}/base", "-o", "merged", "-q"], ranks, cwd=folder)
    return values(f"{zoo}/base"), [values(f"{folder}/{n}") for n in names], values(f"{folder}/merged")


def case(dtype, ranks):
    def test(folder):
        zoo, weights = tiny_zoo(dtype), (0.6, 0.4)
        base, tasks, got = merged(folder, zoo, ("task-1", "task-2"), weights, ranks)
        equal(sorted(got), sorted(base), "tensors")
        worst = 0
        for name, (kind, x) in got.items():
            want = base[name][1] + sum(w * (t[name][1] - base[name][1]) for w, t in zip(weights, tasks))
            # a restored task is rounded by itself: half a unit each, and the sum once more
            size = np.max(np.abs([want, x, base[name][1]] + [t[name][1] for t in tasks]), axis=0)
            worst = max(worst, float(np.max(np.abs(x - want) / ulp(size, kind))))
        check(0 < worst <= 1.01, f"largest difference: {worst} units in the last place")

    return with_scratch(test)


test_weights_f32 = case("f32", 3)
test_weights_bf16 = case("bf16", 1)
test_weights_f16 = case("f16", 2)


@with_scratch
def test_weight_one_and_zero(folder):
    zoo = tiny_zoo("bf16")
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)
    for out, tasks in (("plain", ["task-1"]), ("one", ["task-1=1"]), ("zero", ["task-1", "task-2=0"]), ("half", ["task-1=0.5", "task-1=0.5"])):
        good(["restore", "a.h5", *[x for t in tasks for x in ("--task", t)], "--base", f"{zoo}/base", "-o", out, "-q"], 3, cwd=folder)
        equal(st_parse(f"{folder}/{out}"), st_parse(f"{folder}/plain"), out)
    good(["restore", "a.h5", "--task", "task-1=0", "--base", f"{zoo}/base", "-o", "base", "-q"], cwd=folder)
    equal({n: t[2] for n, t in st_parse(f"{folder}/base").items()}, {n: t[2] for n, t in st_parse(f"{zoo}/base").items()}, "the base's tensors")


@with_scratch
def test_sign_consensus(folder):
    zoo = tiny_zoo("f32")
    base, tasks, plain = merged(folder, zoo, ("task-1", "task-2"), (1, 1), 1)
    good(["restore", "a.h5", "--task", "task-1", "--task", "task-2", "--sign-consensus", "--base", f"{zoo}/base", "-o", "agreed", "-q"], 3, cwd=folder)
    got, dissent = values(f"{folder}/agreed"), 0
    for name, (kind, x) in got.items():
        deltas = [t[name][1] - base[name][1] for t in tasks]
        sign = np.sign(sum(deltas))
        want = base[name][1] + sum(np.where(d * sign > 0, d, 0) for d in deltas)
        near = 4 * ulp(np.abs(base[name][1]) + sum(np.abs(d) for d in deltas), kind)
        clear = np.abs(sum(deltas)) > near  # elsewhere rounding decides the sign
        check(np.all(np.abs(x - want)[clear] <= near[clear]), f"{name}: not the sum of what agrees")
        dissent += int(np.sum(deltas[0] * deltas[1] < 0))
    check(dissent > 100, "the tasks agree everywhere: nothing was tested")


@with_scratch
def test_refused(folder):
    zoo = tiny_zoo("bf16")
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)
    for task, word in (("task-1=x", "'x'"), ("task-1=", "''"), ("task-1=nan", "'nan'"), ("nobody=0.5", "'nobody'")):
        refused(folder, ["restore", "a.h5", "--task", "task-2", "--task", task, "--base", f"{zoo}/base", "-o", "r"], 2, word)


def sum_zoo(folder, tasks, base):
    """tasks: name -> list of tensors; an exact archive of them."""
    write(f"{folder}/base/model.safetensors", st_bytes(base))
    for name, tensors in tasks.items():
        write(f"{folder}/{name}/model.safetensors", st_bytes(tensors))
        write(f"{folder}/{name}/config.json", f'{{"task": "{name}"}}')
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n" + "".join(f"  - {{name: {n}, path: {n}}}\n" for n in tasks))
    good(["compress", "zoo.yaml", "-o", "a.h5", "--recipe", "lossless", "-q"], cwd=folder)


def f32(x):
    x = np.ascontiguousarray(x, "<f4")
    return "F32", x.shape, x.tobytes()


@with_scratch
def test_tasks_that_differ_in_their_tensors(folder):
    """Rows of the base are added, rows beyond it are the first task's; which that is, and what is left out, is said; the order given makes no difference."""
    rng = np.random.default_rng(3)
    w, e = rng.standard_normal((64, 64)), rng.standard_normal((40, 8))
    a = [("w", *f32(w + 0.5)), ("e", *f32(np.vstack([e + 1, np.full((2, 8), 5)]))), ("own", *f32([1, 2, 3]))]
    b = [("w", *f32(w - 0.25)), ("e", *f32(np.vstack([e - 2, np.full((6, 8), 7)]))), ("head", *f32([9, 9]))]
    c = [("w", "F16", (64, 64), (w.astype(np.float16) + np.float16(1)).tobytes()), ("e", *f32(e * 2))]
    sum_zoo(folder, {"a": a, "b": b, "c": c}, [("w", *f32(w)), ("e", *f32(e))])
    seen = []
    for i, order in enumerate((("a=0.5", "b=0.4", "c=0.1"), ("c=0.1", "b=0.4", "a=0.5"), ("b=0.4", "a=0.5", "c=0.1"))):
        tasks = [x for t in order for x in ("--task", t)]
        dry = good(["restore", "a.h5", *tasks, "--base", "base", "-o", "dry", "--dry-run"], 3, cwd=folder)
        check(not glob.glob(f"{folder}/dry*") and "nothing was made" in dry.out, f"{dry}")
        r = good(["restore", "a.h5", *tasks, "--base", "base", "-o", f"r{i}", "-q"], (1, 3, 2)[i], cwd=folder)
        equal(sorted(r.lines("note")), sorted(dry.lines("note")), "notes of both")
        for text in ("first task is 'a'", "'e' (from row 40 on)", "'own'", "'head' of 'b'", "'w' (F32, of 'c' F16)", "config.json"):
            check(any(text in n for n in r.lines("note")) or text == "'own'", f"{text}: {r}")
        seen.append(hashes(f"{folder}/r{i}"))
    check(seen[0] == seen[1] == seen[2], "the order makes a difference")
    got = st_parse(f"{folder}/r0")
    rows = np.frombuffer(got["e"][2], "<f4").reshape(42, 8)
    want = e.astype("<f4").astype(float)
    check(np.allclose(rows[:40], want + 0.5 * 1 - 0.4 * 2 + 0.1 * want, atol=1e-5) and np.all(rows[40:] == 5), "rows")
    equal(np.frombuffer(got["own"][2], "<f4").tolist(), [1, 2, 3], "a tensor that the base has not")
    check("head" not in got, "a tensor that only another task has")
    rows = [("w", *f32(w)), ("e", *f32(e[:30]))]
    sum_zoo(f"{folder}/fewer", {"a": rows, "b": [("w", *f32(w)), ("e", *f32(e[:20]))]}, [("w", *f32(w)), ("e", *f32(e))])
    refused(f"{folder}/fewer", ["restore", "a.h5", "--task", "a", "--task", "b", "--base", "base", "-o", "r"], 2, "'e'", "fewer rows than the base")


@with_scratch
def test_quantised_weights_and_integers_are_not_added(folder):
    rng = np.random.default_rng(4)
    w = rng.standard_normal((32, 32))
    codes = {"int8": ("I8", (32, 32), rng.integers(-127, 127, 1024, np.int8).tobytes()), "packed": ("U8", (16, 32), rng.bytes(512)),
             "f8": ("F8_E4M3", (32, 32), bytes(x & 0x7E for x in rng.bytes(1024)))}
    base = [("w", *f32(w)), ("steps", "I64", (2,), np.arange(2, dtype="<i8").tobytes())]
    for name, tensor in codes.items():
        quantised = [("q.weight", *tensor), ("q.weight_scale", *f32(np.ones(32)))]
        sum_zoo(f"{folder}/{name}", {"a": base + quantised, "b": base + quantised}, base)
        for tasks in (["--task", "a=0.6", "--task", "b=0.4"], ["--task", "a=0.5"]):
            refused(f"{folder}/{name}", ["restore", "a.h5", *tasks, "--base", "base", "-o", "r", "-q"], 2, "'q.weight'", tensor[0], "cannot be added",
                    lines=2 if len(tasks) == 4 else 1)
            refused(f"{folder}/{name}", ["restore", "a.h5", *tasks, "--base", "base", "-o", "r", "--dry-run"], 2, "'q.weight'", lines=2 if len(tasks) == 4 else 1, ranks=(1,))
        good(["restore", "a.h5", "--task", "a", "--base", "base", "-o", "r", "-q"], cwd=f"{folder}/{name}")
        good(["restore", "a.h5", "--task", "a=0.6", "--task", "b=0.4", "--tensor", "w", "--base", "base", "-o", "w", "-q"], cwd=f"{folder}/{name}")
    moved = [("w", *f32(w + 1)), ("steps", "I64", (2,), np.array([5, 6], "<i8").tobytes())]
    sum_zoo(f"{folder}/steps", {"a": base, "b": moved}, base)
    refused(f"{folder}/steps", ["restore", "a.h5", "--task", "a", "--task", "b", "--base", "base", "-o", "r", "-q"], 2, "'steps'", "I64", "task 'b'")
    sum_zoo(f"{folder}/same", {"a": [base[0], base[1]], "b": [moved[0], base[1]]}, base)
    good(["restore", "a.h5", "--task", "a", "--task", "b", "--base", "base", "-o", "r", "-q"], 3, cwd=f"{folder}/same")
