"""The scripts of jobs/ in a real SLURM on this machine (cluster.py), one for each worker of the run.

Jobs that are to be interrupted read slowly (slow_reads.c) as long as a file exists: they cannot be over too early, and go on fast. Every archive must have
the bytes of an uninterrupted run on one rank.
"""
import glob
import json
import os
import re
import signal
import subprocess
import tempfile
import time

import numpy as np
import pytest

from cluster import Cluster, why_not
from common import DELTAZOO, ENV, ROOT, check, equal, hashes, read, sha256, small_model, st_bytes, to_dtype, to_float, write
from night import night

HERE = os.path.dirname(os.path.abspath(__file__))
COST = {"test_time_limit": 100, "test_preemption": 60, "test_preemption_by_the_default_signal": 90, "test_node_failure": 0, "test_a_night_with_many_families_killed_twice": 25}  # the last: its node is lost
JOBS = os.path.join(ROOT, "jobs")
BOX = SLURM = PLAIN = None  # the folder of this worker, and its clusters: with the signal of a job's --signal at preemption, and without
RIGHT = None  # the archive's checksum


@pytest.fixture(scope="session", autouse=True)
def slurm():
    global BOX, SLURM, PLAIN, RIGHT
    why = why_not()
    if why:
        pytest.skip(why)
    BOX = tempfile.mkdtemp(prefix="dz-slurm-")
    SLURM, PLAIN = Cluster(BOX), Cluster(f"{BOX}/plain", user_signal=False)
    try:
        subprocess.run(["cc", "-D_GNU_SOURCE", "-O", "-shared", "-fPIC", "-o", f"{BOX}/slow.so", f"{HERE}/slow_reads.c", "-ldl"], check=True)
        write(f"{BOX}/deltazoo", f'#!/bin/sh\nLD_PRELOAD={BOX}/slow.so exec {DELTAZOO} "$@"\n')
        os.chmod(f"{BOX}/deltazoo", 0o755)
        subprocess.run([DELTAZOO, "synth", "-q", "--shape", "tiny", "--tasks", "3", "-o", f"{BOX}/zoo"], check=True, capture_output=True)
        subprocess.run([DELTAZOO, "compress", "-q", f"{BOX}/zoo/zoo.yaml", "-o", f"{BOX}/right.h5"], check=True, capture_output=True)
        RIGHT = sha256(f"{BOX}/right.h5")
        os.mkdir(PLAIN.box)
        for cluster in SLURM, PLAIN:
            cluster.env.update(ENV, SLURM_CONF=cluster.env["SLURM_CONF"])
            cluster.start()
        yield
    finally:
        SLURM.stop()
        PLAIN.stop()
        if not os.environ.get("DZ_KEEP"):
            subprocess.run(["rm", "-rf", BOX], check=False)


class Job:
    """A script of jobs/ in its own folder: <name>.h5, <name>.json, log."""

    def __init__(self, name, script, *options, slow=False, cluster=None, **env):
        self.cluster = cluster = cluster or SLURM
        self.folder = f"{BOX}/{name}"
        os.mkdir(self.folder)
        self.archive = f"{self.folder}/{name}.h5"
        self.slow = f"{self.folder}/slow"
        self.log = f"{self.folder}/log"
        env = {"ZOO": f"{BOX}/zoo/zoo.yaml", "ARCHIVE": self.archive, "SLOW_READS": self.slow, "SLOW_MS": "400", "DELTAZOO": f"{BOX}/deltazoo",
               "DZ_LOG_INTERVAL": "3", "DZ_JOURNAL_AFTER": "0", **env}
        if slow:
            write(self.slow, "")
        log = self.log + ("-%a" if any(o.startswith("--array") for o in options) else "")
        p = subprocess.run(["sbatch", "--parsable", "--mem-per-cpu=100M", "--output", log, *options, f"{JOBS}/{script}"], cwd=self.folder,
                           env=dict(cluster.env, **env), capture_output=True, text=True)
        check(p.returncode == 0, f"sbatch {script}: {p.stderr}")
        self.id = p.stdout.strip()

    def state(self):
        return self.cluster.job(self.id).get("JobState")

    def text(self):
        return read(self.log).decode(errors="replace") if os.path.exists(self.log) else ""

    def __str__(self):
        return f"[job {self.id}: {self.state()}; its log: {self.text()[-1500:]}]"

    def wait(self, *states, limit=90):
        end = time.time() + limit
        while self.state() not in states:
            check(time.time() < end, f"not {' or '.join(states)} after {limit} s: {self}")
            time.sleep(0.2)

    def ends(self, state, code=0, limit=90):
        self.wait("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", limit=limit)
        equal((self.state(), self.cluster.job(self.id)["ExitCode"]), (state, f"{code}:0"), f"state and exit code of {self}")

    def works(self):
        """Until something is in the journal."""
        end = time.time() + 60
        while sum(os.path.getsize(p) for p in glob.glob(f"{self.archive}.journal/*")) < 20000:
            check(time.time() < end and self.state() in ("PENDING", "RUNNING"), f"nothing in the journal: {self}")
            time.sleep(0.1)

    def starts_again(self, limit=90, journal=True):
        """After an interruption: waits until it is back in the queue, lets it read fast, and start now."""
        end = time.time() + limit
        while (self.state(), self.cluster.job(self.id).get("Restarts")) != ("PENDING", "1"):
            check(time.time() < end, f"not back in the queue after {limit} s: {self}")
            time.sleep(0.2)
        check(not journal or (os.path.isdir(f"{self.archive}.journal") and not os.path.exists(self.archive)), f"{os.listdir(self.folder)}")
        os.unlink(self.slow)
        time.sleep(2)  # a job that starts in the second of its requeue has the old credential, and fails; SLURM itself would wait two minutes
        self.cluster.call("scontrol", "update", f"jobid={self.id}", "StartTime=now")

    def says(self, text, limit=60):
        end = time.time() + limit
        while text not in self.text():
            check(time.time() < end and self.state() in ("PENDING", "RUNNING", "CONFIGURING"), f"does not say {text!r}: {self}")
            time.sleep(0.1)

    def is_right(self, resumed=None):
        equal(sha256(self.archive), RIGHT, f"archive of {self}")
        left = [n for n in os.listdir(self.folder) if re.search(r"\.(journal|lock|partial)", n)]
        check(not left, f"left behind: {left}")
        job = json.loads(read(self.archive[:-3] + ".json"))["job"]
        equal((job["slurm"]["job_id"], job["slurm"]["restarts"]), (self.id, int(resumed is not None)), "SLURM's numbers in the report")
        if resumed is not None:
            check(job["resumed_blocks"] > 0, f"nothing was taken over from before the interruption: {job}")
            check("went on where an earlier run" in self.text(), f"the log does not tell of it: {self}")
        return job


def test_one_node():
    job = Job("one", "compress.sbatch", "-N1", "--ntasks-per-node=3")
    job.ends("COMPLETED")
    report = job.is_right()
    equal((report["ranks"], len(report["per_rank"])), (3, 3), "ranks")
    check("sound" in job.text() and re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  .*3 ranks", job.text(), re.M), f"{job}")


def test_two_nodes_with_mpirun():
    # both nodes are this host, and Open MPI's shared memory would take the ranks of one for those of the other
    job = Job("two", "compress.sbatch", "-N2", "--ntasks-per-node=2", OMPI_MCA_btl="tcp,self", OMPI_MCA_btl_tcp_if_include="lo")
    job.ends("COMPLETED")
    equal(job.is_right()["ranks"], 4, "ranks")


def test_srun_with_pmix():
    job = Job("srun", "compress.sbatch", "-N1", "--ntasks-per-node=2", LAUNCH="srun")
    job.ends("COMPLETED")
    equal(job.is_right()["ranks"], 2, "ranks")


def test_array():
    lines = f"# manifest, archive\n{BOX}/zoo/zoo.yaml {BOX}/array/1.h5\r\n\n  {BOX}/zoo/zoo.yaml\t{BOX}/array/2.h5\n{BOX}/zoo/no.yaml {BOX}/array/3.h5"
    job = Job("array", "array.sbatch", "-N1", "--ntasks-per-node=1", "--array=1-3", ZOOS=write(f"{BOX}/zoos.txt", lines))
    want = {"1": ("COMPLETED", "0:0"), "2": ("COMPLETED", "0:0"), "3": ("FAILED", "2:0")}
    for i in want:
        SLURM.until(lambda: SLURM.job(f"{job.id}_{i}").get("JobState") in ("COMPLETED", "FAILED"), f"element {i}", 60)
        element = SLURM.job(f"{job.id}_{i}")
        equal((element["JobState"], element["ExitCode"]), want[i], f"element {i}: {read(job.log + '-' + i)}")
    equal([sha256(f"{BOX}/array/{i}.h5") for i in (1, 2)], [RIGHT, RIGHT], "archives")
    check(not os.path.exists(f"{BOX}/array/3.h5"), "an archive of nothing")
    table = subprocess.run([DELTAZOO, "report", f"{BOX}/array/1.json", f"{BOX}/array/2.json"], capture_output=True, text=True)
    check(table.returncode == 0 and table.stdout.count("array/") == 2, f"deltazoo report: {table}")


def test_a_night_with_many_families_killed_twice():
    """scan, the array job, report (night.py). Layouts of their own for each family; models of transformers: tests/client/families.py."""
    hub = f"{BOX}/hub"
    for f in range(8):
        shapes = {f"model.layers.{i}.{name}.weight": (48 + 16 * f, 64) for i in range(2) for name in (("self_attn.q_proj", "mlp.up_proj"), ("attn.c_attn", "mlp.c_fc"))[f % 2]}
        base = small_model(f, "F32", {"model.embed_tokens.weight": (300, 64), **shapes, "model.norm.weight": (64,)})
        for k in range(4 + f % 3):
            model = [(n, d, s, to_dtype(to_float(b, d) + 1e-3 * np.random.default_rng(10 * f + k).standard_normal(len(b) // 4).astype(np.float32), d)) for n, d, s, b in base]
            write(f"{hub}/org{f}/{'base' if k == 0 else f'tuned-{k}'}/model.safetensors", st_bytes(base if k == 0 else model))
    _, killed, left, totals, originals = night(SLURM, BOX, hub, f"{BOX}/slow.so")
    check(0 < killed[0] < killed[1] < 8 and len(left) > 0, f"{killed}, {left}")
    equal((totals["tasks"], sorted({o["cover"] for o in originals["originals"]}), originals["bytes"]["changed"]), (31, ["base", "lossy"], 0), "tasks, originals")


def test_tune_as_an_array():
    """A job for each task, and one that makes the archive: the same as by hand in one go."""
    os.mkdir(f"{BOX}/tuned")
    score = write(f"{BOX}/size.sh", 'cat "$1"/*.safetensors | wc -c >/dev/null; echo "$1" >>calls; case "$1" in *noise*) echo 0.9;; *) echo 1;; esac\n')
    env = {"EVAL": f"sh {score} {{model}} {{task}}", "MAX_DROP": "10%", "TASKS": "task-1 task-2 task-3", "OPTIONS": "--max-evaluations 2",
           "ARCHIVE": f"{BOX}/tuned/zoo.h5"}
    job = Job("tune", "tune.sbatch", "-N1", "--ntasks-per-node=2", "--array=1-4", **env)
    for i, want in (("1", "COMPLETED"), ("2", "COMPLETED"), ("3", "COMPLETED"), ("4", "FAILED")):
        SLURM.until(lambda: SLURM.job(f"{job.id}_{i}").get("JobState") in ("COMPLETED", "FAILED"), f"element {i}", 90)
        equal(SLURM.job(f"{job.id}_{i}")["JobState"], want, f"element {i}: {read(job.log + '-' + i)}")
    equal(sorted(os.listdir(f"{BOX}/tuned/zoo.h5.tune")), ["task-1.json", "task-2.json", "task-3.json"], "scores")
    n = len(read(f"{job.folder}/calls").splitlines())
    equal(n, 12, "evaluations")
    last = Job("tune-last", "tune.sbatch", "-N1", "--ntasks-per-node=2", **env)
    last.ends("COMPLETED")
    check(not os.path.exists(f"{last.folder}/calls"), "something was scored again")
    subprocess.run([DELTAZOO, "tune", f"{BOX}/zoo/zoo.yaml", "--eval", env["EVAL"], "--max-drop", "10%", "--max-evaluations", "2", "-o", f"{BOX}/tuned/by-hand.h5"],
                   cwd=f"{BOX}/tuned", check=True, capture_output=True)
    equal(sha256(f"{BOX}/tuned/zoo.h5"), sha256(f"{BOX}/tuned/by-hand.h5"), "the archive")


def test_experiments_at_the_tiny_scale():
    job = Job("experiments", "experiments.sbatch", "-N1", "--ntasks-per-node=2", SCALE="tiny", REPO=ROOT, OUT=f"{BOX}/experiments/out", WORK=f"{BOX}/experiments",
              DELTAZOO=DELTAZOO)
    job.ends("COMPLETED", limit=240)
    tables = {name: read(f"{BOX}/experiments/out/{name}").decode() for name in ("paper.md", "paper.csv", "paper-plan.csv", "paper-norms.csv", "llama-2-7b.md")}
    check("rows are above the paper's first headline" in tables["paper.md"] and "byte for byte" in tables["llama-2-7b.md"], f"{tables}")
    check(all(text.count("\n") > 4 for text in tables.values()), f"{tables}")


def test_bad_input():
    job = Job("bad", "compress.sbatch", "-N1", "--ntasks-per-node=2", ZOO=write(f"{BOX}/bad.yaml", "base: zoo/base\ntasks:\n  - {name: a, path: zoo/none}\n"))
    job.ends("FAILED", 1)
    lines = job.text().splitlines()
    check(len(lines) == 1 and lines[0].startswith("deltazoo: error: ") and "zoo/none" in lines[0], f"{job}")
    equal(sorted(os.listdir(job.folder)), ["bad.json", "log"], "left behind")
    report = json.loads(read(f"{job.folder}/bad.json"))["job"]
    equal((report["state"], report["exit_code"]), ("failed", 1), "report")


def test_restore_and_verify():
    job = Job("verify", "verify.sbatch", "-N1", "--ntasks-per-node=2", ARCHIVE=f"{BOX}/right.h5", BASE=f"{BOX}/zoo/base")
    job.ends("COMPLETED")
    check("sound, base right" in job.text(), f"{job}")
    out = f"{BOX}/restored"
    job = Job("restore", "restore.sbatch", "-N1", "--ntasks-per-node=2", ARCHIVE=f"{BOX}/right.h5", BASE=f"{BOX}/zoo/base", TASKS="task-1 task-3", OUT=out)
    job.ends("COMPLETED")
    equal(sorted(os.listdir(out)), ["task-1", "task-3"], "restored tasks")
    subprocess.run([DELTAZOO, "restore", "-q", f"{BOX}/right.h5", "--task", "task-3", "--base", f"{BOX}/zoo/base", "-o", f"{BOX}/by-hand"], check=True, capture_output=True)
    equal(hashes(f"{out}/task-3"), hashes(f"{BOX}/by-hand"), "files")
    os.mkdir(f"{BOX}/scratch")
    job = Job("use", "restore.sbatch", "-N1", "--ntasks-per-node=1", ARCHIVE=f"{BOX}/right.h5", BASE=f"{BOX}/zoo/base", TASKS="task-1 task-2", LAUNCH="srun",
              SCRATCH_DIR=f"{BOX}/scratch", USE='echo "used $TASK: $(ls $MODEL)"')
    job.ends("COMPLETED")
    check("used task-1: " in job.text() and "used task-2: " in job.text() and "safetensors" in job.text(), f"{job}")
    equal(os.listdir(f"{BOX}/scratch"), [], "scratch")
    damaged = bytearray(read(f"{BOX}/right.h5"))
    damaged[len(damaged) // 2] ^= 1
    job = Job("damage", "verify.sbatch", "-N1", "--ntasks-per-node=1", ARCHIVE=write(f"{BOX}/damaged.h5", bytes(damaged)))
    job.ends("FAILED", 3)
    check("deltazoo: damage: " in job.text(), f"{job}")


def test_time_limit():
    job = Job("limit", "compress.sbatch", "-N1", "--ntasks-per-node=2", "--time=1", "--signal=B:USR1@20", slow=True)
    job.starts_again(limit=80)
    check("interrupted: back into the queue" in job.text(), f"{job}")
    job.ends("COMPLETED")
    job.is_right(resumed=True)


def test_preemption():
    job = Job("preempted", "compress.sbatch", "-N1", "--ntasks-per-node=3", "--partition=low", "--nodelist=n2", "--exclusive", slow=True)
    job.works()
    other = Job("important", "compress.sbatch", "-N1", "--ntasks-per-node=1", "--partition=high", "--nodelist=n2", "--exclusive")
    job.starts_again()
    other.ends("COMPLETED")
    job.ends("COMPLETED")
    job.is_right(resumed=True)


def test_srun_interrupted():
    job = Job("asked", "compress.sbatch", "-N1", "--ntasks-per-node=2", slow=True, LAUNCH="srun")
    job.works()
    SLURM.call("scancel", "--batch", "--signal=USR1", job.id)
    job.starts_again()
    job.ends("COMPLETED")
    job.is_right(resumed=True)


def preempted(job, name):
    """Another job takes its node."""
    other = Job(name, "verify.sbatch", "-N1", "--ntasks-per-node=1", "--partition=high", "--nodelist=n2", "--exclusive", cluster=job.cluster, ARCHIVE=f"{BOX}/right.h5")
    job.starts_again(journal=job.folder.endswith("compress"))
    other.ends("COMPLETED")
    job.ends("COMPLETED")


LOW = ("-N1", "--ntasks-per-node=2", "--partition=low", "--nodelist=n2", "--exclusive")


def test_preemption_by_the_default_signal():
    job = Job("term-compress", "compress.sbatch", *LOW, slow=True, cluster=PLAIN)
    job.works()
    preempted(job, "term-first")
    job.is_right(resumed=True)
    check("interrupted: back into the queue" in job.text(), f"{job}")
    job = Job("term-verify", "verify.sbatch", *LOW, slow=True, cluster=PLAIN, ARCHIVE=f"{BOX}/right.h5", BASE=f"{BOX}/zoo/base")
    job.wait("RUNNING")
    time.sleep(3)
    preempted(job, "term-second")
    check("sound, base right" in job.text(), f"{job}")
    job = Job("term-restore", "restore.sbatch", *LOW, slow=True, cluster=PLAIN, ARCHIVE=f"{BOX}/right.h5", BASE=f"{BOX}/zoo/base", TASKS="task-1 task-2",
              OUT=f"{BOX}/term-restore/out")
    job.wait("RUNNING")
    time.sleep(3)
    preempted(job, "term-third")
    equal(sorted(os.listdir(f"{BOX}/term-restore/out")), ["task-1", "task-2"], "restored tasks")


def test_term_to_every_process():
    for name, how in ("steps", []), ("full", ["--full"]):
        job = Job(f"term-{name}", "compress.sbatch", "-N1", "--ntasks-per-node=2", slow=True)
        job.works()
        SLURM.call("scancel", "--signal=TERM", *how, job.id)
        job.starts_again()
        job.ends("COMPLETED")
        job.is_right(resumed=True)


def test_verify_and_restore_are_asked_to_stop():
    for script, more in ("verify", {}), ("restore", {"TASKS": "task-1 task-2", "OUT": f"{BOX}/stopped-restore/out"}):
        job = Job(f"stopped-{script}", f"{script}.sbatch", "-N1", "--ntasks-per-node=2", slow=True, ARCHIVE=f"{BOX}/right.h5", BASE=f"{BOX}/zoo/base", **more)
        job.wait("RUNNING")
        time.sleep(3)
        SLURM.call("scancel", "--batch", "--signal=USR1", job.id)
        job.starts_again(journal=False)
        job.ends("COMPLETED")
        check("interrupted: back into the queue" in job.text(), f"{job}")
    again = Job("more", "restore.sbatch", "-N1", "--ntasks-per-node=1", ARCHIVE=f"{BOX}/right.h5", BASE=f"{BOX}/zoo/base", TASKS="task-1 task-2 task-3",
                OUT=f"{BOX}/stopped-restore/out")
    again.ends("COMPLETED")
    check("out/task-1 is there already" in again.text(), f"{again}")
    equal(sorted(os.listdir(f"{BOX}/stopped-restore/out")), ["task-1", "task-2", "task-3"], "restored tasks")


def test_no_failure_without_a_word():
    for script in "compress", "verify", "restore":
        job = Job(f"absent-{script}", f"{script}.sbatch", "-N1", "--ntasks-per-node=2", ARCHIVE=f"{BOX}/{'absent-compress/a' if script == 'compress' else 'right'}.h5",
                  BASE=f"{BOX}/zoo/base", TASKS="task-1", OUT=f"{BOX}/absent-{script}/out", DELTAZOO="no-such-program")
        job.wait("FAILED")
        check("no-such-program" in job.text(), f"{job}")
    job = Job("killed", "compress.sbatch", "-N1", "--ntasks-per-node=2", slow=True)
    job.works()
    for pid in SLURM.processes(f"SLURM_JOB_ID={job.id}", "OMPI_COMM_WORLD_RANK=1"):
        os.kill(pid, signal.SIGKILL)
    job.wait("FAILED")
    check("was ended by signal 9" in job.text() and "submitted again, goes on from there" in job.text(), f"{job}")
    job = Job("unset", "compress.sbatch", "-N1", "--ntasks-per-node=1", ZOO="")
    job.ends("FAILED", 2)
    check("ZOO is not given" in job.text(), f"{job}")


def test_interrupted_in_its_last_reading():
    program = write(f"{BOX}/late", f'#!/bin/sh\n[ "$1" != verify ] || [ ! -e "$SLOW_READS" ] || sleep 60\nexec {DELTAZOO} "$@"\n')
    os.chmod(program, 0o755)
    job = Job("reading", "compress.sbatch", "-N1", "--ntasks-per-node=2", slow=True, DELTAZOO=program)
    SLURM.until(lambda: os.path.exists(job.archive) and '"state": "done"' in read(job.archive[:-3] + ".json").decode(), f"an archive: {job}", 60)
    time.sleep(1)
    SLURM.call("scancel", "--batch", "--signal=USR1", job.id)
    job.starts_again(journal=False)
    job.ends("COMPLETED")
    check("was finished by an earlier start of this job" in job.text() and "sound" in job.text(), f"{job}")
    equal(sha256(job.archive), RIGHT, "archive")


def test_requeued_job_does_not_take_anothers_archive_for_its_own():
    job = Job("foreign", "compress.sbatch", "-N1", "--ntasks-per-node=1", ARCHIVE=f"{BOX}/right.h5", REPORT=f"{BOX}/foreign.json")
    job.ends("FAILED", 2)
    SLURM.call("scontrol", "requeue", job.id)
    SLURM.until(lambda: SLURM.job(job.id).get("Restarts") == "1", "requeued")
    time.sleep(2)
    SLURM.call("scontrol", "update", f"jobid={job.id}", "StartTime=now", check=False)
    SLURM.until(lambda: job.text().count("exists already") == 2, "the second refusal")
    job.ends("FAILED", 2)


def test_requeues_have_a_limit():
    job = Job("often", "compress.sbatch", "-N1", "--ntasks-per-node=1", slow=True, MAX_REQUEUES="0")
    job.works()
    SLURM.call("scancel", "--batch", "--signal=USR1", job.id)
    job.ends("FAILED", 75)
    check("submit the same job again" in job.text(), f"{job}")


def test_cancelled_stays_cancelled():
    job = Job("cancelled", "compress.sbatch", "-N1", "--ntasks-per-node=2", slow=True)
    job.works()
    SLURM.call("scancel", job.id)
    job.wait("CANCELLED")
    time.sleep(2)
    equal((job.state(), SLURM.job(job.id)["Restarts"]), ("CANCELLED", "0"), f"state of {job}")


def test_node_failure():
    """n2 loses its power in the middle of a job; SLURM starts it on n1."""
    job = Job("lost", "compress.sbatch", "-N1", "--ntasks-per-node=2", "--partition=low", "--nodelist=n2", slow=True)
    job.works()
    SLURM.kill_node("n2")
    SLURM.call("scontrol", "update", "nodename=n2", "state=down", "reason=power")
    SLURM.until(lambda: job.state() == "PENDING", "requeued")
    SLURM.call("scontrol", "update", f"jobid={job.id}", "ReqNodeList=")
    job.starts_again()
    job.ends("COMPLETED")
    job.is_right(resumed=True)
    check("start 2 of job" in job.text() and "n1" in job.text(), f"{job}")
