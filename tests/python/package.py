"""The Python package as pip installs it from its wheel, imported as `package` (the tests of the reader import the one file src/python/deltazoo.py as deltazoo)."""
import glob
import importlib.util
import os
import sys

from common import ROOT, call, check, locked, made_once

PYTHON = os.path.join(ROOT, "src", "python")


def wheel():
    """The wheel in build/wheel, made anew where a source is newer."""
    with locked(os.path.join(os.environ["DZ_TEST_SHARED"], "wheel.lock")):
        found = glob.glob(f"{ROOT}/build/wheel/*.whl")
        sources = [f"{ROOT}/build/python/python.so", *glob.glob(f"{PYTHON}/**/*.py", recursive=True), *glob.glob(f"{PYTHON}/*.t*")]
        if not found or not os.path.exists(f"{ROOT}/build/wheel/venv") or any(os.path.exists(s) and os.path.getmtime(s) > os.path.getmtime(found[0]) for s in sources):
            code, out, err = call(["make", "--no-print-directory", "wheel"], cwd=ROOT, limit=900)
            check(code == 0, f"make wheel: {out[-1000:]} {err[-1000:]}")
            found = glob.glob(f"{ROOT}/build/wheel/*.whl")
    return found[0]


def site():
    """A folder for PYTHONPATH with the package."""

    def make(folder):
        code, out, err = call([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", f"{folder}/lib", wheel()])
        check(code == 0, out + err)

    return made_once("python-package", make) + "/lib"


def load():
    if "deltazoo_package" not in sys.modules:
        where = os.path.join(site(), "deltazoo")
        spec = importlib.util.spec_from_file_location("deltazoo_package", f"{where}/__init__.py", submodule_search_locations=[where])
        module = importlib.util.module_from_spec(spec)
        sys.modules["deltazoo_package"] = module
        spec.loader.exec_module(module)
    return sys.modules["deltazoo_package"]
