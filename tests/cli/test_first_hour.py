"""What a new user tries in the first hour: help in every form, hints instead of riddles, all of an error at once, restore in one go, figures that rank as accuracy does."""
import json
import os
import re

import h5py

from common import SmallZoo, check, equal, good, hashes, refused, run, with_scratch, write


@with_scratch
def test_help_and_versions_in_every_form(folder):
    version = good(["--version"], cwd=folder).out
    check(re.fullmatch(r"deltazoo \d+\.\d+\.\d+\n", version), version)
    for form in (["version"], ["-V"]):
        equal(good(form, cwd=folder).out, version, f"{form}")
    equal(good(["-h"], cwd=folder).out, good(["--help"], cwd=folder).out, "-h")
    for command in ("compress", "restore", "scan"):
        text = good([command, "--help"], cwd=folder).out
        equal(good([command, "-h"], cwd=folder).out, text, f"{command} -h")
        equal(good(["help", command], cwd=folder).out, text, f"help {command}")
    for topic, word in (("quality", "--max-noise"), ("cluster", "srun"), ("recipes", "  sparsity ")):
        text = good(["help", topic], 3, cwd=folder).out
        check(word in text, text)
        check(all(len(line) <= 80 for line in text.splitlines()), f"{topic} is wider than a terminal: {text}")
    refused(folder, ["help", "nothing"], 2, "'nothing'", "recipes, quality, cluster", ranks=(1, 3))


@with_scratch
def test_every_key_of_recipes_is_in_the_help(folder):
    """Type, range and default, and the ranges are true: what is outside is refused."""
    zoo = SmallZoo(folder)
    text = good(["help", "recipes"], cwd=folder).out
    keys = dict(re.findall(r"^  ([a-z_]+) +((?:one of|a number|a whole number).*)$", text, re.M))
    zoo.compress()
    stored = json.loads(good(["info", "a.h5", "--task", "one", "--json"], cwd=folder).out)["tasks"][0]["recipe_text"]
    equal(sorted(keys), sorted(re.findall(r"^([a-z_]+): ", stored, re.M)), "keys")
    for key, what in keys.items():
        bad = "99e9" if what.startswith("a number") else "99999999999999999999" if what.startswith("a whole") else "nonsense"
        refused(folder, ["plan", "zoo.yaml", "--set", f"{key}={bad}"], 2, key, bad, ranks=(1,))
        if what.startswith("one of"):
            for word in what.split(" (")[0][len("one of "):].split(", "):
                good(["plan", "zoo.yaml", "--set", f"{key}={word.strip()}"], cwd=folder)


@with_scratch
def test_hints(folder):
    zoo = SmallZoo(folder)
    compress = ["compress", "zoo.yaml", "-o", "a.h5"]
    for option in (["--bits", "3"], ["--bits=3"]):
        refused(folder, compress + option, 2, option[0], "--set bits=3", ranks=(1, 3))
    good(compress + ["--set", "bits=3", "-q"], cwd=folder)  # what the hint says
    refused(folder, compress + ["--nonsense"], 2, "unknown option '--nonsense'", ranks=(1,))
    for given, missing in (([], "--task NAME (or --all) and -o DIR are missing"), (["--task", "one"], "restore: -o DIR is missing"),
                           (["--task", "one", "--base", "base"], "restore: -o DIR is missing")):
        r = run(["restore", "a.h5", *given], cwd=folder)
        check(r.code == 2 and missing in r.err, f"{r}")
    for command, missing in ((["export", "a.h5", "--task", "one"], "export: -o FILE is missing"), (["import", "v", "-o", "x"], "import: --base PATH is missing"),
                             (["compare", "a.h5", "--task", "one", "--base", "base"], "compare: --finetuned PATH is missing")):
        refused(folder, command, 2, missing, ranks=(1,))
    for command in (["compress", "zoo.yaml", "-o", "nodir/x.h5", "-q"], ["repack", "a.h5", "-o", "nodir/x.h5"], ["export", "a.h5", "--task", "one", "-o", "nodir/x.h5"]):
        refused(folder, command, 2, "nodir/x.h5: no such directory: nodir", ranks=(1,))
    refused(folder, ["info", "a.h5", "--plot", "p.pdf"], 2, "p.pdf", "SVG or PNG", ".svg or .png", ranks=(1,))
    zoo.manifest("one", "none", file="bad.yaml")
    refused(folder, ["compress", "bad.yaml", "-o", "a.h5", "-q", "--set", "bits=77"], 2, "a.h5: exists already", "none", "'77'", lines=3, ranks=(1, 3))


@with_scratch
def test_restore_all(folder):
    zoo = SmallZoo(folder, tasks=("one", "two", "three"))
    zoo.compress()
    r = good(["restore", "a.h5", "--all", "--base", "base", "-o", "out", "-q"], 3, cwd=folder)
    equal(sorted(os.listdir(f"{folder}/out")), ["one", "three", "two"], "folders")
    equal(r.out.count("peak memory"), 3, "lines")
    good(["restore", "a.h5", "--task", "two", "--base", "base", "-o", "two-alone", "-q"], cwd=folder)
    equal(hashes(f"{folder}/out/two"), hashes(f"{folder}/two-alone"), "one of them")
    refused(folder, ["restore", "a.h5", "--all", "--task", "one", "--base", "base", "-o", "x"], 2, "--all", ranks=(1,))
    with h5py.File(f"{folder}/a.h5") as f:
        at = f["tasks/two/index"].id.get_chunk_info(0).byte_offset + 3
    raw = bytearray(open(f"{folder}/a.h5", "rb").read())
    raw[at] ^= 4
    write(f"{folder}/a.h5", bytes(raw))
    r = run(["restore", "a.h5", "--all", "--base", "base", "-o", "left", "-q"], 3, cwd=folder)
    check(r.code == 3 and "'two'" in r.err and sorted(os.listdir(f"{folder}/left")) == ["one", "three"], f"a damaged task keeps the others: {r}")


@with_scratch
def test_doctor(folder):
    for ranks in (1, 3):
        out = good(["doctor"], ranks, cwd=folder).out
        for word in ("deltazoo ", "MPI ", "HDF5 ", "kernels ", "memory ", "storage ", "locking works"):
            check(word in out, f"{word}: {out}")
        equal(out.count("deltazoo   "), 1, "printed once")
    check("unsafe: nothing can be written in absent" in good(["doctor", "--dir", "absent"], cwd=folder).out, "a folder that is not there")
    equal(os.listdir(folder), [], "left behind")


def compared(folder, *more):
    return run(["compare", "a.h5", "--task", "one", "--base", "base", "--finetuned", "one", "-q", *more], cwd=folder)


@with_scratch
def test_compare_ranks_as_accuracy_does(folder):
    """A change with noise and signal is better than one that is dropped, and one that is scaled away is as bad as dropped."""
    zoo = SmallZoo(folder)
    share = {}
    for name, more in (("noisy", ["--set", "method=ultradelta"]), ("lossless", ["--recipe", "lossless"]), ("mild", ["--set", "sparsity=0.5"])):
        zoo.compress("a.h5", "--force", *more)
        report = json.loads(compared(folder, "--json").out)
        share[name] = report["lossy"]["noise_share"]
        check(0 <= share[name] <= 1, f"{share}")
    check(share["lossless"] == 0 < share["mild"] < share["noisy"] < 1, f"{share}")
    r = compared(folder)
    check(re.match(r"tensor +policy +cosine +noise share +error +max error$", r.out.splitlines()[0]), f"columns: {r.out}")
    check(r.out.splitlines()[-3] == "one:" and "noise share" in r.out.splitlines()[-1], r.out)
    equal(compared(folder, "--max-noise", str(share["mild"] * 1.01)).code, 0, "below the limit")
    r = compared(folder, "--max-noise", str(share["mild"] * 0.99))
    check(r.code == 1 and "noise share" in r.err and "--max-noise" in r.err, f"{r}")
    for bad in ("x", "-1", "nan"):
        refused(folder, ["compare", "a.h5", "--task", "one", "--base", "base", "--finetuned", "one", "--max-noise", bad], 2, f"'{bad}'", ranks=(1, 3))
