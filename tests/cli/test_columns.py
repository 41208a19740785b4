"""Tables for people fit a terminal of 80 columns; what is shortened is in --wide and --json."""
import json

from common import check, good, small_model, st_bytes, tiny_zoo, with_scratch, write

LONG = "vision_model.encoder.layers.11.a_module_of_a_long_name.self_attention.query_projection.weight"
TASK = "a-task-with-a-name-that-no-table-has-room-for-" + "x" * 40


def fits(command, folder):
    out = good(command, cwd=folder).out
    for line in out.splitlines():
        check(len(line) <= 80, f"{' '.join(command)}: {len(line)} columns: {line}")
    check(out.strip(), f"{' '.join(command)}: nothing is printed")
    return out


@with_scratch
def test_tables_fit_80_columns(folder):
    zoo = tiny_zoo()
    fits(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q", "--report", "a.json"], folder)
    for command in (["info", "a.h5"], ["plan", f"{zoo}/zoo.yaml"], ["compare", "a.h5", "--task", "task-1", "--base", f"{zoo}/base", "--finetuned", f"{zoo}/task-1"],
                    ["report", "a.json"], ["report", "a.json", "a.json"], ["recipes"], ["scan", zoo, "-o", "found.yaml"], ["verify", "a.h5"]):
        fits(command, folder)
    out = fits(["info", "a.h5", "--task", "task-1"], folder)
    names = [t["name"] for t in json.loads(good(["info", "a.h5", "--task", "task-1", "--json"], cwd=folder).out)["tasks"][0]["tensors"]]
    table = out.split("\ntensor ")[1].splitlines()[1:len(names) + 1]
    check(all(name.endswith(line.split()[0].replace("...", "")) for name, line in zip(names, table)), f"{names} are not {table}")
    wide = good(["info", "a.h5", "--task", "task-1", "--wide"], cwd=folder).out
    check(all(name in wide for name in names), f"--wide: a name of {names} is not whole in {wide}")


@with_scratch
def test_long_names_are_shortened_at_the_front(folder):
    shapes = {LONG: (64, 64), "norm.weight": (64,)}
    base = small_model(1, shapes=shapes)
    write(f"{folder}/base.safetensors", st_bytes(base))
    write(f"{folder}/task.safetensors", st_bytes(small_model(2, shapes=shapes, base=base)))
    write(f"{folder}/zoo.yaml", f"base: base.safetensors\ntasks:\n  - {{name: {TASK}, path: task.safetensors}}\n")
    write(f"{folder}/r.yaml", 'tensors:\n  - {match: "*query*", policy: ultradelta}\n')
    fits(["plan", "zoo.yaml", "--recipe", "r.yaml"], folder)
    fits(["compress", "zoo.yaml", "-o", "a.h5", "-q", "--recipe", "r.yaml"], folder)
    compare = ["compare", "a.h5", "--task", TASK, "--base", "base.safetensors", "--finetuned", "task.safetensors"]
    for command in (["info", "a.h5"], compare):
        check("..." in fits(command, folder), f"{command[0]}: nothing is shortened")
    check(LONG in good(compare + ["--wide"], cwd=folder).out, "compare --wide: the name is shortened")
