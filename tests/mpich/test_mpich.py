"""The program built against MPICH (make mpich): the archives of Open MPI's build, byte for byte, on one rank and three. Its unit tests are in tests/unit."""
import json
import re

import pytest

from common import ROOT, call, check, equal, good, hashes, job, mpirun, program_of, read, sha256, tiny_zoo


def mpich(ranks, *args):
    return mpirun(ranks, *args, program=program_of("mpich"), launcher=["mpirun.mpich"])


def works(ranks, *args):
    code, out, err = mpich(ranks, *args)
    check(code == 0, f"exit {code}: {out}{err}")


@pytest.fixture(scope="module")
def right(box):
    job(2, "compress", "-q", f"{tiny_zoo()}/zoo.yaml", "-o", f"{box}/right.h5", launcher=["mpirun.openmpi"])
    return f"{box}/right.h5"


def test_is_linked_with_mpich_alone():
    code, out, _ = call(["ldd", program_of("mpich")])
    check(code == 0 and "libmpich" in out and not re.search(r"libmpi\.so|libhdf5_openmpi", out), out)


def test_doctor_names_its_release():
    code, out, err = mpich(2, "doctor")
    check(re.search(r"^MPI +MPICH \d[\d.]*, 2 ranks$", out, re.M), f"exit {code}: {out}{err}")


def how_to_compile(*variables):
    code, out, err = call(["make", "-n", *variables, "FLAVOUR=none", "build/none/base/error.o"], cwd=ROOT)
    return code, out + err


def test_mpicc_of_mpich_alone_takes_hdf5_of_mpich():
    code, text = how_to_compile("MPICC=mpicc.mpich")
    check(code == 0 and "hdf5/mpich" in text and "openmpi" not in text, text)


def test_hdf5_of_another_mpi_is_refused():
    code, text = how_to_compile("MPICC=mpicc.mpich", "HDF5_NAME=hdf5-openmpi")
    check(code != 0 and "mpicc.mpich is of mpich, but the HDF5 found is not" in text, text)


@pytest.mark.parametrize("ranks", (1, 3))
def test_makes_the_bytes_of_open_mpi_s_build(right, box, ranks):
    works(ranks, "compress", "-q", f"{tiny_zoo()}/zoo.yaml", "-o", f"{box}/a.h5", "--force", "--report", f"{box}/a.json")
    equal(sha256(f"{box}/a.h5"), sha256(right), "archive")
    equal(json.loads(read(f"{box}/a.json"))["job"]["ranks"], ranks, "ranks in the report")


def test_verifies_the_archive_of_open_mpi_s_build(right):
    works(3, "verify", "-q", right, "--base", f"{tiny_zoo()}/base")


def test_restores_the_same_files(right, box):
    works(3, "restore", "-q", right, "--task", "task-2", "--base", f"{tiny_zoo()}/base", "-o", f"{box}/m")
    good(["restore", "-q", right, "--task", "task-2", "--base", f"{tiny_zoo()}/base", "-o", f"{box}/o"])
    equal(hashes(f"{box}/m"), hashes(f"{box}/o"), "files")


def test_refusal_is_one_line_and_exit_code_2(box):
    code, out, err = mpich(3, "compress", "-q", f"{box}/none.yaml", "-o", f"{box}/b.h5")
    equal((code, len(re.findall("^deltazoo: error: ", out + err, re.M))), (2, 1), f"exit code and error lines of {out}{err}")
