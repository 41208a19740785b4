"""Quantised models, as libraries save them: said once, kept exactly, as a base and as a task; scan and compress agree."""
import json
import shutil

import numpy as np
import pytest

from common import EMBED, check, equal, good, hashes, info, read, small_model, st_bytes, to_dtype, to_float, with_scratch, write

LAYERS = [f"model.layers.{i}.{part}" for i in (0, 1) for part in ("self_attn.q_proj", "mlp.up_proj")]
SHAPES = {EMBED: (100, 64), **{f"{n}.weight": (64, 64) for n in LAYERS}, "model.norm.weight": (64,)}


def packed(x):
    """Four bits an element."""
    codes = np.clip(np.rint(x / np.abs(x).max() * 7 + 8), 0, 15).astype(np.uint8).reshape(-1)
    return (codes[::2] | codes[1::2] << 4).tobytes()


def eight(x):
    return np.rint(x / np.abs(x).max(1, keepdims=True) * 127).astype(np.int8).tobytes()


def scale(x, dtype="F32"):
    return to_dtype(np.abs(x).max(1), dtype)


FORMS = {
    "bitsandbytes-8": lambda n, x: [(f"{n}.weight", "I8", (64, 64), eight(x)), (f"{n}.SCB", "F32", (64,), scale(x)), (f"{n}.weight_format", "U8", (), b"\0")],
    "bitsandbytes-4": lambda n, x: [(f"{n}.weight", "U8", (2048, 1), packed(x)), (f"{n}.weight.absmax", "F32", (64,), scale(x)),
                                    (f"{n}.weight.quant_map", "F32", (16,), bytes(64)), (f"{n}.weight.quant_state.bitsandbytes__nf4", "U8", (80,), bytes(80))],
    "gptq": lambda n, x: [(f"{n}.qweight", "I32", (8, 64), packed(x)), (f"{n}.qzeros", "I32", (1, 8), bytes(32)), (f"{n}.scales", "F16", (1, 64), scale(x, "F16")),
                          (f"{n}.g_idx", "I32", (64,), bytes(256))],
    "awq": lambda n, x: [(f"{n}.qweight", "I32", (64, 8), packed(x)), (f"{n}.qzeros", "I32", (2, 8), bytes(64)), (f"{n}.scales", "F16", (2, 64), 2 * scale(x, "F16"))],
    "compressed-tensors-4": lambda n, x: [(f"{n}.weight_packed", "I32", (64, 8), packed(x)), (f"{n}.weight_scale", "BF16", (64, 1), scale(x, "BF16")),
                                          (f"{n}.weight_shape", "I64", (2,), bytes(16))],
    "compressed-tensors-8": lambda n, x: [(f"{n}.weight", "I8", (64, 64), eight(x)), (f"{n}.weight_scale", "BF16", (64, 1), scale(x, "BF16"))],
    "nvfp4": lambda n, x: [(f"{n}.weight_packed", "U8", (64, 32), packed(x)), (f"{n}.weight_scale", "F8_E4M3", (64, 4), 4 * scale(x, "F8_E4M3")),
                           (f"{n}.weight_global_scale", "F32", (1,), bytes(4))],
    "mxfp4": lambda n, x: [(f"{n}_blocks", "U8", (64, 2, 16), packed(x)), (f"{n}_scales", "U8", (64, 2), bytes(128))],
    "torchao": lambda n, x: [(f"{n}._weight_qdata", "I8", (64, 64), eight(x)), (f"{n}._weight_scale", "BF16", (64, 1), scale(x, "BF16")),
                             (f"{n}._weight_zero_point", "I8", (64, 1), bytes(64))],
    "torchao-f8": lambda n, x: [(f"{n}._weight_qdata", "F8_E4M3", (64, 64), to_dtype(x / np.abs(x).max(1, keepdims=True) * 448, "F8_E4M3")), (f"{n}._weight_scale", "F32", (64, 1), scale(x))],
    "modelopt": lambda n, x: [(f"{n}.weight", "U8", (64, 32), packed(x)), (f"{n}.weight_scale", "F8_E4M3", (64, 4), 4 * scale(x, "F8_E4M3")),
                              (f"{n}.weight_scale_2", "F32", (), bytes(4)), (f"{n}.input_scale", "F32", (), bytes(4))],
    "mlx": lambda n, x: [(f"{n}.weight", "U32", (64, 8), packed(x)), (f"{n}.scales", "BF16", (64, 1), scale(x, "BF16")), (f"{n}.biases", "BF16", (64, 1), bytes(128))],
    "torchao-flat": lambda n, x: [(f"{n}.weight:qdata", "I8", (64, 64), eight(x)), (f"{n}.weight:scale", "BF16", (64, 1), scale(x, "BF16"))],
    "quanto": lambda n, x: [(f"{n}.weight._data", "I8", (64, 64), eight(x)), (f"{n}.weight._scale", "BF16", (64, 1), scale(x, "BF16"))],
    "hqq": lambda n, x: [(f"{n}.W_q", "U8", (64, 32), packed(x)), (f"{n}.scale", "BF16", (64, 1), scale(x, "BF16")), (f"{n}.zero", "BF16", (64, 1), bytes(128))],
}


def models(form):
    base = small_model(1, "BF16", SHAPES)
    one = small_model(2, "BF16", SHAPES, base, 1e-4)
    plain = {"base": base, "one": one}
    if form == "mxfp4":  # its weights have no name of their own
        plain = {k: [(n.removesuffix(".weight") if n.removesuffix(".weight") in LAYERS else n, *rest) for n, *rest in m] for k, m in plain.items()}
    layers = {n for n in (t[0] for t in plain["base"]) if n.removesuffix(".weight") in LAYERS}
    quantised = {k: [q for n, d, s, data in m for q in (FORMS[form](n.removesuffix(".weight"), to_float(data, d).reshape(s)) if n in layers else [(n, d, s, data)])]
                 for k, m in plain.items()}
    return plain, quantised


def put(path, model):
    write(f"{path}/model.safetensors", st_bytes(model, {"format": "pt"}))
    write(f"{path}/config.json", "{}")


def compressed(folder, base, task, ranks=1):
    """The notes; the task came back to the last bit."""
    write(f"{folder}/zoo.yaml", f"base: {base}\ntasks:\n  - {{name: one, path: {task}}}\n")
    notes = good(["compress", "zoo.yaml", "-o", "a.h5", "--force", "-q"], ranks, cwd=folder).lines("note")
    equal(good(["plan", "zoo.yaml", "--headers"], cwd=folder).lines("note"), notes, "the notes of plan")
    good(["restore", "a.h5", "--task", "one", "--base", base, "-o", "r", "-q"], cwd=folder)
    equal(hashes(f"{folder}/r"), hashes(f"{folder}/{task}"), "restored files")
    shutil.rmtree(f"{folder}/r")
    return notes


@pytest.mark.parametrize("form", FORMS)
def test_quantised_model_is_said_once_and_kept_exactly(folder, form):
    plain, quantised = models(form)
    for name in plain:
        put(f"{folder}/{name}", plain[name])
        put(f"{folder}/{name}-q", quantised[name])
    names = sorted(n for n, d, *_ in quantised["one"] if d in ("I8", "U8", "I32", "U32", "F8_E4M3") and "zero" not in n and "scale" not in n and "g_idx" not in n and "format" not in n and "state" not in n)
    said = f"quantised: integer weights with scales in {len(LAYERS)} layers ('{names[0]}' with "
    over = compressed(folder, "base", "one-q", ranks=3)
    check(len(over) == 1 and said in over[0] and "task 'one'" in over[0] and "not quantised" in over[0], f"over the bf16 base: {over}")
    alike = compressed(folder, "base-q", "one-q")
    check(len(alike) == 1 and said in alike[0] and alike[0].startswith("base: "), f"over a base quantised alike: {alike}")
    under = compressed(folder, "base-q", "one")
    check(len(under) == 2 and said in under[0] and "4 tensors" in under[1] and "quantised in the base" in under[1], f"over a quantised base: {under}")
    rows = info("a.h5", "one", folder)["tasks"][0]["tensors"]
    check(not any(t["policy"] == "ultradelta" for t in rows), "a lossy tensor")


@pytest.mark.parametrize("form", FORMS)
def test_scan_writes_only_what_compress_takes(folder, form):
    plain, quantised = models(form)
    for name in plain:
        put(f"{folder}/zoo/{name}", plain[name])
    put(f"{folder}/zoo/one-q", quantised["one"])
    notes = good(["scan", "zoo", "-o", "found.yaml"], cwd=folder).lines("note")
    check(any(n.startswith("one-q: ") and "neither a base nor a task" in n for n in notes), f"{notes}")
    equal(read(f"{folder}/found.yaml").decode().count("name:"), 1, "tasks")
    good(["compress", "found.yaml", "-o", "a.h5", "-q"], cwd=folder)
    for name in quantised:
        put(f"{folder}/alike/{name}", quantised[name])
    good(["scan", "alike", "-o", "alike.yaml"], cwd=folder)
    good(["compress", "alike.yaml", "-o", "b.h5", "-q"], cwd=folder)


@with_scratch
def test_integer_tensors_beside_scales_of_attention_are_no_quantised_layer(folder):
    """Swin's index of positions, and the temperature of its attention."""
    parts = [("layers.0.attn.relative_position_index", "I64", (16, 16), np.arange(256).tobytes()), ("layers.0.attn.logit_scale", "F32", (4, 1, 1), bytes(16))]
    base = small_model(1, "BF16", SHAPES)
    put(f"{folder}/base", base + parts)
    put(f"{folder}/one", small_model(2, "BF16", SHAPES, base, 1e-4) + parts)
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: one, path: one}\n")
    r = good(["plan", "zoo.yaml", "--headers", "--json"], cwd=folder)
    check(not any("quantised" in n for n in json.loads(r.out)["notes"]), r.out[:2000])
