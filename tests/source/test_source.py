"""The source tree itself."""
import ast
import glob
import os
import re

from common import ROOT, Skipped, call, check, equal, read


def test_layers():
    code, out, err = call(["tests/layers.sh"], cwd=ROOT)
    check(code == 0, out + err)


def test_format():
    version = re.search(r"version (\d+)", call(["clang-format", "--version"])[1]).group(1)
    if version != "14":
        raise Skipped(f"clang-format is {version}; the source is formatted by 14, and other versions break the lines of macros elsewhere")
    code, out, err = call(["make", "--no-print-directory", "lint"], cwd=ROOT, limit=180)
    check(code == 0, out + err)


def imports_torch(node):
    return any(re.match(r"(torch|safetensors\.torch)(\.|$)", name) for part in ast.walk(node) if isinstance(part, (ast.Import, ast.ImportFrom))
               for name in ([part.module or ""] if isinstance(part, ast.ImportFrom) else [a.name for a in part.names]))


def test_tests_that_need_pytorch_are_marked():
    """Else they fail where it is left out: tests/debian.sh. The folder pytorch/ has the mark, client/ another Python."""
    bare, found = [], 0
    for path in glob.glob(f"{ROOT}/tests/*/test_*.py"):
        if os.path.basename(os.path.dirname(path)) in ("pytorch", "client"):
            continue
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and imports_torch(node):
                found += 1
                if "pytest.mark.torch" not in [ast.unparse(d) for d in node.decorator_list]:
                    bare.append(f"{os.path.relpath(path, ROOT)}::{node.name}")
    check(found > 5, f"{found} tests import it")
    equal(bare, [], "tests without the mark")
