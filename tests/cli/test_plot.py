"""info --plot: an SVG file, well-formed, whose figures are those of info --json."""
import os
import re
import struct
import xml.dom.minidom
import zlib

from common import ROOT, SmallZoo, check, equal, good, info, read, refused, small_model, st_bytes, tiny_zoo, with_scratch, write

FIGURE = re.compile(r"(.*?)(?:, (.*))?: (?:(\d+) bytes|expected relative error ([0-9.e+-]+))")


def titles(path):
    return [t.firstChild.data for t in xml.dom.minidom.parse(path).getElementsByTagName("title")]


def texts(path):
    return [t.firstChild.data for t in xml.dom.minidom.parse(path).getElementsByTagName("text") if t.firstChild]


def figures(path):
    """Bytes and error of each layer, as the marks' titles tell them."""
    nbytes, error = {}, {}
    for title in titles(path):
        layer, kind, stored, relative = FIGURE.fullmatch(title).groups()
        if stored:
            nbytes[layer] = nbytes.get(layer, 0) + int(stored)
        elif kind is None:
            error[layer] = float(relative)
    return nbytes, error, " ".join(texts(path))


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
    good(["info", "a.h5", "--task", "task-1", "--plot", "p.svg"], cwd=folder)
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
    good(["info", "a.h5", "--json", "--task", "one", "--plot", "p.svg"], 3, cwd=folder)
    task = info("a.h5", cwd=folder)["tasks"][0]["name"]
    text = agrees(folder, "a.h5", task, 0)
    check("other matrices" in text and "embed<&>.weight" in text, text)
    labels = [int(x) for x in re.findall(r'text-anchor="middle">(\d+)<', read(f"{folder}/p.svg").decode())]
    half = labels[:len(labels) // 2]
    equal(labels, half + half, "labels of both panels")
    equal(half, sorted(half), "layers in order")


@with_scratch
def test_plot_where_it_cannot_be(folder):
    zoo = SmallZoo(folder, "F32", shapes={"w": (64, 32)})
    zoo.compress("a.h5", "--recipe", "lossless")
    good(["info", "a.h5", "--plot", "p.svg"], cwd=folder)
    check(any("No tensor has a layer" in t for t in texts(f"{folder}/p.svg")), "nothing is said of a task without layers")
    os.remove(f"{folder}/p.svg")
    refused(folder, ["info", "a.h5", "--plot", "absent/p.svg"], 2, "absent/p.svg: no such directory: absent")


VERDICTS = ("exact", "high", "balanced", "small", "poor")
PLOTS = os.path.join(ROOT, "build", "venv-plots", "bin", "python")


def figures_of_tasks(path):
    nbytes, rate, quality = {}, {}, {}
    for title in titles(path):
        parts = re.fullmatch(r"(.*), (?:lossy tensors|exact tensors|index, structures): (\d+) bytes", title)
        if parts:
            nbytes[parts[1]] = nbytes.get(parts[1], 0) + int(parts[2])
        point = re.fullmatch(r"(.*): ([0-9.e+]+)x, noise ([0-9.einf+-]+), quality (\w+)", title)
        if point:
            rate[point[1]], quality[point[1]] = float(point[2]), point[4]
    return nbytes, rate, quality


@with_scratch
def test_all_tasks_and_reports(folder):
    """Sizes, rates and verdicts are those of info --json; a job's report has the same picture of its tasks."""
    zoo = SmallZoo(folder, "BF16", tasks=("one", "two", "three"))
    zoo.put("three", zoo.base)
    zoo.compress("a.h5", "--report", "a.json")
    good(["info", "a.h5", "--plot", "p.svg"], cwd=folder)
    good(["report", "a.json", "--plot", "r.svg"], 3, cwd=folder)
    tasks = {t["name"]: t for t in info("a.h5", cwd=folder)["tasks"]}
    for path in ("p.svg", "r.svg"):
        nbytes, rate, quality = figures_of_tasks(f"{folder}/{path}")
        equal(quality, {n: t["lossy"]["verdict"] for n, t in tasks.items()}, f"{path}: verdicts")
        for n, t in tasks.items():
            check(abs(nbytes[n] - t["stored_bytes"]) <= 3, f"{path}: {n}: {nbytes[n]} bytes, not {t['stored_bytes']}")
            check(abs(rate[n] / t["ratio"]["on_disk"] - 1) < 1e-3, f"{path}: {n}: {rate[n]}x, not {t['ratio']}")
    check("Stored bytes by layer, all tasks" in texts(f"{folder}/p.svg"), "no panel of layers")


def boxes(path):
    """Where the texts are: left, right, baseline, by an estimate of their width."""
    out = []
    for t in xml.dom.minidom.parse(path).getElementsByTagName("text"):
        x, y, size = (float(t.getAttribute(k)) for k in ("x", "y", "font-size"))
        width = 0.5 * size * len(t.firstChild.data) if t.firstChild else 0
        left = x - {"start": 0, "middle": width / 2, "end": width}[t.getAttribute("text-anchor")]
        out.append((left, left + width, y, t.firstChild.data if t.firstChild else ""))
    return out


def test_no_label_is_cut_or_covers_another(tmp_path):
    """1, 12 and 50 tasks of long names, 90 layers."""
    folder = str(tmp_path)
    shapes = {f"model.layers.{i}.self_attn.q_proj.weight": (16, 16) for i in range(90)}
    base = small_model(1, "BF16", shapes)
    write(f"{folder}/base/model.safetensors", st_bytes(base))
    names = [f"a-task-with-a-very-long-name-that-no-picture-has-room-for-{'x' * 30}-{i}" for i in range(50)]
    for i, name in enumerate(names):
        write(f"{folder}/{name}/model.safetensors", st_bytes(small_model(2 + i, "BF16", shapes, base, scale=1e-4 * 1.1 ** i)))
    for n in (1, 12, 50):
        write(f"{folder}/zoo.yaml", "base: base\ntasks:\n" + "".join(f"  - {{name: {t}, path: {t}}}\n" for t in names[:n]))
        good(["compress", "zoo.yaml", "-o", f"{n}.h5", "-q"], cwd=folder)
        good(["info", f"{n}.h5", "--plot", f"{n}.svg"], cwd=folder)
        view = xml.dom.minidom.parse(f"{folder}/{n}.svg").documentElement.getAttribute("viewBox").split()
        found = boxes(f"{folder}/{n}.svg")
        for left, right, y, text in found:
            check(left >= 0 and right <= float(view[2]) and 0 < y < float(view[3]), f"{n} tasks: {text!r} is cut")
        for i, (left, right, y, text) in enumerate(found):
            for left2, right2, y2, text2 in found[:i]:
                check(abs(y - y2) > 9 or left >= right2 or left2 >= right, f"{n} tasks: {text!r} covers {text2!r}")


def png_size(data):
    """Checks the chunks of a PNG; its size and text."""
    equal(data[:8], b"\x89PNG\r\n\x1a\n", "signature")
    at, text, size, pixels = 8, b"", None, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        equal(struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0], zlib.crc32(kind + body), f"checksum of {kind}")
        size = struct.unpack(">II", body[:8]) if kind == b"IHDR" else size
        text += body if kind == b"tEXt" else b""
        pixels += body if kind == b"IDAT" else b""
        at += 12 + length
    return size, text, zlib.decompress(pixels)


@with_scratch
def test_png_by_matplotlib(folder):
    """The same picture at twice the resolution; ours to replace; without matplotlib a line that says what to do."""
    zoo = SmallZoo(folder, "BF16")
    zoo.compress("a.h5", "--report", "a.json")
    env = {"DZ_PYTHON": PLOTS}
    for command in (["info", "a.h5"], ["info", "a.h5", "--task", "one"], ["report", "a.json"], ["diff", "base", "one", "-q"]):
        good([*command, "--plot", "p.svg"], cwd=folder)
        for ranks in (1, 3):
            good([*command, "--plot", "p.png"], ranks, cwd=folder, env=env)
            size, text, pixels = png_size(read(f"{folder}/p.png"))
            width, height = xml.dom.minidom.parse(f"{folder}/p.svg").documentElement.getAttribute("viewBox").split()[2:]
            check(abs(size[0] - 2 * float(width)) <= 2 and abs(size[1] - 2 * float(height)) <= 2, f"{size}, not twice {width} x {height}")
            check(b"made by deltazoo" in text and len(set(pixels)) > 20, f"{text} {len(set(pixels))}")
    before = read(f"{folder}/p.png")
    for python, why in (("/usr/bin/false", "failed to draw"), ("/nowhere/python", "cannot be started")):
        refused(folder, ["info", "a.h5", "--plot", "p.png"], 2, "matplotlib", why, ".svg", env={"DZ_PYTHON": python})
    write(f"{folder}/python", f"#!/bin/sh\nexec {PLOTS} -S -I \"$@\"\n")  # -S: without installed packages
    os.chmod(f"{folder}/python", 0o755)
    refused(folder, ["info", "a.h5", "--plot", "p.png"], 2, "does not have it", "install matplotlib", ".svg", env={"DZ_PYTHON": f"{folder}/python"})
    equal(read(f"{folder}/p.png"), before, "the picture after refusals")
    write(f"{folder}/matplotlib.py", "raise SystemExit(9)\n")  # a file of the current folder is no library
    good(["info", "a.h5", "--plot", "p.png"], cwd=folder, env=env)


@with_scratch
def test_other_endings_and_files_are_refused(folder):
    zoo = SmallZoo(folder, "BF16")
    zoo.compress("a.h5", "--report", "a.json")
    for name in ("p.pdf", "p", "p.jpeg", "p.svgz", "png"):
        for command in (["info", "a.h5"], ["report", "a.json"], ["diff", "base", "one"]):
            refused(folder, [*command, "--plot", name], 2, name, "SVG or PNG", ".svg or .png", ranks=(1,))
    write(f"{folder}/other.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>")
    write(f"{folder}/other.png", b"\x89PNG\r\n\x1a\n" + b"x" * 100)
    for name in ("other.svg", "other.png"):
        for command in (["info", "a.h5"], ["report", "a.json"], ["diff", "base", "one"]):
            refused(folder, [*command, "--plot", name], 2, name, "did not make", ranks=(1,), env={"DZ_PYTHON": PLOTS})
