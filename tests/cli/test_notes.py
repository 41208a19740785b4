"""What a command says that is no refusal: notes on what has no effect, and a failure of the output itself."""
from common import DELTAZOO, RANKS, SmallZoo, call, check, equal, good, info, read, run, with_scratch, write

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
    _, _, err = call(["mpirun", "-q", "-n", "2", "sh", "-c", '"$@" >/dev/full; echo exit $? >&2', "sh", DELTAZOO, "recipes"])
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
