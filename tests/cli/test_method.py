"""The method, computed once more with numpy: levels, quotas, which elements are kept, what they become, and the sparsity of each tensor."""
import numpy as np
import xxhash

from common import K, Q, SmallZoo, check, equal, good, info, st_parse, tiny_zoo, to_dtype, to_float, with_scratch

f32 = np.float32


def lossy_tensors(archive, task, folder):
    return [t for t in info(archive, task, folder)["tasks"][0]["tensors"] if t["policy"] == "ultradelta"]


def quantise(delta, bits):
    """METHODS.md "Quantise" in float32: lo, step and the level of each element."""
    lo, hi = delta.min(), delta.max()
    step = f32(f32(hi - lo) / f32(2**bits - 1))
    q = np.rint(((delta - lo) / step).astype(f32)).astype(np.int64)
    return lo, step, np.clip(q, 0, 2**bits - 1)


def grid(lo, step, bits):
    return (lo + (np.arange(2**bits, dtype=f32) * step).astype(f32)).astype(f32)


def quotas(q, values, sparsity):
    """METHODS.md "Group-wise pruning": how many of each group are kept."""
    n = np.bincount(q, minlength=values.size)
    z = n[values == 0].sum() / n.sum()
    s = max(0.0, (sparsity - z) / (1 - z))
    keep = n - np.rint(n * s).astype(np.int64)
    keep[values == 0] = 0
    return n, keep


def number_of_element(key, count):
    """FORMAT.md "Lossy tiles": the uniform 32-bit number of each element of a tile."""
    x = np.arange(count, dtype=np.uint32) + np.uint32(key & 0xFFFFFFFF)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x ^= np.uint32(key >> 32)
    x *= np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def method_case(dtype, sparsity=0.97, bits=4, more=()):
    def test(folder):
        zoo = tiny_zoo(dtype)
        options = {"allocation": "uniform", "rescale": "tensor", "tracenorm": "off", "sparsity": sparsity, "bits": bits}
        sets = [x for k, v in options.items() for x in ("--set", f"{k}={v}")]
        good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q", *sets, *more], 3, cwd=folder)
        base = st_parse(f"{zoo}/base")
        for task in ("task-1", "task-2"):
            good(["restore", "a.h5", "--task", task, "--base", f"{zoo}/base", "-o", task, "-q"], cwd=folder)
            fine, got = st_parse(f"{zoo}/{task}"), st_parse(f"{folder}/{task}")
            equal(info("a.h5", task, folder)["tasks"][0]["gamma"], 1, "gamma")
            tensors = lossy_tensors("a.h5", task, folder)
            equal(len(tensors), 28, "lossy tensors")
            scale = f32(1 / (1 - sparsity))
            for t in tensors:
                name = t["name"]
                dt = fine[name][0]
                b, f = to_float(base[name][2], dt), to_float(fine[name][2], dt)
                lo, step, q = quantise(f - b, bits)
                values = grid(lo, step, bits)
                check(np.isclose(t["lo"], lo, rtol=1e-6) and np.isclose(t["step"], step, rtol=1e-6), f"{name}: lo, step {t['lo']}, {t['step']}, not {lo}, {step}")
                want = np.frombuffer(to_dtype(b + (scale * values).astype(f32)[q], dt), np.uint8).reshape(len(b), -1)
                have = np.frombuffer(got[name][2], np.uint8).reshape(len(b), -1)
                plain = np.frombuffer(base[name][2], np.uint8).reshape(len(b), -1)
                is_base, is_want, alike = (have == plain).all(1), (have == want).all(1), (want == plain).all(1)
                wrong = np.flatnonzero(~is_base & ~is_want)
                check(not wrong.size, f"{task} {name}: element {wrong[:1]} is neither the base's nor the grid's value ({wrong.size} of them)")
                n, keep = quotas(q, values, sparsity)
                kept = np.bincount(q[is_want & ~is_base], minlength=2**bits)
                unseen = np.bincount(q[alike], minlength=2**bits)  # too small to move the base in this dtype: kept or not, nobody can say
                if dt == "F32":
                    check(unseen[values != 0].sum() == 0, f"{name}: a kept element would not show")
                bad = np.flatnonzero((kept > keep) | (kept + unseen < keep))
                check(not bad.size, f"{task} {name}: levels {bad}: kept {kept[bad]} of {n[bad]}, quota {keep[bad]}")
                equal(t["kept"], int(keep.sum()), f"{name}: kept in the index")
                check(f32(t["sparsity"]) == f32(sparsity) and np.isclose(t["scale"], scale, rtol=1e-7), f"{name}: sparsity {t['sparsity']}, scale {t['scale']}")

    return with_scratch(test)


test_method_f32 = method_case("f32")
test_method_bf16 = method_case("bf16")
test_method_f16_sparse = method_case("f16", 0.995)
test_method_f32_two_bits = method_case("f32", 0.9, 2)
test_method_f32_eight_bits = method_case("f32", 0.8, 8)
test_method_f32_golomb = method_case("f32", 0.97, 4, ("--set", "positions=golomb"))


@with_scratch
def test_method_keeps_the_smallest_numbers_of_each_group(folder):
    import h5py
    zoo = tiny_zoo("f32")
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q", "--set", "allocation=uniform", "--set", "rescale=tensor", "--set", "tracenorm=off", "--set", "seed=77"], 2, cwd=folder)
    good(["restore", "a.h5", "--task", "task-2", "--base", f"{zoo}/base", "-o", "r", "-q"], cwd=folder)
    base, fine, got = st_parse(f"{zoo}/base"), st_parse(f"{zoo}/task-2"), st_parse(f"{folder}/r")
    with h5py.File(f"{folder}/a.h5", "r") as f:
        key = int(f["tasks/task-2"].attrs["record"]["key"])
    equal(key, xxhash.xxh64(b"task-2", seed=77).intdigest(), "key of the task")
    for t in lossy_tensors("a.h5", "task-2", folder):
        b, f, g = (to_float(m[t["name"]][2], "F32") for m in (base, fine, got))
        lo, step, q = quantise(f - b, 4)
        _, keep = quotas(q, grid(lo, step, 4), 0.97)
        tile = xxhash.xxh64(bytes(8), seed=xxhash.xxh64(t["name"].encode(), seed=key).intdigest()).intdigest()
        u = number_of_element(tile, len(b))
        want = np.zeros(len(b), bool)
        for level, k in enumerate(keep):
            members = np.flatnonzero(q == level)
            want[members[np.argsort(u[members], kind="stable")[:k]]] = True
        check(np.array_equal(want, g != b), f"{t['name']}: another choice of elements")


@with_scratch
def test_method_quotas_hold_over_the_tiles_of_a_large_tensor(folder):
    from test_determinism import BIG, big_zoo
    from common import Q
    zoo = big_zoo()
    for ranks in (1, 3):
        good(["compress", f"{zoo}/zoo.yaml", "-o", f"{ranks}.h5", "-q", "--set", "allocation=uniform", "--set", "rescale=tensor", "--set", "tracenorm=off",
              "--set", "sparsity=0.95"], ranks, cwd=folder)
    good(["restore", "3.h5", "--task", "two", "--base", f"{zoo}/base", "-o", "r", "--tensor", Q, "-q"], cwd=folder)
    b, f, g = (to_float(st_parse(m)[Q][2], "BF16") for m in (f"{zoo}/base", f"{zoo}/two", f"{folder}/r"))
    lo, step, q = quantise(f - b, 4)
    values = grid(lo, step, 4)
    n, keep = quotas(q, values, 0.95)
    scale = f32(1 / (1 - 0.95))
    want = to_float(to_dtype(b + (scale * values).astype(f32)[q], "BF16"), "BF16")
    check(np.all((g == b) | (g == want)), "an element is neither the base's nor the grid's value")
    kept, unseen = np.bincount(q[g != b], minlength=16), np.bincount(q[want == b], minlength=16)
    check(np.all(kept <= keep) and np.all(kept + unseen >= keep), f"kept {kept} (and up to {unseen}) of {n}, quotas {keep}")
    equal(lossy_tensors("3.h5", "two", folder)[0]["kept"], int(keep.sum()), "kept in the index")
    equal(b.size, BIG[0] * BIG[1], "elements")


def thirds(stds, counts, s, step):
    """METHODS.md "Mixed sparsity allocation"."""
    order = np.argsort(np.array(stds), kind="stable")
    total, walked, low, middle, groups = sum(counts), 0, 0, 0, {}
    for i in order:
        walked += counts[i]
        if 3 * walked <= total:
            groups[i] = s + step
            low += counts[i]
        elif 3 * walked <= 2 * total:
            groups[i] = s
            middle += counts[i]
        else:
            groups[i] = None
    high = (s * total - s * middle - (s + step) * low) / (total - low - middle)
    high = min(max(high, 0), max(0.99, s))
    return [high if groups[i] is None else groups[i] for i in range(len(stds))]


def thirds_case(sparsity, sets, step):
    def test(folder):
        zoo = tiny_zoo("f32")
        good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q", "--set", f"sparsity={sparsity}", *(x for s in sets for x in ("--set", s))], 3, cwd=folder)
        base = st_parse(f"{zoo}/base")
        for task in ("task-1", "task-2"):
            fine, tensors, stds, counts = st_parse(f"{zoo}/{task}"), lossy_tensors("a.h5", task, folder), [], []
            for t in tensors:
                b, f = to_float(base[t["name"]][2], "F32"), to_float(fine[t["name"]][2], "F32")
                lo, st, q = quantise(f - b, 4)
                stds.append(float(st) * np.std(q.astype(np.float64)))
                counts.append(q.size)
            want = thirds(stds, counts, sparsity, step)
            check(len(set(want)) == 3, "not three groups")
            for t, w in zip(tensors, want):
                check(abs(t["sparsity"] - w) < 1e-6, f"{task} {t['name']}: sparsity {t['sparsity']}, not {w}")
                check(np.isclose(t["scale"], 1 / (1 - sparsity), rtol=1e-6), f"{task} {t['name']}: scale {t['scale']} is not that of the target")
            mean = np.dot([t["sparsity"] for t in tensors], counts) / sum(counts)
            check(abs(mean - sparsity) < 1e-6, f"{task}: mean sparsity {mean}")

    return with_scratch(test)


test_method_thirds = thirds_case(0.97, [], 0.01)
test_method_thirds_with_a_step = thirds_case(0.9, ["step=0.05"], 0.05)
test_method_thirds_of_a_high_target = thirds_case(0.985, [], 0.005)


@with_scratch
def test_method_constant_deltas(folder):
    """hi == lo: one level, no division; a delta of exactly zero is equal to the base."""
    from common import UP, replaced
    zoo = SmallZoo(folder, tasks=("one",))
    fixed = {n: to_float(b, d) for n, d, _, b in zoo.base}
    model = replaced(zoo.tasks["one"], Q, data=fixed[Q].tobytes())
    base = replaced(zoo.base, K, data=np.zeros(48 * 32, f32).tobytes())
    model = replaced(model, K, data=np.full(48 * 32, 0.25, f32).tobytes())
    zoo.put("base", base)
    zoo.put("one", model)
    zoo.compress("a.h5", "--set", "sparsity=0.9", "--set", "allocation=uniform", "--set", "tracenorm=off", ranks=3)
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], cwd=folder)
    got = st_parse(f"{folder}/r")
    reported = {t["name"]: t for t in info("a.h5", "one", folder)["tasks"][0]["tensors"]}
    equal(reported[Q]["policy"], "equal", "policy of the tensor equal to the base")
    check(got[Q][2] == fixed[Q].tobytes(), "the tensor equal to the base differs")
    k = to_float(got[K][2], "F32")
    equal(reported[K]["kept"], 48 * 32 - round(48 * 32 * 0.9), "kept of the constant delta")
    equal(sorted(set(k.tolist())), [0.0, float(f32(f32(1 / (1 - 0.9)) * f32(0.25)))], "values of the constant delta")
    equal(reported[UP]["policy"], "ultradelta", "policy")


@with_scratch
def test_trace_norms_of_small_matrices_are_exact(folder):
    """An estimate would be a percent off in a model of two small matrices, and gammas with it."""
    zoo = SmallZoo(folder, tasks=("one", "two", "three"), shapes={Q: (64, 48), K: (64, 48)})
    for seed in range(4):
        for how in ("slq", "exact"):
            zoo.compress(f"{how}.h5", "--force", "--set", f"tracenorm={how}", "--set", f"seed={seed}", ranks=1 + seed % 2)
        for a, b in zip(*(info(f"{how}.h5", cwd=folder)["tasks"] for how in ("slq", "exact"))):
            check(abs(a["trace_norm"] / b["trace_norm"] - 1) < 1e-6, f"trace norm {a['trace_norm']}, not {b['trace_norm']}")
