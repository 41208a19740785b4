"""An independent reader (src/python/deltazoo.py, written from FORMAT.md) decodes archives of many kinds and must get the very bytes that `deltazoo restore` writes."""
import os
import shutil
import sys

import h5py
import pytest

import check as reader
from common import call, check, good, job, made_once

HERE = os.path.dirname(os.path.abspath(__file__))
EDGES = ("shapes", "files", "dtypes", "values", "drop", "tiles")


def sets(*settings):
    return [word for s in settings for word in ("--set", s)]


def zoo(kind):
    def make(folder):
        if kind in EDGES:
            code, out, err = call([sys.executable, f"{HERE}/edge_zoo.py", kind, folder])
            check(code == 0, out + err)
        else:
            dtype, seed, more = ("bf16", 5, ["--shard-size", "1M"]) if kind == "shards" else (kind, 1, [])
            good(["synth", "--force", "--shape", "tiny", "--layers", 1, "--tasks", 2, "--dtype", dtype, "--seed", seed, "-o", folder, "-q", *more])

    return made_once("reader-" + kind, make)


def cases():
    def case(name, kind, *options):
        return pytest.param(kind, list(options), id=name)

    for dtype in ("bf16", "f16", "f32"):
        yield case("default-" + dtype, dtype)
        yield case("ultradelta-" + dtype, dtype, "--recipe", "ultradelta")
        yield case("lossless-" + dtype, dtype, "--recipe", "lossless")
    yield case("golomb", "bf16", *sets("positions=golomb"))
    yield case("bits-8", "bf16", *sets("bits=8"))
    yield case("bits-8-golomb", "f16", *sets("bits=8", "positions=golomb"))
    yield case("bits-1", "bf16", *sets("bits=1"))
    yield case("bits-8-dense", "f32", *sets("bits=8", "sparsity=0"))
    yield case("dense", "bf16", *sets("sparsity=0"))
    yield case("sparse", "bf16", *sets("sparsity=0.995", "rescale=tensor", "tracenorm=off"))
    yield case("sparser", "f32", *sets("sparsity=0.9999", "bits=8"))
    yield case("auto", "bf16", *sets("method=auto", "target_ratio=200"))
    yield case("dare", "f16", *sets("method=dare"))
    yield case("magnitude", "bf16", *sets("method=magnitude"))
    yield case("bitdelta", "f32", *sets("method=bitdelta"))
    yield case("shards", "shards")
    yield case("uniform", "bf16", *sets("target_ratio=8"))
    yield case("quality-high", "f32", *sets("quality=high"))
    for kind in EDGES:
        yield case("edge-" + kind, kind, "--recipe", "recipe.yaml")
    for kind in ("shapes", "values", "tiles"):
        yield case(f"edge-{kind}-auto", kind, "--recipe", "recipe.yaml", *sets("method=auto", "sparsity=0.9"))
    yield case("edge-shapes-golomb", "shapes", "--recipe", "recipe.yaml", *sets("positions=golomb", "bits=2"))
    yield case("edge-dtypes-dense", "dtypes", "--recipe", "recipe.yaml", *sets("sparsity=0.1", "bits=8"))


@pytest.mark.parametrize("kind, options", list(cases()))
def test_reads_what_restore_writes(folder, capsys, kind, options):
    where = zoo(kind)
    other_method = any("method=" in o for o in options)  # quotas of the other methods are their own
    options = [f"{where}/{o}" if o == "recipe.yaml" else o for o in options]
    job(3, "compress", f"{where}/zoo.yaml", "-o", f"{folder}/a.h5", "-q", *options)
    good(["restore", f"{folder}/a.h5", "--task", "task-1", "--base", f"{where}/base", "-o", f"{folder}/d", "-q"])
    code = reader.main([f"{folder}/a.h5", "--check", "--task", "task-1", "--base", f"{where}/base", "--against", f"{folder}/d",
                        *([] if other_method else ["--original", f"{where}/task-1"])])
    check(code == 0, capsys.readouterr().out)


@pytest.fixture(scope="module")
def restored(box):
    """An archive, and a restored task of which one byte is then changed."""
    where = zoo("bf16")
    good(["compress", f"{where}/zoo.yaml", "-o", f"{box}/a.h5", "-q"])
    good(["restore", f"{box}/a.h5", "--task", "task-1", "--base", f"{where}/base", "-o", f"{box}/other", "-q"])
    with open(f"{box}/other/model.safetensors", "r+b") as file:
        file.seek(2000000)
        file.write(b"X")
    shutil.copyfile(f"{box}/a.h5", f"{box}/damaged.h5")
    with h5py.File(f"{box}/damaged.h5", "r+") as file:
        file["tasks/task-1/payload"][1000] ^= 4
    return box


@pytest.mark.parametrize("wanted, words", [
    pytest.param("differs from byte 2000000", ["a.h5", "--task", "task-1", "--base", "base", "--against", "other"], id="difference"),
    pytest.param("is not the base's", ["a.h5", "--task", "task-1", "--base", "task-2", "--against", "other"], id="other-base"),
    pytest.param("is damaged", ["damaged.h5", "--check"], id="damage"),
])
def test_sees(restored, capsys, wanted, words):
    """Exit code 1 and one line that says it."""
    words = [f"{zoo('bf16')}/{w}" if w in ("base", "task-2") else f"{restored}/{w}" if w in ("a.h5", "damaged.h5", "other") else w for w in words]
    code = reader.main(words)
    lines = capsys.readouterr().out.splitlines()
    check(code == 1 and len(lines) == 1 and wanted in lines[0], f"exit {code}: {lines}")
