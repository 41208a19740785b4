"""Task arithmetic: restore with weights is base + sum of weight * delta, each delta that of a restore by itself."""
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
        equal(hashes(f"{folder}/{out}"), hashes(f"{folder}/plain"), out)
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


@with_scratch
def test_tasks_that_differ_in_their_tensors(folder):
    """A task without a tensor adds nothing to it; what the base has not, and integers, are the first task's."""
    rng = np.random.default_rng(3)
    q = "model.layers.0.self_attn.q_proj.weight"
    x = rng.standard_normal((64, 64)).astype(np.float32)
    steps = np.arange(5, dtype="<i8")
    write(f"{folder}/base/model.safetensors", st_bytes([(q, "F32", (64, 64), x.tobytes()), ("steps", "I64", (5,), steps.tobytes())]))
    write(f"{folder}/one/model.safetensors", st_bytes([(q, "F32", (64, 64), (x + 0.5).tobytes()), ("steps", "I64", (5,), (steps + 1).tobytes()),
                                                       ("own", "F32", (3,), np.float32([1, 2, 3]).tobytes())]))
    write(f"{folder}/two/model.safetensors", st_bytes([("steps", "I64", (5,), (steps + 7).tobytes())]))
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: one, path: one}\n  - {name: two, path: two}\n")
    good(["compress", "zoo.yaml", "-o", "a.h5", "--recipe", "lossless", "-q"], cwd=folder)
    good(["restore", "a.h5", "--task", "one=0.5", "--task", "two=2", "--base", "base", "-o", "r", "-q"], 2, cwd=folder)
    got = st_parse(f"{folder}/r")
    equal(np.frombuffer(got["steps"][2], "<i8").tolist(), (steps + 1).tolist(), "integers")
    equal(np.frombuffer(got["own"][2], "<f4").tolist(), [1, 2, 3], "a tensor that the base has not")
    check(np.array_equal(np.frombuffer(got[q][2], "<f4"), (x.astype(np.float64) + 0.5 * ((x + 0.5).astype(np.float64) - x)).astype(np.float32).ravel()), "floats")
