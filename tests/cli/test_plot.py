"""info --plot: an SVG file, well-formed, whose figures are those of info --json."""
import os
import re
import xml.dom.minidom

from common import SmallZoo, check, equal, good, info, refused, tiny_zoo, with_scratch, read

FIGURE = re.compile(r"(.*?)(?:, ([^:]*))?: (?:(\d+) bytes|expected relative error ([0-9.e+-]+))")


def figures(path):
    """Bytes and error of each layer, as the marks' titles tell them."""
    nbytes, error = {}, {}
    document = xml.dom.minidom.parse(path)
    for title in document.getElementsByTagName("title"):
        layer, kind, stored, relative = FIGURE.fullmatch(title.firstChild.data).groups()
        if stored:
            nbytes[layer] = nbytes.get(layer, 0) + int(stored)
        else:
            error[layer] = float(relative)
    return nbytes, error, " ".join(t.firstChild.data for t in document.getElementsByTagName("text"))


def expected(tensors):
    nbytes, squares, counts = {}, {}, {}
    for t in tensors:
        match = re.match(r"(.*?(?<![^.])\d+)\.", t["name"])
        if not match:
            continue
        layer = match[1]
        nbytes[layer] = nbytes.get(layer, 0) + t["stored_bytes"]
        if t["policy"] == "ultradelta":
            count = 1
            for d in t["shape"]:
                count *= d
            squares[layer] = squares.get(layer, 0) + count * t["expected_relative_error"] ** 2
            counts[layer] = counts.get(layer, 0) + count
    return {k: v for k, v in nbytes.items() if v}, {k: (squares[k] / counts[k]) ** 0.5 for k in counts}


def agrees(folder, archive, task, number):
    nbytes, error, text = figures(f"{folder}/p.svg")
    want_bytes, want_error = expected(info(archive, task, cwd=folder)["tasks"][number]["tensors"])
    equal(nbytes, want_bytes, "bytes by layer")
    equal(sorted(error), sorted(want_error), "layers with an error")
    check(all(abs(error[k] - want_error[k]) <= 1e-5 * want_error[k] for k in error), f"errors {error}, not {want_error}")
    return text


@with_scratch
def test_plot_of_two_layers(folder):
    zoo = tiny_zoo("bf16")
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)
    good(["info", "a.h5", "--plot", "p.svg"], cwd=folder)
    text = agrees(folder, "a.h5", "task-1", 0)
    check("Task task-1" in text.replace("  ", " ") and "Stored bytes by layer" in text and "outside the layers" in text, text)
    first = read(f"{folder}/p.svg")
    good(["info", "a.h5", "--task", "task-2", "--plot", "p.svg"], cwd=folder)
    check(read(f"{folder}/p.svg") != first, "the same picture of another task")


@with_scratch
def test_plot_of_many_layers_and_kinds(folder):
    shapes = {"embed<&>.weight": (64, 32)}
    for i in (10, 2, *range(2), *range(3, 10), *range(11, 32)):
        for kind in "abcdefghij":
            shapes[f"model.layers.{i}.{kind}_proj.weight"] = (32, 32)
    zoo = SmallZoo(folder, "F32", shapes=shapes)
    with open(f"{folder}/r.yaml", "w") as file:
        file.write('tensors:\n  - {match: "*_proj.weight", policy: ultradelta}\n  - {match: "*", policy: lossless}\n')
    zoo.compress("a.h5", "--recipe", "r.yaml")
    good(["info", "a.h5", "--json", "--plot", "p.svg"], 3, cwd=folder)
    task = info("a.h5", cwd=folder)["tasks"][0]["name"]
    text = agrees(folder, "a.h5", task, 0)
    check("others" in text and "embed<&>.weight" in text, text)
    labels = [int(x) for x in re.findall(r'text-anchor="middle">(\d+)<', read(f"{folder}/p.svg").decode())]
    half = labels[:len(labels) // 2]
    equal(labels, half + half, "labels of both panels")
    equal(half, sorted(half), "layers in order")


@with_scratch
def test_plot_where_it_cannot_be(folder):
    zoo = SmallZoo(folder, "F32", shapes={"w": (64, 32)})
    zoo.compress("a.h5", "--recipe", "lossless")
    good(["info", "a.h5", "--plot", "p.svg"], cwd=folder)
    check("No tensor of this task has a layer" in figures(f"{folder}/p.svg")[2], "nothing is said of a task without layers")
    os.remove(f"{folder}/p.svg")
    refused(folder, ["info", "a.h5", "--plot", "absent/p.svg"], 2, "absent/p.svg: no such directory: absent")
