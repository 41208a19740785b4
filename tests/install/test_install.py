"""An installed tree as another program's author meets it: pkg-config, the shared and the static library, the example, manual pages. The library, the Python reader and
(through export) h5dump give the same tensor's first values."""
import os
import re
import shlex
import sys

import pytest

from common import ROOT, call, check, equal, good, read, write

pytestmark = pytest.mark.release  # a sanitizer's library wants a sanitizer's program around it
NAME = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def tree(box):
    code, out, err = call(["make", "--no-print-directory", "install", f"DESTDIR={box}/root", "PREFIX=/opt/deltazoo", "BLAS_LIBS=-lnot-the-builds"], cwd=ROOT, limit=300)
    check(code == 0, out + err)
    return f"{box}/root/opt/deltazoo"


def flags(tree, *options):
    code, out, err = call(["pkg-config", f"--define-variable=prefix={tree}", *options, "deltazoo"], env={"PKG_CONFIG_PATH": f"{tree}/lib/pkgconfig"})
    check(code == 0, err)
    return shlex.split(out)


def installed(tree, *args):
    code, out, err = call([f"{tree}/bin/deltazoo", *args])
    check(code == 0, out + err)


def test_everything_is_installed(tree):
    check(os.access(f"{tree}/bin/deltazoo", os.X_OK), "no program")
    for path in ("lib/libdeltazoo.so.0", "lib/libdeltazoo.a", "share/man/man1/deltazoo-compress.1", "share/deltazoo/jobs/compress.sbatch", "share/deltazoo/config/zoo.yaml",
                 "share/bash-completion/completions/deltazoo", "share/deltazoo/python/pyproject.toml"):
        check(os.path.exists(f"{tree}/{path}"), f"no {path}")


def test_pkg_config_names_the_libraries_that_the_build_was_linked_with(tree):
    text = read(f"{tree}/lib/pkgconfig/deltazoo.pc").decode()
    check(re.search(r"^Libs\.private: .*-lhdf5", text, re.M) and "not-the-builds" not in text, text)


def test_hdf5_is_found_where_its_prefix_has_lib64_alone(box):
    write(f"{box}/hdf5/lib64/libhdf5.so", "")
    _, out, _ = call(["make", "-pn", f"HDF5_PREFIX={box}/hdf5", "lint"], cwd=ROOT)
    check(f"\nHDF5_LIBS := -L{box}/hdf5/lib64 -Wl,-rpath,{box}/hdf5/lib64 -lhdf5" in out, "HDF5_LIBS is another")


def test_example_compiles_against_the_shared_library(tree, box):
    code, out, err = call(["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "tests/install/example.c", *flags(tree, "--cflags", "--libs"), f"-Wl,-rpath,{tree}/lib",
                           "-o", f"{box}/example"], cwd=ROOT)
    check(code == 0, out + err)


def test_example_compiles_against_the_static_library(tree, box):
    others = [w for w in flags(tree, "--static", "--libs") if w != "-ldeltazoo"]
    code, out, err = call(["gcc", "-std=c11", "tests/install/example.c", *flags(tree, "--cflags"), f"{tree}/lib/libdeltazoo.a",
                           *flags(tree, "--static", "--libs-only-other"), *others, "-o", f"{box}/static"], cwd=ROOT)
    check(code == 0, out + err)


def test_nothing_but_deltazoo_is_exported(tree):
    code, out, err = call(["nm", "-D", "--defined-only", f"{tree}/lib/libdeltazoo.so"])
    names = [line.split()[2] for line in out.splitlines() if line.split()[1] in "TDB"]
    check(code == 0 and names and all(n.startswith(("deltazoo_", "DELTAZOO_")) for n in names), f"{names} {err}")


FOREIGN = r"mpi|pmix|blas|lapack|mkl|yaml"


def test_library_needs_hdf5_but_neither_mpi_blas_nor_yaml(tree):
    code, out, err = call(["readelf", "-d", f"{tree}/lib/libdeltazoo.so"])
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", out)
    hdf5 = [n for n in needed if n.startswith("libhdf5")]  # a parallel one has its MPI in its name
    check(code == 0 and len(hdf5) == 1, f"{needed} {err}")
    check(not [n for n in needed if n not in hdf5 and re.search(FOREIGN, n)], f"{needed}")


def test_static_library_calls_neither_mpi_blas_nor_yaml(tree):
    code, out, err = call(["nm", f"{tree}/lib/libdeltazoo.a"])
    called = re.findall(r" U ((?:MPI_|ompi_|cblas_|LAPACKE_|c?yaml_)\w*)", out)
    check(code == 0 and " U H5Fopen" in out and not called, f"{sorted(set(called))} {err}")


def test_pkg_config_names_neither_mpi_blas_nor_yaml(tree):
    named = [w for w in flags(tree, "--static", "--libs") if w.startswith("-l") and not w.startswith("-lhdf5")]
    check("-lzstd" in named and not [w for w in named if re.search(FOREIGN, w)], f"{named}")


@pytest.fixture(scope="module")
def archive(tree, box):
    installed(tree, "synth", "--shape", "tiny", "--tasks", "2", "--dtype", "bf16", "--seed", "3", "-o", f"{box}/zoo")
    installed(tree, "compress", f"{box}/zoo/zoo.yaml", "-o", f"{box}/a.h5", "-q")
    return f"{box}/a.h5"


def test_installed_program_makes_an_archive(archive):
    good(["verify", "-q", archive])


def first_bytes(example, archive, box):
    """The bytes of a tensor that the example's last line shows."""
    code, out, err = call([example, archive, "task-2", NAME, f"{box}/zoo/base"])
    check(code == 0 and out, f"exit {code}: {err}")
    return re.sub(".*: ", "", out.splitlines()[-1])


def test_both_examples_print_a_tensor(archive, box):
    equal(first_bytes(f"{box}/example", archive, box), first_bytes(f"{box}/static", archive, box), "tensor")


COMPARE = r"""
import subprocess, sys
import numpy as np
folder, name, first, installed = sys.argv[1:]
sys.path.insert(0, installed)
import deltazoo

assert deltazoo.__file__.startswith(installed), deltazoo.__file__


def dumped(file, name, row):
    '''The first row of a dataset, as h5dump prints it.'''
    start = ",".join(["0"] * len(row)), ",".join(map(str, [1] * (len(row) - 1) + [row[-1]]))
    out = subprocess.run(["h5dump", "-y", "-w", "200", "-m", "%.9g", "-d", f"/{name}", "-s", start[0], "-c", start[1], file], capture_output=True, text=True).stdout
    return np.array([float(x) for x in out.split("DATA {")[1].split("}")[0].replace(",", " ").split()], np.float32)


restored = deltazoo.Base(f"{folder}/r")[name][2]
with deltazoo.open(f"{folder}/a.h5") as z:
    mine = z.restore_bytes("task-2", name, f"{folder}/zoo/base")
    delta = z.delta("task-2", name)
    assert np.array_equal(mine, restored), "the Python reader's tensor is not restore's"
    assert " ".join(f"{b:02x}" for b in mine[:16].tolist()) == first, "the example program prints other values than the Python reader"
    row = dumped(f"{folder}/v.h5", name, delta.shape)
    assert np.array_equal(row, delta[0]) and np.count_nonzero(row) > 0, "h5dump prints another delta than the Python reader's"
    b = deltazoo.Base(f"{folder}/zoo/base")[name][2][:2 * len(row)].tobytes()
    sums = deltazoo.from_f32(deltazoo.to_f32(b, "BF16") + row, "BF16")
    assert sums == restored[:2 * len(row)].tobytes(), "base + h5dump's delta is not the restored row"
"""


def test_example_python_reader_and_h5dump_give_the_same_first_values(tree, archive, box):
    installed(tree, "restore", archive, "--task", "task-2", "--base", f"{box}/zoo/base", "-o", f"{box}/r", "-q")
    installed(tree, "export", archive, "--task", "task-2", "--format", "hdf5", "--tensor", NAME, "-o", f"{box}/v.h5", "-q")
    code, out, err = call([sys.executable, "-c", COMPARE, box, NAME, first_bytes(f"{box}/example", archive, box), f"{tree}/share/deltazoo/python"])
    check(code == 0, out + err)


PACKAGE = """
import sys
import deltazoo
folder, task, name, installed = sys.argv[1:]
with deltazoo.open(f"{folder}/a.h5") as z:
    print(deltazoo.__file__.startswith(installed), z.engine, z.restore(task, name, f"{folder}/zoo/base").tobytes()[:8].hex())
"""


def test_installed_python_package_needs_nothing_but_its_folder(tree, archive, box):
    """On PYTHONPATH; with the Python reader, since the C library is the wheel's."""
    where = f"{tree}/share/deltazoo/python/src"
    equal(sorted(os.listdir(f"{where}/deltazoo")), sorted([*(f for f in os.listdir(f"{ROOT}/src/python/src/deltazoo") if f != "__pycache__"), "pure.py"]), "files")
    code, out, err = call([sys.executable, "-c", PACKAGE, box, "task-2", "model.norm.weight", where], env={"PYTHONPATH": where, "PYTHONDONTWRITEBYTECODE": "1"})
    check(code == 0 and out.startswith("True python "), out + err)


def test_man_renders_the_installed_page(tree):
    code, out, err = call(["man", "-l", f"{tree}/share/man/man1/deltazoo.1"])
    check(code == 0 and "deltazoo-compress" in out and not err, f"exit {code}: {err}")


def test_check_installed_passes_and_prints_the_hashes(tree, box):
    """It knows nothing of the source: run from another folder."""
    code, out, err = call(["make", "--no-print-directory", "-C", ROOT, "check-installed", f"DESTDIR={box}/root", "PREFIX=/opt/deltazoo"], cwd=box, env={"PYTHON": sys.executable}, limit=300)
    check(code == 0 and re.search(r"^2[0-9] passed, 0 failed$", out, re.M), out + err)
    check(re.search(r"^archives of deltazoo \S+, with zstd [\d.]+: [0-9a-f]{64}$", out, re.M) and re.search(r"^restored tensors: [0-9a-f]{64}$", out, re.M), out)


def test_check_installed_says_what_fails(tree, box):
    """A program that compresses, but loses its archive."""
    os.makedirs(f"{box}/bad", exist_ok=True)
    code, out, err = call(["cp", "-a", f"{box}/root/.", f"{box}/bad"])
    check(code == 0, err)
    os.rename(f"{box}/bad/opt/deltazoo/bin/deltazoo", f"{box}/bad/opt/deltazoo/bin/real")
    write(f"{box}/bad/opt/deltazoo/bin/deltazoo", f'#!/bin/sh\n"{box}/bad/opt/deltazoo/bin/real" "$@" || exit\n[ "$1" != compress ] || rm -f ./*.h5\n')
    os.chmod(f"{box}/bad/opt/deltazoo/bin/deltazoo", 0o755)
    code, out, err = call([f"{box}/bad/opt/deltazoo/share/deltazoo/check-installed"], cwd=box, env={"DESTDIR": f"{box}/bad"}, limit=300)
    check(code == 1 and "failed: verify: " in out and "restored tensors" not in out, out + err)
