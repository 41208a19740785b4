"""The committed table results/paper.csv is what the program gives: its cheap rows, made again."""
import sys

import pytest

from common import ROOT, call, check

COST = {"test_cheap_rows_are_the_committed_ones": 60}


@pytest.mark.release
def test_cheap_rows_are_the_committed_ones():
    code, out, err = call([sys.executable, "tests/paper/run.py", "--rows", "cheap", "--check"], cwd=ROOT, limit=900)
    check(code == 0, out + err)
