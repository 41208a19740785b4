"""A SLURM of our own on this machine: munge, slurmctld and two slurmd (n1, n2) with ports, keys, state and logs in one folder. What is started is stopped by pid."""
import os
import shutil
import signal
import socket
import subprocess
import time

CONF = """
ClusterName=deltazoo
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={box}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={box}/state
SlurmdSpoolDir={box}/spool-%n
SlurmctldPidFile={box}/slurmctld.pid
SlurmdPidFile={box}/slurmd-%n.pid
SlurmctldLogFile={box}/slurmctld.log
SlurmdLogFile={box}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
{user_signal}PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0
JobRequeue=1
ReturnToService=2
KillWait=5
SlurmdTimeout=60
MpiDefault=none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs=8 RealMemory=64000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs=8 RealMemory=64000
PartitionName=main Nodes=n1,n2 Default=YES PriorityTier=1 MaxTime=INFINITE
PartitionName=low Nodes=n1,n2 PriorityTier=1 GraceTime=30 MaxTime=INFINITE
PartitionName=high Nodes=n1,n2 PriorityTier=100 MaxTime=INFINITE
"""


def free_ports(n):
    held = [socket.socket() for _ in range(n)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def why_not():
    """Why there can be no SLURM here, whatever is installed; None where there can."""
    return "not root: slurmctld and slurmd are started by root" if os.geteuid() != 0 else None


def find(program):
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not path:
        raise RuntimeError(f"{program} is not installed (tests/deps.sh slurm)")
    return path


class Cluster:
    def __init__(self, box, user_signal=True):
        """user_signal: a job that is to make room gets the signal of its --signal; otherwise its processes get TERM, as is SLURM's default."""
        self.box = box
        self.env = dict(os.environ, SLURM_CONF=f"{box}/slurm.conf")
        self.daemons = {}
        self.user_signal = "SlurmctldParameters=preempt_send_user_signal\n" if user_signal else ""

    def start(self):
        for name in ("state", "spool-n1", "spool-n2"):
            os.mkdir(f"{self.box}/{name}")
        host = socket.gethostname().split(".")[0]
        port, port1, port2 = free_ports(3)
        with open(f"{self.box}/slurm.conf", "w") as f:
            f.write(CONF.format(box=self.box, host=host, port=port, port1=port1, port2=port2, user_signal=self.user_signal))
        with open(f"{self.box}/cgroup.conf", "w") as f:
            f.write("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        with open(f"{self.box}/munge.key", "wb") as f:
            f.write(os.urandom(128))
        os.chmod(f"{self.box}/munge.key", 0o400)
        self.daemon("munged", "--foreground", "--force", f"--socket={self.box}/munge.socket", f"--key-file={self.box}/munge.key",
                    f"--pid-file={self.box}/munged.pid", f"--log-file={self.box}/munged.log", f"--seed-file={self.box}/munged.seed")
        self.until(lambda: os.path.exists(f"{self.box}/munge.socket"), "munge's socket")
        self.daemon("slurmctld", "-D", "-f", f"{self.box}/slurm.conf")
        for node in ("n1", "n2"):
            self.start_node(node)
        self.until(lambda: self.call("sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D").strip() == "2", "two idle nodes")

    def start_node(self, node):
        self.daemon("slurmd", "-D", "-N", node, "-f", f"{self.box}/slurm.conf", name=node)

    def daemon(self, program, *args, name=None):
        log = open(f"{self.box}/{name or program}.out", "a")
        self.daemons[name or program] = subprocess.Popen([find(program), *args], env=dict(self.env, DZ_NODE=name or ""), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                         start_new_session=True)

    def processes(self, *wanted):
        """Pids of the jobs' processes (they leave slurmd's tree): those whose environment names this cluster, and has `wanted`."""
        found = []
        for name in os.listdir("/proc"):
            try:
                with open(f"/proc/{name}/environ", "rb") as f:
                    env = f.read().split(b"\0")
            except OSError:
                continue
            if all(text.encode() in env for text in (f"SLURM_CONF={self.box}/slurm.conf", *wanted)):
                found.append(int(name))
        return [pid for pid in found if pid != os.getpid()]

    def kill_node(self, node):
        """As if its power failed: slurmd and every process of a job on it."""
        self.daemons[node].kill()
        self.daemons[node].wait()
        self.kill(f"DZ_NODE={node}")  # slurmstepd first: it would tell how its job ended
        self.kill(f"SLURMD_NODENAME={node}")

    def kill(self, *wanted):
        for pid in self.processes(*wanted):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def stop(self):
        for name in ("n1", "n2", "slurmctld", "munged"):
            if name in self.daemons and self.daemons[name].poll() is None:
                self.daemons[name].terminate()
        end = time.time() + 10
        for p in self.daemons.values():
            try:
                p.wait(max(0.1, end - time.time()))
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        self.kill()

    def call(self, *args, check=True):
        p = subprocess.run(args, env=self.env, capture_output=True, text=True)
        if check and p.returncode != 0:
            raise RuntimeError(f"{' '.join(args)}: {p.stderr.strip()}")
        return p.stdout

    def job(self, jobid):
        """What scontrol says of a job."""
        text = self.call("scontrol", "show", "job", str(jobid), "-o", check=False)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    @staticmethod
    def until(true, what, limit=30):
        end = time.time() + limit
        while not true():
            if time.time() > end:
                raise RuntimeError(f"{what}: not after {limit} s")
            time.sleep(0.1)
