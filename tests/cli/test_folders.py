"""The model of a folder is what its library loads: transformers 5.24, diffusers 0.42 and sentence-transformers 6.2 were asked. Every layout here is one that they,
or the people who use them, make."""
import json
import os
import shutil

from common import EMBED, K, NORM, Q, UP, SmallZoo, check, equal, good, hashes, info, refused, small_model, st_bytes, st_parse, with_scratch, write
from test_checkpoints import COMPRESS, reader, round_trip, shard
from test_directories import notes
from test_scan import torch_bytes

LOSSLESS = ["--recipe", "lossless"]
DENSE = [("linear.weight", "F32", (4, 8), bytes(range(128))), ("linear.bias", "F32", (4,), bytes(range(16)))]
PART = {"a.block.0.q.weight": (48, 32), "norm.weight": (32,)}  # names that two parts of a pipeline both have


def restored(folder):
    """Hashes of the files that task one comes back as."""
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r", "--force"], 3, cwd=folder)
    good(["verify", "a.h5", "--base", "base"], 3, cwd=folder)
    return hashes(f"{folder}/r")


def exact(zoo, *without):
    """Compressed exactly, the task comes back as it is, but for these files."""
    r = zoo.compress("a.h5", "--force", *LOSSLESS, ranks=3)
    got = restored(zoo.folder)
    equal(got, {f: h for f, h in hashes(f"{zoo.folder}/one").items() if f not in without}, "restored files")
    reader(zoo.folder, "--task", "one", "--base", "base", "--against", "r")
    shutil.rmtree(f"{zoo.folder}/r")
    return r


# ------------------------------------------------------------------------------------------------------ which files are loaded

@with_scratch
def test_whole_file_beside_stale_shards_is_the_model_as_transformers_loads_it(folder):
    zoo = SmallZoo(folder)
    shard(folder, "one", zoo.tasks["two"])  # model.safetensors is there already
    stale = ["model.safetensors.index.json"] + [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    r = exact(zoo, *stale)
    notes(r, f"'one': {stale[1]} and 3 more files are not kept: transformers loads model.safetensors first, and this is another save of the model: it differs from it")
    shard(folder, "one", zoo.tasks["one"])
    notes(exact(zoo, *stale), "another save of the model: it seems to be the same")
    os.remove(f"{folder}/one/model-00002-of-00003.safetensors")
    exact(zoo, *stale)  # the index is not loaded, so nothing is missing


@with_scratch
def test_diffusers_loads_its_index_before_the_whole_file(folder):
    zoo = SmallZoo(folder)
    stem = "diffusion_pytorch_model"
    os.rename(f"{folder}/one/model.safetensors", f"{folder}/one/{stem}.safetensors")
    write(f"{folder}/one/config.json", '{"_class_name": "UNet2DConditionModel"}')
    for i, part in enumerate((zoo.tasks["two"][:3], zoo.tasks["two"][3:])):
        write(f"{folder}/one/{stem}-0000{i + 1}-of-00002.safetensors", st_bytes(part))
    names = {t[0]: f"{stem}-0000{1 + (i >= 3)}-of-00002.safetensors" for i, t in enumerate(zoo.tasks["two"])}
    write(f"{folder}/one/{stem}.safetensors.index.json", json.dumps({"weight_map": names}))
    notes(exact(zoo, f"{stem}.safetensors"), f"'one': {stem}.safetensors is not kept: diffusers loads {stem}.safetensors.index.json first", "it differs from it")
    os.remove(f"{folder}/one/{stem}-00002-of-00002.safetensors")
    os.remove(f"{folder}/a.h5")
    refused(folder, COMPRESS, 1, "one/" + stem + ".safetensors.index.json", "shard " + stem + "-00002-of-00002.safetensors is missing")


@with_scratch
def test_index_only_lists_the_files(folder):
    zoo = SmallZoo(folder)
    os.remove(f"{folder}/one/model.safetensors")
    shard(folder, "one", zoo.tasks["one"])
    path = f"{folder}/one/model.safetensors.index.json"
    index = json.load(open(path))
    del index["weight_map"][Q]  # its shard is listed by another
    index["weight_map"][K] = index["weight_map"][NORM]  # it is in another shard
    index["weight_map"]["never.saved"] = index["weight_map"][UP]
    write(path, json.dumps(index))
    exact(zoo)


@with_scratch
def test_consolidated_file_of_the_makers_is_another_model(folder):
    zoo = SmallZoo(folder)
    write(f"{folder}/one/consolidated.safetensors", st_bytes([("layers.0.wq", "F32", (2,), bytes(8))]))
    notes(exact(zoo, "consolidated.safetensors"), "consolidated.safetensors is not kept: other weights")
    os.rename(f"{folder}/one/model.safetensors", f"{folder}/one/weights.safetensors")
    exact(zoo, "consolidated.safetensors")


@with_scratch
def test_variants_of_any_name_are_not_the_model(folder):
    zoo = SmallZoo(folder)
    for stem in "diffusion_pytorch_model", "unusual":
        os.rename(f"{folder}/one/{'model' if stem != 'unusual' else 'diffusion_pytorch_model'}.safetensors", f"{folder}/one/{stem}.safetensors")
        for variant in "fp16", "non_ema":
            write(f"{folder}/one/{stem}.{variant}.safetensors", st_bytes(zoo.tasks["two"]))
        write(f"{folder}/one/{stem}.safetensors.index.fp16.json", json.dumps({"weight_map": {Q: f"{stem}.fp16.safetensors"}}))
        if stem == "unusual":
            os.remove(f"{folder}/one/{stem}.safetensors.index.fp16.json")
        gone = [f"{stem}.fp16.safetensors", f"{stem}.non_ema.safetensors"]
        r = exact(zoo, *gone)
        for name in gone:
            notes(r, f"'one': {name} is not kept")
            os.remove(f"{folder}/one/{name}")
        shutil.rmtree(f"{folder}/one/none", ignore_errors=True)
        for left in f"{stem}.safetensors.index.fp16.json",:
            if os.path.exists(f"{folder}/one/{left}"):
                os.remove(f"{folder}/one/{left}")
    os.rename(f"{folder}/one/unusual.safetensors", f"{folder}/one/diffusion_pytorch_model.fp16.safetensors")
    exact(zoo)  # the only weights of the folder


# ------------------------------------------------------------------------------------------------------------ PyTorch's names

@with_scratch
def test_only_weights_file_of_a_folder_is_its_model_and_comes_back_under_its_name(folder):
    zoo = SmallZoo(folder)
    os.remove(f"{folder}/one/model.safetensors")
    names = {"diffusion_pytorch_model.bin": "diffusion_pytorch_model.safetensors", "open_clip_pytorch_model.bin": "open_clip_pytorch_model.safetensors",
             "model.pt": "model.safetensors", "consolidated.00.pth": "consolidated.00.safetensors", "weights.ckpt": "weights.safetensors"}
    for name, want in names.items():
        write(f"{folder}/one/{name}", torch_bytes(zoo.tasks["one"]))
        write(f"{folder}/one/optimizer.pt", torch_bytes(zoo.tasks["two"]))
        notes(zoo.compress("a.h5", "--force", *LOSSLESS, ranks=3), "optimizer.pt is not kept: the state of a training")
        equal(sorted(restored(folder)), sorted([want, "config.json"]), f"files that come back of {name}")
        equal(st_parse(f"{folder}/r/{want}"), {n: (d, s, b) for n, d, s, b in zoo.tasks["one"]}, "tensors")
        shutil.rmtree(f"{folder}/r")
        os.remove(f"{folder}/one/{name}")
    os.remove(f"{folder}/a.h5")
    for name in "a.pt", "b.pt":
        write(f"{folder}/one/{name}", torch_bytes(zoo.tasks["one"]))
    refused(folder, COMPRESS, 1, "one: a.pt and b.pt could each be the model: name one of them instead of the folder")
    for i, name in enumerate(("a.pt", "b.pt")):
        os.rename(f"{folder}/one/{name}", f"{folder}/one/consolidated.0{i}.pth")
    refused(folder, COMPRESS, 1, "one: consolidated.00.pth and consolidated.01.pth are slices of one model")


@with_scratch
def test_folders_of_other_formats_say_what_they_are_and_what_to_do(folder):
    SmallZoo(folder)
    os.remove(f"{folder}/one/model.safetensors")
    for name, want in {"__0_0.distcp": "torch.distributed.checkpoint.format_utils dcp_to_torch", "zero_to_fp32.py": "zero_to_fp32.py", "x.gguf": "a GGUF file",
                       "flax_model.msgpack": "weights of Flax", "tf_model.h5": "weights of TensorFlow"}.items():
        write(f"{folder}/one/{name}", b"x" * 100)
        refused(folder, COMPRESS, 1, "one: holds ", want)
        os.remove(f"{folder}/one/{name}")


@with_scratch
def test_slices_of_a_distributed_save_are_refused_with_the_way_out(folder):
    """HuggingFaceStorageWriter of torch 2.13 without consolidation."""
    zoo = SmallZoo(folder)
    sharding = json.dumps({n: {"saved_offsets": [24] + [0] * (len(s) - 1)} for n, _, s, _ in zoo.tasks["one"]})
    write(f"{folder}/one/model.safetensors", st_bytes(zoo.tasks["one"], {"format": "pt", "DCP_SHARDING_INFO": sharding}))
    refused(folder, COMPRESS, 1, "one/model.safetensors", "one rank's slices", "consolidate_safetensors_files")


@with_scratch
def test_models_saved_without_gathering_are_reported_in_one_line(folder):
    zoo = SmallZoo(folder)
    empty = [(n, d, (0,), b"") for n, d, s, b in zoo.tasks["one"] if n != NORM]
    zoo.put("one", empty + [t for t in zoo.tasks["one"] if t[0] == NORM])
    r = zoo.compress("a.h5", "--recipe", "lossless", ranks=3)
    notes(r, "'one': 4 of its 5 tensors are empty: saved without gathering")
    equal(len([n for n in r.lines("note") if "'one'" in n]), 1, f"notes {r.lines('note')}")
    restored(folder)
    zoo.put("base", [(n, d, (0,), b"") for n, d, s, b in zoo.base])
    os.remove(f"{folder}/a.h5")
    refused(folder, COMPRESS, 1, "base: all its 5 tensors are empty: saved without gathering")


# ------------------------------------------------------------------------------------------------------------ folders in it

@with_scratch
def test_modules_in_folders_come_back_with_their_weights(folder):
    """sentence-transformers with the transformer at the root, and a Dense layer; a speech model with its voices."""
    zoo = SmallZoo(folder)
    zoo.manifest("one")
    for model in "base", "one":
        write(f"{folder}/{model}/modules.json", json.dumps([{"idx": 0, "name": "0", "path": ""}, {"idx": 1, "name": "1", "path": "1_Pooling"},
                                                            {"idx": 2, "name": "2", "path": "2_Dense"}]))
        write(f"{folder}/{model}/1_Pooling/config.json", "{}")
        write(f"{folder}/{model}/2_Dense/config.json", '{"in_features": 8}')
        write(f"{folder}/{model}/2_Dense/model.safetensors", st_bytes(DENSE))
    write(f"{folder}/one/voices/en.pt", os.urandom(5000))
    write(f"{folder}/one/voices/fr.pt", os.urandom(5000))
    r = exact(zoo)
    check(not r.lines("note"), f"notes: {r}")
    tensors = {t["name"]: t for t in info("a.h5", "one", folder)["tasks"][0]["tensors"]}
    equal(tensors["2_Dense/linear.weight"]["policy"], "equal", "policy of the module's weights")
    os.rename(f"{folder}/one/2_Dense/model.safetensors", f"{folder}/one/weights")
    os.remove(f"{folder}/one/modules.json")
    write(f"{folder}/one/2_Dense/pytorch_model.bin", torch_bytes(DENSE))
    os.remove(f"{folder}/one/weights")
    zoo.compress("a.h5", "--force", *LOSSLESS)
    restored(folder)
    equal(st_parse(f"{folder}/r/2_Dense/model.safetensors"), {n: (d, s, b) for n, d, s, b in DENSE}, "the module")


@with_scratch
def test_other_models_in_folders_are_not_kept_and_named_with_the_reason(folder):
    zoo = SmallZoo(folder)
    for name, why in (("checkpoint-500", "an earlier state of the training"), ("onnx", "the same model in another format"), ("best", "another model")):
        write(f"{folder}/one/{name}/model.safetensors", st_bytes(zoo.tasks["two"]))
        write(f"{folder}/one/{name}/config.json", "{}")
        notes(exact(zoo, f"{name}/model.safetensors", f"{name}/config.json"), f"'one': {name} is not kept: {why}")
        shutil.rmtree(f"{folder}/one/{name}")
    write(f"{folder}/one/lora/adapter_model.safetensors", st_bytes([("base_model.model.q.lora_A.weight", "F32", (2, 3), bytes(24))]))
    notes(exact(zoo, "lora/adapter_model.safetensors"), "'one': lora is not kept: an adapter of its own")


def pipeline(folder, name, seed, base=None):
    """A diffusers pipeline: two parts that have the same names, one of them sharded, and folders without weights."""
    write(f"{folder}/{name}/model_index.json", json.dumps({"_class_name": "X", "unet": ["diffusers", "U"], "text_encoder": ["transformers", "T"],
                                                           "scheduler": ["diffusers", "S"], "vae": [None, None]}))
    write(f"{folder}/{name}/scheduler/scheduler_config.json", "{}")
    models = {}
    for i, part in enumerate(("text_encoder", "unet")):
        model = small_model(10 * seed + i, "F32", PART, base and base[part])
        write(f"{folder}/{name}/{part}/config.json", '{"_class_name": "U"}' if part == "unet" else "{}")
        models[part] = model
    write(f"{folder}/{name}/text_encoder/model.safetensors", st_bytes(models["text_encoder"], {"format": "pt"}))
    stem = f"{folder}/{name}/unet/diffusion_pytorch_model"
    for i, tensor in enumerate(models["unet"]):
        write(f"{stem}-0000{i + 1}-of-00002.safetensors", st_bytes([tensor]))
    write(f"{stem}.safetensors.index.json", json.dumps({"weight_map": {t[0]: f"diffusion_pytorch_model-0000{i + 1}-of-00002.safetensors"
                                                                      for i, t in enumerate(models["unet"])}}))
    return models


@with_scratch
def test_pipeline_is_one_model_whose_parts_are_in_folders(folder):
    zoo = SmallZoo(folder)
    for name in "base", "one", "two":
        shutil.rmtree(f"{folder}/{name}")
    base = pipeline(folder, "base", 1)
    pipeline(folder, "one", 2, base)
    write(f"{folder}/one/all-in-one.safetensors", st_bytes([("x", "F32", (1,), bytes(4))]))
    zoo.manifest("one")
    notes(exact(zoo, "all-in-one.safetensors"), "'one': all-in-one.safetensors is not kept: other weights")
    os.remove(f"{folder}/one/all-in-one.safetensors")
    rows = {t["name"]: t for t in info("a.h5", "one", folder)["tasks"][0]["tensors"]}
    equal(sorted(rows), sorted(f"{part}/{name}" for part in ("unet", "text_encoder") for name in PART), "tensors")
    write(f"{folder}/r.yaml", 'sparsity: 0.5\ntensors:\n  - {match: "*q.weight", policy: ultradelta}\n  - {match: "*", policy: lossless}\n')
    zoo.compress("a.h5", "--force", "--recipe", "r.yaml", ranks=3)
    got = restored(folder)
    reader(folder, "--check")
    reader(folder, "--task", "one", "--base", "base", "--against", "r")
    want = hashes(f"{folder}/one")
    equal(sorted(got), sorted(want), "files")
    equal({f: h for f, h in got.items() if not f.endswith("safetensors")}, {f: h for f, h in want.items() if not f.endswith("safetensors")}, "small files")
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "s", "--max-shard-size", "1K"], cwd=folder)
    equal(hashes(f"{folder}/s"), got, "with --max-shard-size the parts stay as they are")
    part = good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "part", "--tensor", "unet/norm*"], cwd=folder)
    equal(list(st_parse(f"{folder}/part")), ["unet/norm.weight"], f"one tensor: {part}")
    os.remove(f"{folder}/one/unet/diffusion_pytorch_model-00001-of-00002.safetensors")
    refused(folder, ["compress", "zoo.yaml", "-o", "b.h5", "-q", *LOSSLESS], 1, "one/unet/diffusion_pytorch_model.safetensors.index.json", "is missing")


@with_scratch
def test_pipeline_of_pytorch_files_comes_back_as_safetensors(folder):
    zoo = SmallZoo(folder)
    for name in "base", "one":
        shutil.rmtree(f"{folder}/{name}")
        write(f"{folder}/{name}/modules.json", json.dumps([{"idx": 0, "name": "0", "path": "0_Transformer"}]))
        model = zoo.base if name == "base" else zoo.tasks["one"]
        write(f"{folder}/{name}/0_Transformer/config.json", "{}")
        for i, part in enumerate((model[:3], model[3:])):
            write(f"{folder}/{name}/0_Transformer/pytorch_model-0000{i + 1}-of-00002.bin", torch_bytes(part))
        names = {t[0]: f"pytorch_model-0000{1 + (i >= 3)}-of-00002.bin" for i, t in enumerate(model)}
        write(f"{folder}/{name}/0_Transformer/pytorch_model.bin.index.json", json.dumps({"weight_map": names}))
    zoo.manifest("one")
    zoo.compress("a.h5", *LOSSLESS, ranks=3)
    equal(sorted(restored(folder)), ["0_Transformer/config.json", "0_Transformer/model-00001-of-00002.safetensors", "0_Transformer/model-00002-of-00002.safetensors",
                                     "0_Transformer/model.safetensors.index.json", "modules.json"], "files")
    equal(st_parse(f"{folder}/r/0_Transformer"), {n: (d, s, b) for n, d, s, b in zoo.tasks["one"]}, "tensors")
    index = json.load(open(f"{folder}/r/0_Transformer/model.safetensors.index.json"))["weight_map"]
    equal(index, {t[0]: f"model-0000{1 + (i >= 3)}-of-00002.safetensors" for i, t in enumerate(zoo.tasks["one"])}, "index")


# ------------------------------------------------------------------------------------------------------------------- adapters

LORA = [(f"base_model.model.{n}.lora_{x}.weight", "F32", (4, 4), bytes(range(i, i + 64))) for i, n in enumerate((Q[:-7], K[:-7])) for x in "AB"]


@with_scratch
def test_adapter_is_a_task_of_its_own_kind_beside_models(folder):
    zoo = SmallZoo(folder)
    shutil.rmtree(f"{folder}/two")
    write(f"{folder}/two/adapter_config.json", '{"peft_type": "LORA", "base_model_name_or_path": "base"}')
    write(f"{folder}/two/README.md", "---\nbase_model: base\n---\n")
    for name in "adapter_model.safetensors", "adapter_model.bin":
        write(f"{folder}/two/{name}", st_bytes(LORA, {"format": "pt"}) if name.endswith("s") else torch_bytes(LORA))
        r = zoo.compress("a.h5", "--force", ranks=3)  # the default method, for the other task
        mine = [n for n in r.lines("note") if "'two'" in n]
        equal(mine, ["task 'two': an adapter (LoRA), not a whole model: kept exactly, without the base"], "notes")
        good(["restore", "a.h5", "--task", "two", "--base", "base", "-o", "r", "--force"], 3, cwd=folder)
        equal(sorted(os.listdir(f"{folder}/r")), ["README.md", "adapter_config.json", "adapter_model.safetensors"], "files")
        equal(st_parse(f"{folder}/r"), {n: (d, s, b) for n, d, s, b in LORA}, "tensors")
        good(["verify", "a.h5", "--base", "base"], 3, cwd=folder)
        reported = info("a.h5", cwd=folder)
        equal([t.get("kind") for t in reported["tasks"]], ["model", "adapter"], "kinds")
        check("1 adapter" in good(["info", "a.h5"], cwd=folder).out, "info does not count the adapter")
        zoo.manifest("two")
        zoo.compress("b.h5", "--force")  # alone
        zoo.manifest("one", "two")
        shutil.rmtree(f"{folder}/r")
        os.remove(f"{folder}/two/{name}")


# ------------------------------------------------------------------------------------------------------------------ hub cache

@with_scratch
def test_root_of_a_hub_cache_is_its_snapshot(folder):
    zoo = SmallZoo(folder)
    for name in "base", "one":
        hub = f"{folder}/models--org--{name}"
        os.makedirs(f"{hub}/snapshots")
        os.rename(f"{folder}/{name}", f"{hub}/snapshots/0123abcd")
        os.makedirs(f"{hub}/snapshots/0000")
        write(f"{hub}/refs/main", "0123abcd")
    write(f"{folder}/zoo.yaml", "base: models--org--base\ntasks:\n  - {name: one, path: models--org--one}\n")
    zoo.compress("a.h5", *LOSSLESS, ranks=3)
    good(["restore", "a.h5", "--task", "one", "--base", "models--org--base", "-o", "r"], 3, cwd=folder)
    equal(hashes(f"{folder}/r"), hashes(f"{folder}/models--org--one/snapshots/0123abcd"), "restored files")
    os.remove(f"{folder}/models--org--one/refs/main")
    refused(folder, ["compress", "zoo.yaml", "-o", "b.h5", "-q"], 1, "models--org--one", "2 snapshots", "name one of")
