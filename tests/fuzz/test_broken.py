"""Each file of tests/broken, which once made a fuzz target crash or is a useful part of its corpus, through that target without libFuzzer (replay.c)."""
import os

import pytest

from common import ROOT, call, check

BROKEN = os.path.join(ROOT, "tests", "broken")
FILES = [(kind, name) for kind in sorted(os.listdir(BROKEN)) for name in sorted(os.listdir(os.path.join(BROKEN, kind)))]


@pytest.mark.parametrize("kind, name", FILES)
def test_does_no_harm(kind, name):
    code, out, err = call([os.path.join(ROOT, "build", os.environ["FLAVOUR"], "fuzz", kind), os.path.join(BROKEN, kind, name)])
    check(code == 0 and out.splitlines()[-1] == "1 passed, 0 failed", f"exit {code}: {out[-800:]} {err[-2000:]}")
