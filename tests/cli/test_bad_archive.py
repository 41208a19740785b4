"""Archives that are no archives, damaged archives, wrong bases, wrong outputs and full disks."""
import json
import os
import random
import subprocess

import h5py
import numpy as np
import xxhash
import zstandard

from common import (model_files, EMBED, K, NORM, Q, RANKS, UP, Scratch, Skipped, SmallZoo, changes, check, equal, good, hashes, read, refused, replaced, run,
                    snapshot, st_bytes, st_parse, tiny_zoo, turns, with_scratch, write)

RESTORE = ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r", "-q"]
VERIFY = ["verify", "a.h5", "-q"]
_variants = iter(range(1000))


def with_archive(function):
    def test(folder):
        zoo = SmallZoo(folder)
        zoo.compress()
        function(folder, zoo)

    test.__name__, test.__doc__ = function.__name__, function.__doc__
    return with_scratch(test)


# -------------------------------------------------------------------------------------------------- what restore asks

@with_archive
def test_restore_unknown_task_names_those_there_are(folder, zoo):
    refused(folder, ["restore", "a.h5", "--task", "three", "--base", "base", "-o", "r"], 2, "a.h5", "'three'", "one", "two", ranks=RANKS)


@with_archive
def test_info_unknown_task(folder, zoo):
    refused(folder, ["info", "a.h5", "--task", "three", "--json"], 2, "a.h5", "'three'", ranks=(1, 3))


@with_archive
def test_restore_into_a_directory_with_files(folder, zoo):
    write(f"{folder}/r/mine.txt", "precious")
    refused(folder, RESTORE, 2, "r:", "--force", ranks=RANKS)


@with_archive
def test_restore_onto_a_file(folder, zoo):
    write(f"{folder}/r", "precious")
    refused(folder, RESTORE, 2, "r:")
    refused(folder, RESTORE + ["--force"], (1, 2), "r:", ranks=(1, 3))


@with_archive
def test_restore_by_force_keeps_other_files(folder, zoo):
    write(f"{folder}/r/mine.txt", "precious")
    write(f"{folder}/r/config.json", "old")
    refused(folder, RESTORE + ["--force"], 2, "r/config.json", "never replaced", ranks=(3,))
    os.remove(f"{folder}/r/config.json")
    good(RESTORE + ["--force"], 3, cwd=folder)
    check({"config.json", "mine.txt", "model.safetensors"} <= set(os.listdir(f"{folder}/r")), "files")
    equal(read(f"{folder}/r/mine.txt"), b"precious", "mine.txt")
    equal(read(f"{folder}/r/config.json"), read(f"{folder}/one/config.json"), "config.json")
    check(not os.path.exists(f"{folder}/r.partial"), "r.partial is left")


@with_archive
def test_restore_into_an_empty_directory(folder, zoo):
    os.mkdir(f"{folder}/r")
    good(RESTORE, cwd=folder)
    equal(model_files(f"{folder}/r"), ["config.json", "model.safetensors"], "files")


@with_archive
def test_restore_with_a_slash_at_the_end(folder, zoo):
    good(RESTORE, cwd=folder)
    for ranks in (1, 3):
        good(["restore", "a.h5", "--task", "one", "--base", "base/", "-o", f"s{ranks}/", "-q"], ranks, cwd=folder)
        equal(hashes(f"{folder}/s{ranks}"), hashes(f"{folder}/r"), "files")
    equal(sorted(p for p in os.listdir(folder) if "partial" in p), [], "left over")


@with_archive
def test_restore_with_a_slash_at_the_end_leaves_nothing_when_it_fails(folder, zoo):
    zoo.put("base", replaced(zoo.base, Q, edit=lambda x: x.__setitem__(3, 9)))
    refused(folder, ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r/", "-q"], 1, Q, ranks=(1, 3))


@with_archive
def test_restore_into_a_new_deep_directory_leaves_nothing_when_it_fails(folder, zoo):
    zoo.put("base", replaced(zoo.base, Q, edit=lambda x: x.__setitem__(3, 9)))
    refused(folder, ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "new/deep/r", "-q"], 1, Q, ranks=(1, 3))


@with_archive
def test_restore_takes_nothing_over_from_a_killed_one(folder, zoo):
    """What a killed restore of another task left in DIR.partial does not become part of the restored model."""
    write(f"{folder}/r.partial/model-00002-of-00002.safetensors", "of another task")
    write(f"{folder}/r.partial/model.safetensors", "half")
    r = run(RESTORE, cwd=folder)
    if r.code == 0:
        equal(model_files(f"{folder}/r"), ["config.json", "model.safetensors"], "files")
    else:
        check(len(r.lines("error")) == 1 and "r.partial" in r.err and not os.path.exists(f"{folder}/r"), f"neither restored nor refused clearly: {r}")


@with_archive
def test_restore_of_tensors_after_a_killed_one(folder, zoo):
    write(f"{folder}/r.partial/model.safetensors", "half")
    refused(folder, RESTORE, 2, "r.partial", "leftover")
    write(f"{folder}/r.partial/.deltazoo-restore", "")
    good(RESTORE + ["--tensor", "*norm*"], cwd=folder)
    equal(model_files(f"{folder}/r"), ["model.safetensors"], "files")


@with_archive
def test_restore_tensor_that_matches_nothing(folder, zoo):
    refused(folder, RESTORE + ["--tensor", "nothing.*"], 2, "a.h5", "'one'", "'nothing.*'")


# ----------------------------------------------------------------------------------------------------------- the base

@with_archive
def test_wrong_base_with_other_values_names_its_tensors(folder, zoo):
    zoo.put("base", replaced(replaced(zoo.base, Q, edit=lambda x: x.__setitem__(3, 9)), NORM, edit=lambda x: x.__setitem__(0, 9)))
    refused(folder, RESTORE, 1, "base", Q, NORM, "2 tensors", ranks=RANKS)


@with_archive
def test_wrong_base_with_other_shapes_names_its_tensors(folder, zoo):
    zoo.put("base", replaced(zoo.base, Q, shape=(32, 48)))
    refused(folder, RESTORE, 1, "base", Q, "[32, 48]", "[48, 32]")


@with_archive
def test_wrong_base_without_a_tensor(folder, zoo):
    zoo.put("base", [t for t in zoo.base if t[0] != K])
    refused(folder, RESTORE, 1, "base", K)


@with_archive
def test_wrong_base_at_compare(folder, zoo):
    zoo.put("base", replaced(zoo.base, Q, edit=lambda x: x.__setitem__(3, 9)))
    refused(folder, ["compare", "a.h5", "--task", "one", "--base", "base", "--finetuned", "one", "-q"], 1, "base", Q, ranks=(1, 3))


@with_archive
def test_wrong_base_at_verify_is_no_damage_of_the_archive(folder, zoo):
    zoo.put("base", replaced(zoo.base, Q, edit=lambda x: x.__setitem__(3, 9)))
    for ranks in (1, 3):
        r = run(VERIFY + ["--base", "base"], ranks, cwd=folder)
        check(r.code not in (0, None) and Q in r.err, f"the tensor is not named: {r}")
        check("a.h5: is damaged" not in r.err, f"a sound archive is called damaged: {r}")


@with_archive
def test_quite_another_base_at_verify_is_no_damage_of_the_archive(folder, zoo):
    zoo.put("base", zoo.tasks["two"])  # exact tensors do not decode with it
    for ranks in (1, 3):
        r = run(VERIFY + ["--base", "base"], ranks, cwd=folder)
        check(r.code == 1 and "not the base of this archive" in r.err and "damage" not in r.err, f"a sound archive is called damaged: {r}")


@with_archive
def test_quite_another_base_is_no_damage_of_the_archive(folder, zoo):
    """Exact tensors do not decode with it; whoever reads the base says whose fault that is, and which tensors differ."""
    zoo.put("base", zoo.tasks["two"])
    compare = ["compare", "a.h5", "--task", "one", "--base", "base", "--finetuned", "one", "-q"]
    export = ["export", "a.h5", "--task", "one", "--base", "base", "-o", "d.safetensors", "-q"]
    for command in (RESTORE, RESTORE + ["--keep-going"], RESTORE + ["--task", "two"], compare):
        refused(folder, command, 1, "not the base of this archive", "5 tensors differ", EMBED, ranks=RANKS)
    refused(folder, export, 1, "not the base of this archive", "2 tensors differ", EMBED, NORM, ranks=RANKS)  # lossy deltas need no base
    refused(folder, RESTORE + ["--tensor", NORM], 1, "not the base of this archive", "1 tensors differ", NORM, ranks=RANKS)


@with_scratch
def test_damage_is_reported_in_the_order_of_the_archive(folder):
    """By any number of ranks the same lines, blocks of several tensors of both tasks and a side file among them."""
    os.symlink(tiny_zoo(), f"{folder}/zoo")
    good(["compress", "zoo/zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)
    with h5py.File(f"{folder}/a.h5", "r") as f:
        place, blobs, files = f["blobs/data"].id.get_offset(), f["blobs/index"][:], files_of(f, "task-1")[2]
    blob = blobs[next(number for name, number in files if name == "config.json")]
    flip(f"{folder}/a.h5", place + int(blob["offset"]) + int(blob["length"]) // 2)
    for task in ("task-2", "task-1"):
        place, rows = rows_of(f"{folder}/a.h5", task)
        for _, offset, length in rows[::2]:
            flip(f"{folder}/a.h5", place + offset + length // 2, 5)
    reported = []
    for ranks in RANKS:
        r = run(VERIFY + ["--json"], ranks, cwd=folder)
        equal(r.code, 3, "exit code")
        reported.append([(d["task"], d["tensor"], d["message"]) for d in json.loads(r.out)["damage"]])
        check(len(reported[-1]) > 20 and any("config.json" in d[2] for d in reported[-1]), f"too few lines: {reported[-1]}")
        equal(reported[-1], reported[0], f"damage by {ranks} ranks")
        equal(run(VERIFY, ranks, cwd=folder).lines("damage"), [d[2] for d in reported[0]], f"lines by {ranks} ranks")


@with_archive
def test_damage_is_damage_with_another_base_too(folder, zoo):
    zoo.put("base", zoo.tasks["two"])
    for name in (Q, NORM):  # a lossy tensor, an exact one
        flip_row(folder, "one", name)
    for command in (RESTORE, VERIFY + ["--base", "base"]):
        for ranks in RANKS:
            r = run(command, ranks, cwd=folder)
            check(r.code == 3 and "'one'" in r.err and Q in r.err and "checksum" in r.err, f"the damage is not named: {r}")


@with_archive
def test_base_does_not_exist(folder, zoo):
    refused(folder, ["restore", "a.h5", "--task", "one", "--base", "nowhere", "-o", "r"], 1, "nowhere")


@with_archive
def test_base_in_other_shards_is_the_same_base(folder, zoo):
    good(RESTORE, cwd=folder)
    want = hashes(f"{folder}/r")
    os.remove(f"{folder}/base/model.safetensors")
    write(f"{folder}/base/x.safetensors", st_bytes(list(reversed(zoo.base[:3]))))
    write(f"{folder}/base/y.safetensors", st_bytes(zoo.base[3:]))
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "again"], 3, cwd=folder)
    equal(hashes(f"{folder}/again"), want, "files")


# --------------------------------------------------------------------------------------------------- what is no archive

def no_archive(content, *wanted, code=1):
    ranks = turns(next(_variants))

    def test(folder):
        SmallZoo(folder)
        content(f"{folder}/a.h5")
        for args in (VERIFY, RESTORE, ["info", "a.h5", "--json"]):
            refused(folder, args, code, "a.h5", *wanted, ranks=ranks if args is VERIFY else (1,))

    return with_scratch(test)


def other_hdf5(path):
    with h5py.File(path, "w") as f:
        f["numbers"] = [1, 2, 3]


def other_format(path):
    with h5py.File(path, "w") as f:
        f.attrs["format"] = "zoodelta"


test_no_archive_missing = no_archive(lambda path: None)
test_no_archive_empty = no_archive(lambda path: write(path, b""))
test_no_archive_text = no_archive(lambda path: write(path, "a text, not an archive\n" * 100))
test_no_archive_directory = no_archive(os.mkdir)
test_no_archive_other_hdf5 = no_archive(other_hdf5, "not a deltazoo archive")
test_no_archive_other_format = no_archive(other_format, "not a deltazoo archive")


@with_archive
def test_archive_of_another_format_version(folder, zoo):
    with h5py.File(f"{folder}/a.h5", "r+") as f:
        old = f.attrs["format_version"]
        f.attrs.modify("format_version", old.dtype.type(77))
    for args in (VERIFY, RESTORE, ["info", "a.h5"]):
        refused(folder, args, 1, "a.h5", "77", ranks=(1, 3))


# ------------------------------------------------------------------------------------------------------------- damage

@with_archive
def test_truncated_archive(folder, zoo):
    whole = read(f"{folder}/a.h5")
    for cut, ranks in ((len(whole) - 1, RANKS), (len(whole) // 2, (1, 3)), (600, (1,)), (100, (1,))):
        write(f"{folder}/a.h5", whole[:cut])
        refused(folder, VERIFY, 3, "a.h5", ranks=ranks)
        refused(folder, RESTORE, 3, "a.h5", ranks=ranks)


def rows_of(path, task):
    """Of an archive: the payload's place in the file, and (tensor name, offset, length) of each row with bytes."""
    with h5py.File(path, "r") as f:
        names = [t["name"].rstrip(b"\0").decode() for t in f["tensors"][:]]
        place = f[f"tasks/{task}/payload"].id.get_offset()
        rows = f[f"tasks/{task}/index"][:]
        begins = np.cumsum(rows["length"]) - rows["length"]
        return place, [(names[r["tensor"]], int(at), int(r["length"])) for r, at in zip(rows, begins) if r["length"]]


def files_of(f, task):
    """Of an open archive: the row of the blob that lists the task's files, and [path, blob] of each."""
    row = int(f[f"tasks/{task}"].attrs["record"]["files_blob"])
    blob = f["blobs/index"][row]
    raw = zstandard.ZstdDecompressor().decompress(f["blobs/data"][blob["offset"]:blob["offset"] + blob["length"]].tobytes())
    files, at = [], 0
    while at < len(raw):
        end = raw.index(b"\0", at)
        path, at = raw[at:end], end + 2
        numbers = []
        for _ in range(2):  # varints
            value = shift = 0
            while True:
                value |= (raw[at] & 127) << shift
                shift, at = shift + 7, at + 1
                if raw[at - 1] < 128:
                    break
            numbers.append(value)
        files.append((path.decode(), numbers[0]))
    return row, raw, files


def rename_file(path, task, old, new):
    """A list of files with another path in it, and all checksums right."""
    with h5py.File(path, "r+") as f:
        row, raw, _ = files_of(f, task)
        assert len(old) == len(new) and raw.count(old) == 1
        raw = raw.replace(old, new)
        coded = zstandard.ZstdCompressor(level=19).compress(raw)
        index, digest = f["blobs/index"][:], xxhash.xxh3_128_intdigest(raw)
        assert len(coded) <= index["length"][row]
        begin = int(index["offset"][row])
        f["blobs/data"][begin:begin + len(coded)] = np.frombuffer(coded, np.uint8)
        index["length"][row], index["digest_hi"][row], index["digest_lo"][row] = len(coded), digest >> 64, digest & (1 << 64) - 1
        f["blobs/index"][...] = index


def flip(path, at, bit=0):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1 << bit]))


def damaged(folder, *wanted, ranks=RANKS, base=False):
    """verify: exit 3, lines of damage that name what is wanted, one error line, nothing changed."""
    for n in ranks:
        before = snapshot(folder)
        r = run(VERIFY + (["--base", "base"] if base else []), n, cwd=folder)
        check(r.code == 3, f"exit code is not 3: {r}")
        check(len(r.lines("error")) == 1 and "a.h5" in r.lines("error")[0], f"not one error line that names the archive: {r}")
        check(not r.noise.strip(), f"other ranks say something: {r}")
        reported = "\n".join(r.lines("damage") + r.lines("error"))
        check(all(w in reported for w in wanted), f"{wanted} are not all named: {r}")
        check(not changes(before, snapshot(folder)), f"leaves traces: {r}")


@with_archive
def test_flipped_bit_in_a_lossy_payload(folder, zoo):
    place, rows = rows_of(f"{folder}/a.h5", "one")
    name, offset, length = next(r for r in rows if r[0] == UP)
    flip(f"{folder}/a.h5", place + offset + length // 2, 5)
    damaged(folder, "'one'", UP, "block 0")
    damaged(folder, "'one'", UP, "block 0", ranks=(3,), base=True)
    refused(folder, RESTORE, 3, "a.h5", "'one'", UP, "block 0", ranks=RANKS)
    refused(folder, ["compare", "a.h5", "--task", "one", "--base", "base", "--finetuned", "one", "-q"], 3, "a.h5", UP, ranks=(1, 3))
    good(["restore", "a.h5", "--task", "two", "--base", "base", "-o", "two-again"], cwd=folder)


@with_archive
def test_flipped_bit_in_an_exact_payload(folder, zoo):
    place, rows = rows_of(f"{folder}/a.h5", "one")
    name, offset, length = next(r for r in rows if r[0] == EMBED)
    flip(f"{folder}/a.h5", place + offset + length - 1)
    damaged(folder, "'one'", EMBED, "block 0", ranks=(1, 3))
    refused(folder, RESTORE, 3, "a.h5", "'one'", EMBED)


@with_archive
def test_two_flipped_bits_are_both_reported(folder, zoo):
    for task, name in (("one", Q), ("two", EMBED)):
        place, rows = rows_of(f"{folder}/a.h5", task)
        offset = next(r[1] for r in rows if r[0] == name)
        flip(f"{folder}/a.h5", place + offset)
    damaged(folder, "'one'", Q, "'two'", EMBED, ranks=(1, 3))


@with_archive
def test_flipped_bit_in_the_shared_files_names_the_archive(folder, zoo):
    with h5py.File(f"{folder}/a.h5", "r") as f:
        place, blobs = f["blobs/data"].id.get_offset(), f["blobs/index"][:]
    for blob in blobs:
        at = place + int(blob["offset"]) + int(blob["length"]) // 2
        flip(f"{folder}/a.h5", at)
        damaged(folder, ranks=(1,))
        r = run(RESTORE, cwd=folder)
        if r.code == 0:  # a file of the other task
            subprocess.run(["rm", "-r", f"{folder}/r"], check=True)
        else:
            check(r.code == 3 and len(r.lines("error")) == 1 and "a.h5" in r.lines("error")[0], f"the archive is not named: {r}")
            check(not os.path.exists(f"{folder}/r") and not os.path.exists(f"{folder}/r.partial"), f"restore leaves traces: {r}")
        flip(f"{folder}/a.h5", at)
    good(VERIFY, cwd=folder)


@with_archive
def test_flipped_bits_anywhere_are_found_or_do_no_harm(folder, zoo):
    """Anywhere in the file, structures included: an error of our own, or the model comes back as it was."""
    good(RESTORE, cwd=folder)
    want, size, rng = hashes(f"{folder}/r"), os.path.getsize(f"{folder}/a.h5"), random.Random(4)
    places = [9, 20, 47] + [rng.randrange(size) for _ in range(17)]
    for i, at in enumerate(places):
        flip(f"{folder}/a.h5", at, at % 8)
        r = run(VERIFY, cwd=folder)
        check(r.code in (0, 1, 3), f"byte {at} flipped: {r}")
        if r.code:
            check(len(r.lines("error")) == 1 and "a.h5" in r.lines("error")[0], f"byte {at} flipped: not one error line that names the archive: {r}")
        else:
            out = f"f{i}"
            good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", out, "-q"], cwd=folder)
            equal(hashes(f"{folder}/{out}"), want, f"byte {at} flipped, verify finds nothing, but the restored files")
        flip(f"{folder}/a.h5", at, at % 8)
    good(VERIFY, cwd=folder)


def change_table(path, table, column, value, row=1):
    with h5py.File(path, "r+") as f:
        rows = f[table][:]
        rows[column][row] = value
        f[table][...] = rows


def changed_table(table, column, value, *wanted, row=1):
    """A table whose checksums are right, but whose values are not: written by h5py. One of a task does not touch the other task."""
    ranks = turns(next(_variants))

    def test(folder):
        SmallZoo(folder).compress()
        change_table(f"{folder}/a.h5", table, column, value, row)
        if not table.startswith("tasks"):
            for args in (VERIFY, RESTORE):
                refused(folder, args, 3, "a.h5", *wanted, ranks=ranks)
            return
        damaged(folder, *wanted, ranks=ranks)
        refused(folder, RESTORE, 3, "a.h5", *wanted, ranks=ranks)
        good(["restore", "a.h5", "--task", "two", "--base", "base", "-o", "two-again", "-q"], ranks[-1], cwd=folder)
        r = run(["info", "a.h5", "--json"], cwd=folder)
        reported = json.loads(r.out)
        if "index" in table:
            equal((r.code, [t["name"] for t in reported["tasks"]], [t["name"] for t in reported["lost"]]), (3, ["two"], ["one"]), "what info tells")

    return with_scratch(test)


INDEX = "tasks/one/index"
test_index_row_with_length_beyond_the_payload = changed_table(INDEX, "length", 2**64 - 1, "'one'")
test_index_row_of_a_tensor_there_is_not = changed_table(INDEX, "tensor", 1000, "'one'")
test_index_row_of_a_base_there_is_not = changed_table(INDEX, "base", 1000, "'one'")
test_index_row_of_unknown_policy = changed_table(INDEX, "policy", 99, "'one'")
test_index_row_with_too_many_bits = changed_table(INDEX, "bits", 9, "'one'")
test_index_row_with_a_step_of_nan = changed_table(INDEX, "step", float("nan"), "'one'")
test_index_row_of_an_equal_tensor_without_base = changed_table(INDEX, "policy", 3, "'one'", row=0)
test_index_row_of_a_lossy_tensor_without_base = changed_table(INDEX, "base", 2**32 - 1, "'one'")
test_tensor_table_with_a_shape_that_overflows = changed_table("tensors", "shape", 2**62)
test_tensor_table_with_too_many_bytes = changed_table("tensors", "nbytes", 2**63)
test_tensor_table_with_too_many_dimensions = changed_table("tensors", "ndim", 77)


@with_archive
def test_blob_table_with_an_offset_outside(folder, zoo):
    with h5py.File(f"{folder}/a.h5", "r+") as f:
        rows = f["blobs/index"][:]
        rows["offset"][1] = 2**63
        f["blobs/index"][...] = rows
    damaged(folder, "model.safetensors", ranks=(1, 3))
    refused(folder, RESTORE, 3, "a.h5", ranks=(1, 3))


def file_outside(path):
    def test(folder):
        SmallZoo(folder).compress()
        rename_file(f"{folder}/a.h5", "one", b"config.json", path)
        damaged(folder, "'one'", path.decode(), ranks=(1, 3))
        refused(folder, RESTORE, 3, "a.h5", "'one'", path.decode(), ranks=(1, 3))
        good(["restore", "a.h5", "--task", "two", "--base", "base", "-o", "two-again", "-q"], cwd=folder)

    return with_scratch(test)


test_list_of_files_with_a_path_outside = file_outside(b"../evil.jso")
test_list_of_files_with_an_absolute_path = file_outside(b"/tmp/evil.j")


# ---------------------------------------------------------------------------------------------------------- keep going

def keeps_going(folder, task, out, *wanted, lines=1, ranks=(1, 3), more=()):
    """restore --keep-going: exit 3, a line for each damage that names what is wanted, the files made. The same files by any number of ranks."""
    seen = []
    for n in ranks:
        r = run(["restore", "a.h5", "--task", task, "--base", "base", "-o", f"{out}{n}", "-q", "--keep-going", *more], n, cwd=folder)
        check(r.code == 3 and len(r.lines("error")) == 1 and f"{out}{n}" in r.lines("error")[0] and not r.noise.strip(), f"not as it should be: {r}")
        reported = "\n".join(r.lines("damage"))
        check(len(r.lines("damage")) == lines and all(w in reported for w in wanted), f"{lines} lines with {wanted} are wanted: {r}")
        check(not os.path.exists(f"{folder}/{out}{n}.partial"), f"{out}{n}.partial is left")
        seen.append(hashes(f"{folder}/{out}{n}"))
    equal(seen, [seen[0]] * len(seen), "files by number of ranks")
    return f"{folder}/{out}{ranks[0]}"


def flip_row(folder, task, tensor):
    place, rows = rows_of(f"{folder}/a.h5", task)
    offset, length = next((r[1], r[2]) for r in rows if r[0] == tensor)
    flip(f"{folder}/a.h5", place + offset + length // 2, 5)


@with_archive
def test_keep_going_puts_the_base_in_the_place_of_a_damaged_block(folder, zoo):
    good(RESTORE, cwd=folder)
    want = st_parse(f"{folder}/r")
    for tensor in (UP, EMBED):
        flip_row(folder, "one", tensor)
    refused(folder, ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "s"], 3, "a.h5", "'one'", "block 0")
    got = st_parse(keeps_going(folder, "one", "k", UP, EMBED, "'one'", "block 0", "the base's values", lines=2))
    base = st_parse(f"{folder}/base")
    equal([t for t in want if got[t] != want[t]], [t for t in want if t in (UP, EMBED)], "tensors that differ")
    for tensor in (UP, EMBED):
        equal(got[tensor], base[tensor], tensor)
    got = st_parse(keeps_going(folder, "one", "t", UP, more=["--tensor", UP]))
    equal(list(got), [UP], "tensors")
    r = run(VERIFY + ["--json"], cwd=folder)
    reported = json.loads(r.out)
    equal((r.code, reported["sound"], sorted((d["task"], d["tensor"], d["block"]) for d in reported["damage"])),
          (3, False, sorted([("one", UP, 0), ("one", EMBED, 0)])), "what verify tells")
    equal([d["message"] for d in reported["damage"]], reported["problems"], "problems")


@with_archive
def test_keep_going_without_damage_is_restore(folder, zoo):
    good(RESTORE, cwd=folder)
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "k", "-q", "-k"], 3, cwd=folder)
    equal(hashes(f"{folder}/k"), hashes(f"{folder}/r"), "files")


@with_archive
def test_keep_going_past_each_damaged_file(folder, zoo):
    """A side file is left out; a header is made anew from the index. The other task's files are not touched."""
    good(RESTORE, cwd=folder)
    want = st_parse(f"{folder}/r")
    with h5py.File(f"{folder}/a.h5", "r") as f:
        place, blobs, files = f["blobs/data"].id.get_offset(), f["blobs/index"][:], files_of(f, "one")[2]
    for i, (name, number) in enumerate(files):
        blob = blobs[number]
        at = place + int(blob["offset"]) + int(blob["length"]) // 2
        flip(f"{folder}/a.h5", at)
        if name == "config.json":
            damaged(folder, "'one'", name, ranks=(1,))
            made = keeps_going(folder, "one", f"k{i}-", name, "left out")
            equal(model_files(made), ["model.safetensors"], "files")
        else:
            made = keeps_going(folder, "one", f"k{i}-", name, "made anew")
            equal(read(f"{made}/config.json"), read(f"{folder}/one/config.json"), "config.json")
        equal(st_parse(made), want, "tensors")
        flip(f"{folder}/a.h5", at)


@with_archive
def test_keep_going_without_the_list_of_files(folder, zoo):
    good(RESTORE, cwd=folder)
    rename_file(f"{folder}/a.h5", "one", b"config.json", b"../evil.jso")
    made = keeps_going(folder, "one", "k", "'one'", "../evil")
    equal(st_parse(made), st_parse(f"{folder}/r"), "tensors")
    equal(model_files(made), ["model.safetensors"], "files")


@with_archive
def test_keep_going_without_any_blob(folder, zoo):
    good(RESTORE, cwd=folder)
    with h5py.File(f"{folder}/a.h5", "r") as f:
        at = f["blobs/index"].id.get_chunk_info(0).byte_offset
    flip(f"{folder}/a.h5", at + 5)
    damaged(folder, "blobs", ranks=(1, 3))
    refused(folder, ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "s"], 3, "a.h5", "blobs")
    equal(st_parse(keeps_going(folder, "one", "k", "blobs", "side files are left out")), st_parse(f"{folder}/r"), "tensors")


@with_archive
def test_damage_in_a_tasks_structures_leaves_the_other_task(folder, zoo):
    """Each byte of the headers and tables of a task, in steps: the other task is listed and restored as before."""
    good(["restore", "a.h5", "--task", "two", "--base", "base", "-o", "r", "-q"], cwd=folder)
    want = hashes(f"{folder}/r")
    with h5py.File(f"{folder}/a.h5", "r") as f:
        group = f["tasks/one"]
        places = [h5py.h5o.get_info(group.id).addr] + [h5py.h5o.get_info(group[n].id).addr for n in ("index", "payload")]
        places += [group["index"].id.get_chunk_info(0).byte_offset]
    for i, at in enumerate(places):
        for step in (0, 20, 60):
            flip(f"{folder}/a.h5", at + step, step % 8)
            damaged(folder, "'one'", ranks=(1,))
            good(["restore", "a.h5", "--task", "two", "--base", "base", "-o", f"two-{i}-{step}", "-q"], cwd=folder)
            equal(hashes(f"{folder}/two-{i}-{step}"), want, "files of the other task")
            flip(f"{folder}/a.h5", at + step, step % 8)


# ---------------------------------------------------------------------------------------------------------- full disks

def with_small_disk(function):
    def test():
        with Scratch() as folder:
            os.mkdir(f"{folder}/disk")
            if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", f"{folder}/disk"], capture_output=True).returncode:
                raise Skipped("mounting a small disk is not permitted")
            try:
                function(folder)
            finally:
                subprocess.run(["umount", "-l", f"{folder}/disk"], check=True)

    test.__name__, test.__doc__ = function.__name__, function.__doc__
    return test


def link_zoo(folder):
    zoo = tiny_zoo("f32")
    os.symlink(zoo, f"{folder}/zoo")


@with_small_disk
def test_full_disk_at_compress(folder):
    """The archive takes some 20 MB: the disk is full when it is laid out or, with little memory, when blocks are put aside."""
    link_zoo(folder)
    for memory in ("2G", "64M"):
        refused(folder, ["compress", "zoo/zoo.yaml", "-o", "disk/a.h5", "--recipe", "lossless", "--mem-per-rank", memory, "-q"], 1, "disk",
                ranks=RANKS if memory == "2G" else (1, 3))


@with_small_disk
def test_full_disk_at_compress_keeps_the_old_archive(folder):
    link_zoo(folder)
    write(f"{folder}/disk/a.h5", "")  # an archive of its own would take the room
    refused(folder, ["compress", "zoo/zoo.yaml", "-o", "disk/a.h5", "--recipe", "lossless", "--force", "-q"], 1, "disk", ranks=(1, 3))


@with_small_disk
def test_completely_full_disk_at_compress(folder):
    SmallZoo(folder)
    fd = os.open(f"{folder}/disk/filler", os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(fd, b"\1" * 4096):
            pass
    except OSError:
        pass
    os.close(fd)
    refused(folder, ["compress", "zoo.yaml", "-o", "disk/a.h5", "-q"], 1, "disk", ranks=(1, 3))


@with_small_disk
def test_full_disk_at_restore(folder):
    link_zoo(folder)
    good(["compress", "zoo/zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)
    refused(folder, ["restore", "a.h5", "--task", "task-1", "--base", "zoo/base", "-o", "disk/r", "-q"], 1, "disk", ranks=(1, 3))


@with_small_disk
def test_full_disk_at_synth(folder):
    refused(folder, ["synth", "--shape", "tiny", "--tasks", "1", "--dtype", "f32", "-o", "disk/z", "-q"], 1, "disk", ranks=(1, 3))
