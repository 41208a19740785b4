"""Noise by input channels: where the base's weights tell which channels see large activations, the noise goes into the others."""
import json
import os
import subprocess
import sys

import numpy as np

from common import RANKS, ROOT, check, equal, good, info, sha256, st_bytes, st_parse, to_dtype, to_float, with_scratch, write

WIDTH, INNER, LAYERS = 256, 512, 3
MASSIVE = 7  # a hidden unit that gate and up make huge
ATTENTION, MLP = ("q", "k", "v"), ("gate", "up", "down")
ACTIVATIONS = np.exp(np.random.default_rng(5).standard_normal(WIDTH))  # rms of the input channels


def name_of(layer, kind):
    return f"model.layers.{layer}.{'self_attn' if kind in ATTENTION else 'mlp'}.{kind}_proj.weight"


def base_of(rng, kind, width, inner, activations):
    """As training leaves them: an input's weights are the smaller the larger it is."""
    if kind == "down":
        return rng.standard_normal((width, inner)) * 0.02
    x = rng.standard_normal((width if kind in ATTENTION else inner, width)) * 0.02 / activations
    if kind in MLP:
        x[MASSIVE] *= 5
    return x


def make_zoo(folder, transpose=False, width=WIDTH, inner=INNER, layers=LAYERS, tasks=1, activations=ACTIVATIONS):
    rng = np.random.default_rng(6)
    base = {(i, k): base_of(rng, k, width, inner, activations).astype(np.float32) for i in range(layers) for k in ATTENTION + MLP}
    base = {key: to_float(to_dtype(x.ravel(), "BF16"), "BF16").reshape(x.shape) for key, x in base.items()}
    for t in range(tasks + 1):
        tensors = []
        for (i, k), x in base.items():
            x = x + (rng.standard_normal(x.shape) * 0.001).astype(np.float32) if t else x
            x = x.T if transpose else x
            tensors.append((name_of(i, k), "F32", x.shape, to_dtype(np.ascontiguousarray(x).ravel(), "F32")))
            if transpose:  # a bias says which side the outputs are on
                tensors.append((name_of(i, k).replace("weight", "bias"), "F32", (x.shape[1],), np.zeros(x.shape[1], np.float32).tobytes()))
        write(f"{folder}/{f'task-{t}' if t else 'base'}/model.safetensors", st_bytes(tensors))
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n" + "".join(f"  - {{name: task-{t}, path: task-{t}}}\n" for t in range(1, tasks + 1)))


def compress(folder, *more, out="a.h5", **how):
    good(["compress", "zoo.yaml", "-o", out, "-q", "--force", *more], cwd=folder, **how)
    return f"{folder}/{out}"


def noise_by_channel(folder, kind, transpose=False):
    """Energy of the restored delta less the true one, by input channel, over all layers."""
    good(["restore", "a.h5", "--task", "task-1", "--base", "base", "-o", "r", "-q", "--force"], cwd=folder)
    restored, true = st_parse(f"{folder}/r"), st_parse(f"{folder}/task-1")
    total = 0
    for i in range(LAYERS):
        x, y = (to_float(m[name_of(i, kind)][2], "F32").reshape(m[name_of(i, kind)][1]).astype(np.float64) for m in (restored, true))
        total = total + ((x - y) ** 2).sum(1 if transpose else 0)
    return total


def reads_alike(folder, archive="a.h5", task="task-1"):
    """The independent reader restores the same bytes."""
    reader = os.path.join(ROOT, "src", "python", "deltazoo.py")
    subprocess.run([sys.executable, reader, "restore", archive, "--task", task, "--base", "base", "-o", "p", "--force"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    good(["restore", archive, "--task", task, "--base", "base", "-o", "r", "-q", "--force"], cwd=folder)
    equal({n: t[2] for n, t in st_parse(f"{folder}/p").items()}, {n: t[2] for n, t in st_parse(f"{folder}/r").items()}, "what the Python reader restores")


def with_both_orientations(test):
    def each(folder):
        for transpose in (False, True):
            make_zoo(folder, transpose)
            test(folder, transpose)
    each.__name__ = test.__name__
    return with_scratch(each)


@with_both_orientations
def test_large_channels_get_little_noise(folder, transpose):
    for more in (("--target-ratio", "100"), ("--target-ratio", "10")):  # by messages and by levels
        compress(folder, *more)
        for kind in ("q", "v", "up", "gate"):
            noise = noise_by_channel(folder, kind, transpose)
            slope = np.polyfit(np.log(ACTIVATIONS), np.log(noise), 1)[0]
            check(-2.3 < slope < -1.5, f"{more}, {kind}: noise goes as the activations to the power of {slope}, not -2")
            weighted = (noise * ACTIVATIONS**2).sum() / noise.sum() / (ACTIVATIONS**2).mean()
            check(weighted < 0.5, f"{more}, {kind}: at the outputs {weighted} of what white noise of that energy would be")
        noise = noise_by_channel(folder, "down", transpose)
        check(noise[MASSIVE] < 0.12 * np.median(noise) and noise[np.arange(INNER) != MASSIVE].max() < 1.5 * np.median(noise), f"{more}, down: {noise[:20]}")
        expected = info("a.h5", "task-1", folder)["tasks"][0]["lossy"]["noise_to_delta"]
        out = json.loads(good(["compare", "a.h5", "--task", "task-1", "--base", "base", "--finetuned", "task-1", "--json"], cwd=folder).out)["lossy"]
        check(abs((1 / out["cosine"] ** 2 - 1) / expected - 1) < 0.05, f"noise {1 / out['cosine'] ** 2 - 1}, expected {expected}")
        reads_alike(folder)


@with_scratch
def test_the_same_bytes_everywhere(folder):
    make_zoo(folder, tasks=2)
    wanted = sha256(compress(folder, "--target-ratio", "100"))
    for ranks in RANKS:
        equal(sha256(compress(folder, "--target-ratio", "100", ranks=ranks)), wanted, f"{ranks} ranks")
    for kernels in ("portable", "avx2", "avx512"):
        equal(sha256(compress(folder, "--target-ratio", "100", env={"DZ_KERNELS": kernels})), wanted, kernels)


@with_scratch
def test_a_tensor_of_several_tiles(folder):
    """The factors are in its first block; each of the others needs them."""
    width = 1536
    make_zoo(folder, width=width, inner=4200, layers=1, activations=np.exp(np.random.default_rng(5).standard_normal(width)))
    archive = compress(folder, "--target-ratio", "200", ranks=3)
    good(["verify", archive], cwd=folder)
    reads_alike(folder)
    out = good(["compare", "a.h5", "--task", "task-1", "--base", "base", "--finetuned", "task-1", "--json"], ranks=2, cwd=folder).out
    lossy = info("a.h5", "task-1", folder)["tasks"][0]["lossy"]
    check(abs((1 / json.loads(out)["lossy"]["cosine"] ** 2 - 1) / lossy["noise_to_delta"] - 1) < 0.05, f"{out[:300]}, expected {lossy}")


@with_scratch
def test_even_weights_and_small_tensors_have_no_factors(folder):
    """Where nothing is to be gained the archive is as without them."""
    make_zoo(folder, activations=np.ones(WIDTH))
    compress(folder, "--target-ratio", "100")
    for kind in ("q", "v"):
        noise = noise_by_channel(folder, kind)
        check(noise.std() / noise.mean() < 0.2, f"{kind}: noise differs by channel: {noise.std() / noise.mean()}")


@with_scratch
def test_a_child_of_a_tensor_of_several_tiles(folder):
    """Of parent and child each has its own factors in its own first blocks."""
    width = 1536
    make_zoo(folder, width=width, inner=4200, layers=1, tasks=2, activations=np.exp(np.random.default_rng(5).standard_normal(width)))
    write(f"{folder}/zoo.yaml", "base: base\ntasks: [{name: task-1, path: task-1}, {name: task-2, path: task-2, parent: task-1}]\n")
    archive = compress(folder, "--target-ratio", "100")
    wanted = sha256(archive)
    equal(sha256(compress(folder, "--target-ratio", "100", ranks=3)), wanted, "3 ranks")
    good(["verify", archive, "--base", "base"], cwd=folder)
    for task in ("task-1", "task-2"):
        reads_alike(folder, task=task)
        lossy = info("a.h5", task, folder)["tasks"][0]["lossy"]
        out = json.loads(good(["compare", "a.h5", "--task", task, "--base", "base", "--finetuned", task, "--json"], cwd=folder).out)["lossy"]
        check(abs((1 / out["cosine"] ** 2 - 1) / lossy["noise_to_delta"] - 1) < 0.1, f"{task}: {out['cosine']}, expected {lossy}")


@with_scratch
def test_plan_foresees_the_factors(folder):
    make_zoo(folder)
    plan = json.loads(good(["plan", "zoo.yaml", "--json", "--quality", "balanced"], cwd=folder).out)["tasks"][0]
    compress(folder, "--quality", "balanced")
    stored = info("a.h5", "task-1", folder)["tasks"][0]["lossy"]["stored_bytes"]
    check(abs(plan["predicted_lossy_stored_bytes"] / stored - 1) < 0.1, f"{plan['predicted_lossy_stored_bytes']} bytes foreseen, {stored} stored")
