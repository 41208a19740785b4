"""The one tree of tests: what every test runs with, which marks it has, and in which order and company it runs (README.md)."""
import fcntl
import os
import shutil
import sys
import tempfile

import pytest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path[:0] = [HERE, os.path.join(HERE, "cli")]

from launcher import SETTINGS  # noqa: E402

FLAVOUR = os.environ.setdefault("FLAVOUR", "release")
os.environ.setdefault("DELTAZOO", os.path.join(ROOT, "build", "deltazoo" if FLAVOUR == "release" else f"{FLAVOUR}/deltazoo"))
os.environ["PYTHON"] = sys.executable  # of the scripts that tests run
for variable in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):  # tests that call make start anew
    os.environ.pop(variable, None)
os.environ.update(SETTINGS)
# PRRTE names its session folder by its pid and fails if there is one, such as of a killed mpirun that had the same: a folder for each process of pytest.
os.environ["PRTE_MCA_prte_tmpdir_base"] = SESSIONS = tempfile.mkdtemp(prefix="dz-prte-")
if FLAVOUR == "asan":  # Open MPI and HDF5 leave memory behind at exit; leaks of our own are found by the fuzz targets, which use neither
    os.environ.update(ASAN_OPTIONS="detect_leaks=0:handle_abort=1:verify_asan_link_order=0", UBSAN_OPTIONS="print_stacktrace=1")

MARKS = {"reader": "client", "pytorch": "client", "python": "client"}  # folders whose mark is not their own name
SLOW = 8  # seconds

from common import Scratch  # noqa: E402: it reads what is set above


def folder_of(nodeid):
    return nodeid.split("::")[0].rpartition("/")[0].removeprefix("tests/")


def cost(item):
    """About how many seconds it takes, where its module or its mark says so."""
    costs = getattr(getattr(item, "module", None), "COST", {})
    return costs.get(getattr(item, "originalname", None) or item.name, 1)


@pytest.hookimpl(trylast=True)  # after the reporter that progress.py writes through
def pytest_configure(config):
    if hasattr(config, "workerinput"):
        return
    os.environ["DZ_TEST_SHARED"] = config.dz_shared = os.path.realpath(tempfile.mkdtemp(prefix="dz-tests-"))
    from progress import Progress
    config.pluginmanager.register(Progress(config), "deltazoo-progress")


def pytest_unconfigure(config):
    shutil.rmtree(SESSIONS, ignore_errors=True)
    if hasattr(config, "dz_shared"):
        shutil.rmtree(config.dz_shared, ignore_errors=True)


def pytest_sessionstart(session):
    if not os.access(os.environ["DELTAZOO"], os.X_OK):
        pytest.exit(f"{os.environ['DELTAZOO']} is not a program: build it or set DELTAZOO", 2)


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".c" and file_path.parent.name == "unit" and file_path.name.startswith("test_"):
        from cmocka import UnitFile
        return UnitFile.from_parent(parent, path=file_path)
    return None


def pytest_itemcollected(item):
    folder = folder_of(item.nodeid)
    item.add_marker(MARKS.get(folder, folder))
    if folder == "pytorch":
        item.add_marker("torch")
    if cost(item) >= SLOW:
        item.add_marker("slow")


def pytest_ignore_collect(collection_path, config):
    if os.environ.get("DZ_WITHOUT") == "torch" and collection_path.name == "pytorch":  # its files import PyTorch
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for mark, left_out in (("release", FLAVOUR != "release"), ("torch", os.environ.get("DZ_WITHOUT") == "torch")):
        if left_out:
            config.hook.pytest_deselected(items=[i for i in items if i.get_closest_marker(mark)])
            items[:] = [i for i in items if not i.get_closest_marker(mark)]
    items.sort(key=lambda i: (bool(i.get_closest_marker("alone")), -cost(i)))  # long ones first


@pytest.fixture
def folder():
    """A folder for one test."""
    with Scratch() as path:
        yield path


@pytest.fixture(scope="module")
def box():
    """A folder for the tests of a module."""
    with Scratch() as path:
        yield path


def pytest_xdist_make_scheduler(config, log):
    from scheduler import Scheduler
    config.option.loadscopereorder = False
    return Scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Tests marked `alone` wait until no other runs, and no other begins beside them."""
    with open(os.path.join(os.environ["DZ_TEST_SHARED"], "alone.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        return (yield)
