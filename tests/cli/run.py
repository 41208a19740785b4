#!/usr/bin/python3
"""Runs the command-line tests: run.py [substring]... Prints a line per test and "N passed, N failed"; exit 1 when one fails.

Tests are the functions test_* of the modules test_*.py beside this file. Several run at a time (DZ_TEST_JOBS, by default twice the processors):
most of a test's time is the start of MPI.
"""
import concurrent.futures
import glob
import importlib.util
import os
import sys
import time
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
DEBIAN = "/usr/bin/python3"
if importlib.util.find_spec("numpy") is None and os.path.realpath(sys.executable) != os.path.realpath(DEBIAN):
    os.execv(DEBIAN, [DEBIAN] + sys.argv)  # another Python comes first in PATH
import common  # noqa: E402


def collect(wanted):
    tests = []
    for path in sorted(glob.glob(os.path.join(HERE, "test_*.py"))):
        module = importlib.import_module(os.path.basename(path)[:-3])
        for name, function in vars(module).items():
            full = f"{module.__name__[5:]}.{name[5:]}"
            if name.startswith("test_") and callable(function) and (not wanted or any(w in full or w in name for w in wanted)):
                tests.append((getattr(module, "COST", {}).get(name, 1), full, function))
    tests.sort(key=lambda t: -t[0])  # long ones first
    return tests


def one(test):
    begun = time.time()
    try:
        test[2]()
        state, why = "ok", ""
    except common.Skipped as e:
        state, why = "skip", str(e)
    except common.Failed as e:
        state, why = "FAIL", str(e)
    except Exception:  # a mistake of the test is a failure too
        state, why = "FAIL", traceback.format_exc().strip().replace("\n", " | ")
    return state, test[1], why, time.time() - begun


def main():
    tests = collect(sys.argv[1:])
    if not os.access(common.DELTAZOO, os.X_OK):
        sys.exit(f"{common.DELTAZOO} is not a program: build it or set DELTAZOO")
    count = {"ok": 0, "FAIL": 0, "skip": 0}
    jobs = int(os.environ.get("DZ_TEST_JOBS", 2 * (os.cpu_count() or 1)))
    slow = []
    try:
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for done in concurrent.futures.as_completed([pool.submit(one, t) for t in tests]):
                state, name, why, secs = done.result()
                count[state] += 1
                slow.append((secs, name))
                print(f"{state} {name}" + (f": {why}" if why else ""), flush=True)
    finally:
        common.remove_shared()
    if os.environ.get("DZ_TEST_TIMES"):
        for secs, name in sorted(slow, reverse=True)[:15]:
            print(f"  {secs:6.1f} s  {name}")
    skipped = f" ({count['skip']} skipped)" if count["skip"] else ""
    print(f"{count['ok']} passed, {count['FAIL']} failed{skipped}")
    return 1 if count["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
