"""What notebooks show: tables of archive and task with bytes and quality, and plots by matplotlib."""

import glob
import json
import math
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from common import Q, ROOT, SmallZoo, call, check, equal
from package import load, site
from test_package import ENGINES, fails, zoo_of


@pytest.fixture(scope="module")
def dz():
    return load()


def shown(archive, *task):
    """What the program says of an archive, or of a task."""
    return json.loads(subprocess.run([os.environ.get("DELTAZOO", f"{ROOT}/build/deltazoo"), "info", archive, "--json", *task], capture_output=True, text=True).stdout)


def near(a, b):
    b = math.nan if b is None else b
    return math.isclose(a, b, rel_tol=1e-6) or a == b or (math.isnan(b) and not math.isfinite(a))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("recipe,dtype", [("ultradelta", "bf16"), ("bitdelta", "f16"), ("lossless", "bf16"), ("auto", "bf16")])
def test_quality_is_what_the_program_says(dz, engine, recipe, dtype):
    _, archive, _ = zoo_of(recipe, dtype, 2)
    theirs = {t["name"]: t["lossy"] for t in shown(archive)["tasks"]}
    with dz.open(archive, engine) as z:
        for task in z.tasks:
            q, wanted = z.task(task).quality, theirs[task]
            check(q.verdict == wanted["verdict"] and all(near(getattr(q, f), wanted[f]) for f in ("cosine", "gain", "noise_to_delta", "noise_to_base")), f"{q} {wanted}")
            check((q.verdict == "exact") == (recipe == "lossless"), f"{recipe}: {q}")
            tensors = [t for t in z.tensors(task) if t.policy != "tied"]
            check(math.isclose(sum(t.quality.delta for t in tensors), q.delta, rel_tol=1e-9), "energies of the tensors are not the task's")
            for t in tensors:
                check((t.quality.verdict == "exact") == (t.quality.noise_to_delta == 0), f"{t}")


def test_tables_for_notebooks(dz, folder):
    SmallZoo(folder).compress()
    with dz.open(f"{folder}/a.h5") as z:
        lines = repr(z).splitlines()
        check("a.h5" in lines[0] and [line.split()[0] for line in lines[1:]] == ["task", "one", "two"], repr(z))
        check(lines[1].split()[-3:] == ["noise/delta", "noise/base", "quality"] and lines[2].split()[-1] == z.task("one").quality.verdict, repr(z))
        task = z.open_task("one")
        check(Q in repr(task) and "quality " + z.task("one").quality.verdict in repr(task).splitlines()[0], repr(task))
        for text in (z._repr_html_(), task._repr_html_()):
            check("<th>quality</th>" in text and "<script" not in text, text)
        check("<td>one</td>" in z._repr_html_() and f"<td>{Q}</td>" in task._repr_html_(), z._repr_html_())
    check("a.h5" in repr(z) and "a.h5" in repr(task), "a closed one")


def test_a_long_table_shows_its_ends(dz):
    from importlib import import_module
    archive = import_module(dz.__name__ + "._archive")
    rows = [["tensor", "bytes"]] + [[str(k), "1"] for k in range(200)]
    cut = archive.shortened(rows)
    check(len(cut) == 62 and cut[0] == rows[0] and cut[1] == rows[1] and cut[-1] == rows[-1] and "140 more" in cut[31][0], cut[30:33])
    equal(archive.shortened(rows[:61]), rows[:61], "a short one")


def test_names_in_a_table_are_no_html(dz):
    from importlib import import_module
    text = import_module(dz.__name__ + "._archive").html_table("<b>", [["task"], ["<script>x</script>"]])
    check("<script" not in text and "<b>" not in text and "&lt;script&gt;" in text, text)


PLOT = """
import sys
sys.path += sys.argv[3:]
import deltazoo
from deltazoo import _plots
for engine in ("native", "python"):
    with deltazoo.open(sys.argv[1], engine) as z:
        figures = {"tasks": z.plot(), "layers": z.plot("task-1"), "kinds": z.open_task("task-1").plot(by="kind")}
        for name, figure in figures.items():
            left, right = figure.axes
            print(engine, name, len(left.patches), [t.get_text() for t in left.get_yticklabels()], [round(float(p.get_width()), 6) for p in left.patches],
                  [round(float(p.get_width()), 4) for p in right.patches], [t.get_text() for t in right.texts], figure.get_suptitle(), sep=" | ")
            figure.savefig(f"{sys.argv[2]}/{engine}-{name}.png")
        try:
            z.plot("task-1", by="size")
        except deltazoo.Error as error:
            print(error)
"""


@pytest.mark.parametrize("recipe", ["auto", "lossless"])
def test_plots(dz, folder, recipe):
    """Bars are the tables' bytes and noise; a task by layers and by kinds; matplotlib is that of build/venv-plots."""
    plots = glob.glob(f"{ROOT}/build/venv-plots/lib/python*/site-packages")
    check(len(plots) == 1, "build/venv-plots is missing: make venv")
    _, archive, _ = zoo_of(recipe, "bf16", 2)
    code, out, err = call([sys.executable, "-c", PLOT, archive, folder, *plots], cwd=folder, env={"PYTHONPATH": site()}, limit=120)
    check(code == 0, err)
    lines = [line.split(" | ") for line in out.splitlines() if " | " in line]
    equal(len(lines), 6, "figures")
    check(out.count("'layer' or 'kind'") == 2, out)
    with dz.open(archive) as z:
        tasks = [z.task(t) for t in z.tasks]
        tensors = z.tensors("task-1")
    for engine, name, count, labels, stored, noise, texts, title in lines:
        check(open(f"{folder}/{engine}-{name}.png", "rb").read(8) == b"\x89PNG\r\n\x1a\n", name)
        labels, stored, noise, texts = map(eval, (labels, stored, noise, texts))
        check(int(count) == len(labels) == len(stored) == len(noise) > 0, name)
        if name == "tasks":
            equal(labels, [f"{t.name} ({t.quality.verdict})" for t in tasks], "labels")
            check(engine == "python" or stored == [round(t.stored_bytes / 1e6, 6) for t in tasks], f"{stored}")
            equal(noise, [round(t.quality.noise_to_delta, 4) for t in tasks], "noise")
        else:
            check(math.isclose(sum(stored), sum(t.stored_bytes for t in tensors) / 1e6, abs_tol=1e-5), "bytes of the groups are not the task's")
            check("quality " + tasks[0].quality.verdict in title, title)
        if name == "layers":
            check(labels[0] == "layer 0" and labels[-1] == "other", labels)
        if name == "kinds":
            check("self_attn.q_proj" in labels and sorted(stored, reverse=True) == stored, labels)
        check(recipe != "lossless" or (set(noise) == {0} and set(texts) == {" exact"}), f"{noise} {texts}")
        check(recipe == "lossless" or any(noise), f"{noise}")


def test_a_plot_without_matplotlib_names_what_to_install(dz):
    _, archive, _ = zoo_of("auto", "bf16", 2)
    with dz.open(archive) as z:
        fails(dz, z.plot, "matplotlib", "deltazoo[plot]")
        fails(dz, lambda: z.plot("no"), "no task 'no'")


def test_noise_of_groups_adds_energies_up(dz):
    from importlib import import_module
    plots = import_module(dz.__name__ + "._plots")
    q = dz.Quality(0.9, 1.0, 2.0, 0.1, 4.0, 80.0, "balanced")
    check(plots.together([q, q]) == (2.0, 0.1) and plots.together([]) == (0.0, 0.0), plots.together([q, q]))
    to_delta, to_base = plots.together([q, q._replace(noise_to_delta=0.5, noise_to_base=0.1, base=20.0)])
    check(math.isclose(to_delta, 1.25) and math.isclose(to_base, 0.1), f"{to_delta} {to_base}")
    check(math.isinf(plots.together([q._replace(gain=0.0, noise_to_delta=math.inf)])[0]), "nothing restored")
    for name, layer, kind in (("model.layers.7.self_attn.q_proj.weight", "layer 7", "self_attn.q_proj"), ("lm_head.weight", "other", "lm_head"),
                              ("h.11.attn.bias", "layer 11", "attn.bias"), ("weight", "other", "weight"), ("a.3.experts.5.w1", "layer 3", "experts.w1")):
        equal((plots.layer_of(name), plots.kind_of(name)), (layer, kind), name)
