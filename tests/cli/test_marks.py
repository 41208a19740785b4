"""A restored model that is not the original says so, in its headers and in deltazoo.json; an exact one says nothing. compress, plan and scan know it."""
import json
import os
import shutil
import subprocess
import sys

from common import ROOT, SmallZoo, check, equal, good, hashes, read, refused, replaced, st_head, st_parse, with_scratch, write

READER = os.path.join(ROOT, "src", "python", "deltazoo.py")


def restore(folder, task, out, *more, archive="a.h5", ranks=1):
    return good(["restore", archive, *[x for t in task.split("+") for x in ("--task", t)], "--base", "base", "-o", out, "-q", *more], ranks, cwd=folder)


def metadata(path):
    head = json.loads(st_head(path)[8:])["__metadata__"]
    return json.loads(head["deltazoo"]) if "deltazoo" in head else None


@with_scratch
def test_lossy_model_is_marked(folder):
    zoo = SmallZoo(folder)
    zoo.compress("a.h5", "--set", "method=ultradelta")
    restore(folder, "one", "r", ranks=3)
    mark, reported = metadata(f"{folder}/r/model.safetensors"), json.loads(read(f"{folder}/r/deltazoo.json"))
    for m in mark, reported:
        equal((m["kind"], m["lossy"], m["task"], m["method"]), ("restored", True, "one", "ultradelta"), "mark")
        check(0 < m["kept"] < 0.1 and m["noise"] > 1 and len(m["base_fingerprint"]) == 32 and m["compressed_by"].startswith("deltazoo "), f"{m}")
    equal((reported["archive"], sorted(reported["files"])), ("a.h5", ["config.json", "model.safetensors"]), "deltazoo.json")
    check(reported["restored_by"].startswith("deltazoo ") and reported["archive_date"].endswith("Z") and reported["format_version"] >= 1, f"{reported}")
    want = {n: t for n, t in st_parse(f"{folder}/one").items()}
    equal({n: t[:2] for n, t in st_parse(f"{folder}/r").items()}, {n: t[:2] for n, t in want.items()}, "tensors")
    raw = read(f"{folder}/r/model.safetensors")
    equal((int.from_bytes(raw[:8], "little") % 8, json.loads(st_head(f"{folder}/r/model.safetensors")[8:])["__metadata__"]["format"]), (0, "pt"), "header")


@with_scratch
def test_exact_model_is_not_marked(folder):
    zoo = SmallZoo(folder)
    zoo.compress("a.h5", "--recipe", "lossless")
    restore(folder, "one", "r", ranks=3)
    equal(hashes(f"{folder}/r", True), hashes(f"{folder}/one"), "the model")
    zoo.compress("b.h5")
    restore(folder, "one", "some", "--tensor", "*norm*", archive="b.h5")
    check(metadata(f"{folder}/some/model.safetensors") is None and os.listdir(f"{folder}/some") == ["model.safetensors"], "exact tensors of a lossy task are marked")
    restore(folder, "one", "some2", "--tensor", "*q_proj*", archive="b.h5")
    check(metadata(f"{folder}/some2/model.safetensors") and os.path.exists(f"{folder}/some2/deltazoo.json"), "lossy tensors are not marked")


@with_scratch
def test_exact_shard_of_a_lossy_model_keeps_its_bytes(folder):
    zoo = SmallZoo(folder)
    from test_checkpoints import shard
    os.remove(f"{folder}/one/model.safetensors")
    shard(folder, "one", zoo.tasks["one"])
    zoo.compress()
    restore(folder, "one", "r", ranks=3)
    marked = 0
    for name in sorted(os.listdir(f"{folder}/one")):
        if not name.endswith(".safetensors"):
            equal(read(f"{folder}/r/{name}"), read(f"{folder}/one/{name}"), name)
            continue
        lossy = any("_proj" in tensor for tensor in st_parse(f"{folder}/one/{name}"))
        marked += lossy
        check((metadata(f"{folder}/r/{name}") is not None) == lossy, f"{name}: marked or not")
        if not lossy:
            equal(read(f"{folder}/r/{name}"), read(f"{folder}/one/{name}"), name)
    check(0 < marked < 3, "no shard of either kind")


@with_scratch
def test_headers_of_every_spelling_take_a_mark(folder):
    """No metadata, empty ones, metadata behind the tensors, with spaces, with a mark already: the Python reader makes the same bytes."""
    zoo = SmallZoo(folder)
    plain = json.loads(st_head(f"{folder}/one/model.safetensors")[8:])
    tensors = {k: v for k, v in plain.items() if k != "__metadata__"}
    data = read(f"{folder}/one/model.safetensors")[len(st_head(f"{folder}/one/model.safetensors")):]
    spellings = {"none": tensors, "empty": {"__metadata__": {}, **tensors}, "last": {**tensors, "__metadata__": {"a": "b}\"{", "deltazoo ": "x"}},
                 "two": {"__metadata__": {"format": "pt", "b": "\u00e9"}, **tensors}}
    for name, head in spellings.items():
        for indent in (None, 1):
            text = json.dumps(head, indent=indent, ensure_ascii=False).encode()
            write(f"{folder}/one/model.safetensors", len(text).to_bytes(8, "little") + text + data)
            zoo.compress("a.h5", "--force")
            shutil.rmtree(f"{folder}/r", ignore_errors=True)
            shutil.rmtree(f"{folder}/p", ignore_errors=True)
            restore(folder, "one", "r")
            got = json.loads(st_head(f"{folder}/r/model.safetensors")[8:])
            equal(got["__metadata__"].pop("deltazoo")[:18], '{"kind":"restored"', name)
            equal(got, {"__metadata__": {}, **head}, f"{name}: the rest of the header")
            subprocess.run([sys.executable, READER, "restore", "a.h5", "--task", "one", "--base", "base", "-o", "p"], cwd=folder, check=True, capture_output=True)
            equal(hashes(f"{folder}/p", True), hashes(f"{folder}/r", True), f"{name}: the Python reader's files")


@with_scratch
def test_restored_models_are_no_input_unless_asked_for(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    restore(folder, "one", "r")
    zoo.manifest("r", "two", file="again.yaml")
    zoo.manifest("two", base="r", file="onbase.yaml")
    refused(folder, ["compress", "again.yaml", "-o", "b.h5", "-q"], 2, "r: not an original", "'one'", "--allow-lossy-input", "unmark", ranks=(1, 3))
    refused(folder, ["plan", "again.yaml"], 2, "r: not an original", ranks=(1, 3))
    refused(folder, ["compress", "onbase.yaml", "-o", "b.h5", "-q"], 2, "r: not an original", ranks=(1,))
    for out in good(["compress", "again.yaml", "-o", "b.h5", "-q", "--allow-lossy-input"], 3, cwd=folder), good(["plan", "again.yaml", "--allow-lossy-input"], cwd=folder):
        check(any("r is not an original" in n for n in out.lines("note")), f"{out}")
    restore(folder, "r", "rr", archive="b.h5")
    equal((metadata(f"{folder}/rr/model.safetensors")["task"], json.loads(read(f"{folder}/rr/deltazoo.json"))["archive"]), ("r", "b.h5"), "the second mark")
    check(st_head(f"{folder}/rr/model.safetensors").count(b"restored") == 1, "two marks")
    good(["compress", "again.yaml", "-o", "c.h5", "-q", "--allow-lossy-input", "--recipe", "lossless"], cwd=folder)
    restore(folder, "r", "same", archive="c.h5")
    equal(hashes(f"{folder}/same", True), hashes(f"{folder}/r", True), "a lossy model, kept exactly")
    os.rename(f"{folder}/r/model.safetensors", f"{folder}/alone.safetensors")
    zoo.manifest("alone.safetensors", file="alone.yaml")
    refused(folder, ["compress", "alone.yaml", "-o", "d.h5", "-q"], 2, "alone.safetensors: not an original", ranks=(1,))


@with_scratch
def test_scan_leaves_restored_models_out(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    restore(folder, "one", "r")
    r = good(["scan", ".", "-o", "s.yaml"], 3, cwd=folder)
    check(any("./r (" in n and "--allow-lossy-input" in n for n in r.lines("note")) and b"path: \"r\"" not in read(f"{folder}/s.yaml"), f"{r}")
    r = good(["scan", ".", "-o", "s.yaml", "--force", "--allow-lossy-input"], cwd=folder)
    check('"r"' in read(f"{folder}/s.yaml").decode() or "path: r}" in read(f"{folder}/s.yaml").decode(), read(f"{folder}/s.yaml").decode())


@with_scratch
def test_unmark(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    restore(folder, "one", "r")
    before = st_parse(f"{folder}/r")
    check("2 marks" in good(["unmark", "r"], cwd=folder).out, "marks")
    equal((st_parse(f"{folder}/r"), metadata(f"{folder}/r/model.safetensors"), os.path.exists(f"{folder}/r/deltazoo.json")), (before, None, False), "the model")
    zoo.manifest("r", file="again.yaml")
    good(["compress", "again.yaml", "-o", "b.h5", "-q"], cwd=folder)
    refused(folder, ["unmark", "r"], 1, "r: carries no mark", ranks=(1, 3))
    refused(folder, ["unmark", "nothing"], 1, "nothing", ranks=(1,))
    good(["export", "a.h5", "--task", "one", "-o", "v.safetensors", "-q"], cwd=folder)
    refused(folder, ["unmark", "v.safetensors"], 1, "no mark", ranks=(1,))


@with_scratch
def test_sums_and_what_is_left_of_a_damaged_archive_are_marked(folder):
    zoo = SmallZoo(folder)
    zoo.compress("a.h5", "--recipe", "lossless")
    restore(folder, "one=0.5+two=0.5", "m", ranks=3)
    equal((metadata(f"{folder}/m/model.safetensors")["task"], metadata(f"{folder}/m/model.safetensors")["method"]), ("0.5 * one + 0.5 * two", "sum"), "mark")
    raw = bytearray(read(f"{folder}/a.h5"))
    tables = json.loads(good(["info", "a.h5", "--json"], cwd=folder).out)
    check(tables["tasks"], "tasks")
    import h5py
    with h5py.File(f"{folder}/a.h5") as f:
        at = f["tasks/one/payload"].id.get_offset() + 40
    raw[at] ^= 1
    write(f"{folder}/a.h5", bytes(raw))
    from common import run
    r = run(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "left", "-q", "--keep-going"], 3, cwd=folder)
    reported = json.loads(read(f"{folder}/left/deltazoo.json"))
    equal((r.code, reported["lossy"], reported["damaged"] > 0), (3, False, True), "deltazoo.json of a damaged exact model")


@with_scratch
def test_exact_restore_into_the_place_of_a_lossy_one(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    zoo.compress("l.h5", "--recipe", "lossless")
    restore(folder, "one", "r")
    restore(folder, "two", "r", "--force", ranks=3)
    restore(folder, "one", "r", "--force", archive="l.h5")
    equal(hashes(f"{folder}/r", True), hashes(f"{folder}/one"), "the exact model")
    restore(folder, "one", "r2")
    write(f"{folder}/r2/config.json", '{"my": "own, edited"}')
    refused(folder, ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r2", "-q", "--force"], 2, "r2/config.json", "never replaced", ranks=(1, 3))
    mine = replaced(zoo.tasks["one"], "model.norm.weight", edit=lambda x: x.__iadd__(1))
    from common import st_bytes
    write(f"{folder}/r2/model.safetensors", st_bytes(mine, {"format": "pt"}))
    os.remove(f"{folder}/r2/config.json")
    refused(folder, ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r2", "-q", "--force"], 2, "r2/model.safetensors", "never replaced", ranks=(1,))
    zoo.manifest("r2", file="tuned.yaml")
    good(["compress", "tuned.yaml", "-o", "t.h5", "-q"], cwd=folder)  # trained on: the file that deltazoo.json lists has another size
