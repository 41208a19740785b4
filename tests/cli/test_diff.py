"""deltazoo diff: what sort of change a fine-tune is, with its figures, for one model of each sort."""
import json

import numpy as np

from common import check, equal, good, refused, st_bytes, to_dtype, to_float, with_scratch, write

LAYERS, WIDE, VOCAB = 3, 96, 160


def shapes(vocab=VOCAB):
    out = {"model.embed_tokens.weight": (vocab, WIDE)}
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        for name in "qkvo":
            out[f"{at}self_attn.{name}_proj.weight"] = (WIDE, WIDE)
        out.update({f"{at}mlp.gate_proj.weight": (2 * WIDE, WIDE), f"{at}mlp.up_proj.weight": (2 * WIDE, WIDE),
                    f"{at}mlp.down_proj.weight": (WIDE, 2 * WIDE), f"{at}input_layernorm.weight": (WIDE,)})
    return dict(out, **{"model.norm.weight": (WIDE,), "lm_head.weight": (vocab, WIDE)})


class Model(dict):
    """name -> float32 array; put() writes it."""

    def put(self, path, dtype):
        write(f"{path}/model.safetensors", st_bytes([(n, dtype, x.shape, to_dtype(x, dtype)) for n, x in self.items()], {"format": "pt"}))


def base_model(dtype="BF16"):
    rng = np.random.default_rng(1)
    values = {n: (1 + 0.1 * rng.standard_normal(s) if len(s) == 1 else 0.02 * rng.standard_normal(s)).astype(np.float32) for n, s in shapes().items()}
    return Model((n, to_float(to_dtype(x, dtype), dtype).reshape(x.shape)) for n, x in values.items())


def is_matrix(name):
    return ".layers." in name and name.endswith("_proj.weight")


def changed(base, what, scale=1e-3, seed=2):
    rng = np.random.default_rng(seed)
    return Model((n, x + (scale * rng.standard_normal(x.shape)).astype(np.float32) if what(n) else x) for n, x in base.items())


def lora(base, rank, only=("q_proj", "v_proj"), scale=2e-3):
    rng = np.random.default_rng(3)
    out = Model(base)
    for n, x in base.items():
        if is_matrix(n) and any(k in n for k in only):
            out[n] = x + (scale / rank ** 0.5 * rng.standard_normal((x.shape[0], rank)) @ rng.standard_normal((rank, x.shape[1]))).astype(np.float32)
    return out


def sparse(base, share):
    rng = np.random.default_rng(4)
    return Model((n, np.where(rng.random(x.shape) < share, x * np.float32(1.02), x).astype(np.float32) if is_matrix(n) else x) for n, x in base.items())


def diff(folder, model, dtype="BF16", ranks=1):
    model.put(f"{folder}/model", dtype)
    return json.loads(good(["diff", "base", "model", "--json", "-q"], ranks, cwd=folder).out)


@with_scratch
def test_every_sort_of_change(folder):
    base = base_model()
    base.put(f"{folder}/base", "BF16")
    grown = Model((n, np.concatenate([x, x[:8] * 0.5]) if n in ("model.embed_tokens.weight", "lm_head.weight") else x) for n, x in base.items())
    new_head = Model((n, x) for n, x in base.items() if n != "lm_head.weight")
    new_head["score.weight"] = base["lm_head.weight"][:4]
    other = changed(base, lambda n: False)
    for n in [n for n in base if is_matrix(n)]:
        other[n] = np.roll(base[n], 7, axis=0)[:, ::-1].copy()
    for sort, model, word in (("identical", base, "no element differs"), ("vocabulary grown", grown, "rows were added"),
                              ("head only", changed(base, lambda n: n == "lm_head.weight"), "head only"), ("head only", new_head, "head only"),
                              ("norms only", changed(base, lambda n: "norm" in n, 0.05), "norms"),
                              ("embeddings only", changed(base, lambda n: "embed" in n), "embeddings"),
                              ("lora merged", lora(base, 4), "rank up to 4 in 6 of 21 matrices"), ("sparse", sparse(base, 0.03), "sparse: 3"),
                              ("full", changed(base, lambda n: True), "21 of 21 matrices"), ("other model", other, "no fine-tune of this base")):
        got = diff(folder, model)
        equal(got["sort"], sort, f"{word}: {got['text']}")
        check(word in got["text"], got["text"])
        out = good(["diff", "base", "model", "-q"], cwd=folder).out
        check(all(len(line) <= 80 for line in out.splitlines()), out)
        check(got["text"].split("(")[0].strip() in out.replace("\n", " "), out)


@with_scratch
def test_merged_lora_is_told_from_rounding_in_every_dtype(folder):
    for dtype in ("F32", "F16", "BF16"):
        base = base_model(dtype)
        base.put(f"{folder}/base", dtype)
        for rank in (1, 8):
            got = diff(folder, lora(base, rank, ("q_proj", "v_proj", "down_proj"), 4e-3), dtype)
            equal((got["sort"], got["totals"]["rank"], got["totals"]["low_rank_tensors"]), ("lora merged", rank, 3 * LAYERS), f"{dtype} rank {rank}")
        equal(diff(folder, changed(base, is_matrix), dtype)["sort"], "full", dtype)


@with_scratch
def test_dtype_only_and_a_fine_tune_in_another_dtype(folder):
    base = base_model("F32")
    base.put(f"{folder}/base", "F32")
    got = diff(folder, base, "BF16")
    equal((got["sort"], got["totals"]["other_dtype"], got["totals"]["changed_elements"]), ("dtype only", len(base), 0), got["text"])
    got = diff(folder, changed(base, is_matrix), "BF16")
    equal((got["sort"], got["totals"]["changed_tensors"]), ("full", 7 * LAYERS), got["text"])
    equal(diff(folder, lora(base, 2, scale=4e-3), "BF16")["sort"], "lora merged", "LoRA in another dtype")


@with_scratch
def test_figures_are_those_of_numpy(folder):
    base = base_model()
    base.put(f"{folder}/base", "BF16")
    model = changed(base, lambda n: is_matrix(n) and ".1." in n)
    got = diff(folder, model)
    rounded = {n: to_float(to_dtype(x, "BF16"), "BF16").reshape(x.shape).astype(np.float64) for n, x in model.items()}
    energy = {"d": 0.0, "w": 0.0}
    for t in got["tensors"]:
        w, d = base[t["name"]].astype(np.float64), rounded[t["name"]] - base[t["name"]]
        equal(t["changed_elements"], int((d != 0).sum()), t["name"])
        if not d.any():
            equal(t["relative_change"], 0, t["name"])
            continue
        energy["d"] += (d ** 2).sum()
        energy["w"] += (w ** 2).sum()
        check(abs(t["relative_change"] / np.sqrt((d ** 2).sum() / (w ** 2).sum()) - 1) < 1e-6, t)
        s = np.linalg.svd(d, compute_uv=False)
        check(abs(t["rank"]["effective"] / (s.sum() ** 2 / (s ** 2).sum()) - 1) < 1e-6, f"{t} effective {s.sum() ** 2 / (s ** 2).sum()}")
        check(abs(t["rank"]["stable"] / ((s ** 2).sum() / s[0] ** 2) - 1) < 1e-6, f"{t} stable")
    check(abs(got["totals"]["relative_change"] / np.sqrt(energy["d"] / energy["w"]) - 1) < 1e-6, got["totals"])
    equal([(layer["name"], layer["changed_tensors"]) for layer in got["layers"]], [(f"model.layers.{i}", 7 * (i == 1)) for i in range(LAYERS)], "layers")
    equal(sum(k["changed_elements"] for k in got["kinds"]), got["totals"]["changed_elements"], "kinds")


@with_scratch
def test_sizes_are_those_of_the_archives(folder):
    base = base_model()
    base.put(f"{folder}/base", "BF16")
    got = diff(folder, changed(base, lambda n: True, 3e-4))["totals"]
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: m, path: model}\n")
    for key, more in (("predicted_exact_bytes", ["--recipe", "lossless"]), ("predicted_stored_bytes", [])):
        good(["compress", "zoo.yaml", "-o", f"{key}.h5", "-q", *more], cwd=folder)
        stored = json.loads(good(["info", f"{key}.h5", "--json"], cwd=folder).out)["tasks"][0]["stored_bytes"]
        check(0.6 < got[key] / stored < 1.5, f"{key}: {got[key]}, stored {stored}")
    small = json.loads(good(["diff", "base", "model", "--json", "-q", "--quality", "small"], cwd=folder).out)["totals"]
    check(small["predicted_stored_bytes"] < got["predicted_stored_bytes"], f"{small} {got}")


@with_scratch
def test_same_output_on_any_number_of_ranks(folder):
    base = base_model()
    base.put(f"{folder}/base", "BF16")
    lora(base, 4).put(f"{folder}/model", "BF16")
    for more in ([], ["--json"]):
        alone = good(["diff", "base", "model", "-q", *more], cwd=folder).out
        for ranks in (2, 3, 7):
            equal(good(["diff", "base", "model", "-q", *more], ranks, cwd=folder).out, alone, f"{ranks} ranks")


@with_scratch
def test_what_cannot_be_compared(folder):
    base = base_model()
    base.put(f"{folder}/base", "BF16")
    refused(folder, ["diff", "base", "absent"], 1, "absent", ranks=(1, 3))
    refused(folder, ["diff", "base"], 2, "2 arguments wanted", ranks=(1,))
    refused(folder, ["diff", "no-base", "no-model"], 1, "no-base", "no-model", lines=2, ranks=(1, 3))
    Model({"x.weight": base["lm_head.weight"]}).put(f"{folder}/model", "BF16")
    equal(json.loads(good(["diff", "base", "model", "--json"], 3, cwd=folder).out)["sort"], "unmatched", "another architecture")
    nan = changed(base, is_matrix)
    nan["model.layers.0.mlp.up_proj.weight"][3, 4] = np.nan
    got = diff(folder, nan, ranks=3)
    equal(got["sort"], "full", got["text"])
    check(any(t["relative_change"] is None for t in got["tensors"]), "a tensor with NaN has a norm")
