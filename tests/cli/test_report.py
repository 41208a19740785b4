"""deltazoo report: a table over the reports of compress jobs."""
import json
import os
import subprocess
import time

from common import DELTAZOO, ENV, check, equal, good, read, refused, run, slow_io, stopped, tiny_zoo, with_scratch, write
from test_determinism import big_zoo


def job(folder, name, *options, ranks=1, env=None):
    good(["compress", f"{tiny_zoo()}/zoo.yaml", "-o", f"{name}.h5", "-q", "--report", f"{name}.json", *options], ranks, cwd=folder, env=env)
    return json.loads(read(f"{folder}/{name}.json"))["job"]


@with_scratch
def test_report_of_jobs(folder):
    a = job(folder, "a", ranks=3)
    b = job(folder, "b", env={"SLURM_JOB_ID": "4711", "SLURM_RESTART_COUNT": "2", "SLURM_JOB_NODELIST": "n[1-2]"})
    equal((a["slurm"], b["slurm"]), (None, {"job_id": "4711", "nodes": "n[1-2]", "restarts": 2}), "SLURM's part")
    equal((sum(a["hosts"].values()), len(a["per_rank"])), (3, 3), "ranks")
    for phase, secs in a["phase_seconds_of_ranks"].items():
        of_ranks = [r["phase_seconds"][phase] for r in a["per_rank"]]
        check(abs(secs["mean"] - sum(of_ranks) / 3) < 1e-6, f"{phase}: {secs}, {of_ranks}")
        check(abs(secs["min"] - min(of_ranks)) < 1e-6 and abs(secs["max"] - max(of_ranks)) < 1e-6, f"{phase}: {secs}, {of_ranks}")
        check(abs(a["phase_seconds"][phase] - secs["max"]) < 1e-6, f"{phase}: {a['phase_seconds']}")
    for sum_of in ("bytes_read", "bytes_written"):
        equal(a[sum_of], sum(r[sum_of] for r in a["per_rank"]), sum_of)
        check(a[sum_of] > 0, f"{sum_of} is nothing")
    lines = good(["report", "a.json", "b.json"], cwd=folder).out.splitlines()
    equal([line.split()[-1] for line in lines[:3]], ["file", "a.h5", "b.h5"], "table")
    check(all(len(line) <= 80 for line in lines), f"{lines}")
    lines = good(["report", "--wide", "a.json", "b.json"], cwd=folder).out.splitlines()
    equal([line.split()[-1] for line in lines[:3]], ["file", "a.h5", "b.h5"], "wide table")
    equal([line.split()[1:5] for line in lines[1:3]], [["done", "-", "1", "3"], ["done", "4711", "3", "1"]], "state, SLURM job, starts, ranks")
    equal((a["state"], a["exit_code"], a["errors"], a["this_start_only"]), ("done", 0, [], False), "its end")
    check(a["started"] <= a["finished"], f"{a['started']} to {a['finished']}")
    text = good(["report", "b.json"], 3, cwd=folder).out  # alone: its phases too, and once from three ranks
    check(all(text.count(phase) == 1 for phase in b["phase_seconds"]), text)


@with_scratch
def test_report_of_something_else(folder):
    job(folder, "a")
    write(f"{folder}/half.json", read(f"{folder}/a.json")[:500])
    write(f"{folder}/other.json", '{"tasks": [], "archive_bytes": 1}')
    write(f"{folder}/list.json", "[1, 2]")
    files = ["half.json", "a.json", "other.json", "list.json", "none.json"]
    r = run(["report", *files], 3, cwd=folder)
    check(r.code == 2 and r.lines("error") == ["4 of 5 files are no reports"], f"{r}")
    warnings = r.lines("warning")
    equal([next(f for f in files if f in w) for w in warnings], [f for f in files if f != "a.json"], "warnings")
    check(all("is no report" in w for w in warnings[:3]), f"{warnings}")
    equal([line.split()[-1] for line in r.out.splitlines()[:2]], ["file", "a.h5"], "the table of the one that is a report")
    refused(folder, ["report", "none.json"], 2, "1 of 1 files", ranks=(1,))
    refused(folder, ["report"], 2, "JOB.json")


@with_scratch
def test_report_with_control_characters(folder):
    report = {"job": job(folder, "a"), **json.loads(read(f"{folder}/a.json"))}
    evil = "a\x1b[31m\nb"
    for where in ("archive", "finished", "state"):
        write(f"{folder}/b.json", json.dumps(dict(report, job=dict(report["job"], **{where: evil}))))
        out = good(["report", "b.json"], cwd=folder).out
        check("a?[31m?b" in out and "\x1b" not in out, f"{where}: {out!r}")
    edited = dict(report["job"], notes=[evil], hosts={evil: 1}, phase_seconds_of_ranks={evil: {}}, errors=[evil], slurm={"job_id": evil})
    write(f"{folder}/b.json", json.dumps(dict(report, job=edited)))
    out = good(["report", "b.json"], cwd=folder).out
    check(out.count("a?[31m?b") == 5 and "\x1b" not in out, f"{out!r}")


def ended(folder, name="a.json"):
    return json.loads(read(f"{folder}/{name}"))["job"]


@with_scratch
def test_report_of_a_job_that_fails(folder):
    """It takes the place of nothing: an earlier success stays, and this job has a report of its own beside it."""
    for ranks in (1, 3):
        job(folder, "a", "--force")
        before = read(f"{folder}/a.json")
        r = run(["compress", "none.yaml", "-o", "a.h5", "--force", "--report", "a.json"], ranks, cwd=folder)
        a = ended(folder, "a.rerun.json")
        equal(read(f"{folder}/a.json"), before, "the report of the job that is done")
        check("a.json" in r.err and "a.rerun.json" in r.err, f"{r}")
        equal((a["state"], a["exit_code"], a["errors"], a["ranks"]), ("failed", r.code, r.lines("error"), ranks), "the report")
        check(r.code == 2 and a["started"] <= a["finished"] and a["seconds"] >= 0, f"{a}")
    run(["compress", f"{tiny_zoo()}/zoo.yaml", "-o", "a.h5", "--report", "a.json"], cwd=folder)
    check("exists already" in ended(folder, "a.rerun.json")["errors"][0], "an archive that exists")
    out = good(["report", "a.rerun.json"], cwd=folder).out
    check(" failed " in out and "exit code 2" in out and "exists already" in out, out)
    write(f"{folder}/mine.json", '{"precious": 1}')
    run(["compress", "none.yaml", "-o", "b.h5", "--report", "mine.json"], cwd=folder)
    equal(read(f"{folder}/mine.json"), b'{"precious": 1}', "a file that is no report")
    job(folder, "a", "--force")
    check(not os.path.exists(f"{folder}/a.rerun.json"), "the report of the failed run stays beside that of the good one")
    write(f"{folder}/f.json", "")
    run(["compress", "none.yaml", "-o", "b.h5", "--report", "f.json"], cwd=folder)
    equal(ended(folder, "f.json")["state"], "failed", "where no earlier report is")


@with_scratch
def test_report_of_nothing_to_do(folder):
    job(folder, "a")
    again = job(folder, "a", "--skip-existing")
    equal((again["state"], again["exit_code"]), ("nothing to do", 0), "state")
    equal(len(json.loads(read(f"{folder}/a.json"))["tasks"]), 2, "tasks")
    check(" nothing to do " in good(["report", "a.json"], cwd=folder).out, "the table")


@with_scratch
def test_report_of_a_job_that_is_interrupted(folder):
    zoo = big_zoo()
    args = ["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "--append", "--report", "a.json"]
    for ranks in (1, 2):
        write(f"{folder}/a.json", "")
        code, log, _ = stopped(folder, args, ranks, "statistics", SLOW_PATH=".safetensors", SLOW_MS="100", DZ_JOURNAL_AFTER="0")
        a = ended(folder)
        check(code == 75 and (a["state"], a["exit_code"], a["finished"] >= a["started"]) == ("interrupted", 75, True), f"{code} {a} {log}")
        check(a["errors"][0] in log, f"{a['errors']}, not {log}")
    good(args + ["-q"], cwd=folder)
    a = ended(folder)
    equal((a["state"], a["this_start_only"], a["notes"]), ("done", True, ["went on where an earlier run of this job was interrupted"]), "after the resume")
    check("of the last start only" in good(["report", "a.json"], cwd=folder).out, "report does not say so")


@with_scratch
def test_report_of_a_job_that_is_killed(folder):
    """An earlier report of a good end stays, and it has one of its own."""
    job(folder, "a")
    zoo = big_zoo()
    p = subprocess.Popen([DELTAZOO, "compress", f"{zoo}/zoo.yaml", "-o", "b.h5", "--report", "a.json", "-q"], cwd=folder,
                         env=dict(ENV, LD_PRELOAD=slow_io(), SLOW_PATH=".safetensors", SLOW_MS="100"))
    try:
        while not os.path.exists(f"{folder}/a.rerun.json") and p.poll() is None:
            time.sleep(0.02)
    finally:
        p.kill()
        p.wait()
    equal((ended(folder, "a.rerun.json")["state"], ended(folder, "a.rerun.json")["finished"], ended(folder)["state"]), ("running", None, "done"), "state")
    out = good(["report", "a.rerun.json"], cwd=folder).out
    check("running" in out and "was killed" in out, out)
