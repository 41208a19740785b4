"""The program built without MPI (make serial): it reads and makes the archives of the MPI build, byte for byte."""
import pytest

from common import call, check, equal, good, hashes, job, program_of, sha256, tiny_zoo


def serial(*args):
    code, out, err = call([program_of("serial"), *args])
    check(code == 0, out + err)


@pytest.fixture(scope="module")
def right(box):
    job(2, "compress", "-q", f"{tiny_zoo()}/zoo.yaml", "-o", f"{box}/right.h5")
    return f"{box}/right.h5"


def test_is_linked_without_mpi():
    code, out, _ = call(["ldd", program_of("serial")])
    check(code == 0 and "libhdf5_serial" in out and not any(word in out for word in ("libmpi", "libhdf5_openmpi", "libhdf5_mpich")), out)


def test_verifies_the_archive_of_two_ranks(right):
    serial("verify", "-q", right, "--base", f"{tiny_zoo()}/base")


def test_restores_the_same_files(right, box):
    serial("restore", "-q", right, "--task", "task-2", "--base", f"{tiny_zoo()}/base", "-o", f"{box}/s")
    good(["restore", "-q", right, "--task", "task-2", "--base", f"{tiny_zoo()}/base", "-o", f"{box}/o"])
    equal(hashes(f"{box}/s"), hashes(f"{box}/o"), "files")


def test_makes_the_same_archive(right, box):
    serial("compress", "-q", f"{tiny_zoo()}/zoo.yaml", "-o", f"{box}/a.h5")
    equal(sha256(f"{box}/a.h5"), sha256(right), "archive")
