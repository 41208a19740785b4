"""One job on two hosts: network namespaces with names of their own, a cable between them, mpirun over TCP. The archive has the bytes of one host; when the cable is cut
in the middle the job ends by its watchdog, leaves no process behind, and the same command goes on."""
import glob
import json
import os
import random
import re
import signal
import subprocess
import time

import pytest

from common import DELTAZOO, ENV, ROOT, check, equal, good, read, sha256, write

pytestmark = pytest.mark.alone  # the watchdog of a busy machine's job sees a rank that has not had its turn
AGENT = """#!/bin/sh
# on HOST COMMAND...: what ssh would do
host=$1
shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; exec $*"
"""


def sh(*command, **more):
    p = subprocess.run(command, capture_output=True, text=True, **more)
    check(p.returncode == 0, f"{' '.join(command)}: {p.stderr}")


class Hosts:
    """Two hosts, and what is started on them: processes with DZ_TWO_HOSTS=folder in their environment."""

    def __init__(self, folder):
        self.folder = folder
        self.a, self.b = f"dza{os.getpid()}", f"dzb{os.getpid()}"
        self.net = f"10.213.{random.randrange(250)}"
        self.env = dict(ENV, DZ_TWO_HOSTS=folder, DZ_JOURNAL_AFTER="0")

    def start(self):
        for host in self.a, self.b:
            sh("ip", "netns", "add", host)
        sh("ip", "link", "add", self.a, "type", "veth", "peer", "name", self.b)
        for i, host in enumerate((self.a, self.b)):
            sh("ip", "link", "set", host, "netns", host)
            sh("ip", "-n", host, "addr", "add", f"{self.net}.{i + 1}/24", "dev", host)
            sh("ip", "-n", host, "link", "set", host, "up")
            sh("ip", "-n", host, "link", "set", "lo", "up")
            sh("ip", "netns", "exec", host, "sysctl", "-qw", "net.ipv4.tcp_retries2=5")  # mpirun itself gives up a dead connection after 13 s, not 15 minutes
        os.chmod(write(f"{self.folder}/on", AGENT), 0o755)
        sh("cc", "-D_GNU_SOURCE", "-O", "-shared", "-fPIC", "-o", f"{self.folder}/slow.so", f"{ROOT}/tests/slurm/slow_reads.c", "-ldl")
        os.chmod(write(f"{self.folder}/deltazoo", f'#!/bin/sh\nLD_PRELOAD={self.folder}/slow.so SLOW_READS={self.folder}/slow SLOW_MS=500 exec {DELTAZOO} "$@"\n'), 0o755)

    def ours(self):
        found = []
        for pid in (name for name in os.listdir("/proc") if name.isdigit()):
            try:
                if f"DZ_TWO_HOSTS={self.folder}".encode() in read(f"/proc/{pid}/environ").split(b"\0"):
                    name = read(f"/proc/{pid}/comm").decode().strip()
                    if name in ("deltazoo", "orted", "mpirun", "orterun"):
                        found.append((int(pid), name))
            except OSError:
                pass
        return found

    def stop(self):
        for pid, _ in self.ours():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for host in self.a, self.b:
            subprocess.run(["ip", "netns", "del", host], capture_output=True, check=False)

    def cable(self, state):
        sh("ip", "-n", self.b, "link", "set", self.b, state)

    def job(self, ranks, *args):
        """On both hosts, so many ranks on each; what it prints goes on in the log."""
        with open(f"{self.folder}/log", "a") as log:
            return subprocess.Popen(
                [f"{self.folder}/on", self.a, "mpirun", "--host", f"{self.a}:{ranks},{self.b}:{ranks}", "--mca", "plm", "rsh", "--mca", "plm_rsh_agent",
                 f"{self.folder}/on", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", f"{self.net}.0/24", "--mca", "oob_tcp_if_include", f"{self.net}.0/24",
                 f"{self.folder}/deltazoo", "compress", f"{self.folder}/zoo/zoo.yaml", "-o", f"{self.folder}/two.h5", *args],
                env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self):
        return read(f"{self.folder}/log").decode(errors="replace")


@pytest.fixture(scope="module")
def hosts(box):
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not permitted")
    two = Hosts(box)
    try:
        two.start()
        good(["synth", "-q", "--shape", "tiny", "--tasks", "3", "-o", f"{box}/zoo"])
        good(["compress", "-q", f"{box}/zoo/zoo.yaml", "-o", f"{box}/right.h5"])
        yield two
    finally:
        two.stop()


def is_right(hosts):
    equal(sha256(f"{hosts.folder}/two.h5"), sha256(f"{hosts.folder}/right.h5"), "archive")


class TestTwoHosts:
    def test_two_hosts_make_the_bytes_of_one(self, hosts):
        code = hosts.job(2, "-q", "--report", f"{hosts.folder}/two.json").wait(120)
        equal(code, 0, f"exit code; {hosts.log()}")
        is_right(hosts)
        text = json.dumps(json.loads(read(f"{hosts.folder}/two.json")))
        check(f'"{hosts.a}": 2' in text and f'"{hosts.b}": 2' in text, text)

    def test_cable_that_is_cut_ends_the_job_by_the_watchdog(self, hosts):
        os.unlink(f"{hosts.folder}/two.h5")
        os.unlink(f"{hosts.folder}/log")
        write(f"{hosts.folder}/slow", "")
        p = hosts.job(2, "--watchdog", "6")
        end = time.time() + 60
        while sum(os.path.getsize(path) for path in glob.glob(f"{hosts.folder}/two.h5.journal/*")) <= 20000 and time.time() < end:
            time.sleep(0.1)
        hosts.cable("down")
        begun = time.time()
        code = p.wait(120)
        said = re.search(r"^deltazoo: error: (no progress .* in phase '.*': rank [0-9]+ is behind|nothing heard of rank [0-9]+ for .* in phase '.*')$", hosts.log(), re.M)
        check(code == 75 and said, f"exit {code} after {time.time() - begun:.0f} s: {hosts.log()}")

    def test_no_process_is_left_nor_an_archive(self, hosts):
        end = time.time() + 30
        while hosts.ours() and time.time() < end:
            time.sleep(0.1)
        equal(hosts.ours(), [], "processes")
        check(not os.path.exists(f"{hosts.folder}/two.h5") and os.path.isdir(f"{hosts.folder}/two.h5.journal"), f"{os.listdir(hosts.folder)}")

    def test_with_the_cable_in_place_the_same_command_goes_on(self, hosts):
        hosts.cable("up")
        os.unlink(f"{hosts.folder}/slow")
        code = hosts.job(1).wait(120)
        equal(code, 0, f"exit code; {hosts.log()}")
        is_right(hosts)
        check("went on where an earlier run" in hosts.log() and not os.path.exists(f"{hosts.folder}/two.h5.journal"), hosts.log())
