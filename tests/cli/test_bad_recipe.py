"""Usage, manifests and recipes that cannot be: exit 2, one line a problem, nothing left behind, with 1, 3 and 7 ranks."""
import os

from common import RANKS, NORM, Q, SmallZoo, equal, good, refused, replaced, small_model, turns, with_scratch, write

COMPRESS = ["compress", "zoo.yaml", "-o", "a.h5"]
_variants = iter(range(1000))


def manifest_case(text, *wanted, lines=1, ranks=None):
    """A test: the manifest with this text is refused."""
    ranks = ranks or turns(next(_variants))

    def test(folder):
        SmallZoo(folder)
        write(f"{folder}/zoo.yaml", text)
        refused(folder, COMPRESS, 2, "zoo.yaml", *wanted, lines=lines, ranks=ranks)

    return with_scratch(test)


TASKS = "tasks:\n  - {name: one, path: one}\n"

test_manifest_unknown_key_names_its_line = manifest_case("base: base\n\ntasks:\n  - {name: one, path: one}\ncolour: red\n", "zoo.yaml:5", "colour", ranks=RANKS)
test_manifest_unknown_key_of_a_task_names_its_line = manifest_case("base: base\ntasks:\n  - {name: one, path: one}\n  - {name: two, pth: two}\n", "zoo.yaml:4: unknown key 'pth'",
                                                                   "zoo.yaml:4: a task needs 'name' and 'path'", lines=2)
test_manifest_with_a_misspelt_base = manifest_case("bsae: base\n" + TASKS, "'bsae'")
test_manifest_without_tasks = manifest_case("base: base\n", "no task")
test_manifest_with_zero_tasks = manifest_case("base: base\ntasks: []\n", "no task")
test_manifest_empty = manifest_case("")
test_manifest_not_yaml = manifest_case("base: [unclosed\ntasks: }\n")
test_manifest_binary = manifest_case(bytes(range(256)))
test_manifest_of_another_kind = manifest_case("- just\n- a list\n")
test_manifest_task_without_path = manifest_case("base: base\ntasks:\n  - {name: one}\n", "path")
test_manifest_task_named_twice = manifest_case("base: base\n" + TASKS + "  - {name: one, path: two}\n", "'one'", "twice")
test_manifest_task_named_three_times_is_reported_once = manifest_case("base: base\n" + TASKS + "  - {name: one, path: two}\n" * 2, "'one'")
test_manifest_task_name_with_slash = manifest_case("base: base\ntasks:\n  - {name: a/b, path: one}\n", "'a/b'")
test_manifest_task_name_dotdot = manifest_case("base: base\ntasks:\n  - {name: .., path: one}\n", "'..'")
test_manifest_task_name_empty = manifest_case('base: base\ntasks:\n  - {name: "", path: one}\n')
test_manifest_task_name_too_long = manifest_case("base: base\ntasks:\n  - {name: %s, path: one}\n" % ("x" * 300))
test_manifest_two_problems_are_reported_at_once = manifest_case("bsae: base\n" + TASKS + "  - {name: one, path: two}\n", "'bsae'", "'one'", lines=2, ranks=RANKS)
test_manifest_three_problems_are_reported_at_once = manifest_case(
    "bsae: base\ntasks:\n  - {name: a/b, path: one}\n  - {name: two, path: two}\n  - {name: two, path: one}\n", "'bsae'", "'a/b'", "'two'", lines=3)
test_manifest_problems_of_all_kinds_and_models_are_reported_at_once = manifest_case(
    "base: nowhere\ncolour: red\nsize: 1\ntasks:\n  - {name: a/b, path: gone}\n  - {name: two, path: two, size: 1}\n  - {name: two, path: one}\n"
    "  - [x]\nbase: base\n---\n", "zoo.yaml:2: unknown key 'colour'", "zoo.yaml:3: unknown key 'size'", "zoo.yaml:6: unknown key 'size'", "zoo.yaml:5: 'a/b'",
    "zoo.yaml:7: task 'two' is named twice", "zoo.yaml:8: an entry of 'tasks'", "zoo.yaml:9: 'base' is already set on line 1", "zoo.yaml:10: a second document",
    "nowhere: cannot open", "gone: cannot open", lines=10, ranks=RANKS)
test_manifest_task_list_is_a_word = manifest_case("base: base\n\ntasks: x\n", "zoo.yaml:3: 'tasks' must be a list")
test_manifest_second_document = manifest_case("base: base\n" + TASKS + "---\nbase: two\n", "zoo.yaml:4: a second document")
test_manifest_task_is_the_base = manifest_case("base: base\n" + TASKS + "  - {name: same, path: base}\n", "'same'", "base")
test_manifest_task_is_the_base_by_another_path = manifest_case("base: base\n" + TASKS + "  - {name: same, path: one/../base}\n", "'same'", "base")


@with_scratch
def test_manifest_missing(folder):
    refused(folder, ["compress", "nowhere.yaml", "-o", "a.h5"], 2, "nowhere.yaml", ranks=RANKS)


@with_scratch
def test_manifest_is_a_directory(folder):
    os.mkdir(f"{folder}/zoo.yaml")
    refused(folder, COMPRESS, 2, "zoo.yaml")


@with_scratch
def test_manifest_task_is_a_link_to_the_base(folder):
    zoo = SmallZoo(folder)
    os.symlink("base", f"{folder}/link")
    zoo.manifest("one", "link")
    refused(folder, COMPRESS, 2, "'link'", "base", ranks=RANKS)


@with_scratch
def test_manifest_task_file_is_a_hard_link_to_the_base(folder):
    SmallZoo(folder)
    os.link(f"{folder}/base/model.safetensors", f"{folder}/same.safetensors")
    write(f"{folder}/zoo.yaml", "base: base/model.safetensors\ntasks:\n  - {name: same, path: same.safetensors}\n")
    refused(folder, COMPRESS, 2, "'same'", "base")


def recipe_case(text, *wanted, lines=1):
    ranks = turns(next(_variants))

    def test(folder):
        SmallZoo(folder)
        write(f"{folder}/my.yaml", text)
        refused(folder, COMPRESS + ["--recipe", "my.yaml"], 2, "my.yaml", *wanted, lines=lines, ranks=ranks)

    return with_scratch(test)


RULES = 'tensors:\n  - {match: "*", policy: ultradelta}\n'

test_recipe_unknown_key_names_its_line = recipe_case("sparsity: 0.9\nbits: 4\nsparseness: 1\n" + RULES, "my.yaml:3", "sparseness")
test_recipe_unknown_key_of_a_rule_names_its_line = recipe_case('tensors:\n  - {match: "*q_proj*", policy: lossless}\n  - {match: "*", polcy: lossless}\n',
                                                               "my.yaml:3: unknown key 'polcy'", "my.yaml:3: a rule needs 'match' and 'policy'", lines=2)
test_recipe_sparsity_of_one = recipe_case("sparsity: 1\n" + RULES, "sparsity", "'1'")
test_recipe_sparsity_negative = recipe_case("sparsity: -0.1\n" + RULES, "sparsity", "'-0.1'")
test_recipe_sparsity_nan = recipe_case("sparsity: nan\n" + RULES, "sparsity", "'nan'")
test_recipe_bits_out_of_range = recipe_case("bits: 9\n" + RULES, "bits", "'9'")
test_recipe_unknown_value = recipe_case("allocation: halves\n" + RULES, "allocation", "'halves'")
test_recipe_unknown_policy = recipe_case('tensors:\n  - {match: "*", policy: lossy}\n', "policy", "'lossy'")
test_recipe_two_problems_are_reported_at_once = recipe_case("bits: 0\nrounding: up\n" + RULES, "'0'", "'up'", lines=2)
test_recipe_sparsity_and_step_reach_one = recipe_case("sparsity: 0.97\nstep: 0.03\n" + RULES, "0.97", "0.03")


@with_scratch
def test_recipe_rules_match_nothing(folder):
    SmallZoo(folder)
    write(f"{folder}/my.yaml", 'tensors:\n  - {match: "nothing.*", policy: ultradelta}\n  - {match: "*", policy: lossless}\n')
    refused(folder, COMPRESS + ["--recipe", "my.yaml"], 2, "my.yaml", "'one'", "'two'", lines=2, ranks=RANKS)


@with_scratch
def test_recipe_and_sets_and_models_are_reported_at_once(folder):
    zoo = SmallZoo(folder)
    zoo.manifest("one", "gone")
    write(f"{folder}/my.yaml", "sparseness: 1\nbits: 9\nspeed: 1\n" + RULES)
    refused(folder, COMPRESS + ["--recipe", "my.yaml", "--set", "foo=1", "--set", "seed=x"], 2, "gone: cannot open", "my.yaml:1: unknown key 'sparseness'",
            "my.yaml:2: bits: '9'", "my.yaml:3: unknown key 'speed'", "--set foo=1: unknown key 'foo'", "--set: seed: 'x'", lines=6, ranks=RANKS)


@with_scratch
def test_recipe_that_cannot_be_read_is_reported_beside_sets(folder):
    SmallZoo(folder)
    for recipe in (".", "nowhere.yaml"):
        refused(folder, COMPRESS + ["--recipe", recipe, "--set", "bits=9"], 2, f"{recipe}: ", "'9'", lines=2)


@with_scratch
def test_set_is_checked_where_the_architecture_is_not_known(folder):
    zoo = SmallZoo(folder)
    zoo.manifest("one", base="nowhere")
    refused(folder, COMPRESS + ["--set", "bits=9"], 2, "nowhere", "'9'", lines=2)


@with_scratch
def test_recipe_unknown_name(folder):
    SmallZoo(folder)
    refused(folder, COMPRESS + ["--recipe", "no-such-recipe"], 2, "no-such-recipe")


@with_scratch
def test_an_unknown_architecture_is_kept_exactly_with_a_note(folder):
    zoo = SmallZoo(folder)
    other = [("strange." + n, d, s, b) for n, d, s, b in zoo.base if n == NORM]
    zoo.put("base", other)
    zoo.put("one", other)
    zoo.put("two", other)
    r = good(COMPRESS, cwd=folder)
    equal(len([n for n in r.lines("note") if "no repeated blocks" in n and "--recipe" in n]), 1, f"notes of {r}")


def set_case(value, *wanted, lines=1):
    ranks = turns(next(_variants))

    def test(folder):
        SmallZoo(folder)
        args = list(COMPRESS)
        for v in value if isinstance(value, tuple) else (value,):
            args += ["--set", v]
        refused(folder, args, 2, *wanted, lines=lines, ranks=ranks)

    return with_scratch(test)


test_set_unknown_key = set_case("colour=red", "colour=red")
test_set_without_equals = set_case("sparsity", "sparsity", "KEY=VALUE")
test_set_without_key = set_case("=3", "=3")
test_set_out_of_range = set_case("sparsity=1.5", "'1.5'")
test_set_with_a_tail = set_case("bits=4x", "'4x'")
test_set_sparsity_and_step_reach_one = set_case(("sparsity=0.995", "step=0.01"), "0.995", "0.01")
test_set_two_problems_are_reported_at_once = set_case(("colour=red", "bits=77"), "colour", "'77'", lines=2)


def usage_case(args, *wanted):
    ranks = turns(next(_variants))

    def test(folder):
        SmallZoo(folder)
        refused(folder, args, 2, *wanted, ranks=ranks)

    return with_scratch(test)


test_usage_no_output = usage_case(["compress", "zoo.yaml"], "-o")
test_usage_no_manifest = usage_case(["compress", "-o", "a.h5"], "compress")
test_usage_unknown_option = usage_case(COMPRESS + ["--colour"], "--colour")
test_usage_option_without_value = usage_case(["compress", "zoo.yaml", "-o"], "-o")
test_usage_bad_memory_size = usage_case(COMPRESS + ["--mem-per-rank", "lots"], "--mem-per-rank: 'lots'")
test_usage_no_memory = usage_case(COMPRESS + ["--mem-per-rank", "0"], "--mem-per-rank: '0'")
test_usage_io_hint_without_value = usage_case(COMPRESS + ["--io-hint", "foo"], "--io-hint: 'foo' is not KEY=VALUE")
test_usage_seed_with_a_sign = usage_case(["synth", "--shape", "tiny", "--seed", " -1", "-o", "z"], "--seed: ' -1'")
test_usage_synth_no_layers = usage_case(["synth", "--shape", "tiny", "--layers", "0", "-o", "z"], "--layers 0")
test_usage_empty_output = usage_case(["compress", "zoo.yaml", "-o", ""], "--output: its value is empty")
test_usage_empty_report = usage_case(COMPRESS + ["--report="], "--report: its value is empty")
test_usage_empty_base = usage_case(["verify", "a.h5", "--base", ""], "--base: its value is empty")
test_usage_empty_task = usage_case(["restore", "a.h5", "--task", "", "--base", "base", "-o", "r"], "--task: its value is empty")
test_usage_empty_argument = usage_case(["compress", "", "-o", "a.h5"], "an argument is empty")
test_usage_unknown_form_of_help = usage_case(["compress", "--help=foo"], "--help=foo")
test_usage_output_directory_missing = usage_case(["compress", "zoo.yaml", "-o", "no/such/a.h5"], "no/such/a.h5")
test_usage_output_is_a_directory = usage_case(["compress", "zoo.yaml", "-o", "one"], "one")
test_usage_output_is_a_directory_even_by_force = usage_case(["compress", "zoo.yaml", "-o", "one", "--force"], "one")
test_usage_synth_unknown_shape = usage_case(["synth", "--shape", "gpt-9", "-o", "z"], "gpt-9")
test_usage_synth_no_tasks = usage_case(["synth", "--shape", "tiny", "--tasks", "0", "-o", "z"], "0")
test_usage_synth_unknown_dtype = usage_case(["synth", "--shape", "tiny", "--dtype", "f8", "-o", "z"], "f8")
test_usage_restore_without_task = usage_case(["restore", "a.h5", "--base", "base", "-o", "r"], "--task")


test_usage_unknown_command = usage_case(["compres"], "compres")
test_usage_no_command = usage_case([], "a command is wanted")
test_usage_unknown_form_of_the_programs_help = usage_case(["--help=foo"], "--help=foo")


@with_scratch
def test_existing_archive_needs_force(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    refused(folder, COMPRESS, 2, "a.h5", "--force", ranks=RANKS)


@with_scratch
def test_existing_archive_survives_a_failure_under_force(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    zoo.put("two", replaced(zoo.tasks["two"], Q, edit=lambda x: x.__setitem__(5, float("nan"))))
    refused(folder, COMPRESS + ["--force"], 1, "two", Q, ranks=RANKS)


@with_scratch
def test_existing_archive_is_replaced_by_force(folder):
    zoo = SmallZoo(folder)
    write(f"{folder}/a.h5", "something else")
    refused(folder, COMPRESS + ["--force"], 2, "a.h5", "never replaced", ranks=(1,))
    os.remove(f"{folder}/a.h5")
    for _ in range(2):
        zoo.compress("a.h5", "--force")
    good(["verify", "a.h5", "--base", "base"], cwd=folder)


@with_scratch
def test_synth_does_not_replace_a_zoo(folder):
    zoo = SmallZoo(folder)
    zoo.put("base", small_model(9))
    refused(folder, ["synth", "--shape", "tiny", "--tasks", "1", "-o", "."], 2, "not empty", "--force")


@with_scratch
def test_report_that_cannot_be_written_is_reported_before_the_work(folder):
    SmallZoo(folder)
    refused(folder, COMPRESS + ["--report", "no/such/report.json"], (1, 2), "no/such/report.json", ranks=(1, 3))
