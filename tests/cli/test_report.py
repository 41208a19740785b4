"""deltazoo report: a table over the reports of compress jobs."""
import json

from common import check, equal, good, read, refused, tiny_zoo, with_scratch, write


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
    equal([line.split()[-1] for line in lines], ["file", "a.h5", "b.h5"], "table")
    equal([line.split()[1:4] for line in lines[1:]], [["-", "1", "3"], ["4711", "3", "1"]], "SLURM job, starts, ranks")
    text = good(["report", "b.json"], 3, cwd=folder).out  # alone: its phases too, and once from three ranks
    check(all(text.count(phase) == 1 for phase in b["phase_seconds"]), text)


@with_scratch
def test_report_of_something_else(folder):
    job(folder, "a")
    write(f"{folder}/half.json", read(f"{folder}/a.json")[:500])
    write(f"{folder}/other.json", '{"tasks": [], "archive_bytes": 1}')
    write(f"{folder}/list.json", "[1, 2]")
    for name in ("half.json", "other.json", "list.json"):
        refused(folder, ["report", "a.json", name], 2, f"{name}: is no report")
    refused(folder, ["report", "a.json", "none.json"], (1, 2), "none.json")
    refused(folder, ["report"], 2, "JOB.json")
