"""deltazoo tune: the user's own evaluation decides how much noise each task bears.

The models are linear classifiers; the evaluation is a program of its own that reads the restored safetensors and prints the share of held-out inputs that
they classify as the fine-tuned model's data say, or its cross entropy.
"""
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np

from common import DELTAZOO, ENV, RANKS, ROOT, check, equal, good, info, read, refused, run, sha256, snapshot, st_bytes, to_dtype, with_scratch, write

COST = {"test_the_smallest_archive_within_the_limit": 25, "test_same_bytes_for_any_number_of_ranks": 25}
NAME = "model.layers.0.mlp.up_proj.weight"
EMBED = "model.embed_tokens.weight"

SCORE = r'''
import json, os, struct, sys
import numpy as np
model, task, kind = sys.argv[1:4]
with open("calls", "a") as f:
    f.write(f"{task} {os.path.basename(model)}\n")
path = os.path.join(model, "model.safetensors") if os.path.isdir(model) else model
raw = open(path, "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
t = json.loads(raw[8:8 + n])["model.layers.0.mlp.up_proj.weight"]
w = np.frombuffer(raw[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]], np.float32).reshape(t["shape"])
data = np.load(f"held-out-{task}.npz")
logits = data["x"] @ w.T
p = np.exp(logits - logits.max(1, keepdims=True))
p /= p.sum(1, keepdims=True)
right = p[np.arange(len(p)), data["y"]]
print("evaluated", len(p), "inputs")
print("accuracy:" if kind == "accuracy" else "loss:", np.mean(logits.argmax(1) == data["y"]) if kind == "accuracy" else -np.mean(np.log(right)))
'''


def make(folder, tasks=(("strong", 0.6), ("weak", 0.2))):
    """Linear classifiers of 64 classes; the inputs of each task are drawn anew, their labels are of the true fine-tuned weights."""
    rng = np.random.default_rng(11)
    shape = (64, 256)
    base = rng.standard_normal(shape).astype(np.float32)
    embed = rng.standard_normal((32, 64)).astype(np.float32)
    models = {"base": base}
    for task, size in tasks:
        models[task] = base + rng.standard_normal(shape).astype(np.float32) * np.float32(size)
        x = rng.standard_normal((4000, 256)).astype(np.float32) / 4
        np.savez(f"{folder}/held-out-{task}.npz", x=x, y=np.argmax(x @ models[task].T, 1))
    for name, w in models.items():
        write(f"{folder}/{name}/model.safetensors", st_bytes([(EMBED, "F32", embed.shape, to_dtype(embed.ravel(), "F32")),
                                                              (NAME, "F32", shape, to_dtype(w.ravel(), "F32"))]))
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n" + "".join(f"  - {{name: {t}, path: {t}}}\n" for t, _ in tasks))
    write(f"{folder}/score.py", SCORE)


def command(kind="accuracy"):
    return f"{sys.executable} score.py {{model}} {{task}} {kind}"


def tune(folder, *more, kind="accuracy", ranks=1, drop="0.15", out="a.h5", **options):
    return good(["tune", "zoo.yaml", "--eval", command(kind), "--max-drop", drop, "-o", out, *more], ranks, cwd=folder, **options)


def calls(folder):
    path = f"{folder}/calls"
    return read(path).decode().split("\n")[:-1] if os.path.exists(path) else []


def score_of(folder, archive, task, kind="accuracy"):
    """Of the task as any user restores it."""
    good(["restore", archive, "--task", task, "--base", "base", "-o", f"again-{task}"], cwd=folder)
    p = subprocess.run([sys.executable, "score.py", f"again-{task}", task, kind], cwd=folder, capture_output=True, text=True, check=True)
    return float(p.stdout.split()[-1])


def no_traces(folder, *kept):
    left = [n for n in sorted(os.listdir(folder)) if "tune" in n or "scratch" in n or "partial" in n or "journal" in n or "lock" in n]
    equal([n for n in left if n not in kept], [], "left behind")


@with_scratch
def test_the_smallest_archive_within_the_limit(folder):
    make(folder)
    r = tune(folder, "--plot", "scores.svg")
    shown = {t["name"]: t for t in info("a.h5", cwd=folder)["tasks"]}
    equal(len(calls(folder)), 2 * (2 + 5), "evaluations")
    for task in ("strong", "weak"):
        score = shown[task]["score"]
        equal(score["original"], 1.0, f"{task}: the original's score")
        check(score["base"] < 0.9 and score["drop_type"] == "absolute" and score["max_drop"] == 0.15 and score["better"] == "higher", f"{score}")
        equal(score["evaluations"], 7, f"{task}: evaluations")
        equal(score["command"], command(), f"{task}: command")
        again = score_of(folder, "a.h5", task)
        check(abs(again - score["tuned"]) < 1e-12 and 0 < score["drop"] <= 0.15, f"{task}: {score}, scored again {again}")
        recipe = info("a.h5", task, folder)["tasks"][0]["recipe_text"]
        noise = float(re.search(r"noise_to_delta: (\S+)", recipe).group(1))
        # the next rung of the ladder loses too much
        good(["compress", "zoo.yaml", "-o", "next.h5", "--force", "-q", "--set", f"noise_to_delta={noise * 2 ** (16 / 32):.3g}", "--set",
              "noise_to_base=1000000"], cwd=folder)
        good(["restore", "next.h5", "--task", task, "--base", "base", "-o", f"next-{task}"], cwd=folder)
        p = subprocess.run([sys.executable, "score.py", f"next-{task}", task, "accuracy"], cwd=folder, capture_output=True, text=True, check=True)
        check(1 - float(p.stdout.split()[-1]) > 0.15, f"{task}: noise {noise} was chosen, and the next rung is within the limit too: {p.stdout}")
    noise = [re.search(r"noise_to_delta: (\S+)", info("a.h5", t, folder)["tasks"][0]["recipe_text"]).group(1) for t in ("strong", "weak")]
    check(float(noise[0]) < float(noise[1]), f"the weak task bears more noise of its own delta: {noise}")
    svg = read(f"{folder}/scores.svg").decode()
    check("strong" in svg and svg.count("<circle") >= 10 and "made by deltazoo" in svg, "the plot")
    for want in ("strong: original 1, base", "chosen", "too much", "tuned task"):
        check(want in r.out, f"{want!r} is not printed: {r.out}")
    check(all(len(line) <= 80 for line in r.out.splitlines()), f"wider than a terminal: {r.out}")
    check("tuned task" in good(["info", "a.h5"], cwd=folder).out, "info shows no score")
    no_traces(folder)


@with_scratch
def test_scores_stay_with_their_task(folder):
    """Through remove and append; and the settings go into zoo.yaml by hand, for the same task."""
    make(folder)
    tune(folder)
    before = {t["name"]: t["score"] for t in info("a.h5", cwd=folder)["tasks"]}
    noise = re.search(r"noise_to_delta: (\S+)", info("a.h5", "weak", folder)["tasks"][0]["recipe_text"]).group(1)
    good(["remove", "a.h5", "--task", "strong"], cwd=folder)
    good(["compress", "zoo.yaml", "-o", "a.h5", "--skip-existing", "-q"], cwd=folder)
    after = {t["name"]: t["score"] for t in info("a.h5", cwd=folder)["tasks"]}
    equal(after, {"weak": before["weak"], "strong": None}, "scores")
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: strong, path: strong, quality: lossless}\n"
          f"  - {{name: weak, path: weak, noise_to_delta: {noise}, noise_to_base: 1000000}}\n")
    good(["compress", "zoo.yaml", "-o", "b.h5", "-q"], ranks=3, cwd=folder)
    good(["restore", "b.h5", "--all", "--base", "base", "-o", "b"], cwd=folder)
    good(["restore", "a.h5", "--task", "weak", "--base", "base", "-o", "a"], cwd=folder)
    check(read(f"{folder}/b/strong/model.safetensors") == read(f"{folder}/strong/model.safetensors"), "quality lossless")
    w = slice(-64 * 256 * 4, None)
    check(read(f"{folder}/b/weak/model.safetensors")[w] == read(f"{folder}/a/model.safetensors")[w], "the setting by hand")


@with_scratch
def test_the_python_reader_knows_the_score(folder):
    make(folder, (("strong", 0.6),))
    tune(folder, "--max-evaluations", "1")
    code = "import deltazoo, json; print(json.dumps(deltazoo.open('a.h5').task('strong')['score']))"
    p = subprocess.run([sys.executable, "-c", code], cwd=folder, env=dict(ENV, PYTHONPATH=f"{ROOT}/src/python"), capture_output=True, text=True)
    check(p.returncode == 0, p.stderr)
    equal(json.loads(p.stdout), info("a.h5", "strong", folder)["tasks"][0]["score"], "score")
    good(["verify", "a.h5", "--base", "base"], cwd=folder)


@with_scratch
def test_a_score_that_is_none(folder):
    """Whatever other tools put there: no score, and nothing else is lost."""
    import h5py
    make(folder, (("strong", 0.6),))
    tune(folder, "--max-evaluations", "1")
    for value in (np.bytes_(b"not JSON"), np.bytes_(b"[1, 2]"), "a text of variable length", np.float64(3)):
        with h5py.File(f"{folder}/a.h5", "r+") as f:
            del f["tasks/strong"].attrs["score"]
            f["tasks/strong"].attrs["score"] = value
        equal(info("a.h5", "strong", folder)["tasks"][0]["score"], None, f"score of {value!r}")
        check("tuned task" not in good(["info", "a.h5"], cwd=folder).out, f"{value!r} is shown")
        good(["verify", "a.h5", "--base", "base"], cwd=folder)


@with_scratch
def test_lower_is_better(folder):
    make(folder)
    tune(folder, "--better", "lower", "--max-evaluations", "4", kind="loss", drop="0.05")
    for task in ("strong", "weak"):
        score = info("a.h5", task, folder)["tasks"][0]["score"]
        check(score["base"] > score["original"] and 0 < score["drop"] <= 0.05 and score["better"] == "lower", f"{task}: {score}")
        check(abs(score_of(folder, "a.h5", task, "loss") - score["tuned"]) < 1e-9, f"{task}: {score}")


@with_scratch
def test_relative_drop(folder):
    make(folder, (("strong", 0.6),))
    tune(folder, "--better", "lower", "--max-evaluations", "4", kind="loss", drop="10%")
    score = info("a.h5", "strong", folder)["tasks"][0]["score"]
    check(score["drop_type"] == "relative" and score["max_drop"] == 0.1 and 0 < score["drop"] <= 0.1 * score["original"], f"{score}")


@with_scratch
def test_no_drop_at_all_is_lossless(folder):
    """An evaluation that sees every bit."""
    make(folder, (("strong", 0.6),))
    write(f"{folder}/same.py", "import sys\na, b = (open(f'{p}/model.safetensors', 'rb').read()[-65536:] for p in sys.argv[1:3])\nprint(float(a == b))\n")
    r = good(["tune", "zoo.yaml", "--eval", f"{sys.executable} same.py {{model}} {{task}}", "--max-drop", "0", "-o", "a.h5"], cwd=folder)
    t = info("a.h5", "strong", folder)["tasks"][0]
    equal((t["lossy"]["verdict"], t["score"]["tuned"], t["score"]["drop"]), ("exact", 1.0, 0.0), "the task")
    check("lossless" in r.out, r.out)
    good(["restore", "a.h5", "--task", "strong", "--base", "base", "-o", "r"], cwd=folder)
    check(read(f"{folder}/r/model.safetensors") == read(f"{folder}/strong/model.safetensors"), "the restored model differs")


@with_scratch
def test_killed_it_goes_on(folder):
    """No evaluation is done twice but the one that was killed."""
    make(folder, (("strong", 0.6),))
    write(f"{folder}/slow.sh", f'#!/bin/sh\nn=$(wc -l < calls 2>/dev/null || echo 0)\n[ "$n" != 4 ] || [ -e "$PWD/went-on" ] || {{ touch "$PWD/hangs"; sleep 60; }}\n'
          f'exec {sys.executable} score.py "$@"\n')
    args = ["tune", "zoo.yaml", "--eval", "sh slow.sh {model} {task} accuracy", "--max-drop", "0.02", "-o", "a.h5"]
    p = subprocess.Popen([DELTAZOO, *args], cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.time() + 50
    while not os.path.exists(f"{folder}/hangs") and time.time() < until:
        time.sleep(0.05)
    p.send_signal(signal.SIGKILL)
    p.communicate()
    equal(len(calls(folder)), 4, "evaluations before")
    check(os.path.exists(f"{folder}/a.h5.tune/strong.json") and not os.path.exists(f"{folder}/a.h5"), "the state")
    write(f"{folder}/went-on", "")
    good(args, cwd=folder)
    equal(len(calls(folder)), 7, "evaluations in all")
    good(["tune", "zoo.yaml", "--eval", "sh slow.sh {model} {task} accuracy", "--max-drop", "0.02", "-o", "b.h5"], cwd=folder)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/b.h5"), "the archive of a run that was not killed")
    no_traces(folder)


@with_scratch
def test_stopped_by_a_signal(folder):
    """The command and its children end too; exit code 75; the same command goes on."""
    make(folder, (("strong", 0.6),))
    write(f"{folder}/slow.sh", 'echo $$ > pid\nsleep 60\necho 1\n')
    args = ["tune", "zoo.yaml", "--eval", "sh slow.sh {model}", "--max-drop", "0.02", "-o", "a.h5"]
    p = subprocess.Popen([DELTAZOO, *args], cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.time() + 30
    while not (os.path.exists(f"{folder}/pid") and read(f"{folder}/pid").strip()) and time.time() < until:
        time.sleep(0.05)
    p.send_signal(signal.SIGTERM)
    _, err = p.communicate(timeout=20)
    equal(p.returncode, 75, f"exit code ({err})")
    check("goes on where it stopped" in err and err.count("deltazoo: error:") == 1, err)
    stat = f"/proc/{int(read(f'{folder}/pid'))}/stat"
    until = time.time() + 10  # it was killed, but on a busy machine it takes a moment to be gone; by itself it would run for a minute

    def running():
        try:
            return read(stat).split()[2] != b"Z"
        except OSError:
            return False

    while running() and time.time() < until:
        time.sleep(0.05)
    check(not running(), "the command is still running")
    no_traces(folder)


@with_scratch
def test_command_that_fails(folder):
    """One line with task, candidate, exit code and the last line of its output; what was scored is kept."""
    make(folder, (("strong", 0.6),))
    write(f"{folder}/breaks.sh", f'case "$1" in *noise*) echo "{{}}"; echo "CUDA error: out of memory" >&2; exit 7;; esac\nexec {sys.executable} score.py "$@"\n')
    for ranks in (1, 3):
        r = run(["tune", "zoo.yaml", "--eval", "sh breaks.sh {model} {task} accuracy", "--max-drop", "0.02", "-o", "a.h5"], ranks, cwd=folder)
        equal(set(r.codes), {1}, f"exit codes: {r}")
        lines = r.lines("error")
        equal(len(lines), 1, f"lines: {r}")
        for want in ("'strong'", "noise_to_delta 1", "exit code 7", "CUDA error: out of memory"):
            check(want in lines[0], f"{want!r} is not in {lines[0]!r}")
        equal(len(calls(folder)), 2, "evaluations")
        equal(sorted(os.listdir(f"{folder}/a.h5.tune")), ["strong.json"], "what is left")
        check(not os.path.exists(f"{folder}/a.h5"), "an archive")


@with_scratch
def test_command_without_a_number(folder):
    make(folder, (("strong", 0.6),))
    args = lambda text: ["tune", "zoo.yaml", "--eval", text, "--max-drop", "0.02", "-o", "a.h5"]
    for text, *wanted in ((": {model}; echo model2 is fine", "original", "no number", "model2 is fine"),
                          (": {model}", "no number", "(none)"),
                          ("echo 5 >&2; : {model}", "no number"),
                          ("kill -9 $$; : {model}", "signal 9"),
                          ("echo nan; : {model}", "original", "nan"),
                          ("no-such-program {model}", "exit code 127")):
        r = run(args(text), cwd=folder)
        check(r.code == 1 and len(r.lines("error")) == 1 and all(w in r.lines("error")[0] for w in wanted + ["'strong'"]), f"{text}: {r}")
        check(not os.path.exists(f"{folder}/a.h5.tune"), f"{text}: left behind")


@with_scratch
def test_command_that_closes_its_output(folder):
    make(folder, (("strong", 0.6),))
    text = ": {model}; echo 0.5; exec >&- 2>&-; sleep 0.3; exit 7"
    r = run(["tune", "zoo.yaml", "--eval", text, "--max-drop", "0.02", "-o", "a.h5"], cwd=folder)
    equal(r.code, 1, f"exit code: {r}")
    for want in ("original", "exit code 7", "its last line: 0.5"):
        check(want in r.lines("error")[0], f"{want!r} is not in {r}")


@with_scratch
def test_state_of_another_job_is_refused(folder):
    make(folder, (("strong", 0.6),))
    good(["tune", "zoo.yaml", "--eval", command(), "--max-drop", "0.02", "-o", "a.h5", "--task", "strong", "--max-evaluations", "1"], cwd=folder)
    refused(folder, ["tune", "zoo.yaml", "--eval", command("loss"), "--max-drop", "0.02", "-o", "a.h5"], 2, "strong.json", "command")
    refused(folder, ["tune", "zoo.yaml", "--eval", command(), "--max-drop", "0.02", "-o", "a.h5", "--set", "seed=1"], 2, "strong.json", "recipe")
    os.utime(f"{folder}/base/model.safetensors", (1, 1))
    refused(folder, ["tune", "zoo.yaml", "--eval", command(), "--max-drop", "0.02", "-o", "a.h5"], 2, "strong.json", "models")
    write(f"{folder}/a.h5.tune/strong.json", "{}")
    refused(folder, ["tune", "zoo.yaml", "--eval", command(), "--max-drop", "0.02", "-o", "a.h5"], 2, "strong.json", "not a state")


@with_scratch
def test_one_task_after_the_other(folder):
    """As in a job array; more evaluations go on where fewer have ended; the last call makes the archive without any evaluation."""
    make(folder)
    for task in ("weak", "strong"):
        r = tune(folder, "--task", task, "--max-evaluations", "3")
        check(f"{task}: original" in r.out and "without --task" in r.out, r.out)
    equal(len(calls(folder)), 10, "evaluations")
    check(not os.path.exists(f"{folder}/a.h5"), "an archive")
    tune(folder, "--task", "weak")
    equal(len(calls(folder)), 12, "evaluations with two more")
    tune(folder, "--task", "strong")
    tune(folder)
    equal(len(calls(folder)), 14, "evaluations in all")
    tune(folder, out="b.h5")
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/b.h5"), "the archive of one call")


@with_scratch
def test_same_bytes_for_any_number_of_ranks(folder):
    make(folder)
    os.makedirs(f"{folder}/fast")
    for ranks in RANKS:
        tune(folder, "--max-evaluations", "3", "--scratch", "fast", ranks=ranks, out=f"{ranks}.h5")
        equal(os.listdir(f"{folder}/fast"), [], "scratch")
    equal(len({sha256(f"{folder}/{ranks}.h5") for ranks in RANKS}), 1, "different archives")


@with_scratch
def test_the_command_does_not_see_the_launcher(folder):
    """A program of its own under mpirun; all processors of the ranks."""
    make(folder, (("strong", 0.6),))
    write(f"{folder}/env.sh", "env > seen; echo 1\n")
    good(["tune", "zoo.yaml", "--eval", "sh env.sh {model}", "--max-drop", "0", "-o", "a.h5", "--max-evaluations", "1"], 3, cwd=folder)
    names = [line.split("=")[0] for line in read(f"{folder}/seen").decode().splitlines()]
    equal([n for n in names if n.startswith(("OMPI_COMM", "PMIX_", "PMI_"))], [], "variables of the launcher")


@with_scratch
def test_dry_run(folder):
    """Nothing is run, nothing is made."""
    make(folder)
    before = snapshot(folder)
    r = tune(folder, "--dry-run")
    equal(snapshot(folder), before, "the folder")
    for want in ("at most 14 evaluations", "5 candidates", "strong", "score.py {model}"):
        check(want in r.out, f"{want!r} is not in {r.out}")
    check(all(len(line) <= 80 or "score.py" in line for line in r.out.splitlines()), r.out)
    plan = json.loads(tune(folder, "--dry-run", "--json", "--max-evaluations", "2").out)
    equal((plan["most_evaluations"], [len(t["candidates"]) for t in plan["tasks"]]), (8, [3, 3]), "the plan as JSON")
    equal(snapshot(folder), before, "the folder")


@with_scratch
def test_jobs_share_a_scratch_folder(folder):
    """Two jobs at the same time, for tasks of one name in one scratch folder; the command may change its folder."""
    make(folder, (("strong", 0.6),))
    os.makedirs(f"{folder}/fast")
    write(f"{folder}/slow.sh", f'cd / && test -e "$1" || exit 9\ncd {folder}\nsleep 0.3\nexec {sys.executable} score.py "$@"\n')
    args = ["tune", "zoo.yaml", "--eval", "sh slow.sh {model} {task} accuracy", "--max-drop", "0.15", "--scratch", "fast", "--max-evaluations", "3", "-o"]
    jobs = [subprocess.Popen([DELTAZOO, *args, f"{name}.h5"], cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for name in "ab"]
    for p in jobs:
        _, err = p.communicate(timeout=60)
        equal(p.returncode, 0, err)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/b.h5"), "archives")
    equal(os.listdir(f"{folder}/fast"), [], "scratch")


@with_scratch
def test_one_job_at_a_time(folder):
    make(folder, (("strong", 0.6),))
    write(f"{folder}/slow.sh", 'touch begun\nsleep 30\necho 1\n')
    args = ["tune", "zoo.yaml", "--eval", "sh slow.sh {model}", "--max-drop", "0", "-o", "a.h5"]
    p = subprocess.Popen([DELTAZOO, *args], cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.time() + 30
    while not os.path.exists(f"{folder}/begun") and time.time() < until:
        time.sleep(0.05)
    r = run(args, cwd=folder)
    check(r.code == 2 and len(r.lines("error")) == 1 and "strong.json" in r.lines("error")[0], f"the second job: {r}")
    p.send_signal(signal.SIGTERM)
    p.communicate(timeout=20)
    equal(p.returncode, 75, "the first job")


@with_scratch
def test_stopped_under_mpirun(folder):
    """USR1, which SLURM sends, on several ranks; then the same command goes on."""
    make(folder, (("strong", 0.6),))
    write(f"{folder}/slow.sh", f'[ -e went-on ] || {{ touch begun; sleep 60; }}\nexec {sys.executable} score.py "$@"\n')
    args = ["tune", "zoo.yaml", "--eval", "sh slow.sh {model} {task} accuracy", "--max-drop", "0.15", "--max-evaluations", "1", "-o", "a.h5"]
    p = subprocess.Popen(["mpirun", "-n", "3", DELTAZOO, *args], cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.time() + 30
    while not os.path.exists(f"{folder}/begun") and time.time() < until:
        time.sleep(0.05)
    p.send_signal(signal.SIGUSR1)
    _, err = p.communicate(timeout=30)
    check(p.returncode == 75 and err.count("goes on where it stopped") == 1, f"exit {p.returncode}: {err}")
    no_traces(folder)
    write(f"{folder}/went-on", "")
    good(args, 3, cwd=folder)
    equal(len(calls(folder)), 3, "evaluations")


@with_scratch
def test_settings_of_a_task_are_shown(folder):
    make(folder)
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: strong, path: strong, quality: lossless}\n  - {name: weak, path: weak}\n")
    check("task strong: method auto, quality lossless" in good(["plan", "zoo.yaml"], cwd=folder).out, "plan")
    out = good(["compress", "zoo.yaml", "-o", "a.h5", "-q"], cwd=folder).out
    check("1 task with settings of its own" in out and re.search(r"strong .* exact", out) and re.search(r"weak .* balanced", out), out)


@with_scratch
def test_models_of_one_file(folder):
    """The command gets a file where the manifest has one."""
    make(folder, (("strong", 0.6),))
    write(f"{folder}/zoo.yaml", "base: base/model.safetensors\ntasks:\n  - {name: strong, path: strong/model.safetensors}\n")
    tune(folder, "--max-evaluations", "2")
    equal(calls(folder), ["strong model.safetensors"] * 4, "what the command was given")


@with_scratch
def test_equal_candidates_are_scored_once(folder):
    """A task whose matrices are the base's is exact at every limit: only original and base are scored."""
    make(folder, (("strong", 0.6),))
    base, start = read(f"{folder}/base/model.safetensors"), 32 * 64 * 4 + 64 * 256 * 4
    write(f"{folder}/strong/model.safetensors", base[:-start] + b"\0\0\0\0" + base[4 - start:])
    tune(folder)
    equal(len(calls(folder)), 2, "evaluations")
    equal(info("a.h5", "strong", folder)["tasks"][0]["lossy"]["verdict"], "exact", "verdict")


@with_scratch
def test_what_is_refused(folder):
    make(folder)
    args = lambda *more, out="a.h5", text=command(), drop="0.02": ["tune", "zoo.yaml", "--eval", text, "--max-drop", drop, "-o", out, *more]
    refused(folder, ["tune", "zoo.yaml", "--eval", command(), "-o", "a.h5"], 2, "--max-drop")
    refused(folder, args(text="echo 1"), 2, "{model}")
    refused(folder, args(drop="-1"), 2, "--max-drop", "-1")
    refused(folder, args(drop="some"), 2, "--max-drop", "some")
    refused(folder, args("--better", "large"), 2, "--better", "large")
    refused(folder, args("--max-evaluations", "0"), 2, "--max-evaluations")
    refused(folder, args("--task", "none"), 2, "none", "zoo.yaml")
    refused(folder, args("--scratch", "none"), 2, "--scratch", "none")
    refused(folder, args("--recipe", "ultradelta"), 2, "method auto")
    refused(folder, args("--set", "target_ratio=100"), 2, "target_ratio")
    refused(folder, args(out="zoo.yaml"), 2, "zoo.yaml")
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: strong, path: strong, quality: high}\n")
    refused(folder, args(), 2, "zoo.yaml:3", "quality")
    refused(folder, ["compress", "zoo.yaml", "-o", "a.h5", "--target-ratio", "100"], 2, "zoo.yaml:3", "target_ratio")
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: strong, path: strong, quality: best}\n")
    refused(folder, ["compress", "zoo.yaml", "-o", "a.h5"], 2, "zoo.yaml:3", "best")
