"""The Python package where models are used: transformers and diffusers take its tensors, peft and gguf-py its adapters."""
import json
import os
import shutil
import sys

import numpy as np
import pytest

pytest.importorskip("transformers", reason="make check-clients makes a Python that has it")
sys.path[:0] = [os.path.dirname(__file__), os.path.join(os.path.dirname(__file__), "..", "cli"), os.path.join(os.path.dirname(__file__), "..", "python")]

import torch  # noqa: E402

import models  # noqa: E402
from common import ROOT, call, check, equal, good, read, write  # noqa: E402
from package import load, site  # noqa: E402
from test_clients import make_unet_pipeline, same  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def dz():
    return load()


def zoo_of(folder, *how, kind="llama"):
    """base and one, saved by transformers; their archive, and one as the program restores it."""
    torch.manual_seed(0)
    model, _, inputs = models.CASES[kind]()
    model.save_pretrained(f"{folder}/base")
    models.tuned(model, 1).save_pretrained(f"{folder}/one")
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: one, path: one}\n")
    good(["compress", "zoo.yaml", "-o", "a.h5", "-q", *how], cwd=folder)
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "back", "-q"], cwd=folder)
    return type(model), inputs


def equal_models(a, b, what):
    x, y = a.state_dict(), b.state_dict()
    check(x.keys() == y.keys() and all(same(x[n], y[n]) for n in x), what)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen3_moe"])
@pytest.mark.parametrize("how", ["auto", "lossless"])
def test_transformers_takes_a_state_dict(dz, kind, how, tmp_path):
    folder = str(tmp_path)
    cls, inputs = zoo_of(folder, "--method" if how == "auto" else "--recipe", how, kind=kind)
    with dz.open(f"{folder}/a.h5") as z:
        sd = z.load_state_dict("one", f"{folder}/base", progress=True)
        model = cls.from_pretrained(None, config=cls.config_class.from_pretrained(f"{folder}/base"), state_dict=sd).eval()
        want = cls.from_pretrained(f"{folder}/back").eval()
        equal_models(model, want, "from_pretrained(state_dict=...)")
        check(all(same(a, b) for a, b in zip(models.outputs(model, inputs), models.outputs(want, inputs))), "other outputs")
        live = cls.from_pretrained(f"{folder}/base").eval()
        before = cls.from_pretrained(f"{folder}/base")
        if kind == "qwen3_moe":  # stacked in memory, one by one in files
            with pytest.raises(dz.Error, match="the model has no .*experts"):
                z.load_into(live, "one", f"{folder}/base")
            return equal_models(live, before, "refused, and changed")
        with z.load_into(live, "one", f"{folder}/base"):
            equal_models(live, want, "swapped in")
        equal_models(live, before, "swapped out")


def test_diffusers_takes_the_parts_of_a_pipeline(dz, tmp_path):
    import diffusers
    folder = str(tmp_path)
    make_unet_pipeline(f"{folder}/base", 0)
    make_unet_pipeline(f"{folder}/one", 1)
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: one, path: one}\n")
    good(["compress", "zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "back", "-q"], cwd=folder)
    pipe, want = (diffusers.LDMPipeline.from_pretrained(f"{folder}/{x}") for x in ("base", "back"))
    with dz.open(f"{folder}/a.h5") as z:
        names = [t.name for t in z.tensors("one")]
        for part in "unet", "vqvae":
            own = getattr(pipe, part)
            prefix = f"{part}/" if any(n.startswith(f"{part}/") for n in names) else f"{part}." if any(n.startswith(f"{part}.") for n in names) else ""
            sd = {n[len(prefix):]: t for n, t in z.load_state_dict("one", f"{folder}/base", pattern=f"{prefix}*").items() if n[len(prefix):] in own.state_dict()}
            own.load_state_dict(sd)
            equal_models(own, getattr(want, part), part)


def test_peft_loads_the_exported_adapter(dz, tmp_path):
    import peft
    folder = str(tmp_path)
    cls, inputs = zoo_of(folder, "--recipe", "lossless")
    good(["export", "a.h5", "--task", "one", "--base", "base", "--format", "lora", "--rank", "4", "-o", "adapter", "-q"], cwd=folder)
    model = peft.PeftModel.from_pretrained(cls.from_pretrained(f"{folder}/base"), f"{folder}/adapter").eval()
    plain, weights = cls.from_pretrained(f"{folder}/base").eval(), dz._gguf.tensors_of(f"{folder}/adapter/adapter_model.safetensors")
    state, changed = plain.state_dict(), 0
    for name in weights:
        if name.endswith("lora_A.weight"):
            (kind, sa, a), (_, sb, b) = weights[name], weights[name.replace("lora_A", "lora_B")]
            own = name[len("base_model.model."):-len(".lora_A.weight")] + ".weight"
            product = torch.from_numpy(dz._memory.widened(b, kind).reshape(sb) @ dz._memory.widened(a, kind).reshape(sa))
            state[own].add_(product.to(state[own].dtype))
            changed += 1
    equal(sum("lora_A" in n for n, _ in model.named_parameters()), changed, "modules")
    base = models.outputs(cls.from_pretrained(f"{folder}/base").eval(), inputs)
    for got, merged, old in zip(models.outputs(model, inputs), models.outputs(plain, inputs), base):
        moved = (merged - old).abs().max()
        check(moved > 0 and (got - merged).abs().max() < 0.05 * moved + 1e-5, f"{(got - merged).abs().max()}, moved {moved}")


def merged_into(dz, folder, adapter, out):
    """The base's folder with B A added to its files: what an adapter is to mean, whatever loads it. Returns the number of layers."""
    from safetensors.torch import load_file, save_file
    weights = load_file(f"{folder}/{adapter}/adapter_model.safetensors")
    with open(f"{folder}/{adapter}/adapter_config.json") as file:
        about = json.load(file)
    state, changed = load_file(f"{folder}/base/model.safetensors"), 0
    for name in weights:
        if name.endswith("lora_A.weight"):
            own = name[len("base_model.model."):-len(".lora_A.weight")] + ".weight"
            state[own] = (state[own].float() + about["lora_alpha"] / about["r"] * weights[name.replace("lora_A", "lora_B")].float() @ weights[name].float()).to(state[own].dtype)
            changed += 1
    shutil.copytree(f"{folder}/base", f"{folder}/{out}")
    save_file(state, f"{folder}/{out}/model.safetensors", metadata={"format": "pt"})
    return changed


@pytest.mark.parametrize("kind,more,warns", [("qwen3_moe", [], False), ("mixtral", [], False), ("deepseek_v3", ["--tensor", "*self_attn*"], False),
                                             ("deepseek_v3", ["--tensor", "*.experts.*"], False), ("deepseek_v3", [], True)])
def test_peft_loads_an_adapter_of_a_mixture_of_experts(dz, tmp_path, kind, more, warns):
    """Experts one by one in files are one tensor in memory. Without a warning, what peft loads is base + B A; with the warning of layers that have an
    expert's name it is not (if this fails there, peft has become better: the warning can go)."""
    import peft
    folder = str(tmp_path)
    cls, inputs = zoo_of(folder, "--recipe", "lossless", kind=kind)
    code, out, err = call([os.environ.get("DELTAZOO", f"{ROOT}/build/deltazoo"), "export", "a.h5", "--task", "one", "--base", "base", "--format", "lora", "--rank", "8",
                           "-o", "adapter", "-q", *more], cwd=folder)
    check(code == 0 and ("last name of an expert" in " ".join(err.split())) == warns, out + err)
    check(merged_into(dz, folder, "adapter", "merged") > 0, "nothing in the adapter")
    model = peft.PeftModel.from_pretrained(cls.from_pretrained(f"{folder}/base"), f"{folder}/adapter").eval()
    far = moved = 0
    for got, want, old in zip(*(models.outputs(m, inputs) for m in (model, cls.from_pretrained(f"{folder}/merged").eval(), cls.from_pretrained(f"{folder}/base").eval()))):
        far, moved = max(far, float((got - want).abs().max())), max(moved, float((want - old).abs().max()))
    check(moved > 0 and (far < 0.05 * moved + 1e-5) != warns, f"{kind} {more}: {far} off, where the adapter moves by {moved}")


def test_an_adapter_keeps_vllm_s_rules(dz, tmp_path):
    """What vLLM wants in an adapter's configuration and names (its class PEFTHelper), and what it refuses."""
    folder = str(tmp_path)
    zoo_of(folder, "--recipe", "lossless")
    good(["export", "a.h5", "--task", "one", "--base", "base", "--format", "lora", "--rank", "4", "-o", "adapter", "-q"], cwd=folder)
    with open(f"{folder}/adapter/adapter_config.json") as file:
        about = json.load(file)
    check(isinstance(about["r"], int) and isinstance(about["lora_alpha"], int) and isinstance(about["target_modules"], list), f"{about}")
    check(not about.get("modules_to_save") and not about.get("use_dora") and about["bias"] == "none", f"{about}")
    weights = dz._gguf.tensors_of(f"{folder}/adapter/adapter_model.safetensors")
    for name, (_, shape, _) in weights.items():
        *_, module, which, last = name.split(".")
        check(name.startswith("base_model.model.") and last == "weight" and which in ("lora_A", "lora_B") and module in about["target_modules"], name)
        equal(shape[0 if which == "lora_A" else 1], about["r"], name)


def test_gguf_py_loads_the_adapter(dz, tmp_path):
    """As llama.cpp's loader checks it: kinds, names of the architecture, shapes, pairs; and its q and k are in llama.cpp's order of rows."""
    import gguf
    folder = str(tmp_path)
    zoo_of(folder, "--recipe", "lossless")
    good(["export", "a.h5", "--task", "one", "--base", "base", "--format", "lora", "--rank", "4", "-o", "adapter", "-q"], cwd=folder)

    def made(*more):
        return call([sys.executable, "-m", "deltazoo", "gguf-lora", "adapter", "--base", "base", "-o", "a.gguf", *more], cwd=folder, env={"PYTHONPATH": site()})

    code, out, err = made()
    check(code == 0 and "rank 4" in out and "llama" in out, out + err)
    code, out, err = made()
    check(code == 1 and "a.gguf: exists" in err and err.count("\n") == 1, out + err)
    equal(made("--force")[0], 0, "with --force")
    kept = {"model.gguf": b"GGUF and what no reader takes", "model.safetensors": b"weights"}
    writer = gguf.GGUFWriter(f"{folder}/base.gguf", "llama")
    writer.add_type("model")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    for name, content in kept.items():
        write(f"{folder}/{name}", content)
    for name in (*kept, "base.gguf"):
        before = read(f"{folder}/{name}")
        code, out, err = call([sys.executable, "-m", "deltazoo", "gguf-lora", "adapter", "--base", "base", "-o", name, "--force"], cwd=folder, env={"PYTHONPATH": site()})
        check(code == 1 and f"{name}: exists" in err and err.count("\n") == 1 and read(f"{folder}/{name}") == before, out + err)
    with open(f"{folder}/base/config.json") as file:
        config = json.load(file)
    reader = gguf.GGUFReader(f"{folder}/a.gguf")
    equal({k: reader.get_field(k).contents() for k in ("general.architecture", "general.type", "adapter.type", "adapter.lora.alpha")},
          {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 4.0}, "fields")
    own = {t.name: np.asarray(gguf.quants.dequantize(t.data, t.tensor_type), np.float32).reshape(t.shape[::-1]) for t in reader.tensors}
    weights = dz._gguf.tensors_of(f"{folder}/adapter/adapter_model.safetensors")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
             "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    equal(len(own), len(weights), "tensors")
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in names.items():
            (kind, sa, a), (_, sb, b) = (weights[f"base_model.model.model.layers.{layer}.{theirs}.lora_{x}.weight"] for x in "AB")
            a, b = dz._memory.widened(a, kind).reshape(sa), dz._memory.widened(b, kind).reshape(sb)
            if ours in heads:  # row i of the first half of a head, then row i of the second
                size = sb[0] // heads[ours]
                b = np.concatenate([b[h * size + np.arange(size).reshape(2, -1).T.reshape(-1)] for h in range(heads[ours])])
            check(np.array_equal(own[f"blk.{layer}.{ours}.weight.lora_a"], a) and np.array_equal(own[f"blk.{layer}.{ours}.weight.lora_b"], b), f"layer {layer}: {theirs}")
    write(f"{folder}/other/config.json", json.dumps({**config, "model_type": "mamba"}))
    for base, wanted in (("other", "'mamba'"), ("absent", "absent"), ("one/model.safetensors", "model.safetensors")):
        code, out, err = call([sys.executable, "-m", "deltazoo", "gguf-lora", "adapter", "--base", base, "-o", "b.gguf"], cwd=folder, env={"PYTHONPATH": site()})
        check(code == 1 and wanted in err and err.count("\n") == 1 and not os.path.exists(f"{folder}/b.gguf"), out + err)
