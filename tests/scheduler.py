"""Which worker runs which test, in the order of conftest.py: long ones first."""
from xdist.scheduler import LoadScopeScheduling

# The tests of a class run in order on one worker; in these folders also those of a file.
TOGETHER = ("unit/", "install/", "mpich/", "serial/", "paper/")


class Scheduler(LoadScopeScheduling):
    """That of pytest-xdist 3.8, which runs a test that ended its worker again and again, or waits for ever, where this one counts it as failed and goes on."""

    def _split_scope(self, nodeid):
        above = nodeid.split("[")[0].rpartition("::")[0]
        return above if "::" in above or nodeid.removeprefix("tests/").startswith(TOGETHER) else nodeid

    def _reschedule(self, node):
        """A worker starts a test once it has the one after it too, or knows that there is none."""
        while not node.shutting_down:
            pending = self._pending_of(self.assigned_work[node])
            super()._reschedule(node)
            if self._pending_of(self.assigned_work[node]) in (pending, 2):
                break

    def remove_node(self, node):
        """Of a worker that died: returns the test that it died of, and gives the others to the workers that are left."""
        work = self.assigned_work.pop(node)
        pending = [(scope, nodeid) for scope, unit in work.items() for nodeid, done in unit.items() if not done]
        if not pending:
            return None
        scope, crashed = pending[0]
        work[scope][crashed] = True
        self.workqueue.update((scope, unit) for scope, unit in work.items() if not all(unit.values()))
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed
