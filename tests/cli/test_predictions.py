"""Embeddings and heads whose rows moved along few directions: a prediction takes them off before the rotation, for the same noise in fewer bytes."""
import json

import numpy as np

from common import check, equal, good, info, sha256, st_bytes, with_scratch, write
from test_channels import compress, reads_alike
from test_vocabulary import EMBEDDING, HEAD, LIMITS, SHARE, compared, restored, rows, same_bytes_everywhere, true

TOKENS, WIDTH = 6000, 128
HALF = 0.5  # of a vocabulary's share of the limits


def make_zoo(folder, share=0.85, size=0.001, rank=3, alone=0, tokens=TOKENS, width=WIDTH, tasks=1, dtype="F32", manifest=None):
    """`share` of each row's energy is in `rank` directions that all rows have in common, of the first `alone` rows only 0.4."""
    rng = np.random.default_rng(5)
    shapes = {EMBEDDING: (tokens, width), "model.layers.0.mlp.up_proj.weight": (192, width), "model.layers.1.mlp.up_proj.weight": (192, width), HEAD: (tokens, width)}
    base = {n: (rng.standard_normal(s) * 0.05).astype(np.float32) for n, s in shapes.items()}
    for t in range(tasks + 1):
        own = {}
        for n, x in base.items():
            move = rng.standard_normal(x.shape)
            if n in (EMBEDDING, HEAD):
                sizes = np.exp(0.8 * rng.standard_normal(tokens))[:, None]
                along = (rng.standard_normal((tokens, rank)) + 0.5) @ rng.standard_normal((rank, width)) * np.exp(rng.standard_normal(1))
                of = np.where(np.arange(tokens) < alone, 0.4, share)[:, None]
                along /= np.sqrt((along**2).mean(1))[:, None]
                move = sizes * (move * np.sqrt(1 - of) + along * np.sqrt(of))
            own[n] = x + (move * size).astype(np.float32) if t else x
        kind = {"F32": "<f4", "F64": "<f8", "F16": "<f2"}[dtype]
        write(f"{folder}/{f'task-{t}' if t else 'base'}/model.safetensors", st_bytes([(n, dtype, x.shape, x.astype(kind).tobytes()) for n, x in own.items()]))
    write(f"{folder}/zoo.yaml", manifest or "base: base\ntasks:\n" + "".join(f"  - {{name: task-{t}, path: task-{t}}}\n" for t in range(1, tasks + 1)))


def stored(folder, name):
    return rows(folder)[name]["stored_bytes"]


def noise_of(folder, name):
    """Error and true delta of the restored tensor."""
    back, own, base = restored(folder)[name], true(folder)[name], true(folder, "base")[name]
    return back - own, own - base


@with_scratch
def test_fewer_bytes_for_less_noise(folder):
    for quality, most in (("high", 0.6), ("balanced", 0.75), ("small", 0.85)):
        make_zoo(folder, share=0)
        compress(folder, "--quality", quality)
        without = {n: stored(folder, n) for n in (EMBEDDING, HEAD)}
        make_zoo(folder)
        compress(folder, "--quality", quality)
        for name in (EMBEDDING, HEAD):
            check(stored(folder, name) < most * without[name], f"{quality}, {name}: {stored(folder, name)} bytes, {without[name]} without directions")
            error, delta = noise_of(folder, name)
            nsr, expected = (error**2).sum() / (delta**2).sum(), rows(folder)[name]["noise_to_delta"]
            check(0.9 < nsr / (HALF * SHARE * LIMITS[quality][0]) < 1.1, f"{quality}, {name}: noise {nsr} of the delta")
            check(abs(nsr / expected - 1) < 0.04, f"{quality}, {name}: noise {nsr}, {expected} expected")
            bias = (error * delta).sum() / (delta**2).sum()
            check(abs(bias) < 0.03, f"{quality}, {name}: the delta comes back {1 + bias} times")
            parts = (error @ np.linalg.svd(delta, full_matrices=False)[2].T)**2
            first = parts[:, :3].sum() / parts.sum() * WIDTH / 3
            check(first < 1.2, f"{quality}, {name}: in the directions that the rows have in common the noise is {first} times that in others")
        reads_alike(folder)
        out, said = compared(folder)["lossy"], info("a.h5", "task-1", folder)["tasks"][0]["lossy"]
        check(out["verdict"] == said["verdict"] == quality, f"{quality}: info says {said['verdict']}, compare {out['verdict']}")


@with_scratch
def test_noise_is_the_same_where_rows_are_hard_to_predict(folder):
    """The first rows, the most frequent tokens, moved more in ways of their own: they get more bits, not more noise."""
    make_zoo(folder, tokens=8192, alone=1024)
    compress(folder)
    for name in (EMBEDDING, HEAD):
        error, delta = noise_of(folder, name)
        ratio = [(error[r]**2).sum() / (delta[r]**2).sum() for r in (slice(0, 1024), slice(1024, 8192))]
        check(abs(ratio[0] / ratio[1] - 1) < 0.1, f"{name}: noise {ratio[0]} of what the first rows moved, {ratio[1]} of the others")
    reads_alike(folder)


@with_scratch
def test_limits_by_the_base(folder):
    make_zoo(folder, size=0.006)
    compress(folder)
    for name in (EMBEDDING, HEAD):
        error, delta = noise_of(folder, name)
        nsr, rho = (error**2).sum() / (delta**2).sum(), (error**2).sum() / (true(folder, "base")[name]**2).sum()
        check(nsr < 0.5 * SHARE * LIMITS["balanced"][0] and 0.9 < rho / (SHARE * LIMITS["balanced"][1]) < 1.1, f"{name}: noise {nsr} of the delta, {rho} of the base")
    reads_alike(folder)


@with_scratch
def test_no_more_noise_than_the_share_where_blocks_need_more_than_a_bit_an_element(folder):
    make_zoo(folder, tokens=8192, alone=1024)
    compress(folder, "--set", "noise_to_delta=1.3", "--set", "noise_to_base=10")
    for name in (EMBEDDING, HEAD):
        error, delta = noise_of(folder, name)
        nsr, expected = (error**2).sum() / (delta**2).sum(), rows(folder)[name]["noise_to_delta"]
        check(expected < 1.001 * SHARE * 1.3 and nsr < 1.02 * SHARE * 1.3, f"{name}: noise {nsr} of the delta, {expected} expected, {SHARE * 1.3} allowed")


@with_scratch
def test_gains_and_factors_have_none(folder):
    make_zoo(folder)
    compress(folder)
    predicted = stored(folder, EMBEDDING)
    for more in (["--set", "gain=1"], ["--recipe", "r.yaml"]):
        write(f"{folder}/r.yaml", "method: auto\nquality: balanced\ntensors:\n  - {match: \"*embed*\", policy: structure, factor: 0.999}\n  - {match: \"*\", policy: structure}\n")
        compress(folder, *more)
        check(stored(folder, EMBEDDING) > 1.1 * predicted, f"{more}: {stored(folder, EMBEDDING)} bytes, {predicted} with predictions")
        error, delta = noise_of(folder, EMBEDDING)
        check(abs((error * delta).sum() / (delta**2).sum()) < 0.03, f"{more}: another gain")
        reads_alike(folder)


@with_scratch
def test_the_same_bytes_everywhere(folder):
    """Tables of several tiles, the borders of which are in rows."""
    make_zoo(folder, tokens=70001, width=112, tasks=2)
    same_bytes_everywhere(folder)


@with_scratch
def test_every_type_and_chains(folder):
    for dtype in ("F16", "F64"):
        make_zoo(folder, dtype=dtype)
        compress(folder)
        check(stored(folder, EMBEDDING) < TOKENS * WIDTH * 0.4 / 8, f"{dtype}: {stored(folder, EMBEDDING)} bytes")
        reads_alike(folder)
    make_zoo(folder, tasks=2, manifest="base: base\ntasks: [{name: task-1, path: task-1}, {name: task-2, path: task-2, parent: task-1}]\n")
    wanted = sha256(compress(folder))
    equal(sha256(compress(folder, ranks=3)), wanted, "3 ranks")
    reads_alike(folder, task="task-2")


@with_scratch
def test_plan_says_it_before(folder):
    make_zoo(folder)
    for quality in LIMITS:
        plan = json.loads(good(["plan", "zoo.yaml", "--quality", quality, "--json"], cwd=folder).out)["tasks"][0]
        compress(folder, "--quality", quality)
        task = info("a.h5", "task-1", folder)["tasks"][0]
        check(abs(plan["predicted_stored_bytes"] / task["stored_bytes"] - 1) < 0.12, f"{quality}: {plan['predicted_stored_bytes']}, came to {task['stored_bytes']}")
