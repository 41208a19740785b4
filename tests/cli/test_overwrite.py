"""Nothing that deltazoo did not make is ever overwritten, and nothing of its own of another kind: every command that writes, onto every kind of existing target."""
import os
import shutil
import sys

from pytest import skip

from common import ROOT, SmallZoo, call, check, equal, good, hashes, made_once, refused, run, st_bytes, with_scratch, write

READER = os.path.join(ROOT, "src", "python", "deltazoo.py")
COMPRESS = ["compress", "zoo.yaml", "-q", "--recipe", "mine.yaml"]
RULES = 'tensors:\n  - {match: "*_proj*", policy: ultradelta}\n  - {match: "*", policy: lossless}\n'


def prepared():
    """A zoo with an archive, and one of everything that could be in the place of an output, in the folder `there`."""

    def make(folder):
        zoo = SmallZoo(folder)
        write(f"{folder}/mine.yaml", RULES)
        os.makedirs(f"{folder}/there/folder")
        good(COMPRESS + ["-o", "a.h5"], cwd=folder)
        good(COMPRESS + ["-o", "there/archive", "--report", "there/report"], cwd=folder)
        shutil.copy(f"{folder}/there/report", f"{folder}/job.json")
        good(["info", "a.h5", "--plot", "there/plot.svg"], cwd=folder)
        os.rename(f"{folder}/there/plot.svg", f"{folder}/there/plot")
        good(["export", "a.h5", "--task", "one", "-o", "there/vector", "-q"], cwd=folder)
        good(["export", "a.h5", "--task", "one", "-o", "there/vector5", "--format", "hdf5", "-q"], cwd=folder)
        shutil.copy(f"{folder}/there/archive", f"{folder}/there/readonly")
        os.chmod(f"{folder}/there/readonly", 0o444)
        write(f"{folder}/there/model", st_bytes(zoo.tasks["one"]))
        write(f"{folder}/there/manifest", "base: base\ntasks:\n  - {name: one, path: one}\n")
        write(f"{folder}/there/config", '{"model_type": "llama"}\n')
        write(f"{folder}/there/text", "precious\n")
        write(f"{folder}/there/empty", "")
        write(f"{folder}/there/folder/notes", "precious\n")
        os.link(f"{folder}/base/model.safetensors", f"{folder}/there/base")
        os.symlink("../base/model.safetensors", f"{folder}/there/link")
        write(f"{folder}/zoo2/alpha/model.safetensors", st_bytes(zoo.base))
        write(f"{folder}/zoo2/beta/model.safetensors", st_bytes(zoo.tasks["one"]))

    return made_once("overwrite", make)


TARGETS = ("archive", "readonly", "report", "plot", "vector", "vector5", "model", "manifest", "config", "text", "empty", "folder", "base", "link")
ARCHIVES, VECTORS = {"archive", "readonly", "empty"}, {"vector", "vector5", "empty"}
EXPORT = ["export", "a.h5", "--task", "one", "-q"]
# what is run, with the target at its end, and which targets are replaced
WRITERS = {
    "compress": (COMPRESS + ["-o"], set()),
    "compress --force": (COMPRESS + ["--force", "-o"], ARCHIVES),
    "compress --report": (COMPRESS + ["-o", "new.h5", "--report"], {"report", "empty"}),
    "info --plot": (["info", "a.h5", "--plot"], {"plot", "empty"}),  # plots have an ending of their own: the targets are renamed
    "report --plot": (["report", "job.json", "--plot"], {"plot", "empty"}),
    "diff --plot": (["diff", "base", "one", "-q", "--plot"], {"plot", "empty"}),
    "export": (EXPORT + ["-o"], set()),
    "export --force": (EXPORT + ["--force", "-o"], VECTORS),
    "export --format sparse --force": (EXPORT + ["--format", "sparse", "--force", "-o"], VECTORS),
    "export --format hdf5 --force": (EXPORT + ["--format", "hdf5", "--force", "-o"], VECTORS),
    "import": (["import", "there/vector", "--base", "base", "-q", "-o"], set()),
    "repack": (["repack", "a.h5", "-o"], set()),
    "repack --force": (["repack", "a.h5", "--force", "-o"], ARCHIVES),
    "scan": (["scan", "zoo2", "-o"], set()),
    "scan --force": (["scan", "zoo2", "--force", "-o"], {"manifest", "empty"}),
    "scan --list": (["scan", "zoo2", "-o", "new.yaml", "--list"], set()),
    "scan --list --force": (["scan", "zoo2", "--force", "-o", "new.yaml", "--list"], {"empty"}),
    "verify --report": (["verify", "a.h5", "-q", "--report"], {"report", "empty"}),
    "restore": (["restore", "a.h5", "--task", "one", "--base", "base", "-q", "-o"], set()),
    "restore --force": (["restore", "a.h5", "--task", "one", "--base", "base", "-q", "--force", "-o"], {"folder"}),  # beside what is in it
    "restore FILE": (["restore", "a.h5", "--task", "one", "--base", "base", "-q", "-o"], set()),  # by its ending
    "restore FILE --force": (["restore", "a.h5", "--task", "one", "--base", "base", "-q", "--force", "-o"], {"empty"}),
    "synth --force": (["synth", "--shape", "tiny", "--tasks", "1", "-q", "--force", "-o"], {"folder"}),
}
cells = 0


def row(name):
    def test(folder):
        global cells
        command, replaced = WRITERS[name]
        shutil.copytree(prepared(), f"{folder}/box", symlinks=True)
        os.remove(f"{folder}/box/there/base")
        os.link(f"{folder}/box/base/model.safetensors", f"{folder}/box/there/base")
        for target in TARGETS:
            named = target + (".svg" if command[-1] == "--plot" else ".safetensors" if "FILE" in name else "")
            os.rename(f"{folder}/box/there/{target}", f"{folder}/box/there/{named}")
            before = hashes(f"{folder}/box")
            r = run(command + [f"there/{named}"], cwd=f"{folder}/box")
            after = hashes(f"{folder}/box")
            cells += 1
            if target in replaced:
                check(r.code == 0, f"{name} onto {target}: {r}")
            else:
                check(r.code in (1, 2) and len(r.lines("error")) == 1 and f"there/{target}" in r.err, f"{name} onto {target}: {r}")
            lost = [p for p in before if after.get(p) != before[p] and not (target in replaced and p == f"there/{named}")]
            check(not lost, f"{name} onto {target}: lost or changed: {lost}: {r}")
            if target not in replaced:
                equal(sorted(after), sorted(before), f"{name} onto {target}: files")
            shutil.rmtree(f"{folder}/box/there", ignore_errors=True)
            shutil.copytree(f"{prepared()}/there", f"{folder}/box/there", symlinks=True)
            os.remove(f"{folder}/box/there/base")
            os.link(f"{folder}/box/base/model.safetensors", f"{folder}/box/there/base")
            for made in ("new.h5", "new.yaml"):
                if os.path.exists(f"{folder}/box/{made}"):
                    os.remove(f"{folder}/box/{made}")

    return with_scratch(test)


for _i, _name in enumerate(WRITERS):
    globals()[f"test_matrix_{_i:02}_{_name.replace(' ', '_').replace('-', '')}"] = row(_name)


@with_scratch
def test_python_replaces_no_base_and_no_original(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    os.symlink("base", f"{folder}/link")
    for out, text in (("base", "is a file of the model"), ("link", "is a file of the model"), ("one", "never replaced"), ("./one/../base", "is a file of the model")):
        before = hashes(folder)
        code, _, err = call([sys.executable, READER, "restore", "a.h5", "--task", "one", "--base", "base", "-o", out, "--force"], cwd=folder)
        check(code == 1 and text in err and "Traceback" not in err, f"{out}: {code} {err}")
        equal(hashes(folder), before, out)
    os.mkdir(f"{folder}/r")
    os.rename(f"{folder}/a.h5", f"{folder}/r/config.json")
    before = hashes(folder)
    code, _, err = call([sys.executable, READER, "restore", "r/config.json", "--task", "one", "--base", "base", "-o", "r", "--force"], cwd=folder)
    check(code == 1 and "is the archive" in err, f"{code} {err}")
    equal(hashes(folder), before, "the archive")


@with_scratch
def test_restore_replaces_what_restore_made(folder):
    """An exact model carries no mark: it is replaced only by its own bytes. A changed file of it is not."""
    zoo = SmallZoo(folder)
    zoo.compress("a.h5", "--recipe", "lossless")
    restore = ["restore", "a.h5", "--base", "base", "-o", "r", "--force", "-q", "--task"]
    good(restore + ["one"], cwd=folder)
    good(restore + ["one"], 3, cwd=folder)
    equal(hashes(f"{folder}/r"), hashes(f"{folder}/one"), "the model")
    refused(folder, restore + ["two"], 2, "r/model.safetensors", "never replaced", ranks=(1, 3))
    call([sys.executable, READER, "restore", "a.h5", "--task", "one", "--base", "base", "-o", "r", "--force"], cwd=folder)
    equal(hashes(f"{folder}/r"), hashes(f"{folder}/one"), "the model by the Python reader")
    code, _, err = call([sys.executable, READER, "restore", "a.h5", "--task", "two", "--base", "base", "-o", "r", "--force"], cwd=folder)
    check(code == 1 and "never replaced" in err, err)
    equal(hashes(f"{folder}/r"), hashes(f"{folder}/one"), "the model after a refusal")


@with_scratch
def test_unfinished_files_of_others_are_kept(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    for name, command in (("b.h5", ["compress", "zoo.yaml", "-o", "b.h5", "-q"]), ("c.h5", ["repack", "a.h5", "-o", "c.h5"]),
                          ("v", ["export", "a.h5", "--task", "one", "-o", "v", "-q"])):
        write(f"{folder}/{name}.partial", "precious")
        refused(folder, command, 2, f"{name}.partial", "remove it first", ranks=(1, 3))
        os.remove(f"{folder}/{name}.partial")
        good(command, cwd=folder)
    write(f"{folder}/d.h5.lock", "precious")
    refused(folder, ["compress", "zoo.yaml", "-o", "d.h5", "-q"], 2, "d.h5.lock", "not a lock", ranks=(1,))


@with_scratch
def test_synth_replaces_no_real_model(folder):
    SmallZoo(folder)
    os.rename(f"{folder}/zoo.yaml", f"{folder}/mine.yaml")
    refused(folder, ["synth", "--shape", "tiny", "--tasks", "1", "-o", ".", "--force", "-q"], 2, "./base", "never replaced", ranks=(1,))
    for _ in range(2):
        good(["synth", "--shape", "tiny", "--tasks", "1", "-o", "s", "--force", "-q"], cwd=folder)
    write(f"{folder}/s/zoo.yaml", "base: mine\n")
    refused(folder, ["synth", "--shape", "tiny", "--tasks", "1", "-o", "s", "--force", "-q"], 2, "s/zoo.yaml", "never replaced", ranks=(1,))


@with_scratch
def test_links_to_outputs_are_followed(folder):
    """A link that leads to an archive is replaced like it; one that leads nowhere is a new name."""
    zoo = SmallZoo(folder)
    zoo.compress()
    os.symlink("a.h5", f"{folder}/l.h5")
    refused(folder, ["compress", "zoo.yaml", "-o", "l.h5", "-q"], 2, "l.h5", "exists already", ranks=(1,))
    os.symlink("one/config.json", f"{folder}/c.h5")
    refused(folder, ["compress", "zoo.yaml", "-o", "c.h5", "-q", "--force"], 2, "c.h5", "never replaced", ranks=(1,))


@with_scratch
def test_full_disk(folder):
    """Every command that writes, onto a disk that is full before its end: it fails and names the place, what was there stays, nothing is left over."""
    shutil.copytree(prepared(), f"{folder}/box", symlinks=True)
    os.makedirs(f"{folder}/box/small")
    code, _, err = call(["mount", "-t", "tmpfs", "-o", "size=16k", "none", f"{folder}/box/small"])
    if code != 0:
        skip(f"no disk can be mounted here: {err.strip()}")
    try:
        with open(f"{folder}/box/small/filler", "wb") as f:
            f.write(b"x" * 12288)  # the last page holds the start of an output
        before = hashes(f"{folder}/box")
        cells_of_disk = 0
        for name, (command, _) in WRITERS.items():
            target = "small/out" + (".svg" if command[-1] == "--plot" else ".safetensors" if "FILE" in name else "")
            if command[0] == "scan":
                continue  # a manifest of some hundred bytes has room
            command = [c for c in command if c != "--force" or name[:5] != "synth"]  # with it synth's files stay, for another try
            r = run(command + [target], cwd=f"{folder}/box")
            report = "--report" in command  # the first one, of a job that runs, may fit, and stays
            check((report and r.code == 0) or (r.code != 0 and len(r.lines("error")) == 1 and "small/" in r.err), f"{name} on a full disk: {r}")
            after = hashes(f"{folder}/box")
            lost = [p for p in before if after.get(p) != before[p]]
            made = [p for p in after if p not in before and p != "new.h5" and not (report and p == target)]
            check(not lost and not made, f"{name} on a full disk: lost {lost}, left over {made}: {r}")
            for made in ("new.h5", target):
                if os.path.exists(f"{folder}/box/{made}"):
                    os.remove(f"{folder}/box/{made}")
            cells_of_disk += 1
        check(cells_of_disk >= 15, f"only {cells_of_disk} cells")
    finally:
        call(["umount", f"{folder}/box/small"])
