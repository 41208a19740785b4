"""Archives that grow and shrink, and jobs that are interrupted: what was committed stays, byte for byte."""
import fcntl
import os
import re
import shutil
import signal
import subprocess
import threading
import time

from common import ENV, DELTAZOO, Q, SmallZoo, call, check, equal, good, hashes, info, read, refused, run, sha256, st_bytes, st_parse, stopped, tiny_zoo, with_scratch, write
from test_determinism import big_zoo

COST = {"test_signal_then_resume": 8, "test_killed_then_resumed_on_other_ranks": 8, "test_signal_while_the_archive_is_written_or_read_back": 9}


def manifest(path, zoo, names):
    write(path, f"base: {zoo}/base\ntasks:\n" + "".join(f"  - {{name: {n}, path: {zoo}/{n}}}\n" for n in names))
    return path


def tasks_of(zoo):
    return sorted(n for n in os.listdir(zoo) if n.startswith("task"))


def nothing_beside(folder, archive):
    left = [n for n in os.listdir(folder) if n.startswith(archive) and n != archive]
    check(not left, f"left behind: {left}")


def wait_for_lock(path):
    """Until the last process of a killed job is gone."""
    for _ in range(600):
        try:
            with open(path) as f:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.1)
    check(False, f"{path} is still held")


@with_scratch
def test_append(folder):
    zoo = tiny_zoo("bf16")
    first, second = tasks_of(zoo)[:2]
    one, two = manifest(f"{folder}/one.yaml", zoo, [first]), manifest(f"{folder}/two.yaml", zoo, [second])
    r = good(["compress", one, "--append", "-o", "a.h5", "-q"], 2, cwd=folder)  # the first makes the archive
    check("no archive to append to" in r.out + r.err, f"the note that the archive is new is missing: {r}")
    r = good(["compress", one, "--skip-existing", "-o", "n.h5", "-q"], cwd=folder)  # what a job's second start is given
    check(not [n for n in r.lines("note") if not n.startswith("kept exactly, of all bytes")], f"{r}")
    before = info("a.h5", cwd=folder)["tasks"][0]
    good(["restore", "a.h5", "--task", first, "--base", f"{zoo}/base", "-o", "r1", "-q"], cwd=folder)
    shutil.copy(f"{folder}/a.h5", f"{folder}/b.h5")
    for ranks, archive in ((3, "a.h5"), (1, "b.h5")):
        good(["compress", two, "--append", "-o", archive, "-q"], ranks, cwd=folder)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/b.h5"), "archive appended to by 1 and 3 ranks")
    after = info("a.h5", cwd=folder)["tasks"]
    equal([t["name"] for t in after], [first, second], "tasks")
    for key in ("gamma", "trace_norm", "sparsity", "seed", "source_bytes"):
        equal(after[0][key], before[key], f"{key} of the older task")
    check(after[1]["gamma"] <= 1 and after[1]["reference_trace_norm"] == before["reference_trace_norm"], "the older reference does not hold")
    good(["restore", "a.h5", "--task", first, "--base", f"{zoo}/base", "-o", "r2", "-q"], 2, cwd=folder)
    equal(hashes(f"{folder}/r2"), hashes(f"{folder}/r1"), "the older task's files")
    good(["verify", "a.h5", "--base", f"{zoo}/base", "-q"], 3, cwd=folder)
    nothing_beside(folder, "a.h5")


@with_scratch
def test_append_what_is_there(folder):
    zoo = tiny_zoo("bf16")
    first, second = tasks_of(zoo)[:2]
    both = manifest(f"{folder}/both.yaml", zoo, [first, second])
    good(["compress", manifest(f"{folder}/one.yaml", zoo, [first]), "-o", "a.h5", "-q", "--recipe", "ultradelta"], cwd=folder)
    refused(folder, ["compress", both, "-o", "a.h5", "--append"], 2, f"'{first}'", "--replace", "--skip-existing")
    refused(folder, ["compress", both, "-o", "a.h5", "--append", "--force"], 2, "--force")
    old = sha256(f"{folder}/a.h5")
    r = good(["compress", both, "-o", "a.h5", "--skip-existing", "-q", "--recipe", "ultradelta"], 3, cwd=folder)
    check("in the archive already" in r.err, f"no word about the task that was skipped: {r}")
    equal([t["name"] for t in info("a.h5", cwd=folder)["tasks"]], [first, second], "tasks")
    done = sha256(f"{folder}/a.h5")
    r = good(["compress", both, "-o", "a.h5", "--skip-existing", "-q"], 2, cwd=folder)
    check("has all tasks" in r.out and sha256(f"{folder}/a.h5") == done != old, f"nothing was to be done: {r}")
    good(["compress", manifest(f"{folder}/other.yaml", zoo, [first]), "-o", "a.h5", "--replace", "--set", "sparsity=0.9", "-q"], 3, cwd=folder)
    equal([(t["name"], t["sparsity"]) for t in info("a.h5", cwd=folder)["tasks"]], [(second, 0.97), (first, 0.9)], "tasks")
    good(["verify", "a.h5", "-q"], cwd=folder)
    nothing_beside(folder, "a.h5")


@with_scratch
def test_headline_tells_of_the_tasks_of_this_job(folder):
    zoo = SmallZoo(folder)
    zoo.manifest("one", file="first.yaml")
    zoo.manifest("two", file="second.yaml")
    r = good(["compress", "first.yaml", "-o", "a.h5", "-q", "--set", "sparsity=0.8"], cwd=folder)
    check(r.out.startswith("a.h5: 1 task, recipe structure: method ultradelta, sparsity 0.8, 4 bits, seed 42\n"), f"headline: {r.out[:200]!r}")
    for args in ((), ("--replace",)):
        r = good(["compress", "second.yaml", "-o", "a.h5", "-q", "--append", *args, "--set", "sparsity=0.9", "--set", "bits=3", "--set", "seed=7"], 3, cwd=folder)
        check(r.out.startswith("a.h5: 2 tasks, 1 by this job: recipe structure: method ultradelta, sparsity 0.9, 3 bits, seed 7\n"), f"headline: {r.out[:200]!r}")


@with_scratch
def test_append_with_another_base(folder):
    zoo = tiny_zoo("bf16")
    first, second = tasks_of(zoo)[:2]
    good(["compress", manifest(f"{folder}/one.yaml", zoo, [first]), "-o", "a.h5", "-q"], cwd=folder)
    shutil.copytree(f"{zoo}/base", f"{folder}/other")
    path = f"{folder}/other/model.safetensors"
    data = bytearray(read(path))
    data[-9] ^= 4
    write(path, bytes(data))
    write(f"{folder}/two.yaml", f"base: other\ntasks:\n  - {{name: two, path: {zoo}/{second}}}\n")
    refused(folder, ["compress", "two.yaml", "-o", "a.h5", "--append"], 1, "not the base of a.h5", "1 tensors differ")
    write(f"{folder}/base2/model.safetensors", st_bytes([(Q, "F32", (8, 8), bytes(256))]))
    write(f"{folder}/three.yaml", f"base: base2\ntasks:\n  - {{name: two, path: {zoo}/{second}}}\n")
    refused(folder, ["compress", "three.yaml", "-o", "a.h5", "--append", "--recipe", "lossless"], 1, "not the base of a.h5")


@with_scratch
def test_append_with_the_base_in_another_order(folder):
    """The fingerprint does not depend on how the base is sharded, nor may appending."""
    zoo = tiny_zoo("bf16")
    first, second = tasks_of(zoo)[:2]
    good(["compress", manifest(f"{folder}/one.yaml", zoo, [first]), "-o", "a.h5", "-q"], cwd=folder)
    tensors = st_parse(f"{zoo}/base")
    write(f"{folder}/turned/model.safetensors", st_bytes([(n, *tensors[n]) for n in sorted(tensors, reverse=True)]))
    write(f"{folder}/two.yaml", f"base: turned\ntasks:\n  - {{name: {second}, path: {zoo}/{second}}}\n")
    good(["compress", "two.yaml", "-o", "a.h5", "--append", "-q"], 3, cwd=folder)
    for base in (f"{zoo}/base", "turned"):
        good(["verify", "a.h5", "--base", base, "-q"], cwd=folder)
        good(["restore", "a.h5", "--task", second, "--base", base, "-o", f"r-{os.path.basename(base)}", "-q"], cwd=folder)
    equal(hashes(f"{folder}/r-turned"), hashes(f"{folder}/r-base"), "files")


@with_scratch
def test_remove_and_repack(folder):
    zoo = tiny_zoo("bf16")
    names = tasks_of(zoo)
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)
    good(["compress", manifest(f"{folder}/one.yaml", zoo, [names[0]]), "-o", "one.h5", "-q"], cwd=folder)
    good(["repack", "a.h5", "-o", "same.h5"], 3, cwd=folder)
    equal(sha256(f"{folder}/same.h5"), sha256(f"{folder}/a.h5"), "an archive packed again")
    good(["restore", "a.h5", "--task", names[0], "--base", f"{zoo}/base", "-o", "r1", "-q"], cwd=folder)
    good(["repack", "a.h5", "-o", "some.h5", "--task", names[0]], cwd=folder)
    refused(folder, ["repack", "a.h5", "-o", "some.h5"], 2, "exists already")
    refused(folder, ["repack", "a.h5", "--task", names[0]], 2, "-o")
    refused(folder, ["remove", "a.h5", "--task", "x", "--task", "y"], 2, "'x'", "'y'", lines=2)
    refused(folder, ["remove", "a.h5"], 2, "--task")
    r = good(["remove", "a.h5"] + [x for n in names[1:] for x in ("--task", n)], 2, cwd=folder)
    check("1 task" in r.out, f"{r}")
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/some.h5"), "removing the others and taking one")
    check(os.path.getsize(f"{folder}/a.h5") < 1.01 * os.path.getsize(f"{folder}/one.h5"), "something of the removed tasks is still there")
    refused(folder, ["remove", "a.h5", "--task", names[0]], 2, "no task would be left")
    good(["restore", "a.h5", "--task", names[0], "--base", f"{zoo}/base", "-o", "r2", "-q"], 3, cwd=folder)
    equal(hashes(f"{folder}/r2"), hashes(f"{folder}/r1"), "files")
    nothing_beside(folder, "a.h5")


@with_scratch
def test_second_writer(folder):
    zoo = tiny_zoo("bf16")
    write(f"{folder}/a.h5.lock", f"host {os.uname().nodename} pid {os.getpid()} job 77\n")
    with open(f"{folder}/a.h5.lock") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        refused(folder, ["compress", f"{zoo}/zoo.yaml", "-o", "a.h5"], 2, "another job", os.uname().nodename, str(os.getpid()), "77", ranks=(3,))
    good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q"], cwd=folder)  # nobody holds it any more
    write(f"{folder}/a.h5.lock", "host elsewhere pid 4711 job 78\n")  # flock does not reach that host, but it has touched the file just now
    refused(folder, ["remove", "a.h5", "--task", tasks_of(zoo)[0]], 2, "elsewhere", "4711", "78", ranks=(1,))
    good(["remove", "a.h5", "--task", tasks_of(zoo)[0]], cwd=folder, env={"SLURM_JOB_ID": "78"})  # requeued: the same job
    write(f"{folder}/a.h5.lock", "host elsewhere pid 4711 job 78\n")
    os.utime(f"{folder}/a.h5.lock", (time.time() - 1000,) * 2)
    good(["repack", "a.h5"], cwd=folder)
    nothing_beside(folder, "a.h5")


def interrupted(folder, zoo, ranks, secs, number):
    """Starts a job, sends a signal to all its ranks after a while. Its exit code."""
    def parts():
        return os.listdir(f"{folder}/a.h5.journal") if os.path.isdir(f"{folder}/a.h5.journal") else []

    before = len(parts())
    p = subprocess.Popen(["mpirun", "-n", str(ranks), DELTAZOO, "compress", f"{zoo}/zoo.yaml", "-o", "a.h5"], cwd=folder,
                         env=dict(ENV, DZ_JOURNAL_AFTER="0.05"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(3000):  # until the work has begun: a signal that meets mpirun's own start kills it
        if len(parts()) > before or p.poll() is not None:
            break
        time.sleep(0.01)
    time.sleep(secs)
    p.send_signal(number)  # mpirun hands it on
    out, err = p.communicate(timeout=60)
    ended = p.returncode == -number and os.path.exists(f"{folder}/a.h5")  # the job was done, and mpirun had taken off its own handler
    return 0 if ended else p.returncode, out + err


@with_scratch
def test_signal_then_resume(folder):
    zoo = big_zoo()
    good(["compress", f"{zoo}/zoo.yaml", "-o", "want.h5", "-q"], cwd=folder)
    codes = []
    for secs in (0, 0, 0, 0, 0.1, 0.2, 0.3, 0.5, 0.8):
        code, text = interrupted(folder, zoo, 2, secs, signal.SIGUSR1)
        check(code in (0, 75), f"exit {code}: {text}")
        codes.append(code)
        if code == 0 and 75 not in codes:
            os.unlink(f"{folder}/a.h5")  # it was done before the signal came: once more
            continue
        if code == 0:
            break
        check("interrupted" in text and text.count("deltazoo: error") == 1, f"its message: {text}")
        check(sorted(n for n in os.listdir(folder) if n.startswith("a.h5")) == ["a.h5.journal"], f"{os.listdir(folder)}")
    if codes[-1] == 75:
        good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q"], 3, cwd=folder)
    check(75 in codes, "no job was interrupted: the test's pauses do not fit this machine")
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/want.h5"), "archive")
    nothing_beside(folder, "a.h5")


@with_scratch
def test_killed_then_resumed_on_other_ranks(folder):
    zoo = big_zoo()
    good(["compress", f"{zoo}/zoo.yaml", "-o", "want.h5", "-q"], cwd=folder)
    for ranks, secs in ((2, "0.9"), (3, "1.5"), (1, "0.3")):
        if not os.path.exists(f"{folder}/a.h5"):
            start = ["timeout", "-s", "KILL", secs] + (["mpirun", "-n", str(ranks)] if ranks > 1 else [])
            call(start + [DELTAZOO, "compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q"], cwd=folder, env={"DZ_JOURNAL_AFTER": "0"})
            wait_for_lock(f"{folder}/a.h5.lock")
    for part in os.listdir(f"{folder}/a.h5.journal") if os.path.isdir(f"{folder}/a.h5.journal") else ():
        path = f"{folder}/a.h5.journal/{part}"  # a node was lost: the ends of files are gone, or were never written
        size = os.path.getsize(path)
        with open(path, "r+b") as f:
            f.seek(size * 3 // 4)
            f.write(bytes(size // 8))
            f.truncate(size - size // 16)
    if not os.path.exists(f"{folder}/a.h5"):
        r = good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "-q"], 2, cwd=folder)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/want.h5"), "archive")
    nothing_beside(folder, "a.h5")


@with_scratch
def test_journal_of_another_job(folder):
    zoo = big_zoo()
    interrupted(folder, zoo, 1, 0.1, signal.SIGTERM)
    wait_for_lock(f"{folder}/a.h5.lock")
    if os.path.exists(f"{folder}/a.h5"):
        os.remove(f"{folder}/a.h5")
        os.makedirs(f"{folder}/a.h5.journal")
        write(f"{folder}/a.h5.journal/part-000000-000000", b"DZJOURN1" + bytes(24))
    r = good(["compress", f"{zoo}/zoo.yaml", "-o", "a.h5", "--set", "sparsity=0.9", "-q"], 2, cwd=folder)
    check("of another job" in r.err, f"no word about it: {r}")
    good(["compress", f"{zoo}/zoo.yaml", "-o", "want.h5", "--set", "sparsity=0.9", "-q"], cwd=folder)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/want.h5"), "archive")
    nothing_beside(folder, "a.h5")


def when_the_lock_is_free(folder, args, ranks, archive, appears):
    """A command that finds the archive's lock held, gets it a moment later, and by then the archive is there."""
    with open(f"{folder}/{archive}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = threading.Timer(1.5, lambda: (shutil.copy(appears, f"{folder}/{archive}"), os.unlink(lock.name), fcntl.flock(lock, fcntl.LOCK_UN)))
        made.start()
        try:
            return run(args, ranks, cwd=folder)
        finally:
            made.join()


@with_scratch
def test_archive_made_while_the_lock_was_awaited_stays(folder):
    zoo = tiny_zoo("bf16")
    first, second = tasks_of(zoo)[:2]
    one, two = manifest(f"{folder}/one.yaml", zoo, [first]), manifest(f"{folder}/two.yaml", zoo, [second])
    good(["compress", one, "-o", "one.h5", "-q"], cwd=folder)
    good(["compress", two, "-o", "two.h5", "-q"], cwd=folder)
    for i, (args, ranks) in enumerate(((["compress", two, "-q"], 1), (["compress", two, "-q"], 3), (["repack", "two.h5"], 1))):
        r = when_the_lock_is_free(folder, args + ["-o", f"x{i}.h5"], ranks, f"x{i}.h5", f"{folder}/one.h5")
        check(r.code == 2 and "exists already" in r.err, f"replaces what another job made meanwhile: {r}")
        equal(sha256(f"{folder}/x{i}.h5"), sha256(f"{folder}/one.h5"), "the archive of the other job")
        nothing_beside(folder, f"x{i}.h5")
    r = when_the_lock_is_free(folder, ["compress", two, "--append", "-o", "y.h5", "-q"], 3, "y.h5", f"{folder}/one.h5")
    check(r.code == 0, f"append: {r}")
    equal([t["name"] for t in info("y.h5", cwd=folder)["tasks"]], [first, second], "tasks")


@with_scratch
def test_signal_while_the_archive_is_written_or_read_back(folder):
    zoo = big_zoo()
    write(f"{folder}/exact.yaml", 'tensors:\n  - {match: "*", policy: lossless}\n')
    args = ["compress", f"{zoo}/zoo.yaml", "--recipe", "exact.yaml", "-o"]
    good(args + ["want.h5", "-q"], cwd=folder)
    check(os.path.getsize(f"{folder}/want.h5") > 6 << 20, "too few pieces for this test")
    for i, (ranks, phase, more) in enumerate(((1, "5/6 write", []), (2, "5/6 write", []), (1, "6/6 read back", []), (2, "(5/6 write|6/6 read back)", ["--io", "collective"]))):
        archive = f"a{i}.h5"
        code, log, secs = stopped(folder, args + [archive] + more, ranks, phase, SLOW_PATH=".partial", SLOW_MS="80")
        check(code == 75 and secs < 5, f"exit {code} after {secs:.1f} s: {log}")
        between = len(more) and "5/6 write      100.0 %" in log and "6/6" not in log  # MPI-IO's own writes are not slowed: it met the end of the phase
        check(between or re.search(phase + r" +interrupted at \d+\.\d %", log) and not re.search(phase + ".*  in ", log.split("interrupted at")[-1]), f"its log: {log}")
        equal(sorted(n for n in os.listdir(folder) if n.startswith(archive)), [archive + ".journal"], "left behind")
        r = good(args + [archive], 3 - ranks, cwd=folder, env={"DZ_LOG_INTERVAL": "0.01"})
        check("went on where an earlier run" in r.err, f"{r}")
        equal(sha256(f"{folder}/{archive}"), sha256(f"{folder}/want.h5"), "archive")
        nothing_beside(folder, archive)
