"""The archive among other tools: what h5py adds is stepped over and named, copies by h5repack are known, a damaged task can go, and advice works when it is followed."""
import os
import random
import re
import shlex
import shutil
import subprocess
import sys

import h5py
import numpy as np

from common import ROOT, SmallZoo, call, check, equal, good, hashes, info, read, refused, run, st_parse, with_scratch, write

READER = os.path.join(ROOT, "src", "python", "deltazoo.py")
VALUES = ("hello", "h\u00e9llo", b"bytes", True, 3, 2.5, 1 + 2j, np.float16(3), np.arange(12.).reshape(3, 4), np.arange(3, dtype=">i8"), h5py.Empty("f4"), ["a", "bb"],
          np.zeros(3, [("a", "i4"), ("b", "f8", (2,)), ("c", "S5")]), np.array([[True, False]]), np.void(b"opaque"))
PLACES = ("/", "base", "blobs", "tasks", "tasks/one", "tasks/two", "tensors", "tasks/one/index", "tasks/two/payload", "index_row", "base/tiles")


def add(f, kind, place, name, value):
    """One foreign thing; None where h5py itself cannot put it there."""
    at = f[place]
    if kind == "attribute":
        at.attrs[name] = value
    elif not isinstance(at, h5py.Group):
        return None
    elif kind == "group":
        at.create_group(f"{name}/inner").attrs["a"] = value
    elif kind == "dataset":
        at.create_dataset(name, data=value)
    elif kind == "soft":
        at[name] = h5py.SoftLink("/base")
    elif kind == "external":
        at[name] = h5py.ExternalLink("other.h5", "/x")
    else:
        at[name] = f["tasks/one/index"]
    return True


def usable(folder, archive, what, want):
    r = run(["verify", archive], cwd=folder)
    check(r.code == 0 and "sound" in r.out and not r.lines("damage"), f"{what}: {r}")
    return r


@with_scratch
def test_what_h5py_adds_is_stepped_over_and_named(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    rng, seen = random.Random(5), 0
    for number in range(60):
        shutil.copy(f"{folder}/a.h5", f"{folder}/b.h5")
        named = []
        with h5py.File(f"{folder}/b.h5", "r+") as f:
            for k in range(rng.randint(1, 4)):
                kind, place, value = rng.choice(("attribute", "attribute", "group", "dataset", "soft", "external", "hard")), rng.choice(PLACES), rng.choice(VALUES)
                if add(f, kind, place, f"note-{k}", value):
                    named.append(f"'note-{k}'")
        r = usable(folder, "b.h5", f"{number}: {named}", named)
        seen += len(named)
        check(all(any(n in line and "stepped over" in line for line in r.lines("note")) for n in named), f"{named} not named: {r}")
    check(seen > 60, "nothing was added")
    good(["restore", "b.h5", "--task", "one", "--base", "base", "-o", "r", "-q"], cwd=folder)
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "w", "-q"], cwd=folder)
    equal(hashes(f"{folder}/r"), hashes(f"{folder}/w"), "restored files")


@with_scratch
def test_annotated_archive_works_with_every_command(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    with h5py.File(f"{folder}/a.h5", "r+") as f:
        for number, (kind, place) in enumerate((k, p) for k in ("attribute", "group", "soft") for p in ("/", "base", "tasks", "tasks/one")):
            add(f, kind, place, f"n{number}", "text")
        for i in range(200):
            f.attrs[f"many{i}"] = i
            f.create_group(f"group{i}")
    equal([t["name"] for t in info("a.h5", cwd=folder)["tasks"]], ["one", "two"], "tasks")
    code, out, err = call([sys.executable, READER, "list", "a.h5"], cwd=folder)
    check(code == 0 and "n6" not in out, f"{out}{err}")
    zoo.manifest("two", file="two.yaml")
    r = good(["compress", "two.yaml", "-o", "a.h5", "--replace", "-q"], 3, cwd=folder)
    check(any("not taken along" in n for n in r.lines("note")), f"what is lost is not reported: {r}")
    with h5py.File(f"{folder}/a.h5", "r+") as f:
        f.attrs["note"] = "mine"
    r = good(["repack", "a.h5", "-o", "b.h5"], 3, cwd=folder)
    check(any("'note'" in n and "not taken along" in n for n in r.lines("note")), f"{r}")
    good(["remove", "a.h5", "--task", "one"], cwd=folder)


@with_scratch
def test_copies_by_h5repack_are_known(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    subprocess.run(["h5repack", "a.h5", "copy.h5"], cwd=folder, check=True)
    refused(folder, ["verify", "copy.h5"], 1, "copy.h5: a copy of a deltazoo archive", "h5repack", "use the original", ranks=(1, 3))
    code, out, err = call([sys.executable, READER, "restore", "copy.h5", "--task", "one", "--base", "base", "-o", "p"], cwd=folder)  # what the message says
    check(code == 0, f"{out}{err}")
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r", "-q"], cwd=folder)
    equal(hashes(f"{folder}/p"), hashes(f"{folder}/r"), "what the Python reader makes of it")
    with h5py.File(f"{folder}/other.h5", "w") as f:
        f.attrs["x"] = 1
    refused(folder, ["verify", "other.h5"], 1, "an HDF5 file, but not a deltazoo archive", ranks=(1,))


def damage_task(folder, name, what):
    """Flips a bit of a task's index or of its object header."""
    with h5py.File(f"{folder}/a.h5") as f:
        index = f[f"tasks/{name}/index"]
        at = index.id.get_chunk_info(0).byte_offset + 3 if what == "index" else h5py.h5o.get_info(f[f"tasks/{name}"].id).addr + 40
    raw = bytearray(read(f"{folder}/a.h5"))
    raw[at] ^= 4
    write(f"{folder}/a.h5", bytes(raw))


@with_scratch
def test_damaged_task_can_be_removed_replaced_or_left_out(folder):
    zoo = SmallZoo(folder, tasks=("one", "two", "three"))
    for what in ("index", "header"):
        zoo.compress("a.h5", "--force")
        good(["restore", "a.h5", "--task", "two", "--base", "base", "-o", f"want-{what}", "-q"], cwd=folder)
        damage_task(folder, "one", what)
        broken = read(f"{folder}/a.h5")
        refused(folder, ["repack", "a.h5"], 3, "'one'", "deltazoo remove a.h5 --task one", "--replace", ranks=(1, 3))
        refused(folder, ["remove", "a.h5", "--task", "two"], 3, "'one'", "deltazoo remove a.h5 --task one", ranks=(1,))
        good(["repack", "a.h5", "-o", f"some-{what}.h5", "--task", "two", "--task", "three"], 3, cwd=folder)
        good(["remove", "a.h5", "--task", "one", "--task", "three"], 3, cwd=folder)
        equal([t["name"] for t in info("a.h5", cwd=folder)["tasks"]], ["two"], "tasks")
        write(f"{folder}/a.h5", broken)
        zoo.manifest("one", file="one.yaml")
        refused(folder, ["compress", "one.yaml", "-o", "a.h5", "--append", "-q"], (2, 3), "'one'", ranks=(1,))
        good(["compress", "one.yaml", "-o", "a.h5", "--replace", "-q"], 3, cwd=folder)
        good(["verify", "a.h5", "--base", "base"], cwd=folder)
        for archive in ("a.h5", f"some-{what}.h5"):
            good(["restore", archive, "--task", "two", "--base", "base", "-o", f"r-{archive}-{what}", "-q"], cwd=folder)
            equal(hashes(f"{folder}/r-{archive}-{what}"), hashes(f"{folder}/want-{what}"), "the sound task")


def advised(text):
    """Commands of ours between quotation marks in a message."""
    return [shlex.split(c) for c in re.findall(r"'(deltazoo [^']*)'", text)]


@with_scratch
def test_advice_of_verify_works(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    damage_task(folder, "one", "index")
    r = run(["verify", "a.h5"], cwd=folder)
    commands = advised(r.err)
    equal((r.code, commands), (3, [["deltazoo", "remove", "a.h5", "--task", "one"]]), f"{r}")
    good(commands[0][1:], cwd=folder)
    good(["verify", "a.h5"], cwd=folder)
    zoo.compress("a.h5", "--force")
    with h5py.File(f"{folder}/a.h5") as f:
        at = f["tasks/one/payload"].id.get_offset() + 30
    raw = bytearray(read(f"{folder}/a.h5"))
    raw[at] ^= 1
    write(f"{folder}/a.h5", bytes(raw))
    r = run(["verify", "a.h5"], cwd=folder)
    equal(advised(r.err), [["deltazoo", "restore", "--keep-going"]], f"{r}")
    r = run(["restore", "a.h5", "--keep-going", "--task", "one", "--base", "base", "-o", "left", "-q"], cwd=folder)
    check(r.code == 3 and os.path.exists(f"{folder}/left/model.safetensors"), f"{r}")


@with_scratch
def test_recipe_through_pyyaml(folder):
    """PyYAML writes `on` as true: the same switch, also as yes and by --set."""
    zoo = SmallZoo(folder)
    text = good(["recipes", "--print", "llama"], cwd=folder).out
    for i, (word, on) in enumerate((("true", 1), ("yes", 1), ("on", 1), ("True", 1), ("false", 0), ("no", 0), ("off", 0))):
        write(f"{folder}/r.yaml", text + f"\ndac: {word}\n")
        zoo.compress(f"{i}.h5", "--recipe", "r.yaml")
        zoo.compress(f"s{i}.h5", "--set", f"dac={word}")
        for archive in f"{i}.h5", f"s{i}.h5":
            check(f"dac: {'on' if on else 'off'}\n" in info(archive, "one", cwd=folder)["tasks"][0]["recipe_text"], f"{word}: {archive}")


@with_scratch
def test_names_with_slashes_in_plain_arrays(folder):
    shapes = {"params/Dense_0/kernel": (16, 8), "params/Dense_0": (4, 4), "a//b": (8, 4), ".": (4, 4), "plain": (8, 8)}
    zoo = SmallZoo(folder, shapes=shapes)
    write(f"{folder}/r.yaml", 'tensors:\n  - {match: "*", policy: ultradelta}\n')
    zoo.compress("a.h5", "--recipe", "r.yaml")
    good(["export", "a.h5", "--task", "one", "--format", "hdf5", "-o", "v.h5", "-q"], 3, cwd=folder)
    good(["export", "a.h5", "--task", "one", "-o", "v.safetensors", "-q"], cwd=folder)
    dense = st_parse(f"{folder}/v.safetensors")
    with h5py.File(f"{folder}/v.h5") as f:
        found = {}
        f.visititems(lambda name, o: found.__setitem__(name, o[()]) if isinstance(o, h5py.Dataset) else None)
    equal(len(found), len(dense), f"datasets {sorted(found)}")
    check("params/Dense_0/kernel" in found and "a%2F%2Fb" in found and "plain" in found, f"{sorted(found)}")
    equal(found["params/Dense_0/kernel"].tobytes(), dense["params/Dense_0/kernel"][2], "values")


@with_scratch
def test_new_objects_among_tasks(folder):
    """Of HDF5's newest format: no damaged task, whatever they are named and hold. A damaged task is still one."""
    zoo = SmallZoo(folder)
    zoo.compress()
    with h5py.File(f"{folder}/a.h5", "r+", libver="latest") as f:
        tasks = f["tasks"]
        tasks.create_dataset("growing", shape=(3, 4), maxshape=(None, None), chunks=(2, 2), dtype=">f8", compression="gzip").attrs["index"] = "payload"
        tasks.create_dataset("record", data=np.arange(3.), dtype=">f4")
        tasks.create_dataset("text", data="of the index, the payload and the record")
        tasks["type"] = np.dtype([("index", "i4"), ("record", "S3")])
        many = tasks.create_group("many", track_order=True)
        for k in range(40):
            many.attrs[f"a{k}"] = k
            many.create_group(f"g{k}")
        tasks.create_dataset("line\nbreak", data=h5py.Empty("f4"))
        tasks.create_dataset("object 'one", data=1)  # its note reads like one about the task 'one'
    r = usable(folder, "a.h5", "new objects", [])
    for name in ("growing", "record", "text", "type", "many", "break"):
        check(any(name in line and "stepped over" in line for line in r.lines("note")), f"{name}: {r}")
    equal([t["name"] for t in info("a.h5", cwd=folder)["tasks"]], ["one", "two"], "tasks")
    damage_task(folder, "one", "header")
    r = run(["verify", "a.h5"], cwd=folder)
    check(r.code == 3 and "task 'one' cannot be read" in r.err, f"{r}")


@with_scratch
def test_attributes_in_a_heap(folder):
    """On what we read attributes of, HDF5 moves ours along: named with their number and what to do, and not called damaged; what is advised works."""
    zoo = SmallZoo(folder)
    zoo.compress()
    whole = read(f"{folder}/a.h5")
    for place in "/", "base", "tasks/one":
        write(f"{folder}/a.h5", whole)
        with h5py.File(f"{folder}/a.h5", "r+", libver="latest") as f:
            for k in range(300):  # these stay in the header
                f[place].attrs[f"mine-{k}"] = k
        usable(folder, "a.h5", place, [])
        with h5py.File(f"{folder}/a.h5", "r+", libver="latest") as f:
            for k in range(290):
                del f[place].attrs[f"mine-{k}"]
            f[place].attrs["mine"] = np.zeros(9000)
            count = len(f[place].attrs)
        named = "'/" + place.strip("/") + f"' has {count} attributes"
        task = place == "tasks/one"
        for command in (["verify", "a.h5"], ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], ["repack", "a.h5", "-o", "b.h5"]):
            refused(folder, command, 1, named, "Nothing is damaged", "del f[", ranks=(1, 3))
        r = run(["info", "a.h5"], cwd=folder)
        check(r.code == 1 and named in r.err and "a.h5: is damaged" not in r.err and ("two" in r.out) == task, f"{r}")
        if task:
            good(["restore", "a.h5", "--task", "two", "--base", "base", "-o", "two-back", "-q", "--force"], cwd=folder)
            refused(folder, ["remove", "a.h5", "--task", "two"], 1, named, ranks=(1,))
        code, out, err = call([sys.executable, READER, "restore", "a.h5", "--task", "one", "--base", "base", "-o", f"p{len(place)}"], cwd=folder)  # what the message says
        check(code == 0, f"{place}: {out}{err}")
        with h5py.File(f"{folder}/a.h5", "r+") as f:
            advised_object = re.search(r"del f\['([^']*)'\]\.attrs", r.err)[1]
            del f[advised_object].attrs["mine"]
        usable(folder, "a.h5", place, [])
    with h5py.File(f"{folder}/a.h5", "r+", libver="latest") as f:
        for place in ("blobs", "tasks", "index_row", "tensors"):  # of these we read none
            f[place].attrs["mine"] = np.zeros(9000)
    r = usable(folder, "a.h5", "others", [])
    equal(len([n for n in r.lines("note") if "in a heap" in n]), 4, f"{r}")


# ------------------------------------------------------------------------------------------------ random objects, 1,000 archives

ARCHIVES = int(os.environ.get("DZ_FOREIGN", "25"))  # `make check-foreign`: 1000


def random_value(rng):
    kind = rng.randrange(8)
    if kind < 4:
        return rng.choice(VALUES)
    if kind == 4:
        return "x" * rng.choice((0, 1, 255, 4000, 65000))
    if kind == 5:
        return np.zeros(rng.choice((1, 100, 8000)), rng.choice(("<f4", ">f8", "<i2", "u1", "?")))
    if kind == 6:
        return np.array(["a" * rng.randrange(9) for _ in range(rng.randrange(1, 5))], dtype=h5py.string_dtype())
    return np.zeros(2, h5py.enum_dtype({"no": 0, "yes": 1}, "u1"))


READ = ("/", "base", "tasks/one", "tasks/two")  # whose attributes are read: not from a heap


def random_object(rng, f, place, name):
    """Something that people or tools put into files; None where h5py itself refuses it."""
    at = f[place]
    kind = rng.choice(("attribute",) * 4 + ("many", "reference", "group", "dataset", "chunked", "compressed", "growing", "empty", "scalar", "soft", "external", "hard", "named", "annotated", "annotated"))
    try:
        if kind == "attribute":
            value = random_value(rng)
            if place in READ and isinstance(value, np.ndarray) and value.nbytes > 60000:
                return None  # goes into a heap, above
            at.attrs[name] = value
        elif kind == "many":  # so many that a table's header gets a heap and a tree for them
            for k in range(rng.choice((9, 40))):
                at.attrs[f"{name}-{k}"] = k
        elif kind == "reference":
            at.attrs[name] = f["base"].ref
        elif not isinstance(at, h5py.Group):
            return None
        elif kind == "group":
            inner = at.create_group(f"{name}/a/b", track_order=rng.random() < 0.5)
            inner.attrs["note"] = random_value(rng)
            for k in range(rng.choice((0, 3, 30))):
                inner.create_group(f"g{k}")
        elif kind == "dataset":
            at.create_dataset(name, data=random_value(rng))
        elif kind == "chunked":
            at.create_dataset(name, data=np.arange(1000), chunks=(64,), shuffle=True, fletcher32=True)
        elif kind == "compressed":
            at.create_dataset(name, data=np.zeros((50, 50)), compression="gzip")
        elif kind == "growing":
            at.create_dataset(name, shape=(3, 4), dtype="f4", maxshape=(None, 4), chunks=(2, 4), fillvalue=7)
        elif kind == "empty":
            at.create_dataset(name, data=h5py.Empty("f8"))
        elif kind == "scalar":
            at.create_dataset(name, data=5).attrs["unit"] = "m"
        elif kind == "annotated":  # with a heap of attributes or links of its own
            inner = at.create_group(name) if rng.random() < 0.5 else at.create_dataset(name, data=np.arange(rng.choice((0, 5, 5000))), maxshape=(None,), chunks=(64,))
            for k in range(rng.choice((1, 12))):
                inner.attrs[f"k{k}"] = "the record, the index and the payload"
                if isinstance(inner, h5py.Group):
                    inner.create_group(f"g{k}")
        elif kind == "soft":
            at[name] = h5py.SoftLink(rng.choice(("/base", "/nowhere", f"/tasks/{name}")))
        elif kind == "external":
            at[name] = h5py.ExternalLink("other.h5", "/x")
        elif kind == "hard":
            at[name] = f[rng.choice(("tasks/one/index", "base", "tensors"))]
        else:
            at[name] = np.dtype([("a", "i4"), ("b", "f8")])
    except (OSError, RuntimeError, ValueError, TypeError):  # HDF5's own limits, as for an attribute of 64 KiB in an old header
        return None
    return kind


def test_random_objects_of_h5py(tmp_path):
    """Archives to which h5py, of old and new formats, has added anything anywhere: sound, named, and what is restored is the same."""
    folder = str(tmp_path)
    zoo = SmallZoo(folder)
    zoo.compress()
    good(["restore", "a.h5", "--task", "two", "--base", "base", "-o", "want", "-q"], cwd=folder)
    want, added, kinds = hashes(f"{folder}/want"), 0, set()
    for number in range(ARCHIVES):
        rng = random.Random(number)
        shutil.copy(f"{folder}/a.h5", f"{folder}/b.h5")
        libver = rng.choice((None, "latest", ("earliest", "v108"), ("v110", "v110")))
        names = []
        with h5py.File(f"{folder}/b.h5", "r+", libver=libver, track_order=rng.random() < 0.5) as f:
            for k in range(rng.randint(1, 6)):
                name = rng.choice(("note-{}", "\u00fcber {}", "a.b-{}", "x" * 200 + "-{}")).format(k)
                kind = random_object(rng, f, rng.choice(PLACES), name)
                if kind:
                    names.append(name)
                    kinds.add(kind)
        what = f"archive {number} ({libver}, {names})"
        r = usable(folder, "b.h5", what, names)
        added += len(names)
        notes = "\n".join(r.lines("note"))
        check(not names or "stepped over" in notes, f"{what}: nothing named: {r}")
        if number % 10 == 0:
            good(["restore", "b.h5", "--task", "two", "--base", "base", "-o", "got", "-q", "--force"], cwd=folder)
            equal(hashes(f"{folder}/got"), want, f"{what}: restored files")
            good(["repack", "b.h5", "-o", "c.h5", "--force"], cwd=folder)
            usable(folder, "c.h5", f"{what}, repacked", [])
    check(added > ARCHIVES and len(kinds) > (5 if ARCHIVES < 100 else 14), f"{added} objects of kinds {sorted(kinds)}")
    print(f"{ARCHIVES} archives, {added} objects of {len(kinds)} kinds")
