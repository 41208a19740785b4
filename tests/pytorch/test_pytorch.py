"""PyTorch checkpoints saved by the real torch go in, are compressed on three ranks, and come back as torch has them.

The tests of a class go on where the one before it has ended: compress, notes, restore.
"""
import os
import shutil

import pytest

import torch_files
from common import check, equal, job, made_once, mpirun, read

LOSSY = "layers.*.weight"


@pytest.fixture(scope="module", autouse=True)
def models():
    """The models, and the current directory for this module; archives and notes are put beside them."""

    def make(folder):
        before = os.getcwd()
        os.chdir(folder)
        try:
            torch_files.make()
        finally:
            os.chdir(before)

    folder, before = made_once("pytorch", make), os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def ranks(n, *args):
    return job(n, *args, cwd=os.getcwd(), limit=120)


def compress(zoo, *options):
    """On three ranks; what it says stays in ZOO.notes."""
    out, err = ranks(3, "compress", f"{zoo}.yaml", "-o", f"{zoo}.h5", "--force", "-q", *options)
    with open(f"{zoo}.notes", "w") as file:
        file.write(out + err)


def restore(zoo, task, base):
    """Into ZOO.TASK."""
    shutil.rmtree(f"{zoo}.{task}", ignore_errors=True)
    ranks(3, "restore", f"{zoo}.h5", "--task", task, "--base", base, "-o", f"{zoo}.{task}", "-q")
    return f"{zoo}.{task}"


def exact(zoo, task, base, *files):
    torch_files.same(files, restore(zoo, task, base))


def says(zoo, text):
    notes = read(f"{zoo}.notes").decode()
    check(text in notes, f"the notes do not say {text!r}: {notes}")


def same_file(a, b):
    check(read(a) == read(b), f"{a} and {b} differ")


class TestFiles:
    def test_lossless(self):
        compress("files", "--recipe", "lossless")

    def test_notes(self):
        says("files", "task 'two': nested.pt: 'epoch' (an int), 'lr' (a float), 'args' (a dict of 1) and 1 more values are not kept")

    def test_notes_dict(self):
        says("files", "'args' (a dict of 1)")

    def test_notes_tied(self):
        says("files", "task 'one': task.bin: 'embed.weight' and 'lm_head.weight' are one tensor: two are restored")

    def test_restores(self):
        exact("files", "one", "base.bin", "task.bin")

    def test_restores_nested(self):
        exact("files", "two", "base.bin", "nested.pt")

    def test_restores_by_other_base(self):
        exact("files", "one", "base.safetensors", "task.bin")

    def test_verify(self):
        ranks(3, "verify", "files.h5", "--base", "base.bin")

    def test_compare(self):
        ranks(3, "compare", "files.h5", "--task", "one", "--base", "base.bin", "--finetuned", "task.bin")

    def test_one_rank(self):
        shutil.copyfile("files.h5", "files-three.h5")
        ranks(1, "compress", "files.yaml", "-o", "files.h5", "--force", "-q", "--recipe", "lossless")

    def test_same_archive(self):
        same_file("files.h5", "files-three.h5")

    def test_lossy(self):
        compress("files", "--recipe", "lossy.yaml")

    def test_lossy_safetensors(self):
        compress("safetensors", "--recipe", "lossy.yaml")

    def test_lossy_restores(self):
        restore("files", "one", "base.bin")

    def test_lossy_restores_safetensors(self):
        restore("safetensors", "one", "base.safetensors")

    def test_lossy_as_from_safetensors(self):
        torch_files.alike("files.one", "safetensors.one", "task.bin", LOSSY)

    def test_export(self):
        ranks(1, "export", "files.h5", "--task", "one", "-o", "vector.safetensors", "-q")

    def test_import(self):
        ranks(3, "import", "vector.safetensors", "--base", "base.bin", "-o", "onto.bin", "-q")

    def test_import_safetensors(self):
        ranks(3, "import", "vector.safetensors", "--base", "base.safetensors", "-o", "onto.safetensors", "-q")

    def test_import_onto_torch(self):
        torch_files.alike("onto.bin", "onto.safetensors", "base.bin", LOSSY)


class TestMixed:
    def test_compress(self):
        compress("mixed", "--recipe", "lossless")

    def test_restores(self):
        exact("mixed", "one", "base.safetensors", "task.bin")


class TestProtocols:
    def test_compress(self):
        compress("protocols", "--recipe", "lossless")

    def test_note(self):
        says("protocols", "task 'p4': protocol-4.pth: 'steps' (a tensor) is not kept")

    @pytest.mark.parametrize("protocol", (3, 4, 5))
    def test_restores(self, protocol):
        exact("protocols", f"p{protocol}", "base.bin", f"protocol-{protocol}.pth")


class TestNames:
    def test_compress(self):
        compress("names", "--recipe", "lossless")

    def test_ema(self):
        says("names", "'params' (a dict of 21 with 21 tensors) is not kept: 'params_ema' is")

    def test_deep(self):
        says("names", "'model/epoch' (an int) is not kept")

    def test_beside(self):
        says("names", "'optimizer' (a dict of 2 with 2 tensors) is not kept")

    @pytest.mark.parametrize("task", ("ema", "deep", "beside", "module"))
    def test_restores(self, task):
        exact("names", task, "base.bin", f"{task}.pth")


class TestStrided:
    def test_compress(self):
        compress("strided", "--recipe", "lossless")

    def test_restores(self):
        exact("strided", "one", "strided-base.bin", "strided.bin")

    def test_restores_by_plain(self):
        exact("strided", "one", "plain-base.safetensors", "strided.bin")

    def test_tied(self):
        says("strided", "'bytes' and 'tied' are one tensor")

    def test_not_tied(self):
        check("rows.weight" not in read("strided.notes").decode(), "the notes name rows.weight")

    def test_verify(self):
        ranks(3, "verify", "strided.h5", "--base", "strided-base.bin")

    def test_compare(self):
        ranks(3, "compare", "strided.h5", "--task", "one", "--base", "strided-base.bin", "--finetuned", "strided.bin")

    def test_lossy(self):
        compress("strided", "--recipe", "lossy.yaml")

    def test_one_rank(self):
        shutil.copyfile("strided.h5", "strided-three.h5")
        ranks(1, "compress", "strided.yaml", "-o", "strided.h5", "--force", "-q", "--recipe", "lossy.yaml")

    def test_same_archive(self):
        same_file("strided.h5", "strided-three.h5")

    def test_lossy_restores(self):
        restore("strided", "one", "strided-base.bin")

    def test_plain_lossy(self):
        compress("plain", "--recipe", "lossy.yaml")

    def test_plain_lossy_restores(self):
        restore("plain", "one", "plain-base.safetensors")

    def test_strided_as_plain(self):
        torch_files.alike("strided.one", "plain.one", "strided.bin", LOSSY)


class TestHub:
    def test_compress(self):
        compress("hub", "--recipe", "lossless")

    def test_restores(self):
        exact("hub", "one", "hub-base", "hub-task/pytorch_model.bin")

    def test_config(self):
        same_file("hub-task/config.json", "hub.one/config.json")

    def test_listing(self):
        equal(sorted(os.listdir("hub.one")), ["config.json", "model.safetensors"], "restored files")


class TestShards:
    def test_compress(self):
        compress("shards", "--recipe", "lossless")

    def test_restores(self):
        exact("shards", "one", "shards-base", *(f"shards-task/pytorch_model-0000{k}-of-00002.bin" for k in (1, 2)))

    def test_index(self):
        torch_files.index("shards.one")

    def test_others(self):
        says("shards", "training_args.bin is not kept")


class TestBoth:
    def test_compress(self):
        compress("both", "--recipe", "lossless")

    def test_restores(self):
        exact("both", "two", "base.bin", "nested.pt")

    def test_note(self):
        says("both", "pytorch_model.bin is not kept")


REFUSED = {
    "expanded": "tensor 'q': expanded from 4 to 4398046511104 bytes",
    "evil": "data.pkl: global 'posix.system' is not allowed",
    "evil-deep": "data.pkl: global 'posix.system' is not allowed",
    "quantized": "tensor 'q' is a quantised tensor (torch.quantize_per_tensor), which no safetensors file can hold: save its dequantize()",
    "sparse": "tensor 'q' is a sparse tensor, which no safetensors file can hold: save its to_dense()",
    "complex": "tensor 'q' is complex128, which no safetensors file can hold",
    "module": "data.pkl: holds a module (torch.nn), not a dict of tensors: save the model's state_dict()",
    "script": "is a TorchScript program: torch.jit.load it and save its state_dict()",
    "list": "data.pkl: holds a list, not a dict of tensors",
    "empty": "(or under two of these); it holds 'epoch' (an int)",
    "legacy": "files of torch before 1.6 must be saved again",
    "compressed": "is compressed (method 8): only stored ones are read",
    "cut-end": "not a zip file, or cut short",
    "cut-half": "not a zip file, or cut short",
    "shard-missing": "shard pytorch_model-00002-of-00002.bin is missing",
    "index-outside": "'../task.bin', which is not a .bin file of this directory",
}


class TestRefused:
    @pytest.mark.parametrize("name", REFUSED)
    def test_refuses(self, name):
        """Exit 1, the text, one line that names the model, and no archive."""
        code, out, err = mpirun(3, "compress", f"{name}.yaml", "-o", f"{name}.h5", "--recipe", "lossless", "-q", cwd=os.getcwd(), limit=120)
        text = out + err
        equal(code, 1, f"exit code of {text}")
        check(REFUSED[name] in text, f"does not say {REFUSED[name]!r}: {text}")
        equal(sum(name in line for line in text.splitlines()), 1, f"lines that name it: {text}")
        check(not os.path.exists(f"{name}.h5") and not os.path.exists(f"{name}.h5.partial"), "an archive is left")

    def test_executed_nothing(self):
        check(not os.path.exists("executed"), "a pickle was executed")
