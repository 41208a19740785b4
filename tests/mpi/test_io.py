"""Hints for MPI-IO: those about stripes are there when the file is made; malformed ones are refused before the work."""
import os
import re
import shutil

from common import call, check, equal, good, made_once, mpirun, sha256, tiny_zoo

HERE = os.path.dirname(os.path.abspath(__file__))


def listener():
    """A library that prints how files are opened (mpi_open.c)."""

    def make(folder):
        code, out, err = call([shutil.which("mpicc.openmpi") or "mpicc", "-shared", "-fPIC", f"{HERE}/mpi_open.c", "-o", f"{folder}/mpi_open.so"])
        check(code == 0, out + err)

    return made_once("mpi-open", make) + "/mpi_open.so"


def test_library_that_listens_compiles():
    check(os.path.getsize(listener()) > 0, "empty")


def test_file_is_made_with_the_hints_about_its_stripes_and_its_bytes_are_the_same(folder):
    zoo = tiny_zoo("f32")
    good(["compress", "-q", f"{zoo}/zoo.yaml", "-o", f"{folder}/right.h5"])
    code, _, err = call(["mpirun", "-n", "2", "-x", f"LD_PRELOAD={listener()}", os.environ["DELTAZOO"], "compress", "-q", f"{zoo}/zoo.yaml", "-o", f"{folder}/a.h5",
                         "--io", "collective", "--io-hint", "striping_factor=4", "--io-hint", "striping_unit=4194304"])
    check(code == 0, err)
    equal(sha256(f"{folder}/a.h5"), sha256(f"{folder}/right.h5"), "archive")
    lines = err.splitlines()
    equal(lines[0], "made by MPI-IO, stripes 4", "first line")
    equal(sum(line.startswith("opened by MPI-IO, stripes 4") for line in lines), 2, "files opened with the hint")


def test_malformed_hints_are_refused_before_the_work(folder):
    code, out, err = mpirun(2, "compress", f"{tiny_zoo('f32')}/zoo.yaml", "-o", f"{folder}/b.h5", "--io", "collective", "--io-hint", "foo", "--io-hint", "=1",
                            "--io-hint", "cb_nodes=2")
    text = out + err
    check(code == 2 and len(re.findall("is not KEY=VALUE", text)) == 2 and "tiles" not in text, f"exit {code}: {text}")


def test_hint_without_effect_is_noted(folder):
    r = good(["compress", "-q", f"{tiny_zoo('f32')}/zoo.yaml", "-o", f"{folder}/c.h5", "--io-hint", "cb_nodes=2"])
    check("no effect" in r.err, f"{r}")
