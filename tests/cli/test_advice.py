"""Advice in messages works when it is followed: every command that a message of the program names is found in the sources, and run."""
import glob
import os
import re
import shutil

from common import ROOT, SmallZoo, check, equal, good, with_scratch

FOUND = re.compile(r"['(]deltazoo ([a-z%][^'()\n]*?)(?: has more| lists them| describes them| lists all[^'()]*)?['()]")
RESTORE = ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "out", "-q"]

# What a message says: the command that a user makes of it. None: `deltazoo COMMAND --help`, which is run for every command.
ADVICE = {
    "%s --help": None,
    "remove --help": None,
    "compress --help": None,
    "synth --help": None,
    "tune --help": None,
    "--help": ["--help"],
    "help recipes": ["help", "recipes"],
    "help quality": ["help", "quality"],
    "recipes": ["recipes"],
    "doctor": ["doctor"],
    "unmark": ["unmark", "lossy"],
    "diff --json": ["diff", "base", "one", "--json"],
    "info --task": ["info", "a.h5", "--task", "one"],
    "repack": ["repack", "a.h5", "-o", "b.h5"],
    "restore": RESTORE,
    "restore --keep-going": RESTORE + ["--keep-going"],
    "restore --help": None,
    "remove %s --task %.*s": ["remove", "a.h5", "--task", "one"],
    "remove %s --task %s": ["remove", "a.h5", "--task", "one"],
    "remove --rebase": ["remove", "a.h5", "--task", "one", "--rebase", "--base", "base"],
    "report": ["report", "c.json", "job.json"],
    "compress --replace": ["compress", "zoo.yaml", "-o", "a.h5", "--replace", "-q"],
    "COMMAND --help": None,
}


def texts(path):
    """String literals of a C file, neighbours joined."""
    with open(path) as f:
        source = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    source = re.sub(r'"\s*"', "", source)
    return re.findall(r'"((?:[^"\\]|\\.)*)"', source)


def advised():
    found = {}
    for path in sorted(glob.glob(f"{ROOT}/src/**/*.c", recursive=True)):
        for text in texts(path):
            for command in FOUND.findall(text.replace("\\n", " ")):
                found.setdefault(command.strip(), set()).add(os.path.relpath(path, ROOT))
    return found


def test_every_command_in_a_message_has_an_entry_here():
    found = advised()
    missing = {command: sorted(where) for command, where in found.items() if command not in ADVICE}
    check(not missing, f"commands in messages that no test runs: {missing}")
    check(len(found) > 10, f"only {sorted(found)} were found")


@with_scratch
def test_advised_commands_run(folder):
    zoo = SmallZoo(folder, "BF16")
    zoo.compress("keep.h5")
    good(["restore", "keep.h5", "--task", "two", "--base", "base", "-o", "lossy", "-q"], cwd=folder)
    good(["compress", "zoo.yaml", "-o", "c.h5", "--report", "c.json", "-q"], cwd=folder)
    good(["verify", "c.h5", "--base", "base", "--report", "job.json", "-q"], cwd=folder)
    for command in [c for c in ADVICE.values() if c]:
        shutil.copy(f"{folder}/keep.h5", f"{folder}/a.h5")
        for made in ("out", "b.h5"):
            shutil.rmtree(f"{folder}/{made}", ignore_errors=True)
            if os.path.exists(f"{folder}/{made}"):
                os.remove(f"{folder}/{made}")
        good(command, cwd=folder)
    for command in good(["--help=words"]).out.split():
        equal(good([command, "--help"]).out.startswith(f"usage: deltazoo {command} "), True, f"{command} --help")


@with_scratch
def test_doctor_names_kernels_that_are_not_there(folder):
    out = good(["doctor"], cwd=folder, env={"DZ_KERNELS": "plain"}).out
    check("DZ_KERNELS: 'plain' are no kernels of this processor:" in out, f"nothing about DZ_KERNELS=plain: {out}")
    out = good(["doctor"], cwd=folder, env={"DZ_KERNELS": "portable"}).out
    check("DZ_KERNELS chooses kernels" in out, f"nothing about DZ_KERNELS=portable: {out}")
