"""MPI_Finalize that crashes (a fault on purpose, on one rank): the job is done and has said so, and its exit code stays."""
import json
import os

import pytest

from common import check, good, mpirun, program_of, read, tiny_zoo


def crashing(*args):
    """On 3 ranks, of which the second crashes: mpirun's exit code and all that is printed."""
    code, out, err = mpirun(3, *args, program=program_of("fault"), env={"DZ_FAULT": "finalize:1:1"})
    return code, out + err


@pytest.fixture(scope="module")
def archive(box):
    """Made by a job whose end crashed; mpirun itself fails with 1, since it misses a rank."""
    return f"{box}/a.h5", crashing("compress", "-q", f"{tiny_zoo()}/zoo.yaml", "-o", f"{box}/a.h5", "--report", f"{box}/a.json")


def test_job_that_is_done_is_done_and_its_report_says_so(archive, box):
    check(json.loads(read(f"{box}/a.json"))["job"]["state"] == "done", f"{archive}")
    good(["verify", "-q", archive[0]])


def test_one_that_is_refused_has_code_2(archive):
    code, text = crashing("compress", "-q", f"{tiny_zoo()}/zoo.yaml", "-o", archive[0])
    check(code == 2 and "exists already" in text, f"exit {code}: {text}")


def test_one_that_found_damage_has_code_3(archive):
    with open(archive[0], "r+b") as file:
        file.seek(os.path.getsize(archive[0]) // 2)
        file.write(b"x")
    code, text = crashing("verify", "-q", archive[0])
    check(code == 3 and "is damaged" in text, f"exit {code}: {text}")
