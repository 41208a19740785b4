"""Help, manual pages and completion say what the program does: every example of --help is run."""
import os
import re
import subprocess

from common import ENV, DELTAZOO, call, check, equal, good, made_once, refused, run, with_scratch


def commands():
    return good(["--help=words"]).out.split()


def examples():
    found = []
    for command in commands():
        text = good([command, "--help"]).out
        check("\nexamples:\n" in text, f"{command} --help has no example")
        lines = re.sub(r" *\\\n *", " ", text.split("\nexamples:\n")[1])
        found += [line.strip() for line in lines.splitlines() if line.strip()]
    return found


@with_scratch
def test_every_example_runs(folder):
    """In the order of the commands, in a folder with the names that the examples use."""
    good(["synth", "--shape", "tiny", "--tasks", "2", "--dtype", "bf16", "--seed", "5", "-o", "."], cwd=folder)
    os.rename(f"{folder}/task-1", f"{folder}/math")
    os.rename(f"{folder}/task-2", f"{folder}/code")
    with open(f"{folder}/zoo.yaml", "w") as f:
        f.write("base: base\ntasks:\n  - {name: math, path: math}\n  - {name: code, path: code}\n")
    with open(f"{folder}/score.py", "w") as f:
        f.write("print('score', 0.5)\n")
    os.makedirs(f"{folder}/models")
    for name in "base", "math", "code":
        os.symlink(f"../{name}", f"{folder}/models/{name}")
    path = f"{os.path.dirname(DELTAZOO)}:{os.environ['PATH']}"
    lines = examples()
    check(len(lines) >= 2 * len(commands()) - 4, f"only {len(lines)} examples")
    for line in sorted(lines, key=lambda line: ("remove" in line, "import" in line)):  # what takes tasks away comes last
        code, out, err = call(["bash", "-c", line], cwd=folder, env={"PATH": path})
        check(code == 0, f"{line}: exit {code}: {err}")


def test_manual_pages_render():
    for command in [None] + commands():
        page = good(([command] if command else []) + ["--help=man"]).out
        p = subprocess.run(["groff", "-man", "-Tutf8", "-ww"], input=page, capture_output=True, text=True)
        check(p.returncode == 0 and not p.stderr.strip(), f"{command}: groff: {p.stderr[:300]}")
        text = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", p.stdout)
        check("NAME" in text and "EXIT STATUS" in text, f"{command}: {text[:200]}")
        if command:
            for word in good([command, "--help=words"]).out.split():
                check(word.rstrip("=") in text, f"{command}: its page does not have {word}")
        if command in ("compress", "plan", "diff"):
            for key, what, usual in re.findall(r"^  ([a-z_]+) +(one of .*?|a number .*?|a whole number.*?) +\((.*)\)$", good(["help", "recipes"]).out, re.M):
                check(all(w in re.sub(r"\s+", " ", text) for w in (key, what, f"({usual})")), f"{command}: its page does not have {key}: {what} ({usual})")


def test_help_fits_a_terminal():
    for command in [None] + commands():
        for line in good(([command] if command else []) + ["--help"]).out.splitlines():
            check(len(line) <= 80, f"{command}: {len(line)} columns: {line}")


def complete(folder, *words):
    script = f"source {os.path.join(os.path.dirname(__file__), '../../src/cli/completion.bash')}; " \
             f"COMP_WORDS=({' '.join(repr(w) for w in (DELTAZOO,) + words)}); COMP_CWORD={len(words)}; _deltazoo; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    code, out, err = call(["bash", "-c", script], cwd=folder)
    check(code == 0 and not err, f"completion of {words}: {err}")
    return sorted(out.split())


@with_scratch
def test_completion(folder):
    good(["synth", "--shape", "tiny", "--tasks", "2", "--dtype", "bf16", "--seed", "5", "-o", "."], cwd=folder)
    good(["compress", "zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)
    equal(complete(folder, "comp"), ["compare", "compress"], "commands")
    equal(complete(folder, "compress", "--me"), ["--mem-per-rank", "--method"], "options")
    equal(complete(folder, "restore", "a.h5", "--task", ""), ["task-1", "task-2"], "tasks")
    check("llama" in complete(folder, "compress", "--recipe", "ll"), "recipes")
    equal(complete(folder, "info", "a."), ["a.h5"], "files")
    keys = re.findall(r"^  ([a-z_]+) +(?:one of|a number|a whole number)", good(["help", "recipes"], cwd=folder).out, re.M)
    equal(complete(folder, "compress", "--set", ""), sorted(f"{k}=" for k in keys), "keys of --set")
    equal(complete(folder, "compress", "--set", "round"), ["rounding="], "a key of --set")
    equal(complete(folder, "compress", "--set", "rounding", "="), ["nearest", "systematic"], "its words, as the shell takes them apart")
    equal(complete(folder, "compress", "--set", "rounding", "=", "sys"), ["systematic"], "one of them")
    equal(complete(folder, "compress", "--quality", "ba"), ["balanced"], "--quality")
    equal(complete(folder, "compress", "--method", "d"), ["dare"], "--method")


@with_scratch
def test_unknown_words(folder):
    refused(folder, ["frobnicate"], 2, "frobnicate", "--help")
    refused(folder, [], 2, "--help")
    refused(folder, ["info", "--help=html"], 2, "html")
    equal(run(["help"]).out, run(["--help"]).out, "help")
