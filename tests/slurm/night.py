"""A night with many families: scan of a hub folder, the array job in a SLURM of our own, killed twice, and what report sums up.

    python3 tests/slurm/night.py HUB [--work DIR]      # HUB: tests/client/families.py makes one; prints Markdown

`night` is also a test of its own (test_slurm.py) with a small hub. Every archive must have the bytes of an undisturbed run, and every kill must leave what was done.
"""
import argparse
import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "cli"), os.path.join(HERE, "..")]

from cluster import Cluster  # noqa: E402
from common import DELTAZOO, ENV, check, equal, read, sha256, write  # noqa: E402

ARRAY = os.path.join(HERE, "..", "..", "jobs", "array.sbatch")
OPTIONS = ("-N1", "--ntasks-per-node=2", "--mem-per-cpu=100M", "--no-requeue")


def deltazoo(folder, *args):
    p = subprocess.run([DELTAZOO, *args], cwd=folder, env=ENV, capture_output=True, text=True)
    check(p.returncode == 0, f"{args}: {p.stderr}")
    return p.stdout


class Night:
    def __init__(self, cluster, box, hub, preload):
        """`preload`: slow_reads.c as a library; reads are slow while `folder`/slow exists."""
        self.cluster, self.folder, self.hub = cluster, f"{box}/night", hub
        os.makedirs(f"{self.folder}/archives")
        self.program = write(f"{self.folder}/deltazoo", f'#!/bin/sh\nLD_PRELOAD={preload} exec {DELTAZOO} "$@"\n')
        os.chmod(self.program, 0o755)

    def scan(self):
        deltazoo(self.folder, "scan", self.hub, "-o", "family.yaml", "--list", "families.txt", "--archives", "archives", "--json")
        self.rows = [line.split("\t") for line in read(f"{self.folder}/families.txt").decode().splitlines() if not line.startswith("#")]
        return len(self.rows)

    def report(self):
        return json.loads(deltazoo(self.folder, "report", "families.txt", "--json"))

    def unfinished(self):
        """Elements that are not done, or whose archive was not verified as others were."""
        return sorted({f["element"] for f in self.report()["families"] if f["next"]})

    def submit(self, elements, slow=False):
        self.slow = f"{self.folder}/slow"
        if slow:
            write(self.slow, "")
        elif os.path.exists(self.slow):
            os.unlink(self.slow)
        env = dict(self.cluster.env, ZOOS=f"{self.folder}/families.txt", DELTAZOO=self.program, SLOW_READS=self.slow, SLOW_MS="25", DZ_JOURNAL_AFTER="0",
                   ORIGINALS="yes", MAX_REQUEUES="0")
        p = subprocess.run(["sbatch", "--parsable", *OPTIONS, "--output", f"{self.folder}/log-%a", "--array=" + ",".join(map(str, elements)), ARRAY],
                           cwd=self.folder, env=env, capture_output=True, text=True)
        check(p.returncode == 0, f"sbatch: {p.stderr}")
        self.job = p.stdout.strip()

    def active(self):
        return bool(self.cluster.call("squeue", "-h", "-j", self.job, "-o", "%i", check=False).strip())

    def archives(self):
        return {a: sha256(a) for _, a in self.rows if os.path.exists(a)}

    def kill(self, how, after):
        """In the middle of the work: once `after` archives are there and a job has something in its journal."""
        end = time.time() + 300
        while len(self.archives()) < after or not glob.glob(f"{self.folder}/archives/*.journal"):
            check(time.time() < end and self.active(), f"{len(self.archives())} archives, no moment to kill; the logs: {self.logs()}")
            time.sleep(0.02)
        done = self.archives()
        how()
        self.cluster.until(lambda: not self.active(), "the end of the killed job", 120)
        self.cluster.kill(f"SLURM_ARRAY_JOB_ID={self.job}")
        now = self.archives()
        check(all(now.get(a) == s for a, s in done.items()), "an archive that was finished has changed or is gone")
        return len(done)

    def power_failure(self):
        """All processes of the jobs at once; what waits never starts."""
        self.cluster.call("scancel", "--state=PENDING", self.job)
        self.cluster.kill(f"SLURM_ARRAY_JOB_ID={self.job}")

    def cancelled(self):
        self.cluster.call("scancel", self.job)

    def ends(self, limit):
        self.cluster.until(lambda: not self.active(), f"the end of job {self.job}", limit)

    def logs(self):
        return "".join(read(p).decode(errors="replace")[-300:] for p in sorted(glob.glob(f"{self.folder}/log-*"))[-3:])

    def undisturbed(self):
        """Each archive by hand, on one rank: the same bytes."""
        for i, (manifest, archive) in enumerate(self.rows):
            deltazoo(self.folder, "compress", manifest, "-o", f"{self.folder}/right.h5", "-q", "--force")
            equal(sha256(archive), sha256(f"{self.folder}/right.h5"), f"archive {i + 1}: {archive}")
        os.unlink(f"{self.folder}/right.h5")


def night(cluster, box, hub, preload, limit=120):
    """Returns the families, what was done at each kill, the sum and what is known of the originals."""
    n = Night(cluster, box, hub, preload)
    nfamilies = n.scan()
    equal(n.unfinished(), list(range(1, nfamilies + 1)), "before the night")
    n.submit(range(1, nfamilies + 1), slow=True)
    killed = [n.kill(n.power_failure, max(1, nfamilies // 4))]
    text = deltazoo(n.folder, "report", "families.txt")
    check("again: sbatch --array=" + ",".join(map(str, n.unfinished())) in text, text)
    n.submit(n.unfinished(), slow=True)
    killed.append(n.kill(n.cancelled, killed[0] + max(1, nfamilies // 4)))
    left = n.unfinished()  # not done, and done but not verified
    for _ in range(2):  # once more where no archive had been verified when left was asked for
        if n.unfinished():
            n.submit(n.unfinished())
            n.ends(limit)
    equal(n.unfinished(), [], f"unfinished at the end; {n.logs()}")
    n.undisturbed()
    beside = [p for p in os.listdir(f"{n.folder}/archives") if not p.endswith((".h5", ".json"))]
    check(not beside, f"left behind: {beside}")
    totals = n.report()["totals"]
    equal((totals["archives"], totals["verified"], totals["outcomes"]["done"]), (nfamilies,) * 3, "the sum")
    originals = json.loads(deltazoo(n.folder, "report", "families.txt", "--originals", "--json"))
    return n, killed, left, totals, originals


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hub")
    parser.add_argument("--work", default=None)
    args = parser.parse_args()
    box = args.work or tempfile.mkdtemp(prefix="dz-night-")
    os.makedirs(box, exist_ok=True)
    subprocess.run(["cc", "-D_GNU_SOURCE", "-O", "-shared", "-fPIC", "-o", f"{box}/slow.so", f"{HERE}/slow_reads.c", "-ldl"], check=True)
    cluster = Cluster(box)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        cluster.env.update(ENV, SLURM_CONF=cluster.env["SLURM_CONF"])
        cluster.start()
        n, killed, left, totals, originals = night(cluster, box, os.path.abspath(args.hub), f"{box}/slow.so", limit=1200)
        covers = {}
        for o in originals["originals"]:
            covers[o["cover"]] = covers.get(o["cover"], 0) + 1
        print(f"{len(n.rows)} families, {totals['tasks']} tasks, killed with {killed[0]} and with {killed[1]} archives done, {len(left)} left for the last submission (also those that "
              f"were not yet verified); every archive has the bytes of an undisturbed run on one rank and was verified completely. Originals: "
              + ", ".join(f"{number} {cover}" for cover, number in sorted(covers.items())) + ".\n\n```")
        print(deltazoo(n.folder, "report", "families.txt").split("\n\n", 1)[1].strip().replace(n.folder + "/", "") + "\n```")
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()
