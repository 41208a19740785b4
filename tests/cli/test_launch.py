"""How the program is started: by srun without PMIx, many would do the same job side by side."""
import os

from common import SmallZoo, check, equal, good, run, with_scratch

STEP = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}
LINE = "deltazoo: error: SLURM started 4 tasks, but MPI sees one process: use srun --mpi=pmix, or mpirun\n"


@with_scratch
def test_tasks_of_srun_that_mpi_does_not_bring_together(folder):
    SmallZoo(folder).compress()
    for args in (["compress", "zoo.yaml", "-o", "b.h5"], ["info", "a.h5"], ["plan", "zoo.yaml"], ["verify", "a.h5"], ["report", "a.json"]):
        for rank in "03":
            r = run(args, cwd=folder, env=dict(STEP, SLURM_PROCID=rank))
            equal((r.code, r.out, r.err), (2, "", LINE if rank == "0" else ""), f"task {rank}: {args}")
    r = run(["info", "a.h5"], cwd=folder, env=dict(STEP, SLURM_PROCID="0", PMI_RANK="0", PMI_SIZE="4"))  # srun --mpi=pmi2, which Open MPI here has not
    check(r.code == 2 and LINE in r.err and not r.out, f"{r}")
    check(not os.path.exists(f"{folder}/b.h5"), "an archive")


@with_scratch
def test_one_process_of_a_larger_job(folder):
    SmallZoo(folder).compress()
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16"}
    for env in (job, dict(job, SLURM_PROCID="0"),  # salloc; sbatch's script, with and without a step of its own
                dict(job, SLURM_PROCID="0", SLURM_STEP_ID="4294967291", SLURM_STEP_NUM_TASKS="1"), dict(STEP, SLURM_PROCID="0", SLURM_STEP_NUM_TASKS="1")):
        good(["info", "a.h5"], cwd=folder, env=env)
    for ranks in (1, 2):  # mpirun in an interactive step
        good(["verify", "a.h5"], ranks=ranks, cwd=folder, env=job if ranks == 1 else dict(STEP, SLURM_PROCID="0", OMPI_MCA_plm="isolated", OMPI_MCA_ras="^slurm"))
