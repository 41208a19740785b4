"""Real PyTorch files for test_pytorch.py, and torch's own word on what a restored directory must hold."""
import collections
import fnmatch
import json
import os
import shutil
import struct
import zipfile

import torch

NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
         torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.complex64: "C64"}


def raw(tensor):
    tensor = tensor.detach().contiguous().reshape(-1)
    return bytes(tensor.view(torch.uint8).numpy()) if tensor.numel() else b""


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}, read without any library."""
    with open(path, "rb") as file:
        content = file.read()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + size])
    header.pop("__metadata__", None)
    data = content[8 + size:]
    assert sum(t["data_offsets"][1] - t["data_offsets"][0] for t in header.values()) == len(data), "the file has bytes of no tensor"
    return {name: (t["dtype"], t["shape"], data[slice(*t["data_offsets"])]) for name, t in header.items()}


def read_directory(path):
    tensors = {}
    for name in sorted(os.listdir(path)):
        if name.endswith(".safetensors"):
            more = read_safetensors(os.path.join(path, name))
            assert not tensors.keys() & more.keys(), "a tensor is in two files"
            tensors.update(more)
    assert tensors, f"{path}: no tensor"
    return tensors


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, tensor in tensors.items():
        bytes_ = raw(tensor)
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def state_dict(seed):
    """One of everything a state dict holds; the same seed gives the base, another a fine-tuned model near it."""
    base, change = torch.Generator().manual_seed(1), torch.Generator().manual_seed(seed)

    def weight(*shape, dtype=torch.float32):
        values = torch.randn(*shape, generator=base) * 0.02
        return (values + (torch.randn(*shape, generator=change) * 0.001 if seed != 1 else 0)).to(dtype)

    tensors = collections.OrderedDict()
    tensors["embed.weight"] = weight(300, 64)
    for i, dtype in enumerate((torch.float32, torch.float16, torch.bfloat16)):
        tensors[f"layers.{i}.linear.weight"] = torch.nn.Parameter(weight(96, 64, dtype=dtype))
        tensors[f"layers.{i}.linear.bias"] = torch.nn.Parameter(weight(96, dtype=dtype))
    fused = weight(12, 64)
    tensors["q"], tensors["k"] = fused[:4], fused[4:]  # contiguous slices of one storage
    tensors["lm_head.weight"] = tensors["embed.weight"]  # tied
    tensors["position_ids"] = torch.arange(40).reshape(1, 40)
    tensors["double"] = weight(5).double()
    for dtype in (torch.int32, torch.int16, torch.int8, torch.uint8):
        tensors[f"ints.{NAMES[dtype]}"] = (torch.arange(9) + seed).to(dtype)
    tensors["mask"] = torch.tensor([True, False, True])
    tensors["scale"] = torch.tensor(1.5 * seed)
    tensors["none"] = torch.zeros(0, 3)
    tensors["one.row"] = weight(1, 7)
    tensors["n\u00e4me \"quoted\""] = weight(3)
    return tensors


def strided_dict(seed):
    """Tensors whose elements torch does not keep in row-major order: as they are, and as their contiguous copies."""
    base, change = torch.Generator().manual_seed(4), torch.Generator().manual_seed(seed)

    def weight(*shape, dtype=torch.float32):
        values = torch.randn(*shape, generator=base) * 0.02
        return (values + (torch.randn(*shape, generator=change) * 0.001 if seed != 1 else 0)).to(dtype)

    wide = weight(96, 4, 64)
    tensors = {
        "layers.0.transposed.weight": torch.nn.Parameter(weight(900, 700).t()),  # larger than what is read at once
        "layers.1.transposed.weight": weight(600, 500, dtype=torch.bfloat16).t(),
        "layers.0.columns.weight": wide[:, 1, :],
        "layers.1.columns.weight": wide[:, 2:, 3:50],
        "layers.0.step.weight": weight(200, 300, dtype=torch.float16)[::3, ::2],
        "layers.0.conv.weight": weight(32, 16, 3, 3).to(memory_format=torch.channels_last),
        "layers.0.permuted.weight": weight(12, 40, 8).permute(2, 0, 1),
        "layers.0.rows.weight": weight(64, 64),
        "layers.1.rows.weight": None,
        "expanded": weight(1, 64).expand(50, 64),
        "expanded.within": weight(64, 1, dtype=torch.float64).expand(64, 9),
        "one.value": weight(1).expand(7, 3, 5),
        "windows": weight(100).unfold(0, 8, 1),
        "ints": torch.arange(60).reshape(3, 20).t() + 0,
        "bytes": (torch.arange(60) + seed).to(torch.uint8).reshape(3, 20).t(),
        "mask": torch.tensor([[True, False, False], [True, True, False]]).t(),
        "complex": torch.complex(weight(40, 30), weight(40, 30)),
        "complex.transposed": torch.complex(weight(40, 30), weight(40, 30)).t(),
        "none": torch.zeros(4, 0).t(),
        "row": weight(9, 3)[:, 1:2].t(),
    }
    tensors["layers.1.rows.weight"] = tensors["layers.0.rows.weight"].t()  # one storage, at the same place, and not the same
    tensors["tied"] = tensors["bytes"]
    assert sum(not t.is_contiguous() for t in tensors.values()) >= 15
    return tensors, {name: t.detach().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}


def manifest(path, base, *tasks):
    with open(path, "w") as file:
        file.write(f"base: {base}\ntasks:\n" + "".join(f"  - {{name: {name}, path: {task}}}\n" for name, task in tasks))


def save_shards(path, tensors, names=("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")):
    os.makedirs(path)
    keys = list(tensors)
    halves = keys[:len(keys) // 2], keys[len(keys) // 2:]
    for name, half in zip(names, halves):
        torch.save({key: tensors[key].detach().clone() for key in half}, os.path.join(path, name))
    index = {"metadata": {"total_size": 1}, "weight_map": {key: name for name, half in zip(names, halves) for key in half}}
    with open(os.path.join(path, "pytorch_model.bin.index.json"), "w") as file:
        json.dump(index, file)
    return index


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


def make_refused(one):
    def save(name, value):
        torch.save(value, name + ".bin")
        manifest(name + ".yaml", "base.bin", ("task", name + ".bin"))

    save("expanded", {**one, "q": torch.zeros(1).expand(1 << 40)})
    save("evil", {**one, "run": Evil()})
    save("evil-deep", {"state_dict": one, "args": [({"x": Evil()},)]})
    save("quantized", {**one, "q": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)})
    save("sparse", {**one, "q": torch.eye(3).to_sparse()})
    save("complex", {**one, "q": torch.zeros(3, dtype=torch.complex128)})
    save("module", torch.nn.Linear(2, 2))
    save("list", [one["q"]])
    save("empty", {"epoch": 3})
    torch.save(one, "legacy.bin", _use_new_zipfile_serialization=False)
    manifest("legacy.yaml", "base.bin", ("task", "legacy.bin"))
    torch.jit.script(torch.nn.Linear(2, 2)).save("script.bin")
    manifest("script.yaml", "base.bin", ("task", "script.bin"))
    with zipfile.ZipFile("task.bin") as whole, zipfile.ZipFile("compressed.bin", "w", zipfile.ZIP_DEFLATED) as out:
        for name in whole.namelist():
            out.writestr(name, whole.read(name))
    manifest("compressed.yaml", "base.bin", ("task", "compressed.bin"))
    for name, keep in (("cut-end", -1), ("cut-half", None)):
        with open("task.bin", "rb") as file:
            content = file.read()
        with open(name + ".bin", "wb") as file:
            file.write(content[:keep if keep else len(content) // 2])
        manifest(name + ".yaml", "base.bin", ("task", name + ".bin"))

    def broken_index(name, change):
        index = save_shards(name, one)
        change(name, index)
        with open(os.path.join(name, "pytorch_model.bin.index.json"), "w") as file:
            json.dump(index, file)
        manifest(name + ".yaml", "base.bin", ("task", name))

    broken_index("shard-missing", lambda d, index: os.unlink(os.path.join(d, "pytorch_model-00002-of-00002.bin")))
    broken_index("index-outside", lambda d, index: index["weight_map"].update({"q": "../task.bin"}))


def make():
    """Every model and manifest of the tests, in the current directory."""
    base, one, two = state_dict(1), state_dict(2), state_dict(3)
    torch.save(base, "base.bin")
    torch.save(one, "task.bin")
    torch.save({"state_dict": two, "epoch": 7, "lr": 1e-3, "args": {"a": [1, "b", None]}, "big": 1 << 100}, "nested.pt")
    write_safetensors("base.safetensors", base)
    write_safetensors("task.safetensors", one)
    write_safetensors("nested.safetensors", two)
    manifest("files.yaml", "base.bin", ("one", "task.bin"), ("two", "nested.pt"))
    manifest("safetensors.yaml", "base.safetensors", ("one", "task.safetensors"), ("two", "nested.safetensors"))
    manifest("mixed.yaml", "base.safetensors", ("one", "task.bin"))
    for protocol in (3, 4, 5):
        torch.save({"model": one, "steps": torch.tensor(5)}, f"protocol-{protocol}.pth", pickle_protocol=protocol)
    manifest("protocols.yaml", "base.bin", *((f"p{p}", f"protocol-{p}.pth") for p in (3, 4, 5)))
    torch.save({"params": two, "params_ema": one, "iter": 3}, "ema.pth")
    torch.save({"model": {"state_dict": one, "epoch": 3}}, "deep.pth")
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    torch.save({**one, "optimizer": optimizer}, "beside.pth")
    torch.save({"module": one, "global_steps": 9}, "module.pth")
    manifest("names.yaml", "base.bin", *((n, f"{n}.pth") for n in ("ema", "deep", "beside", "module")))
    for name, tensors in (("hub-base", base), ("hub-task", one)):
        os.makedirs(os.path.join(name, "blobs"))
        torch.save(tensors, os.path.join(name, "blobs", "0123"))
        os.symlink("blobs/0123", os.path.join(name, "pytorch_model.bin"))
        with open(os.path.join(name, "config.json"), "w") as file:
            json.dump({"name": name}, file)
    manifest("hub.yaml", "hub-base", ("one", "hub-task"))
    (strided_base, plain_base), (strided, plain) = strided_dict(1), strided_dict(2)
    torch.save(strided_base, "strided-base.bin")
    torch.save(strided, "strided.bin")
    write_safetensors("plain-base.safetensors", plain_base)
    write_safetensors("plain.safetensors", plain)
    manifest("strided.yaml", "strided-base.bin", ("one", "strided.bin"))
    manifest("plain.yaml", "plain-base.safetensors", ("one", "plain.safetensors"))
    save_shards("shards-base", base)
    save_shards("shards-task", one)
    torch.save({"step": 1}, "shards-task/training_args.bin")
    manifest("shards.yaml", "shards-base", ("one", "shards-task"))
    shutil.copytree("hub-task", "both-task", symlinks=True)
    shutil.copy("nested.safetensors", "both-task/model.safetensors")
    manifest("both.yaml", "base.bin", ("two", "both-task"))
    with open("lossy.yaml", "w") as file:
        file.write("sparsity: 0.9\nbits: 4\ntensors:\n  - {match: 'layers.*.weight', policy: ultradelta}\n  - {match: '*', policy: lossless}\n")
    make_refused(one)


def model_of(value):
    for name in ("params_ema", "model", "state_dict", "module"):
        value = value.get(name, value)
    return {name: tensor for name, tensor in value.items() if isinstance(tensor, torch.Tensor)}


def same(files, restored):
    """The restored directory holds the tensors of these files, bit for bit."""
    want = {}
    for file in files:
        want.update(model_of(torch.load(file, weights_only=False)))
    got = read_directory(restored)
    assert sorted(got) == sorted(want), f"other tensors: {sorted(set(got) ^ set(want))}"
    for name, tensor in want.items():
        dtype, shape, content = got[name]
        assert dtype == NAMES[tensor.dtype] and shape == list(tensor.shape), f"{name}: {dtype} {shape}"
        assert content == raw(tensor), f"{name}: other values"


def alike(restored, other, source, pattern):
    """Two restored directories hold the same tensors, and those that match the pattern are lossy."""
    got, want, exact = read_directory(restored), read_directory(other), torch.load(source, weights_only=False)
    assert got == want, "two restored directories differ"
    for name, tensor in exact.items():
        lossy = fnmatch.fnmatch(name, pattern)
        assert (got[name][2] != raw(tensor)) == lossy, f"{name}: {'exact' if lossy else 'changed'}"
        if lossy:
            error = torch.frombuffer(bytearray(got[name][2]), dtype=tensor.dtype).float() - tensor.detach().reshape(-1).float()
            assert error.abs().max() < 0.05, f"{name}: off by {error.abs().max()}"


def index(restored):
    """Its index says where each tensor is."""
    with open(os.path.join(restored, "model.safetensors.index.json")) as file:
        content = json.load(file)
    files = sorted(name for name in os.listdir(restored) if name.endswith(".safetensors"))
    assert files == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], files
    want, size = {}, 0
    for name in files:
        for tensor, (_, _, data) in read_safetensors(os.path.join(restored, name)).items():
            want[tensor] = name
            size += len(data)
    assert content == {"metadata": {"total_size": size}, "weight_map": want}, content
    assert not [name for name in os.listdir(restored) if "pytorch_model" in name], os.listdir(restored)
