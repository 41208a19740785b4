"""Where figures come from: commit and machine."""
import os
import subprocess

from models import ROOT


def provenance():
    def words(*command):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else "unknown"
    def clean():  # results are what is being made
        return subprocess.run(["git", "diff-index", "--quiet", "HEAD", "--", ".", ":(exclude)results"], cwd=ROOT, stderr=subprocess.DEVNULL, check=False).returncode == 0
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown processor")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"commit": words("git", "describe", "--always", "--abbrev=10") + ("" if clean() else "-dirty"), "machine": f"{os.cpu_count()} cores of {cpu}, {memory:.0f} GiB"}
