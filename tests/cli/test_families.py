"""Many families: scan --list, the array job's script, and what report sums up."""
import json
import os
import shutil

from common import DELTAZOO, ENV, Q, call, check, equal, good, hashes, read, refused, replaced, run, small_model, with_scratch, write
from test_scan import SHAPES, family, manifest, put

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
ARRAY = os.path.join(ROOT, "jobs", "array.sbatch")


def listed(path):
    """The rows of a list and its comments."""
    lines = read(path).decode().splitlines()
    return [tuple(line.split("\t")) for line in lines if line and not line.startswith("#")], [line for line in lines if line.startswith("#")]


def hub(folder):
    """Three families, one of them in a folder of the same name as another's, and models that are in none."""
    family(f"{folder}/hub/one", ["base", "a", "b"], 1)
    family(f"{folder}/hub/two", ["base", "a", "b", "c"], 2)
    family(f"{folder}/hub/two words", ["base", "a"], 3)
    put(f"{folder}/hub", "alone", small_model(9, "F32", SHAPES))
    write(f"{folder}/hub/broken/model.safetensors", b"\1\2\3")
    os.mkdir(f"{folder}/archives")


def element(folder, i, list_="families.txt", **env):
    """The script of an element, without SLURM: as the array job runs it."""
    return call(["bash", ARRAY], cwd=folder, env={**ENV, "SLURM_ARRAY_TASK_ID": str(i), "ZOOS": list_, "RANKS": "1", "DELTAZOO": DELTAZOO, **env})


@with_scratch
def test_a_list_of_families_is_written_for_the_array_job(folder):
    hub(folder)
    texts = []
    for ranks in (1, 3):
        good(["scan", "hub", "-o", "family.yaml", "--list", "families.txt", "--archives", "archives", "--force"], ranks, cwd=folder)
        rows, comments = listed(f"{folder}/families.txt")
        texts.append(read(f"{folder}/families.txt"))
        equal([(os.path.basename(m), a) for m, a in rows],
              [(f"family-{n}.yaml", f"{folder}/archives/family-{n}.h5") for n in ("one-base", "two-words-base", "two-base")], "rows")
        check(all(manifest(m)[0].endswith("/base") for m, _ in rows), f"{rows}")
        check(any("in no zoo: alone: shares its base with no other model" in c for c in comments), f"{comments}")
        check(any("in no zoo: hub/broken" in c for c in comments), f"{comments}")
        check(any(f"ZOOS='{folder}/families.txt' sbatch --array=1-3 jobs/array.sbatch" in c for c in comments), f"{comments}")
    equal(texts[0], texts[1], "the list of 1 and 3 ranks")
    left = json.loads(good(["scan", "hub", "--json"], cwd=folder).out)["left_out"]
    equal(sorted(x["name"].split(":")[0] for x in left), ["alone", "hub/broken/model.safetensors"], "left out in JSON")
    good(["scan", "hub/one", "-o", "only.yaml", "--list", "only.txt"], cwd=folder)
    equal([os.path.basename(m) for m, _ in listed(f"{folder}/only.txt")[0]], ["only-base.yaml"], "one family has its own name as well")


@with_scratch
def test_a_list_replaces_lists_only(folder):
    family(f"{folder}/hub", ["base", "a"], 1)
    refused(folder, ["scan", "hub", "--list", "l.txt"], 2, "--list needs -o")
    refused(folder, ["scan", "hub", "-o", "z.yaml", "--archives", "."], 2, "--archives needs --list")
    refused(folder, ["scan", "hub", "-o", "z.yaml", "--list", "l.txt", "--archives", "none"], 2, "none")
    refused(folder, ["scan", "hub", "-o", "z.yaml", "--list", "none/l.txt"], 2, "none")
    refused(folder, ["scan", "hub", "-o", "z.yaml", "--list", "z-base.yaml"], 2, "--list z-base.yaml", "a manifest")
    write(f"{folder}/l.txt", "my notes\n")
    refused(folder, ["scan", "hub", "-o", "z.yaml", "--list", "l.txt", "--force"], 2, "l.txt", "did not make")
    os.unlink(f"{folder}/l.txt")
    good(["scan", "hub", "-o", "z.yaml", "--list", "l.txt"], cwd=folder)
    refused(folder, ["scan", "hub", "-o", "y.yaml", "--list", "l.txt"], 2, "l.txt", "--force")
    good(["scan", "hub", "-o", "z.yaml", "--list", "l.txt", "--force"], cwd=folder)


@with_scratch
def test_the_array_job_and_the_sum_of_its_reports(folder):
    """A family that fails, one that is not started, one on hold: the sum names each with its next step; nothing is lost when it goes on."""
    hub(folder)
    good(["scan", "hub", "-o", "family.yaml", "--list", "families.txt", "--archives", "archives"], cwd=folder)
    broken = f"{folder}/hub/two words/a/model.safetensors"
    whole = read(broken)
    write(broken, whole[:-7])
    equal([element(folder, i)[0] for i in (1, 2)], [0, 1], "exit codes")
    r = good(["report", "families.txt"], cwd=folder)
    check(all(len(line) <= 80 for line in r.out.splitlines() if folder not in line and "sbatch" not in line), r.out)
    check("3 archives: 1 done, 1 failed, 1 not started" in r.out, r.out)
    check("again: sbatch --array=2,3 jobs/array.sbatch, with ZOOS=families.txt" in r.out, r.out)
    check("next: do what the error says" in r.out.replace("\n    ", " ") and "next: submit its job" in r.out.replace("\n    ", " "), r.out)
    check("2 tasks, quality: 2 balanced" in r.out and "archives: 1 sound" in r.out, r.out)
    write(broken, whole)
    equal([element(folder, i)[0] for i in (2, 3)], [0, 0], "exit codes of the second night")
    out = good(["report", "families.txt"], cwd=folder).out
    check("3 archives: 3 done" in out and "again" not in out and "next:" not in out and "archives: 3 sound" in out, out)
    of_folder = json.loads(good(["report", "archives", "--json"], cwd=folder).out)
    of_list = json.loads(good(["report", "families.txt", "--json"], 3, cwd=folder).out)
    equal(of_list["totals"], of_folder["totals"], "sums of the list and of the folder")
    totals, families = of_list["totals"], of_list["families"]
    equal([(f["element"], f["outcome"], f["tasks"], f["verified"]) for f in families],
          [(1, "done", 2, "sound"), (2, "done", 1, "sound"), (3, "done", 3, "sound")], "families")
    equal((totals["archives"], totals["tasks"], totals["bases"], totals["verified"]), (3, 6, 3, 3), "totals")
    equal(totals["archive_bytes"], sum(os.path.getsize(f"{folder}/archives/{f}") for f in os.listdir(f"{folder}/archives") if f.endswith(".h5")), "bytes")
    equal(totals["source_bytes"], sum(f["source_bytes"] for f in families), "bytes before")
    # written again since it was verified; damaged; gone
    os.utime(families[0]["archive"])
    out = good(["report", "families.txt"], cwd=folder).out
    check("archives: 2 sound, 1 written or moved since" in out, out)
    bytes_ = bytearray(read(families[1]["archive"]))
    bytes_[len(bytes_) // 2] ^= 255
    write(families[1]["archive"], bytes(bytes_))
    stem = families[1]["archive"][:-3]
    check(run(["verify", f"{stem}.h5", "--report", f"{stem}.verify.json"], 1, cwd=folder).code == 3, "damage is not found")
    equal(json.loads(read(f"{stem}.verify.json"))["verify"]["sound"], False, "what the report of verify says")
    out = good(["report", "families.txt"], cwd=folder).out
    check("1 sound, 1 damaged, 1 written or moved since" in out, out)


@with_scratch
def test_poor_tasks_are_named(folder):
    family(f"{folder}/one", ["base", "a", "b"], 1)
    put(f"{folder}/one", "c", replaced(small_model(5, "F32", SHAPES, small_model(1, "F32", SHAPES)), Q))
    good(["scan", "one", "-o", "z.yaml"], cwd=folder)
    good(["compress", "z.yaml", "-o", "poor.h5", "--method", "dare", "--sparsity", "0.99", "--report", "poor.json", "-q"], cwd=folder)
    good(["compress", "z.yaml", "-o", "exact.h5", "--quality", "lossless", "--report", "exact.json", "-q"], cwd=folder)
    out = good(["report", "poor.json", "exact.json"], cwd=folder).out
    check("6 tasks, quality: 3 exact, 3 poor" in out, out)
    equal(sum(line.startswith("  poor: ") for line in out.splitlines()), 3, "poor tasks")
    sums = json.loads(good(["report", "poor.json", "exact.json", "--json"], cwd=folder).out)
    equal([f["poor"] for f in sums["families"]], [["a", "b", "c"], []], "poor tasks in JSON")
    equal(sums["totals"]["bases"], 1, "the base of both is counted once")


@with_scratch
def test_bad_lists_and_folders(folder):
    write(f"{folder}/bad.txt", "# comment\na.yaml a.h5\none\nx y z\n")
    r = run(["report", "bad.txt"], 1, cwd=folder)
    check(r.code == 2 and "bad.txt:3" in r.err and "bad.txt:4" in r.err and "manifest and an archive" in r.err, f"{r}")
    write(f"{folder}/twice.txt", "a.yaml a.h5\nb.yaml b.h5\nc.yaml a.h5\n")
    r = run(["report", "twice.txt"], 1, cwd=folder)
    check(r.code == 2 and "twice.txt:3: archive a.h5 is named twice, first on line 1" in r.err, f"{r}")
    write(f"{folder}/empty.txt", "# nothing\n")
    os.mkdir(f"{folder}/nothing")
    for what in ("empty.txt", "nothing"):
        r = run(["report", what], 1, cwd=folder)
        check(r.code == 2 and what in r.err, f"{r}")
    family(f"{folder}/hub", ["base", "a"], 1)
    good(["scan", "hub", "-o", "z.yaml"], cwd=folder)
    good(["compress", "z.yaml", "-o", "z.h5", "-q"], cwd=folder)
    refused(folder, ["verify", "z.h5", "--report", "z.h5"], 2, "is the archive")
    refused(folder, ["verify", "z.h5", "--report", "z.yaml"], 2, "--report z.yaml", "did not make")
    code, _, err = element(folder, 1, list_=write(f"{folder}/three.txt", "a\tb\tc\n"))
    check(code == 2 and "is not a manifest and an archive" in err, err)
    shutil.rmtree(f"{folder}/hub")


def originals(folder, *sources):
    """{model: (cover, why)} of report --originals."""
    found = json.loads(good(["report", *sources, "--originals", "--json"], cwd=folder).out)["originals"]
    return {os.path.relpath(o["path"], f"{folder}/hub"): (o["cover"], o["why"]) for o in found}


@with_scratch
def test_which_originals_are_covered(folder):
    """Only what a verified archive restores, as the files are now; the base is kept; nothing is deleted."""
    family(f"{folder}/hub", ["base", "a", "b", "c", "d"], 1)
    write(f"{folder}/hub/c/optimizer.pt", b"PK")
    good(["scan", "hub", "-o", "zoo.yaml", "--list", "families.txt"], cwd=folder)
    equal(element(folder, 1, ORIGINALS="yes")[0], 0, "the job")
    check("not known" not in good(["report", "families.txt", "--originals"], cwd=folder).out, "the job has compared the originals")
    found = originals(folder, "families.txt")
    equal({m: cover for m, (cover, _) in found.items()}, {"base": "base", "a": "lossy", "b": "lossy", "c": "partly", "d": "lossy"}, "covers")
    check("optimizer.pt" in found["c"][1] and "does not hold its base" in found["base"][1], f"{found}")
    before = hashes(f"{folder}/hub")
    text = good(["report", "families.txt", "--originals"], 3, cwd=folder).out
    check("covered, restored with noise: 3" in text and "to be kept: 2" in text and "Nothing is deleted" in text, text)
    equal(hashes(f"{folder}/hub"), before, "the models")
    # written, with a new file, and gone since the comparison
    os.utime(f"{folder}/hub/a/model.safetensors")
    write(f"{folder}/hub/b/new.txt", "new")
    shutil.rmtree(f"{folder}/hub/d")
    found = originals(folder, "families.txt")
    equal([found[m][0] for m in "abd"], ["changed", "changed", "gone"], "covers")
    # another content is found by content: the time says nothing
    model = read(f"{folder}/hub/b/model.safetensors")
    times = os.stat(f"{folder}/hub/b/model.safetensors").st_mtime_ns
    write(f"{folder}/hub/b/model.safetensors", model[:-1] + bytes([model[-1] ^ 1]))
    os.unlink(f"{folder}/hub/b/new.txt")
    os.utime(f"{folder}/hub/b/model.safetensors", ns=(times, times))
    good(["verify", "zoo-base.h5", "--originals", "zoo-base.yaml", "--report", "zoo-base.verify.json"], 3, cwd=folder)
    found = originals(folder, "families.txt")
    equal((found["a"][0], found["b"][0]), ("lossy", "changed"), "covers after another look")
    check(found["b"][1].startswith("tensor '"), f"{found}")
    # the archive is written again
    good(["repack", "zoo-base.h5"], cwd=folder)
    found = originals(folder, "families.txt")
    equal(found["a"], ("changed", "the archive was written since it was verified"), "after a new archive")
    # exact ones
    good(["scan", "hub", "-o", "exact.yaml", "--list", "exact.txt"], cwd=folder)
    equal(element(folder, 1, "exact.txt", ORIGINALS="yes", OPTIONS="--quality lossless")[0], 0, "the exact job")
    equal(originals(folder, "exact.txt")["a"], ("exact", ""), "an exact archive")
    equal(originals(folder, "families.txt", "exact.txt")["a"][0], "exact", "of two archives the better one counts")
    base = read(f"{folder}/hub/base/model.safetensors")
    write(f"{folder}/hub/base/model.safetensors", base[:-1] + bytes([base[-1] ^ 1]))
    refused(folder, ["verify", "exact-base.h5", "--originals", "exact-base.yaml", "-q"], 1, "not the base of this archive")
    refused(folder, ["verify", "exact-base.h5", "--originals", "none.yaml"], 2, "none.yaml")
