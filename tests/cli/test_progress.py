"""Progress: a bar where somebody looks, lines in a log."""
import os
import pty
import re
import subprocess

from common import DELTAZOO, ENV, LOG_LINE, TIME_LIMIT, SmallZoo, check, read, tiny_zoo, with_scratch

COMPRESS = ["compress", "zoo.yaml", "-o", "a.h5", "--force"]


def on_terminal(folder, command, stderr=None, **env):
    """What a terminal gets from a command: all of it, but for stderr where a file is given."""
    master, slave = pty.openpty()
    try:
        p = subprocess.Popen(["timeout", "--foreground", str(TIME_LIMIT)] + command, cwd=folder, env=dict(ENV, **env), stdin=slave, stdout=subprocess.DEVNULL,
                             stderr=stderr or slave, start_new_session=True)
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # the last one has closed it
                break
            if not piece:
                break
            shown += piece
        check(p.wait() == 0, f"fails: {shown!r}")
    finally:
        os.close(master)
    return shown.decode()


def has_bar(text):
    return "\r" in text.replace("\r\n", "\n") and re.search(r"\[[#.]{24}\]", text) is not None


@with_scratch
def test_bar_on_the_terminal_of_mpirun(folder):
    os.symlink(f"{tiny_zoo()}", f"{folder}/zoo")
    args = ["compress", "zoo/zoo.yaml", "-o", "a.h5", "--force", "--set", "tracenorm=exact"]
    for command in (["mpirun", "-n", "2", DELTAZOO], [DELTAZOO]):
        shown = on_terminal(folder, command + args)
        check(has_bar(shown), f"no bar: {shown!r}")
        check(re.search(r"trace norm \[[#.]{24}\]", shown), f"nothing of the trace norms: {shown!r}")
        check(not re.search(LOG_LINE, shown), f"lines of a log on a terminal: {shown!r}")
        check(not re.search(r"100 %[^\r]* (?!0\.0)\S+ \S+ left", shown), f"all is done, and something is left: {shown!r}")


@with_scratch
def test_lines_where_no_terminal_is_written_to(folder):
    SmallZoo(folder)
    mpirun, tail = ["mpirun", "-n", "2"], ' "$@" 2>&1 >/dev/null | cat >log'
    with open(f"{folder}/log", "w") as log:
        on_terminal(folder, mpirun + [DELTAZOO] + COMPRESS, stderr=log)
    logs = [read(f"{folder}/log").decode()]
    for command in (["sh", "-c", "mpirun -n 2" + tail, "sh", DELTAZOO], mpirun[:1] + ["-n", "1", "sh", "-c", tail, "sh", DELTAZOO],
                    ["sh", "-c", tail, "sh", DELTAZOO]):
        on_terminal(folder, command + COMPRESS)
        logs.append(read(f"{folder}/log").decode())
    logs.append(on_terminal(folder, mpirun + [DELTAZOO] + COMPRESS, DZ_PROGRESS="lines"))
    for text in logs:
        check(not has_bar(text) and re.search(LOG_LINE, text), f"no log: {text!r}")


@with_scratch
def test_messages_fit_the_terminal_and_are_one_line_in_a_log(folder):
    """Notes and errors break between words on a terminal, also on that of mpirun."""
    zoo = SmallZoo(folder, "BF16")
    text = "no tensor of this model is called anything like that, " * 3
    os.makedirs(f"{folder}/{'x' * 30} {'y' * 30} {'z' * 30}")
    command = [DELTAZOO, "compress", "zoo.yaml", "-o", "a.h5", "--recipe", "r.yaml", "-q"]
    with open(f"{folder}/r.yaml", "w") as f:
        f.write("tensors:\n" + "".join(f'  - {{match: "nothing-{i} has this name*", policy: ultradelta}}\n' for i in range(3)) + '  - {match: "*", policy: structure}\n')
    zoo.compress("log.h5", "--recipe", "r.yaml")
    p = subprocess.run(command[:4] + ["b.h5"] + command[5:], cwd=folder, env=ENV, capture_output=True, text=True)
    notes = [line for line in p.stderr.splitlines() if line.startswith("deltazoo: note: ")]
    check(any(len(line) > 80 for line in notes), f"no note is long enough: {p.stderr} {text}")
    for start in ([], ["mpirun", "-n", "2"]):
        shown = on_terminal(folder, start + command + ["--force"], COLUMNS="80").replace("\r\n", "\n")
        check(all(len(line) <= 80 for line in shown.splitlines()), f"{start}: wider than the terminal: {shown}")
        whole = re.sub(r"\n    ", " ", shown)
        check(all(note in whole for note in notes), f"{start}: not the same notes: {shown!r}, not {notes}")
