"""What a run prints: a line for each suite once it is through, failures with their reason, what was skipped, and at the very end "N passed, N failed"."""
import collections
import importlib
import os
import time


def suite_of(nodeid):
    """The part of a test's name before '::', without tests/ and ending: cli/test_append."""
    return os.path.splitext(nodeid.split("::")[0])[0].removeprefix("tests/")


class Suite:
    def __init__(self):
        self.due, self.passed, self.failed, self.skipped, self.seconds = set(), 0, 0, 0, 0.0


class Progress:
    def __init__(self, config):
        self.out = config.get_terminal_writer()
        self.suites = collections.defaultdict(Suite)
        self.reasons = collections.Counter()
        self.states, self.properties, self.broken, self.expected, self.lost = {}, [], 0, set(), 0
        self.begun = time.time()

    def line(self, text, **markup):
        self.out.line(text, **markup)
        self.out.flush()

    def expect(self, ids):
        for nodeid in set(ids) - self.expected:
            self.expected.add(nodeid)
            self.suites[suite_of(nodeid)].due.add(nodeid)

    def pytest_xdist_node_collection_finished(self, ids):
        self.expect(ids)

    def pytest_collection_finish(self, session):
        self.expect(item.nodeid for item in session.items)

    def pytest_collectreport(self, report):
        self.broken += report.failed

    def pytest_report_teststatus(self, report):
        """Nothing of pytest's own for each test."""
        return report.outcome if report.failed or report.when == "call" or report.skipped else "", "", ""

    def pytest_runtest_logreport(self, report):
        suite = self.suites[suite_of(report.nodeid)]
        suite.seconds += report.duration
        was = self.states.get(report.nodeid)
        if report.failed and was != "failed":
            self.states[report.nodeid] = "failed"
            text = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", report.longrepr)).strip().split("\n")[0]
            self.line(f"FAILED {report.nodeid}: {text[:300]}", red=True)
        elif report.skipped:
            self.states[report.nodeid] = "skipped"
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.reasons[reason.removeprefix("Skipped: ")] += 1
        elif report.when == "call" and was is None:
            self.states[report.nodeid] = "passed"
        if report.when == "call":
            self.properties.append(dict(report.user_properties))
        if report.when in ("teardown", "???"):  # the second: its worker died of it
            suite.due.discard(report.nodeid)
            self.count(report.nodeid, suite)

    def count(self, nodeid, suite):
        state = self.states.get(nodeid, "failed")
        setattr(suite, state, getattr(suite, state) + 1)
        if not suite.due:
            skipped = f", {suite.skipped} skipped" if suite.skipped else ""
            self.line(f"{suite_of(nodeid):32} {suite.passed:4} passed {suite.failed:3} failed {suite.seconds:5.0f} s{skipped}", red=suite.failed > 0)

    def recorded(self, name):
        return [properties[name] for properties in self.properties if name in properties]

    def pytest_sessionfinish(self, session):
        """A test that was lost is a failure. Tables that the make targets keep: what the tests recorded."""
        self.lost = 0 if session.config.option.collectonly else len(self.expected - self.states.keys())
        if self.lost:
            session.exitstatus = session.exitstatus or 1
        for name, variable, module in (("fault", "CRASH_REPORT", "crash.fault_report"), ("flips", "FLIPS_REPORT", "flips.flips_report")):
            if os.environ.get(variable) and self.recorded(name):
                importlib.import_module(module).write_report(os.environ[variable], self.recorded(name))

    def pytest_unconfigure(self, config):
        """The last lines. A test whose worker died has no teardown, so states are counted, not suites."""
        if config.option.collectonly:
            return
        count = collections.Counter(self.states.values())
        failed = count["failed"] + self.broken
        if self.lost:
            self.line(f"{self.lost} tests were not run to their end")
            failed += self.lost
        if not self.states and not failed:
            self.line("no test was run")
            failed = 1
        self.line(f"{time.time() - self.begun:.0f} s")
        if self.reasons:
            self.line(f"{count['skipped']} skipped: " + "; ".join(f"{why} ({n})" if n > 1 else why for why, n in self.reasons.items()))
        self.line(f"{count['passed']} passed, {failed} failed")
