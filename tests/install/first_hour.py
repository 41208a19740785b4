"""What a new user sees in the first hour, from `make install` to a restored model, in a terminal of 80 columns: `python tests/install/first_hour.py` writes
results/first-hour.txt."""
import os
import pty
import re
import subprocess
import sys
import tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
REPORT = os.path.join(ROOT, "results", "first-hour.txt")
COLUMNS = 80

# Command, and the exit code that it has. What is wrong on purpose is what new users get wrong.
STEPS = [
    (f"make --no-print-directory -C '{ROOT}' install PREFIX=\"$PWD/dz\"", 0),
    ("PATH=$PWD/dz/bin:$PATH", 0),
    ("deltazoo --version", 0),
    ("deltazoo -h", 0),
    ("deltazoo doctor", 0),
    ("deltazoo synth --shape tiny --tasks 3 --dtype bf16 --seed 1 -o models", 0),
    ("deltazoo scan models", 0),
    ("deltazoo scan models -o zoo.yaml --force", 0),
    ("deltazoo diff models/base models/task-1", 0),
    ("deltazoo compress", 2),
    ("deltazoo compress zoo.yaml", 2),
    ("deltazoo compress zoo.yaml -o nodir/zoo.h5", 2),
    ("deltazoo compress zoo.yaml -o zoo.h5 --bits 3", 2),
    ("deltazoo help quality", 0),
    ("deltazoo help recipes", 0),
    ("deltazoo plan zoo.yaml", 0),
    ("deltazoo compress zoo.yaml -o zoo.h5 --report job.json", 0),
    ("deltazoo compress zoo.yaml -o zoo.h5", 2),
    ("deltazoo info zoo.h5", 0),
    ("deltazoo info zoo.h5 --task task-1", 0),
    ("deltazoo info zoo.h5 --plot zoo.pdf", 2),
    ("deltazoo info zoo.h5 --task task-2 --plot task-2.svg >/dev/null; ls *.svg", 0),
    ("deltazoo report job.json", 0),
    ("deltazoo verify zoo.h5 --base models/base", 0),
    ("deltazoo restore zoo.h5 --task task-1 --base models/task-2 -o math", 1),
    ("deltazoo restore zoo.h5 --task task-1 --base models/base -o math", 0),
    ("deltazoo restore zoo.h5 --task task-1 --base models/base -o math", 2),
    ("deltazoo restore zoo.h5 --all --base models/base -o all", 0),
    ("ls math all", 0),
    ("deltazoo compare zoo.h5 --task task-1 --base models/base \\\n    --finetuned models/task-1", 0),
    ("deltazoo scan all", 1),
    ("deltazoo unmark math", 0),
]


def on_terminal(shell, folder):
    """What a terminal of 80 columns has of a command in the end, and the command's exit code."""
    master, slave = pty.openpty()
    import fcntl
    import struct
    import termios
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    env = {k: v for k, v in os.environ.items() if not re.match("COLUMNS$|MAKE|MFLAGS|DZ_", k)}
    p = subprocess.Popen(["bash", "-c", shell], cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    lines = []
    for line in shown.decode(errors="replace").replace("\r\n", "\n").split("\n"):
        line = line.split("\r")[-1]  # a progress bar is drawn over itself
        lines.append(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).expandtabs())
    return p.wait(), "\n".join(lines).rstrip("\n")


def transcript():
    """Text, and what went wrong."""
    parts, wrong = [], []
    subprocess.run(["make", "--no-print-directory", "-C", ROOT, "all", "man"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(prefix="dz-hour-") as folder:
        setup = ""
        for command, code in STEPS:
            got, shown = on_terminal(f"{setup}{command}", folder)
            if command.startswith("PATH="):
                setup = f"{command}\n"
            typed = command.replace(f"--no-print-directory -C '{ROOT}' ", "").replace('"$PWD/dz"', "$PWD/dz")
            shown = shown.replace(folder, "~")
            parts.append(f"$ {typed}\n" + (shown + "\n" if shown else ""))
            if got != code:
                wrong.append(f"{command}: exit {got}, not {code}: {shown[-300:]}")
    text = "\n".join(parts)
    wrong += [f"{len(line)} columns: {line}" for line in text.split("\n") if len(line) > COLUMNS]
    return text, wrong


if __name__ == "__main__":
    TEXT, WRONG = transcript()
    with open(REPORT, "w") as f:
        f.write(TEXT)
    sys.exit("\n".join(WRONG) or 0)
