"""The fuzz targets' first inputs can be made, and each archive among them is one."""
import os
import sys

import pytest

from common import ROOT, call, check, equal, good, made_once

pytestmark = pytest.mark.torch
TARGETS = ("archive", "safetensors", "torch", "yaml")


def seeds():
    def make(folder):
        for target in TARGETS:
            os.mkdir(f"{folder}/{target}")
        code, out, err = call([sys.executable, f"{ROOT}/tests/fuzz/seeds.py", folder])
        check(code == 0, out + err)

    return made_once("fuzz-seeds", make)


def test_seeds_are_made():
    count = {target: len(os.listdir(f"{seeds()}/{target}")) for target in TARGETS}
    equal(count["archive"], 8, "archives")
    check(all(count.values()), f"{count}")


@pytest.mark.parametrize("i", range(6))
def test_archive_is_sound(i):
    folder = f"{seeds()}/archive"
    good(["verify", "-q", f"{folder}/{sorted(os.listdir(folder))[i]}"])
