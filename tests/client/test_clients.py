"""Tiny models that the libraries make and save, through scan, plan, compress and restore, and back into the libraries: no key is missing, left over or of another
shape, the forward pass runs, and what is exact is the same to the last bit. `make check-clients` runs it in a Python that has the libraries."""
import json
import os
import re
import shutil
import sys

import pytest

pytest.importorskip("transformers", reason="make check-clients makes a Python that has it")
sys.path[:0] = [os.path.dirname(__file__), os.path.join(os.path.dirname(__file__), "..", "cli")]

import torch  # noqa: E402

import families  # noqa: E402
import models  # noqa: E402
from common import check, equal, good, hashes, info, read, write  # noqa: E402

torch.set_num_threads(1)


def manifest_of(folder):
    """scan finds that one model is tuned from the other, and which."""
    good(["scan", "zoo", "-o", "zoo.yaml"], cwd=folder)
    text = read(f"{folder}/zoo.yaml").decode()
    check('base: "zoo/base"' in text and text.count("name:") == 1 and '"zoo/one"' in text, f"the manifest is not base and one: {text}")
    good(["plan", "zoo.yaml"], cwd=folder)


def there_and_back(folder, *recipe):
    """The archive of the task, and what it is restored as."""
    shutil.rmtree(f"{folder}/back", ignore_errors=True)
    good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--force", *recipe], cwd=folder)
    good(["restore", "a.h5", "--task", "one", "--base", "zoo/base", "-o", "back", "-q"], cwd=folder)
    return {t["name"]: t for t in info("a.h5", "one", folder)["tasks"][0]["tensors"]}


def same(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.contiguous().view(torch.uint8) if a.dim() else a, b.contiguous().view(torch.uint8) if b.dim() else b)


def load(loader, folder):
    model, about = loader(folder)
    for what, keys in about.items():
        check(not keys, f"{what} of the restored model: {keys[:5]}")
    return model


@pytest.mark.parametrize("name", models.CASES)
def test_model_comes_back_as_its_library_has_it(name, tmp_path):
    folder = str(tmp_path)
    torch.manual_seed(0)
    model, loader, inputs = models.CASES[name]()
    one = models.tuned(model, 1)
    model.save_pretrained(f"{folder}/zoo/base")
    one.save_pretrained(f"{folder}/zoo/one")
    manifest_of(folder)
    there_and_back(folder, "--recipe", "lossless")
    equal(hashes(f"{folder}/back"), hashes(f"{folder}/zoo/one"), "restored files")
    want = models.outputs(load(loader, f"{folder}/zoo/one"), inputs)
    got = models.outputs(load(loader, f"{folder}/back"), inputs)
    check(len(got) == len(want) > 0 and all(same(a, b) for a, b in zip(got, want)), "exactly restored, the model gives another result")
    rows = there_and_back(folder)
    got = models.outputs(load(loader, f"{folder}/back"), inputs)
    check(all(torch.isfinite(a).all() for a in got if a.is_floating_point()), "the restored model gives no numbers")
    check_exact(folder, rows)


def check_exact(folder, rows):
    """What is not lossy is what it was; what is lossy is close to it."""
    from safetensors.torch import load_file
    for where, _, files in os.walk(f"{folder}/zoo/one"):
        for file in files:
            if not file.endswith(".safetensors"):
                continue
            inside = os.path.relpath(where, f"{folder}/zoo/one")
            prefix = "" if inside == "." else inside + "/"
            a, b = load_file(os.path.join(where, file)), load_file(os.path.join(where.replace("/zoo/one", "/back", 1), file))
            equal(sorted(a), sorted(b), f"tensors of {file}")
            for name in a:
                row = rows[prefix + name]
                check(row["policy"] == "ultradelta" or same(a[name], b[name]), f"{prefix + name} is {row['policy']} and differs")
                check(not a[name].is_floating_point() or torch.allclose(a[name].float(), b[name].float(), atol=0.1, rtol=0.1), f"{prefix + name} is far off")


# ------------------------------------------------------------------------------------------------------ more than one folder

def make_unet_pipeline(folder, seed):
    """A pipeline of two models that diffusers loads as one."""
    import diffusers
    torch.manual_seed(0)
    parts = diffusers.UNet2DModel(sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=8,
                                  down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"))
    parts = models.tuned(parts, seed) if seed else parts
    vq = diffusers.VQModel(block_out_channels=(16,), norm_num_groups=8, latent_channels=3, num_vq_embeddings=16)
    vq = models.tuned(vq, seed) if seed else vq
    diffusers.LDMPipeline(vqvae=vq, unet=parts, scheduler=diffusers.DDIMScheduler()).save_pretrained(folder)


def test_pipeline_of_diffusers_comes_back_whole(tmp_path):
    import diffusers
    folder = str(tmp_path)
    make_unet_pipeline(f"{folder}/zoo/base", 0)
    make_unet_pipeline(f"{folder}/zoo/one", 1)
    manifest_of(folder)
    there_and_back(folder, "--recipe", "lossless")
    equal(hashes(f"{folder}/back"), hashes(f"{folder}/zoo/one"), "restored files")
    a, b = (diffusers.LDMPipeline.from_pretrained(f"{folder}/{x}") for x in ("zoo/one", "back"))
    for part in "unet", "vqvae":
        x, y = getattr(a, part).state_dict(), getattr(b, part).state_dict()
        check(x.keys() == y.keys() and all(same(x[n], y[n]) for n in x), f"{part} is another one")
    check_exact(folder, there_and_back(folder))
    diffusers.LDMPipeline.from_pretrained(f"{folder}/back")


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_model_saved_as_it_is_in_memory_over_a_base_in_the_usual_layout(name, tmp_path):
    folder = str(tmp_path)
    torch.manual_seed(0)
    model, loader, _ = models.CASES[name]()
    one = models.tuned(model, 1)
    model.save_pretrained(f"{folder}/zoo/base")
    one.save_pretrained(f"{folder}/zoo/usual")
    one.save_pretrained(f"{folder}/zoo/one", save_original_format=False)
    os.makedirs(f"{folder}/zoo/state")
    one.config.save_pretrained(f"{folder}/zoo/state")
    torch.save(one.state_dict(), f"{folder}/zoo/state/pytorch_model.bin")
    write(f"{folder}/zoo.yaml", "base: zoo/base\ntasks:\n" + "".join(f"  - {{name: {t}, path: zoo/{t}}}\n" for t in ("one", "state", "usual")))
    rows = there_and_back(folder, "--recipe", "lossless")
    check(sum("experts" in n for n in rows) > 8, f"the experts are not kept one by one: {list(rows)}")
    equal(hashes(f"{folder}/back"), hashes(f"{folder}/zoo/one"), "restored files")
    good(["restore", "a.h5", "--task", "state", "--base", "zoo/base", "-o", "state", "-q"], cwd=folder)
    want = load(loader, f"{folder}/zoo/usual").state_dict()
    for back in "back", "state":
        got = load(loader, f"{folder}/{back}").state_dict()
        check(got.keys() == want.keys() and all(same(got[n], want[n]) for n in want), f"{back}: another model")
    there_and_back(folder)
    sizes = {t["name"]: t["stored_bytes"] for t in info("a.h5", cwd=folder)["tasks"]}
    check(max(sizes["state"], sizes["usual"]) < 0.1 * sizes["one"], f"one model in three layouts is not stored once: {sizes}")
    alone = {}
    for t in "one", "usual":
        write(f"{folder}/{t}.yaml", f"base: zoo/base\ntasks:\n  - {{name: {t}, path: zoo/{t}}}\n")
        good(["compress", f"{t}.yaml", "-o", f"{t}.h5", "-q"], cwd=folder)
        alone[t] = info(f"{t}.h5", cwd=folder)["tasks"][0]["stored_bytes"]
    check(alone["one"] < 1.1 * alone["usual"], f"{alone}")
    load(loader, f"{folder}/back")


def test_model_of_sentence_transformers_with_a_dense_layer_comes_back_whole(tmp_path):
    import transformers
    import sentence_transformers as st
    from sentence_transformers import models as modules
    folder = str(tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    write(f"{folder}/bert/vocab.txt", "\n".join(words))
    transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(words)}).save_pretrained(f"{folder}/bert")
    config = models.shrink(transformers.BertConfig(), vocab_size=len(words))
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(f"{folder}/bert")
    base = st.SentenceTransformer(modules=[modules.Transformer(f"{folder}/bert"), modules.Pooling(64), modules.Dense(64, 16)], device="cpu")
    base.save(f"{folder}/zoo/base", create_model_card=False)
    models.tuned(base, 1).save(f"{folder}/zoo/one", create_model_card=False)
    manifest_of(folder)
    there_and_back(folder, "--recipe", "lossless")
    equal(hashes(f"{folder}/back"), hashes(f"{folder}/zoo/one"), "restored files")
    a, b = (st.SentenceTransformer(f"{folder}/{x}", device="cpu").encode(["a b c", "d"]) for x in ("zoo/one", "back"))
    check((a == b).all(), "the restored model gives other embeddings")
    check_exact(folder, there_and_back(folder))
    st.SentenceTransformer(f"{folder}/back", device="cpu").encode(["a"])


def test_adapter_of_peft_comes_back_as_the_adapter(tmp_path):
    import peft
    folder = str(tmp_path)
    torch.manual_seed(0)
    base, _, inputs = models.CASES["llama"]()
    base.save_pretrained(f"{folder}/base")
    tuned = models.tuned(base, 1)
    tuned.save_pretrained(f"{folder}/one")
    lora = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    want = models.outputs(lora, inputs)
    lora.save_pretrained(f"{folder}/lora")
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: one, path: one}\n  - {name: lora, path: lora}\n")
    good(["compress", "zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)
    good(["restore", "a.h5", "--task", "lora", "--base", "base", "-o", "back", "-q"], cwd=folder)
    equal(hashes(f"{folder}/back"), hashes(f"{folder}/lora"), "restored files")
    fresh = type(tuned).from_pretrained(f"{folder}/base")
    got = models.outputs(peft.PeftModel.from_pretrained(fresh, f"{folder}/back").eval(), inputs)
    check(all(same(a, b) for a, b in zip(got, want)), "the restored adapter gives another result")
    equal([t["kind"] for t in info("a.h5", cwd=folder)["tasks"]], ["model", "adapter"], "kinds")


def test_sharded_and_whole_saves_of_one_folder_are_read_as_transformers_reads_them(tmp_path):
    """A sharded save into a folder that has a whole file: transformers itself leaves, and then loads, only one of them."""
    folder = str(tmp_path)
    torch.manual_seed(0)
    model, loader, _ = models.CASES["llama"]()
    one, two = models.tuned(model, 1), models.tuned(model, 2)
    model.save_pretrained(f"{folder}/zoo/base")
    one.save_pretrained(f"{folder}/whole")
    two.save_pretrained(f"{folder}/zoo/one", max_shard_size="100KB")
    shutil.copy(f"{folder}/whole/model.safetensors", f"{folder}/zoo/one")
    check(os.path.exists(f"{folder}/zoo/one/model.safetensors.index.json"), "the second save is not sharded")
    loaded = load(loader, f"{folder}/zoo/one")
    check(all(same(a, b) for a, b in zip(loaded.state_dict().values(), one.state_dict().values())), "transformers does not load the whole file first")
    write(f"{folder}/zoo.yaml", "base: zoo/base\ntasks:\n  - {name: one, path: zoo/one}\n")
    there_and_back(folder, "--recipe", "lossless")
    back = load(loader, f"{folder}/back")
    check(all(same(a, b) for a, b in zip(loaded.state_dict().values(), back.state_dict().values())), "the restored folder loads as another model")


def test_every_dtype_of_safetensors_is_read_by_the_python_reader(tmp_path):
    """Both frameworks, also where a tensor is empty."""
    import numpy as np
    from safetensors.torch import save_file
    folder = str(tmp_path)
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "src", "python"))
    import deltazoo
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32,
              torch.uint64, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.complex64,
              torch.float4_e2m1fn_x2]
    tensors = {}
    for dtype in dtypes:
        size = torch.empty(0, dtype=dtype).element_size()
        data = torch.arange(8 * size, dtype=torch.uint8) % 2 if dtype == torch.bool else torch.arange(8 * size, dtype=torch.uint8)
        tensors[str(dtype)[6:]] = data.view(dtype).reshape(2, 4)
        tensors[str(dtype)[6:] + ".empty"] = data[:0].view(dtype).reshape(0, 4)
    for name in "base", "one":
        os.makedirs(f"{folder}/{name}")
        save_file(tensors, f"{folder}/{name}/model.safetensors")
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: one, path: one}\n")
    good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--recipe", "lossless"], cwd=folder)
    with deltazoo.open(f"{folder}/a.h5") as archive:
        for name, want in tensors.items():
            got = archive.restore("one", name, f"{folder}/base", framework="pt")
            check(got.dtype == want.dtype and got.shape == want.shape, f"{name}: {got.dtype} {got.shape}, not {want.dtype} {want.shape}")
            check(got.numel() == 0 or torch.equal(got.contiguous().view(torch.uint8), want.view(torch.uint8)), f"{name}: other values")
            there = archive.restore("one", name, f"{folder}/base", framework="np")
            widened = name.split(".")[0] in ("bfloat16", "float8_e4m3fn", "float8_e5m2")  # numpy has no such types: f32 of the same values
            check(there.nbytes == want.numel() * (4 if widened else want.element_size()), f"{name}: {there.nbytes} bytes in numpy")
            check(want.dtype != torch.complex64 or there.dtype == np.complex64, f"{name}: numpy has {there.dtype}")


@pytest.mark.parametrize("bits, form", [(8, "int-quantized"), (4, "pack-quantized"), (8, "float-quantized")])
def test_model_quantised_by_compressed_tensors_is_kept_exactly(bits, form, tmp_path):
    """Over the bf16 base that it was made of, and over a base quantised alike; scan sets it apart from the first."""
    import copy

    import transformers
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config
    folder = str(tmp_path)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=120, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                                                                   num_key_value_heads=2)).to(torch.bfloat16).eval()
    one = models.tuned(model, 1)

    def save(what, where):
        quantised = copy.deepcopy(what)
        kind, most = ("float", 448) if form == "float-quantized" else ("int", 2 ** (bits - 1) - 1)
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(num_bits=bits, type=kind, symmetric=True, strategy="channel"))
        apply_quantization_config(quantised, QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"]))
        for module in quantised.modules():
            if hasattr(module, "weight_scale"):
                module.weight_scale.data = (module.weight.abs().amax(1, keepdim=True) / most).to(module.weight_scale.dtype)
        compressor = ModelCompressor.from_pretrained_model(quantised, form)
        compressor.compress_model(quantised)
        quantised.save_pretrained(where)
        compressor.update_config(where)

    model.save_pretrained(f"{folder}/zoo/base")
    one.save_pretrained(f"{folder}/zoo/plain")
    save(one, f"{folder}/zoo/one")
    save(model, f"{folder}/base-q")
    notes = good(["scan", "zoo"], cwd=folder).lines("note")
    check(any("one: " in n and "neither a base nor a task" in n for n in notes), f"{notes}")
    want = transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/zoo/one")(input_ids=models.ids(1, 12)).logits
    for base, said in (("zoo/base", "task 'one': "), ("base-q", "base: " if form != "float-quantized" else "task 'one': ")):
        write(f"{folder}/zoo.yaml", f"base: {base}\ntasks:\n  - {{name: one, path: zoo/one}}\n")
        notes = good(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--force"], cwd=folder).lines("note")
        check(any(n.startswith(said) and ("quantised: integer weights with scales in 14 layers" in n or "14 block-scaled F8 tensors" in n) for n in notes), f"{notes}")
        check(len(notes) <= 2, f"notes: {notes}")
        shutil.rmtree(f"{folder}/back", ignore_errors=True)
        good(["restore", "a.h5", "--task", "one", "--base", base, "-o", "back", "-q"], cwd=folder)
        equal(hashes(f"{folder}/back"), hashes(f"{folder}/zoo/one"), "restored files")
    got = transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/back")(input_ids=models.ids(1, 12)).logits
    check(same(got, want), "restored, the model gives another result")


def test_families_of_a_hub_folder_are_found(tmp_path):
    """Four families of transformers' layouts, one of them in bf16, and what has none: a manifest each, and a list that says why the others are in none."""
    folder = str(tmp_path)
    of_base = families.make(f"{folder}/hub", 12, 4)
    good(["scan", "hub", "-o", "family.yaml", "--list", "families.txt"], cwd=folder)
    lines = read(f"{folder}/families.txt").decode().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    found = {}
    for manifest, _ in rows:
        paths = [json.loads(part) for part in re.findall(r'(?:base|path): ("[^"]*")', read(manifest).decode())]
        found[os.path.relpath(paths[0], "hub")] = sorted(os.path.relpath(p, "hub") for p in paths[1:])
    equal(found, {base: sorted(tasks) for base, tasks in of_base.items()}, "families")
    check(any("in no zoo: alone" in line for line in lines) and any("in no zoo: hub/broken" in line for line in lines), f"{lines}")
