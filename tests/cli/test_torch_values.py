"""PyTorch files with all that torch.load(weights_only=True) reads: values that are no tensors are read over, tensors of other kinds are named with what to save
in their place. The files are written as torch 2.13 writes them, byte for byte where it matters, without torch."""
import io
import os
import struct
import zipfile

from common import Q, SmallZoo, check, equal, good, refused, st_parse, with_scratch, write

COMPRESS = ["compress", "zoo.yaml", "-o", "a.h5", "-q"]
HOOKS = b"ccollections\nOrderedDict\n)R"
NONE, TRUE, EMPTY = b"N", b"\x88", b")"


def text(t):
    return b"X" + struct.pack("<I", len(t)) + t.encode()


def number(n):
    return b"J" + struct.pack("<i", n)


def tup(*parts):
    return b"(" + b"".join(parts) + b"t"


def of(name, *args, make=b"R"):
    """A call of the global module.name."""
    module, name = name.rsplit(".", 1)
    return f"c{module}\n{name}\n".encode() + tup(*args) + make


def name_of(name):
    module, name = name.rsplit(".", 1)
    return f"c{module}\n{name}\n".encode()


def items(pairs):
    return b"}(" + b"".join(text(k) + v for k, v in pairs) + b"u"


class File:
    """A torch file under construction: storages, and tensors in them."""

    def __init__(self):
        self.storages = []

    def storage(self, data, kind="torch.FloatStorage", size=4):
        self.storages.append(data)
        return tup(text("storage"), name_of(kind), text(str(len(self.storages) - 1)), text("cpu"), number(len(data) // size)) + b"Q"

    def parts(self, data, shape, kind="torch.FloatStorage", size=4):
        strides, step = [], 1
        for n in reversed(shape):
            strides.insert(0, step)
            step *= n
        return [self.storage(data, kind, size), number(0), tup(*map(number, shape)), tup(*map(number, strides)), b"\x89", HOOKS]

    def tensor(self, data, shape, *more, **kind):
        return of("torch._utils._rebuild_tensor_v2", *self.parts(data, shape, **kind), *more)

    def write(self, path, root, entries=()):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            file.writestr("archive/data.pkl", b"\x80\x02" + root + b".")
            for i, data in enumerate(self.storages):
                file.writestr(f"archive/data/{i}", data)
            for entry in entries:
                file.writestr("archive/" + entry, b"")
        write(path, out.getvalue())


def model_items(f, model):
    return [(name, f.tensor(data, shape)) for name, _, shape, data in model]


def zoo_with(folder, make, entries=()):
    """Task one is a torch file: `make(file, items of its tensors)` gives what is in it."""
    zoo = SmallZoo(folder)
    os.remove(f"{folder}/one/model.safetensors")
    f = File()
    f.write(f"{folder}/one/pytorch_model.bin", make(f, model_items(f, zoo.tasks["one"])), entries)
    zoo.manifest("one")
    return zoo


VALUES = [("set", of("__builtin__.set", b"](K\1K\2e")), ("size", of("torch.Size", tup(number(2)))), ("device", of("torch.device", text("cuda"), number(1))),
          ("counter", of("collections.Counter", items([("a", number(1))]))), ("complex", of("__builtin__.complex", number(1), number(2))),
          ("bytes", of("_codecs.encode", text("ab"), text("latin1"))), ("no bytes", of("__builtin__.bytes")),
          ("bytearray", of("__builtin__.bytearray", of("_codecs.encode", text("ab"), text("latin1")))),
          ("layout", of("torch.serialization._get_layout", text("torch.strided"))), ("qscheme", name_of("torch.per_tensor_affine")),
          ("defaultdict", of("collections.defaultdict", name_of("__builtin__.list")) + text("a") + b"]s"), ("dtype", name_of("torch.bfloat16")),
          ("set of protocol 4", b"\x8f(K\1\x90"), ("bytes of protocol 4", b"C\2ab"), ("bytearray of protocol 5", b"\x96\2\0\0\0\0\0\0\0ab"), ("python 2", b"U\2ab")]


@with_scratch
def test_values_that_are_no_tensors_are_read_over_and_reported_in_one_line(folder):
    zoo = zoo_with(folder, lambda f, model: items(model + VALUES))
    r = zoo.compress("a.h5", "--recipe", "lossless", ranks=3)
    reported = [n for n in r.lines("note") if "pytorch_model.bin" in n]
    equal(len(reported), 1, f"notes {reported}")
    for w in ("'set' (a set)", "'size' (a torch.Size)", "'device' (a torch.device)", f" and {len(VALUES) - 3} more values are not kept"):
        check(w in reported[0], f"no {w}: {reported}")
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], 3, cwd=folder)
    equal(st_parse(f"{folder}/r"), {n: (d, s, b) for n, d, s, b in zoo.tasks["one"]}, "restored tensors")


@with_scratch
def test_model_states_of_deepspeed_are_a_model(folder):
    """mp_rank_00_model_states.pt of DeepSpeed 0.14."""
    zoo = zoo_with(folder, lambda f, model: items([("module", items(model)), ("buffer_names", b"]"), ("optimizer", NONE), (
        "param_shapes", b"]" + items([(Q, of("torch.Size", tup(number(48), number(32))))]) + b"a"), ("sparse_tensor_module_names", of("__builtin__.set", b"]")),
        ("ds_config", b"}"), ("ds_version", text("0.14"))]))
    zoo.compress("a.h5", "--recipe", "lossless")
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], cwd=folder)
    equal(st_parse(f"{folder}/r"), {n: (d, s, b) for n, d, s, b in zoo.tasks["one"]}, "restored tensors")


@with_scratch
def test_parameters_and_tensors_with_attributes_buffers_and_float4_are_read(folder):
    def make(f, model):
        state = items([("note", text("x"))])
        model = [(n, of("torch._utils._rebuild_parameter_with_state", v, TRUE, HOOKS, state)) for n, v in model]
        tensor = of("torch._tensor._rebuild_from_type_v2", name_of("torch._utils._rebuild_tensor_v2"), name_of("torch.Tensor"),
                    tup(*f.parts(b"abcdefgh", (2,))), state)
        v3 = of("torch._utils._rebuild_tensor_v3", *f.parts(b"abcd", (2, 2), "torch.storage.UntypedStorage", 1), name_of("torch.float4_e2m1fn_x2"))
        return items(model + [("attributes", tensor), ("made.new", of("torch.nn.parameter.Parameter", f.tensor(b"wxyz", (1,)), make=b"\x81")), ("float4", v3)])

    zoo = zoo_with(folder, make)
    zoo.compress("a.h5", "--recipe", "lossless", ranks=3)
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], 3, cwd=folder)
    want = {n: (d, s, b) for n, d, s, b in zoo.tasks["one"]}
    want.update({"attributes": ("F32", (2,), b"abcdefgh"), "made.new": ("F32", (1,), b"wxyz"), "float4": ("F4", (2, 4), b"abcd")})
    equal(st_parse(f"{folder}/r"), want, "restored tensors")


OTHERS = {"sparse": (lambda f: of("torch._utils._rebuild_sparse_tensor", of("torch.serialization._get_layout", text("torch.sparse_coo")), tup(f.tensor(
              b"12345678", (1, 1), kind="torch.LongStorage", size=8), f.tensor(b"abcd", (1,)), of("torch.Size", tup(number(3))), TRUE)), "a sparse tensor", "its to_dense()"),
          "quantised": (lambda f: of("torch._utils._rebuild_qtensor", f.storage(b"abcd", "torch.QInt8Storage", 1), number(0), tup(number(4)), tup(number(1)), tup(
              name_of("torch.per_tensor_affine"), b"G\x3f\xb9\x99\x99\x99\x99\x99\x9a", number(0)), b"\x89", HOOKS), "a quantised tensor", "its dequantize()"),
          "nested": (lambda f: of("torch._utils._rebuild_nested_tensor", f.tensor(b"abcd", (1,)), NONE, NONE, NONE), "a nested tensor", "its unbind()"),
          "complex128": (lambda f: f.tensor(b"12345678" * 2, (1,), kind="torch.ComplexDoubleStorage", size=16), "complex128", "torch.complex64"),
          "conjugated": (lambda f: f.tensor(b"12345678", (1,), items([("conj", TRUE)]), kind="torch.ComplexFloatStorage", size=8), "a conjugated", "resolve_conj()"),
          "meta": (lambda f: of("torch._utils._rebuild_meta_tensor_no_storage", name_of("torch.float32"), tup(number(2)), tup(number(1)), b"\x89"), "on the meta device", "loaded"),
          "torchao": (lambda f: of("torch._tensor._rebuild_from_type_v2", name_of("torch._utils._rebuild_wrapper_subclass"), name_of("torchao.dtypes.X"), EMPTY, b"}"),
                      "quantised by torchao", "its dequantize()"),
          "dtensor": (lambda f: of("torch._utils._rebuild_wrapper_subclass", name_of("torch.distributed.tensor.DTensor"), name_of("torch.float32")), "a subclass", "plain")}


def other_case(make, *wanted):
    def test(folder):
        zoo_with(folder, lambda f, model: items(model + [("odd.weight", make(f)), ("odd.other", make(f))]))
        refused(folder, COMPRESS, 1, "one/pytorch_model.bin", "tensor 'odd.weight' is", "(and 1 more)", "no safetensors file can hold", *wanted)
        zoo = zoo_with(folder, lambda f, model: items([("model", items(model)), ("optimizer", items([("odd.weight", make(f))]))]))
        r = zoo.compress("a.h5", "--recipe", "lossless", "--force")  # beside the model it does no harm
        check(any("'optimizer' (a dict of 1 with 1 tensor) is not kept" in n for n in r.lines("note")), f"{r}")

    return with_scratch(test)


for kind, case in OTHERS.items():
    globals()[f"test_{kind}_tensors_are_named_with_what_to_save"] = other_case(*case)


@with_scratch
def test_modules_scripts_and_foreign_objects_are_named_with_the_next_step(folder):
    zoo_with(folder, lambda f, model: of("torch.nn.modules.linear.Linear", make=b"\x81") + items(model) + b"b")
    refused(folder, COMPRESS, 1, "one/pytorch_model.bin", "holds a module (torch.nn)", "state_dict()")
    zoo_with(folder, lambda f, model: items(model), entries=("constants.pkl", "code/__torch__/x.py"))
    refused(folder, COMPRESS, 1, "one/pytorch_model.bin", "TorchScript", "torch.jit.load")
    zoo_with(folder, lambda f, model: items([("model", items(model)), ("args", of("argparse.Namespace", make=b"\x81") + b"}b")]))
    refused(folder, COMPRESS, 1, "one/pytorch_model.bin", "global 'argparse.Namespace' is not allowed", "save its state dict alone")
