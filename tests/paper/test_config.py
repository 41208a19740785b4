"""Every file of config/ is loaded: each manifest opens, each recipe plans on a zoo of its model's names and says what its comments promise."""
import json
import os
import tempfile

import pytest

from common import good
from models import MODELS, RECIPES, ROOT


def paths_of(manifest):
    """What a manifest names: [base, tasks ...]. Our examples keep to one task a line."""
    found = []
    for line in open(manifest, encoding="utf-8"):
        if line.startswith("base:"):
            found.append(line.split(":", 1)[1].strip())
        elif line.strip().startswith("- {name:"):
            found.append(line.split("path:")[1].strip(" }\n"))
    return found


def zoo_of(shape, folder, manifest):
    """The manifest beside one made-up block of the model, under the names that it uses."""
    shape = "tiny" if shape.startswith("llama") else shape
    made = os.path.join(folder, "made-" + shape)
    if not os.path.exists(made):
        good(["synth", "-q", "--shape", shape, "--layers", "1", "--tasks", "1", "--dtype", "f16", "--seed", "1", "-o", made])
    here = tempfile.mkdtemp(dir=folder)
    base, *tasks = paths_of(manifest)
    os.symlink(os.path.join(made, "base"), os.path.join(here, base))
    for task in tasks:
        os.symlink(os.path.join(made, "task-1"), os.path.join(here, task))
    copy = os.path.join(here, "zoo.yaml")
    with open(copy, "w", encoding="utf-8") as out, open(manifest, encoding="utf-8") as text:
        out.write(text.read())
    return copy, len(tasks)


def plan(zoo, recipe=None):
    return json.loads(good(["plan", zoo, "--json", *(("--recipe", recipe) if recipe else ())]).out)


def entry(planned, key):
    return next(line.split(":", 1)[1].strip() for line in planned["recipe_text"].splitlines() if line.startswith(key + ":"))


@pytest.mark.parametrize("name", MODELS)
def test_recipes_of_a_model(box, name):
    model = MODELS[name]
    zoo, ntasks = zoo_of(model.shape, box, os.path.join(model.config, "zoo.yaml"))
    built_in = plan(zoo)
    assert len(built_in["tasks"]) == ntasks >= 3, f"{len(built_in['tasks'])} tasks"
    plans = {name: plan(zoo, model.recipe(name)) for name in RECIPES}
    assert plans["default"]["recipe_text"] == plan(zoo, "ultradelta")["recipe_text"], "default.yaml is not what the built-in recipe ultradelta says"
    assert all(t["lossy_parameters"] > 0 for p in plans.values() for t in p["tasks"]), "nothing is lossy"
    density, bits = 1 - float(entry(plans["paper"], "sparsity")), int(entry(plans["paper"], "bits"))
    assert bits == 4, f"{bits} bits"
    # No family member is kept sparser than its headline needs, and the sparsest one meets it.
    assert 16 / (bits * density) < 1.005 * model.first, f"density {density} is below that of the headline {model.first}x"
    target = float(entry(plans["auto"], "target_ratio"))
    assert entry(plans["auto"], "method") == "auto" and abs(target / model.first - 1.05) < 0.005, f"auto: target {target}"


def test_built_in_recipes(box):
    """What is not a model's: the built-in recipes through their file, and the example manifest."""
    recipes = os.path.join(ROOT, "config", "recipes")
    example = os.path.join(ROOT, "config", "zoo.yaml")
    families = {"vit": "vit-b-32", "llama": "tiny", "roberta": "roberta-base", "t5": "t5-base", "beit3": "beit3-base", "whole": "tiny", "lossless": "tiny"}
    names = good(["recipes"]).out.split()
    files = sorted(os.listdir(recipes))
    assert [f[3:-5] for f in files] == names, f"{files} beside {names}"
    for file, name in zip(files, names):
        assert open(os.path.join(recipes, file), encoding="utf-8").read() == good(["recipes", "--print", name]).out, f"{file} is not what is built in"
        if name in families:  # the others are planned for names of their models in tests/cli/test_architectures.py
            plan(zoo_of(families[name], box, example)[0], os.path.join(recipes, file))


def test_every_file_is_loaded():
    recipes = os.path.join(ROOT, "config", "recipes")
    known = {os.path.join(ROOT, "config", "zoo.yaml")} | {os.path.join(recipes, f) for f in os.listdir(recipes)}
    known |= {model.recipe(name) for model in MODELS.values() for name in (*RECIPES, "zoo")}
    found = {os.path.join(d, f) for d, _, files in os.walk(os.path.join(ROOT, "config")) if "packages" not in d.split(os.sep) for f in files}
    assert found == known, f"not loaded by this test, or missing: {sorted(found ^ known)}"
