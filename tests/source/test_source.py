"""The source tree itself."""
import re

from common import ROOT, Skipped, call, check


def test_layers():
    code, out, err = call(["tests/layers.sh"], cwd=ROOT)
    check(code == 0, out + err)


def test_format():
    version = re.search(r"version (\d+)", call(["clang-format", "--version"])[1]).group(1)
    if version != "14":
        raise Skipped(f"clang-format is {version}; the source is formatted by 14, and other versions break the lines of macros elsewhere")
    code, out, err = call(["make", "--no-print-directory", "lint"], cwd=ROOT, limit=180)
    check(code == 0, out + err)
