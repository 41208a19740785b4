"""C unit tests as pytest items: each cmocka test of build/FLAVOUR/unit/NAME is one; a program runs once for all of them."""
import os
import re
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RAN = {}  # program -> (exit code, {test: state}, output)


def run(program):
    if program not in RAN:
        done = subprocess.run([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace", cwd=ROOT)
        found = re.findall(r"^\[ +(OK|FAILED|SKIPPED) +\] ([a-z_]\w*)\b(?!:)", done.stdout, re.M)  # not "tests: 1 test(s)"
        RAN[program] = done.returncode, {name: state for state, name in reversed(found)}, done.stdout
    return RAN[program]


class UnitFailed(Exception):
    pass


class UnitFile(pytest.File):
    def collect(self):
        names = re.findall(r"\bcmocka_unit_test\w*\(\s*(\w+)", self.path.read_text())
        if not names:
            raise self.CollectError(f"{self.path} has no test")
        for flavour, prefix in ((os.environ["FLAVOUR"], ""), ("mpich", "mpich-")):
            for name in names:
                item = UnitTest.from_parent(self, name=prefix + name)
                item.program, item.test, item.all = os.path.join(ROOT, "build", flavour, "unit", self.path.stem), name, names
                if prefix:
                    item.add_marker("mpich")
                yield item


class UnitTest(pytest.Item):
    def runtest(self):
        if not os.access(self.program, os.X_OK):
            raise UnitFailed(f"{self.program} is not built (make units)")
        code, states, output = run(self.program)
        state = states.get(self.test)
        if state == "SKIPPED":
            pytest.skip("cmocka skip()")
        if state != "OK":
            raise UnitFailed(output)
        if code and "FAILED" not in states.values() or set(states) != set(self.all):
            raise UnitFailed(f"exit {code}, tests that ran: {sorted(states)}\n{output}")

    def repr_failure(self, excinfo):
        if not excinfo.errisinstance(UnitFailed):
            return super().repr_failure(excinfo)
        return "\n".join(line for line in str(excinfo.value).splitlines() if not re.match(r"\[ +(OK|RUN) ", line))

    def reportinfo(self):
        return self.path, 0, self.name
