#!/usr/bin/python3
"""Every file of config/ is loaded: each manifest opens, each recipe plans on a zoo of its model's names and says what its comments promise.

usage: test_config.py          DELTAZOO names the program; the last line reads "N passed, N failed" """
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(__file__))
from models import MODELS, RECIPES, ROOT  # noqa: E402

DELTAZOO = os.environ.get("DELTAZOO", os.path.join(ROOT, "build", "deltazoo"))


def call(*args):
    done = subprocess.run([DELTAZOO, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"deltazoo {' '.join(args)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


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
        call("synth", "-q", "--shape", shape, "--layers", "1", "--tasks", "1", "--dtype", "f16", "--seed", "1", "-o", made)
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
    return json.loads(call("plan", zoo, "--json", *(("--recipe", recipe) if recipe else ())))


def entry(planned, key):
    return next(line.split(":", 1)[1].strip() for line in planned["recipe_text"].splitlines() if line.startswith(key + ":"))


def check_model(model, folder):
    zoo, ntasks = zoo_of(model.shape, folder, os.path.join(model.config, "zoo.yaml"))
    built_in = plan(zoo)
    assert len(built_in["tasks"]) == ntasks >= 3, f"{len(built_in['tasks'])} tasks"
    plans = {name: plan(zoo, model.recipe(name)) for name in RECIPES}
    assert plans["default"]["recipe_text"] == built_in["recipe_text"], "default.yaml is not what the built-in recipe says"
    assert all(t["lossy_parameters"] > 0 for p in plans.values() for t in p["tasks"]), "nothing is lossy"
    density, bits = 1 - float(entry(plans["paper"], "sparsity")), int(entry(plans["paper"], "bits"))
    assert bits == 4, f"{bits} bits"
    # No family member is kept sparser than its headline needs, and the sparsest one meets it.
    assert 16 / (bits * density) < 1.005 * model.first, f"density {density} is below that of the headline {model.first}x"
    target = float(entry(plans["auto"], "target_ratio"))
    assert entry(plans["auto"], "method") == "auto" and abs(target / model.first - 1.05) < 0.005, f"auto: target {target}"


def check_shared(folder):
    """What is not a model's: the built-in recipes through their file, and the example manifest."""
    recipes = os.path.join(ROOT, "config", "recipes")
    example = os.path.join(ROOT, "config", "zoo.yaml")
    families = {"vit": "vit-b-32", "llama": "tiny", "roberta": "roberta-base", "t5": "t5-base", "beit3": "beit3-base", "whole": "tiny", "lossless": "tiny"}
    names = call("recipes").split()
    files = sorted(os.listdir(recipes))
    assert [f[3:-5] for f in files] == names, f"{files} beside {names}"
    for file, name in zip(files, names):
        assert open(os.path.join(recipes, file), encoding="utf-8").read() == call("recipes", "--print", name), f"{file} is not what is built in"
        if name in families:  # the others are planned for names of their models in tests/cli/test_architectures.py
            plan(zoo_of(families[name], folder, example)[0], os.path.join(recipes, file))


def main():
    passed = failed = 0
    known = {os.path.join(ROOT, "config", "zoo.yaml")} | {os.path.join(ROOT, "config", "recipes", f) for f in os.listdir(os.path.join(ROOT, "config", "recipes"))}
    with tempfile.TemporaryDirectory(prefix="deltazoo-config.") as folder:
        checks = [("shared", lambda: check_shared(folder))]
        for model in MODELS.values():
            checks.append((model.name, lambda model=model: check_model(model, folder)))
            known |= {model.recipe(name) for name in (*RECIPES, "zoo")}

        def check_all_known():
            found = {os.path.join(d, f) for d, _, files in os.walk(os.path.join(ROOT, "config")) for f in files}
            assert found == known, f"not loaded by this test, or missing: {sorted(found ^ known)}"

        checks.append(("every file is loaded", check_all_known))
        for name, check in checks:
            try:
                check()
                print(f"ok config: {name}")
                passed += 1
            except AssertionError as error:
                print(f"FAILED config: {name}: {error}")
                failed += 1
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
