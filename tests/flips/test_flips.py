"""Single bits of archives flipped, one at a time: found, or without effect on what is restored (flips.c). A sample; `make check-flips` tries every bit of one archive
and 4,000 places of two others, and with FLIPS_REPORT=FILE.md keeps the tables (flips_report.py)."""
import os
import sys

import pytest

from common import ROOT, call, check, good, made_once, read, write

HERE = os.path.dirname(os.path.abspath(__file__))
COST = {"test_bits_flipped": 10}


def archive(kind):
    """A zoo (zoo.py) and its archive: small, tiles (with tensors of two tiles), auto (the small one by that method), chain (the same, the
    second task coded against the first)."""

    def make(folder):
        code, out, err = call([sys.executable, f"{HERE}/zoo.py", folder, "tiles" if kind == "tiles" else "small"])
        check(code == 0, out + err)
        if kind == "chain":
            write(f"{folder}/zoo.yaml", read(f"{folder}/zoo.yaml").decode().replace("path: two}", "path: two, parent: one}"))
        good(["compress", f"{folder}/zoo.yaml", "--recipe", f"{folder}/recipe.yaml", "-o", f"{folder}/a.h5", "-q", *(["--set", "method=auto"] if kind in ("auto", "chain") else [])])

    return made_once("flips-" + kind, make)


@pytest.mark.parametrize("kind, how, number", [
    ("small", "every", 67), ("tiles", "random", 300), ("auto", "random", 300), ("chain", "random", 300),
    *(pytest.param(*case, marks=pytest.mark.long) for case in (("small", "every", 1), ("tiles", "random", 4000), ("auto", "random", 4000), ("chain", "random", 4000)))])
def test_bits_flipped(record_property, kind, how, number):
    folder = archive(kind)
    flips = os.path.join(ROOT, "build", os.environ["FLAVOUR"], "flips")
    code, out, err = call([flips, f"{folder}/a.h5", f"{folder}/base", how, str(number)], limit=7200)
    record_property("flips", {"kind": kind, "bytes": os.path.getsize(f"{folder}/a.h5"), "table": [line for line in out.splitlines() if line.startswith("|")]})
    check(code == 0, out + err)
