"""What a command says that is no refusal: notes on what has no effect, and a failure of the output itself."""
import json
import re

from common import DELTAZOO, EMBED, NORM, Q, RANKS, SmallZoo, call, check, equal, good, info, read, run, small_model, st_bytes, with_scratch, write

FEW = {EMBED: (40, 8), Q: (8, 8), Q.replace("0", "1"): (8, 8), NORM: (8,)}
COMPRESS = ["compress", "zoo.yaml", "-o", "a.h5", "-q", "--force"]


def notes(folder, args, ranks=1):
    return [n for n in good(args, ranks, cwd=folder).lines("note") if not n.startswith("kept exactly, of all bytes")]


@with_scratch
def test_rules_of_a_recipe_that_decide_about_nothing_are_noted_once(folder):
    SmallZoo(folder)
    write(f"{folder}/my.yaml", """detect: "*q_proj*"
tensors:
  - {match: "*q_porj.weight", policy: ultradelta}
  - {match: "*q_proj.weight", policy: ultradelta}
  - {match: "*self_attn.q*", policy: drop}
  - {match: "*", policy: lossless}
""")
    wanted = ["my.yaml:1: 'detect' has no effect: a recipe is chosen with --recipe",
              "my.yaml:3: rule '*q_porj.weight' (ultradelta) matches no tensor of any task",
              "my.yaml:5: rule '*self_attn.q*' (drop) comes too late: rules before it decide about every tensor that it matches"]
    for args, ranks in [(COMPRESS, n) for n in RANKS] + [(["plan", "zoo.yaml"], 1)]:
        equal([n for n in notes(folder, args + ["--recipe", "my.yaml"], ranks) if n.startswith("my.yaml:")], wanted, f"notes of {args[0]}")


@with_scratch
def test_rules_of_built_in_recipes_are_not_noted(folder):
    SmallZoo(folder)
    write(f"{folder}/my.yaml", "sparsity: 0.9\n")
    for more in ([], ["--recipe", "whole"], ["--recipe", "my.yaml"]):
        check(not any("rule '" in n for n in notes(folder, COMPRESS + more)), f"notes with {more}")


@with_scratch
def test_memory_below_the_least_is_noted(folder):
    SmallZoo(folder)
    for size in ("100", "1K", "64M"):
        check(any("--mem-per-rank" in n and "128M" in n for n in notes(folder, COMPRESS + ["--mem-per-rank", size])), f"no note for {size}")
    equal(notes(folder, COMPRESS + ["--mem-per-rank", "128M"]), [], "notes")


@with_scratch
def test_hints_that_are_not_used_are_noted(folder):
    SmallZoo(folder)
    check(any("--io-hint" in n for n in notes(folder, COMPRESS + ["--io-hint", "cb_nodes=1"])), "no note")
    equal(notes(folder, COMPRESS + ["--io", "collective", "--io-hint", "cb_nodes=1"], 3), [], "notes")


@with_scratch
def test_output_that_cannot_be_written_is_reported(folder):
    SmallZoo(folder).compress()
    for args in (COMPRESS, ["info", "a.h5"], ["info", "a.h5", "--json"], ["plan", "zoo.yaml"], ["recipes"], ["--help"], ["--version"]):
        code, _, err = call(["sh", "-c", '"$@" >/dev/full', "sh", DELTAZOO] + args, cwd=folder)
        errors = [line for line in err.splitlines() if line.startswith("deltazoo: error: ")]
        equal((code, errors), (1, ["deltazoo: error: stdout: cannot write: No space left on device"]), f"{args}")
    _, _, err = call(["mpirun", "-n", "2", "sh", "-c", '"$@" >/dev/full; echo exit $? >&2', "sh", DELTAZOO, "recipes"])
    equal(err.count("exit 1"), 2, f"ranks that end in code 1: {err}")


ODD_RECIPE = r"""
sparsity: 0.30000000000000004
noise_to_delta: 7.500000000000001
seed: 9007199254740993
tensors:
  - {match: '*\[a\]*', policy: lossless}
  - {match: 'x"y*', policy: drop, factor: 1.1}
  - {match: "LONG*", policy: lossless}
  - {match: "~", policy: lossless}
  - {match: "*q_proj*", policy: ultradelta, sparsity: 0.1, bits: 2, factor: 0.7}
  - {match: "*proj.weight", policy: ultradelta}
"""


@with_scratch
def test_stored_recipe_is_the_recipe(folder):
    SmallZoo(folder)
    for recipe in (ODD_RECIPE.replace("LONG", "x" * 2000), "method: auto\ngain: 0.8\ndac: off\n", read_built_in("llama")):
        write(f"{folder}/my.yaml", recipe)
        good(COMPRESS + ["--recipe", "my.yaml"], cwd=folder)
        first, text = read(f"{folder}/a.h5"), info("a.h5", "one", folder)["tasks"][0]["recipe_text"]
        for key in ("method", "target_ratio", "quality", "noise_to_delta", "noise_to_base", "gain", "dac", "sparsity", "step", "bits", "allocation", "rescale", "rounding", "positions", "tracenorm",
                    "nonfinite", "seed"):
            check(f"{key}: " in text, f"{key} is missing: {text}")
        write(f"{folder}/my.yaml", text)
        good(COMPRESS + ["--recipe", "my.yaml"], cwd=folder)
        check(read(f"{folder}/a.h5") == first, f"another archive from {text[:1000]}")


def read_built_in(name):
    return run(["recipes", "--print", name]).out


@with_scratch
def test_null_on_the_command_line_is_the_default(folder):
    SmallZoo(folder)
    good(COMPRESS, cwd=folder)
    first = read(f"{folder}/a.h5")
    good(COMPRESS + [x for key in ("target_ratio=null", "step=~", "gain=", "sparsity=", "seed=null") for x in ("--set", key)], cwd=folder)
    check(read(f"{folder}/a.h5") == first, "another archive")


@with_scratch
def test_many_tasks_and_files_do_not_make_many_lines(folder):
    """Forty tasks with a head, an optimiser, six states of the training and a log each: a line for each kind, with a count; programs get all."""
    base = small_model(1, shapes=FEW)
    write(f"{folder}/base/model.safetensors", st_bytes(base, {"format": "pt"}))
    for i in range(40):
        for place in ("", *(f"checkpoint-{k}/" for k in range(6))):
            write(f"{folder}/t{i}/{place}model.safetensors", st_bytes(small_model(2 + i, shapes=FEW, base=base) + [("score.weight", "F32", (2, 4), bytes(32))], {"format": "pt"}))
        write(f"{folder}/t{i}/optimizer.pt", b"x" * 99)
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n" + "".join(f"  - {{name: t{i}, path: t{i}}}\n" for i in range(40)))
    wanted = ("task 't0' and 39 more: tensor 'score.weight' is not in the base", "task 't0' and 39 more: checkpoint-0 and 5 more files are not kept",
              "task 't0' and 39 more: optimizer.pt is not kept")
    for command in (["plan", "zoo.yaml", "--headers"], ["compress", "zoo.yaml", "-o", "a.h5", "-q"]):
        notes = good(command, cwd=folder).lines("note")
        for text in wanted:
            check(sum(text in n for n in notes) == 1, f"{command[0]}: not once {text!r}: {notes}")
        check(len(notes) <= 5, f"{command[0]}: {notes}")
    shown = json.loads(good(["plan", "zoo.yaml", "--headers", "--json"], cwd=folder).out)["notes"]
    equal(sum("optimizer.pt is not kept" in n for n in shown), 40, "notes for programs")
    notes = good(["scan", ".", "-o", "out.yaml"], cwd=folder).lines("note")
    check(len(notes) <= 5, f"scan: {notes}")


@with_scratch
def test_errors_that_do_not_fit_are_counted(folder):
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n" + "".join(f"  - {{name: t{i}, path: gone/{i}}}\n" for i in range(300)))
    r = run(["plan", "zoo.yaml"], cwd=folder)
    errors = r.lines("error")
    more = re.fullmatch(r"and (\d+) more", errors[-1])
    check(r.code == 1 and more and len(errors) - 1 + int(more[1]) == 301, f"{r}")
    check(all("No such file" in e for e in errors[:-1]), "a line is cut")
