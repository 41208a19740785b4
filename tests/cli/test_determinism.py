"""The same archive, byte for byte, whatever the ranks, the memory and the instruction set."""
import os

import numpy as np

from common import EMBED, NORM, Q, call, check, equal, good, hashes, made_once, read, refused, run, sha256, st_bytes, st_parse, tiny_zoo, to_dtype, with_scratch, write

COST = {"test_large_tensors_over_ranks": 9, "test_large_tensors_with_little_memory": 8, "test_damage_in_a_tile_of_a_large_tensor": 5}
BIG = (3600, 4096)  # 14.7 M elements: four tiles


def big_zoo():
    def make(folder):
        rng = np.random.default_rng(8)
        base = rng.standard_normal(BIG[0] * BIG[1], dtype=np.float32) * np.float32(0.02)
        small = rng.standard_normal(64 * 64, dtype=np.float32)
        for name, scale in (("base", 0), ("one", 1e-3), ("two", 2e-3)):
            x = base + rng.standard_t(5, base.size).astype(np.float32) * np.float32(scale)
            write(f"{folder}/{name}/model.safetensors",
                  st_bytes([(Q, "BF16", BIG, to_dtype(x, "BF16")), (EMBED, "BF16", (64, 64), to_dtype(small + np.float32(scale), "BF16")),
                            (NORM, "BF16", (64,), to_dtype(small[:64], "BF16"))]))
        write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: one, path: one}\n  - {name: two, path: two}\n")

    return made_once("big", make)


def same(folder, zoo, variants, *more):
    """Compresses with every (ranks, options, environment) and compares the files."""
    first = None
    for i, (ranks, options, env) in enumerate(variants):
        good(["compress", f"{zoo}/zoo.yaml", "-o", f"a{i}.h5", "-q", *more, *options], ranks, cwd=folder, env=env)
        digest = sha256(f"{folder}/a{i}.h5")
        first = first or digest
        check(digest == first, f"{more}: the archive by {ranks} ranks {options} {env} differs from that by {variants[0]}")
        if i:
            os.remove(f"{folder}/a{i}.h5")


def ranks_case(*more, ranks=(1, 3, 7), dtype="bf16"):
    def test(folder):
        same(folder, tiny_zoo(dtype), [(n, [], {}) for n in ranks], *more)

    return with_scratch(test)


test_ranks = ranks_case(ranks=(1, 2, 3, 4, 7))
test_ranks_f32 = ranks_case(dtype="f32", ranks=(1, 7))
test_ranks_f16 = ranks_case(dtype="f16", ranks=(1, 4))
test_ranks_lossless = ranks_case("--recipe", "lossless")
test_ranks_golomb = ranks_case("--set", "positions=golomb")
test_ranks_eight_bits = ranks_case("--set", "bits=8")
test_ranks_one_bit = ranks_case("--set", "bits=1", ranks=(1, 3))
test_ranks_optimal = ranks_case("--set", "allocation=optimal")
test_ranks_uniform = ranks_case("--set", "allocation=uniform", "--set", "rescale=tensor", ranks=(1, 3))
test_ranks_systematic = ranks_case("--set", "rounding=systematic")
test_ranks_exact_trace_norm = ranks_case("--set", "tracenorm=exact", ranks=(1, 3))
test_ranks_golomb_eight_bits_systematic = ranks_case("--set", "positions=golomb", "--set", "bits=8", "--set", "rounding=systematic", "--set", "sparsity=0.9", ranks=(2, 5))


@with_scratch
def test_seed_changes_the_archive(folder):
    for seed in (1, 2):
        good(["compress", f"{tiny_zoo('bf16')}/zoo.yaml", "-o", f"{seed}.h5", "-q", "--set", f"seed={seed}"], cwd=folder)
    check(read(f"{folder}/1.h5") != read(f"{folder}/2.h5"), "the seed has no effect")


@with_scratch
def test_kernels(folder):
    for dtype in ("bf16", "f16"):
        same(folder, tiny_zoo(dtype), [(1 + 2 * (k == "avx2"), ["--force"], {"DZ_KERNELS": k}) for k in ("portable", "avx2", "avx512")])
        for k in ("portable", "avx2", "avx512"):
            good(["restore", "a0.h5", "--task", "task-1", "--base", f"{tiny_zoo(dtype)}/base", "-o", f"{dtype}-{k}", "-q"], cwd=folder, env={"DZ_KERNELS": k})
            equal(hashes(f"{folder}/{dtype}-{k}"), hashes(f"{folder}/{dtype}-portable"), f"files restored with {k}")


@with_scratch
def test_kernels_with_eight_bits(folder):
    same(folder, tiny_zoo("f32"), [(1, [], {"DZ_KERNELS": k}) for k in ("portable", "avx2", "avx512")], "--set", "bits=8")


@with_scratch
def test_memory(folder):
    same(folder, tiny_zoo("f32"), [(n, ["--mem-per-rank", m], {}) for n, m in ((1, "2G"), (1, "64M"), (3, "64M"), (2, "200M"))], "--recipe", "lossless")


@with_scratch
def test_working_directory_and_paths(folder):
    """Neither the time nor the way a path is written is in the archive."""
    zoo = tiny_zoo("bf16")
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)
    good(["compress", "zoo.yaml", "-o", f"{folder}/b.h5", "-q"], cwd=zoo)
    check(read(f"{folder}/a.h5") == read(f"{folder}/b.h5"), "archives differ")


@with_scratch
def test_large_tensors_over_ranks(folder):
    zoo = big_zoo()
    same(folder, zoo, [(n, [], {}) for n in (1, 2, 3, 4, 7)])
    for ranks in (1, 3):
        good(["restore", "a0.h5", "--task", "two", "--base", f"{zoo}/base", "-o", f"r{ranks}", "-q"], ranks, cwd=folder)
        good(["verify", "a0.h5", "--base", f"{zoo}/base", "-q"], ranks, cwd=folder)
    equal(hashes(f"{folder}/r1"), hashes(f"{folder}/r3"), "files")
    got, want = st_parse(f"{folder}/r1"), st_parse(f"{zoo}/two")
    check(got[EMBED] == want[EMBED] and got[NORM] == want[NORM], "exact tensors differ")


@with_scratch
def test_large_tensors_with_little_memory(folder):
    same(folder, big_zoo(), [(1, ["--mem-per-rank", "2G"], {}), (3, ["--mem-per-rank", "64M"], {}), (2, ["--mem-per-rank", "150M"], {"DZ_KERNELS": "portable"})],
         "--set", "rounding=systematic", "--set", "positions=golomb", "--set", "bits=8")


@with_scratch
def test_written_collectively(folder):
    """MPI-IO's collective writes make the same file as each rank's own."""
    same(folder, big_zoo(), [(2, [], {}), (3, ["--io", "collective"], {}), (2, ["--io", "collective", "--io-hint", "cb_nodes=1"], {}), (1, ["--io", "collective"], {})])
    refused(folder, ["compress", f"{big_zoo()}/zoo.yaml", "-o", "b.h5", "--io", "fast"], 2, "'fast'")
    refused(folder, ["compress", f"{big_zoo()}/zoo.yaml", "-o", "b.h5", "--io", "collective", "--io-hint", "x"], 2, "'x'", ranks=(3,))


@with_scratch
def test_large_exact_tensors_over_ranks(folder):
    zoo = big_zoo()
    write(f"{folder}/one.yaml", f"base: {zoo}/base\ntasks:\n  - {{name: one, path: {zoo}/one}}\n")
    for ranks, memory in ((3, "64M"), (1, "2G")):
        good(["compress", "one.yaml", "-o", f"{ranks}.h5", "--recipe", "lossless", "--mem-per-rank", memory, "-q"], ranks, cwd=folder)
    check(read(f"{folder}/1.h5") == read(f"{folder}/3.h5"), "archives differ")
    good(["restore", "3.h5", "--task", "one", "--base", f"{zoo}/base", "-o", "r", "-q"], 3, cwd=folder)
    equal(hashes(f"{folder}/r"), hashes(f"{zoo}/one"), "files")


@with_scratch
def test_damage_in_a_tile_of_a_large_tensor(folder):
    from test_bad_archive import flip, rows_of
    zoo = big_zoo()
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q"], 2, cwd=folder)
    place, rows = rows_of(f"{folder}/a.h5", "two")
    offset, length = next(r[1:] for r in rows if r[0] == Q)
    lengths = np.frombuffer(read(f"{folder}/a.h5")[place + offset:][:16], "<u4")
    equal(int(lengths.sum()) + 20, length, "the table of tiles")
    flip(f"{folder}/a.h5", place + offset + 20 + int(lengths[:2].sum()) + 1000, 3)
    for ranks in (1, 3):
        r = run(["verify", "a.h5", "-q"], ranks, cwd=folder)
        check(r.code == 3 and all(w in r.err for w in ("'two'", Q, "block 2")) and len(r.lines("damage")) == 1, f"{r}")
        r = run(["restore", "a.h5", "--task", "two", "--base", f"{zoo}/base", "-o", "r", "-q"], ranks, cwd=folder)
        check(r.code == 3 and all(w in r.err for w in ("'two'", Q, "block 2")) and os.listdir(folder) == ["a.h5"], f"{r}")
    flip(f"{folder}/a.h5", place + offset + 20 + int(lengths[:2].sum()) + 1000, 3)
    flip(f"{folder}/a.h5", place + offset + 5, 3)  # in the table of tiles
    for ranks in (1, 3):
        r = run(["verify", "a.h5", "-q"], ranks, cwd=folder)
        check(r.code == 3 and "'two'" in r.err and Q in r.err, f"{r}")


@with_scratch
def test_killed_compress_leaves_the_old_archive(folder):
    """Whenever it is killed, the archive's name has the old file or the whole new one, and the next run is not hindered."""
    from test_append import wait_for_lock
    zoo = big_zoo()
    good(["compress", f"{zoo}/zoo.yaml", "-o", "want.h5", "-q"], cwd=folder)
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q", "--recipe", "lossless"], cwd=folder)
    old = read(f"{folder}/a.h5")
    want = sha256(f"{folder}/want.h5")
    for secs in ("0.4", "1", "1.6"):
        call(["timeout", "-s", "KILL", secs, "mpirun", "-n", "2", os.environ.get("DELTAZOO", "build/deltazoo"), "compress", f"{zoo}/zoo.yaml", "-o", "a.h5",
              "--force", "-q"], cwd=folder)
        wait_for_lock(f"{folder}/a.h5.lock")
        check(read(f"{folder}/a.h5") == old or sha256(f"{folder}/a.h5") == want, f"killed after {secs} s: half an archive")
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "--force", "-q"], cwd=folder)
    equal(sha256(f"{folder}/a.h5"), want, "archive")


@with_scratch
def test_large_companion_files(folder):
    """Tokenizers, coded by whichever rank: two tasks have the same, two another, one more than the others."""
    rng = np.random.default_rng(4)
    words = [bytes(rng.integers(97, 123, rng.integers(2, 9), dtype=np.uint8)) for _ in range(30000)]
    base = rng.standard_normal(65536, dtype=np.float32)
    write(f"{folder}/base/model.safetensors", st_bytes([(Q, "F32", (256, 256), to_dtype(base, "F32"))]))
    names, texts = [f"t{i}" for i in range(5)], {}
    for i, name in enumerate(names):
        text = b"".join(b'"%s": %d,\n' % (w, n) for n, w in enumerate(words[:30000 - 2000 * (i // 2)]))
        texts[name] = text if i % 2 or i == 4 else texts.get(f"t{i - 1}", text)
        write(f"{folder}/{name}/tokenizer.json", texts[name])
        write(f"{folder}/{name}/vocab.json", text[:200000])
        write(f"{folder}/{name}/model.safetensors", st_bytes([(Q, "F32", (256, 256), to_dtype(base + rng.standard_normal(65536, dtype=np.float32) * np.float32(1e-3), "F32"))]))
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n" + "".join(f"  - {{name: {n}, path: {n}}}\n" for n in names))
    for more in ([], ["--target-ratio", "20"]):
        same(folder, folder, [(n, ["--force"], {}) for n in (1, 2, 3, 7)], *more)
    for name in names:
        good(["restore", "a0.h5", "--task", name, "--base", "base", "-o", f"r-{name}"], 2, cwd=folder)
        check(read(f"{folder}/r-{name}/tokenizer.json") == texts[name], f"{name}: its tokenizer is another")
