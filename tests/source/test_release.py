"""The version is in one place, and what repeats it agrees; the release, its recipes and the library's interface."""
import ast
import glob
import os
import re

import pytest

from common import ROOT, call, check, equal, read, sha256, write

VERSION = re.search(r'DZ_VERSION "(.*)"', read(f"{ROOT}/src/base/version.h").decode()).group(1)
PACKAGES = "config/packages"
# What repeats the version, and how.
REPEATED = {
    "include/deltazoo.h": r'deltazoo_version\(void\); /\* "(.*?)"',
    "src/python/deltazoo.py": r'^__version__ = "(.*)"',
    "src/python/src/deltazoo/__init__.py": r'^__version__ = "(.*)"',
    "src/python/pyproject.toml": r'^version = "(.*)"',
    "src/doc/CHANGELOG.md": r"^## ([\d.]+)",
    f"{PACKAGES}/debian/changelog": r"^deltazoo \((.*)-\d+\)",
    f"{PACKAGES}/conda/deltazoo/recipe.yaml": r"^  version: (.*)",
    f"{PACKAGES}/containers/Dockerfile": r"^ARG VERSION=(.*)",
    f"{PACKAGES}/containers/deltazoo.def": r"^ +version=(.*)",
    f"{PACKAGES}/spack/spack_repo/deltazoo/packages/deltazoo/package.py": r'^    version\("(.*?)"',
}


@pytest.mark.parametrize("path", REPEATED)
def test_version_is_that_of_version_h(path):
    found = re.search(REPEATED[path], read(f"{ROOT}/{path}").decode(), re.M)
    check(found, f"{path} names no version")
    equal(found.group(1), VERSION, path)


def test_easyconfigs_have_the_version_in_their_names():
    files = glob.glob(f"{ROOT}/{PACKAGES}/easybuild/deltazoo-*.eb")
    check(files, "there are none")
    for path in files:
        check(os.path.basename(path).startswith(f"deltazoo-{VERSION}") and f"version = '{VERSION}'" in read(path).decode(), f"{path} is not of {VERSION}")


def test_debian_s_list_of_symbols_is_the_header_s():
    declared = set(re.findall(r"DELTAZOO_API [^;(]*?(deltazoo_\w+)\(", read(f"{ROOT}/include/deltazoo.h").decode()))
    listed = set(re.findall(r"^ (deltazoo_\w+)@", read(f"{ROOT}/{PACKAGES}/debian/libdeltazoo0.symbols").decode(), re.M))
    equal(listed, declared, "symbols")


@pytest.fixture(scope="module")
def checkout(box):
    """A commit of its own, of the files as they are now."""
    copy = f"{box}/source"
    git = ["git", "-C", copy, "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["git", "init", "-q", copy], ["cp", "-r", f"{ROOT}/src", f"{ROOT}/Makefile", copy], [*git, "add", "-A"],
                    [*git, "commit", "-q", "-m", "x", "--date", "2026-01-01T00:00:00Z"]):
        code, out, err = call(command)
        check(code == 0, out + err)
    return copy


def dist(checkout):
    return call([f"{checkout}/src/dist.sh", VERSION], cwd=checkout)


def test_two_tarballs_are_equal(checkout):
    path, sums = f"{checkout}/build/dist/deltazoo-{VERSION}.tar.gz", []
    with open(f"{checkout}/.git/info/exclude", "a", encoding="ascii") as f:
        f.write("build/\n")
    for _ in range(2):
        code, out, err = dist(checkout)
        check(code == 0, out + err)
        sums.append(sha256(path))
        equal(out.split()[0], sums[-1], "checksum")
        os.utime(f"{checkout}/Makefile")  # the time of a file counts for nothing
    equal(sums[0], sums[1], "second tarball")
    code, out, _ = call(["tar", "-tzf", path])
    check(f"deltazoo-{VERSION}/Makefile" in out.splitlines(), out[:300])


def test_what_is_not_committed_is_not_released(checkout):
    with open(f"{checkout}/src/new.c", "w", encoding="ascii") as f:
        f.write("int x;\n")
    code, _, err = dist(checkout)
    os.unlink(f"{checkout}/src/new.c")
    check(code == 1 and "not committed" in err, f"exit {code}: {err}")


@pytest.fixture(scope="module")
def tarball(box):
    path = f"{box}/dist/deltazoo-{VERSION}.tar.gz"
    os.makedirs(f"{box}/dist")
    code, out, err = call(["tar", "-czf", path, "--transform", f"s|^|deltazoo-{VERSION}/|", "src/base/version.h"], cwd=ROOT)
    check(code == 0, out + err)
    return path


def recipes(*args):
    return call([f"{ROOT}/{PACKAGES}/recipes.sh", *args])


# Where a recipe for a release has the checksum, and the address.
RECIPES = {
    "conda/deltazoo/recipe.yaml": (r"^  sha256: (\w+)$", r"^  url: (.*)$"),
    "spack/spack_repo/deltazoo/packages/deltazoo/package.py": (rf'^    version\("{VERSION}", sha256="(\w+)"\)$', r'^    url = "(.*)"$'),
    f"easybuild/deltazoo-{VERSION}.eb": (r"^checksums = \['(\w+)'\]$", r"^source_urls = \['(.*)'\]$"),
    f"easybuild/deltazoo-{VERSION}-foss-2024a.eb": (r"^checksums = \['(\w+)'\]$", r"^source_urls = \['(.*)'\]$"),
}


@pytest.mark.parametrize("place", ["here", "https://example.com/releases"])
def test_recipes_of_a_release_have_its_checksum_and_address(box, tarball, place):
    folder = f"{box}/recipes-{len(place)}"
    url = f"file://{tarball}" if place == "here" else f"{place}/{os.path.basename(tarball)}"
    code, out, err = recipes(tarball, folder, *([] if place == "here" else [url]))
    check(code == 0 and sha256(tarball) in out, f"exit {code}: {out}{err}")
    for path, (checksum, address) in RECIPES.items():
        text = read(f"{folder}/{path}").decode()
        equal(re.findall(checksum, text, re.M), [sha256(tarball)], f"checksum in {path}")
        equal(re.findall(address, text, re.M), [os.path.dirname(url) if "easybuild" in path else url], f"address in {path}")
        if path.endswith((".py", ".eb")):
            compile(text, path, "exec")


def test_spack_does_not_run_make_check():
    """Its Makefile packages do by default, with --test; ours would install Debian packages and Python modules."""
    tree = ast.parse(read(f"{ROOT}/{PACKAGES}/spack/spack_repo/deltazoo/packages/deltazoo/package.py"))
    found = {f.name: ast.unparse(f) for c in tree.body if isinstance(c, ast.ClassDef) for f in c.body if isinstance(f, ast.FunctionDef)}
    check("make(" not in found.get("check", "make(") and "'check-installed'" in found["check_installed"], f"{found}")


def test_recipes_are_not_made_for_another_version_or_address(box, tarball):
    other = f"{box}/dist/deltazoo-9.9.9.tar.gz"
    write(other, read(tarball))
    for args, said in (((other, f"{box}/no"), "deltazoo-9.9.9.tar.gz"), ((tarball, f"{box}/no", "https://example.com/latest"), f"does not end in deltazoo-{VERSION}.tar.gz")):
        code, _, err = recipes(*args)
        check(code == 1 and said in err and not os.path.exists(f"{box}/no"), f"exit {code}: {err}")


def libraries(**variables):
    env = {"CC": "gcc", "CPPFLAGS": "", "LDFLAGS": "", "MPI": "no", "MPICC": "", "HDF5": "", "BLAS": "-llapacke -lopenblas", "MKL": ""}
    return call([f"{ROOT}/src/libraries.sh"], env={**env, **variables})


def header(box, name, text):
    folder = f"{box}/{name}.d"
    path = f"{folder}/{name}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    return folder


# header, what an old one says, which version is asked for, Debian's package
HTSCODECS = "htscodecs/htscodecs.h"
LEAST = {
    "MPI": ("mpi.h", "#define MPI_VERSION 2\n", "3.0", "libopenmpi-dev"),
    "HDF5": ("hdf5.h", "#define H5_VERS_MAJOR 1\n#define H5_VERSION_GE(a, b, c) 0\n", "1.10.5 (not 1.12.0)", "libhdf5-openmpi-dev"),
    "jansson": ("jansson.h", "#define JANSSON_VERSION_HEX 0x020900\n", "2.10", "libjansson-dev"),
    "libyaml": ("yaml.h", "", "0.1.7", "libyaml-dev"),
    "uthash": ("uthash.h", "", "2.0", "uthash-dev"),
    "xxHash": ("xxhash.h", "#define XXH_VERSION_NUMBER 705\n", "0.8.0", "libxxhash-dev"),
    "zstd": ("zstd.h", "#define ZSTD_VERSION_NUMBER 10308\n", "1.4.0", "libzstd-dev"),
    "zlib": ("zlib.h", "#define ZLIB_VERNUM 0x1260\n", "1.2.7", "zlib1g-dev"),
    "htscodecs": (HTSCODECS, "#define HTSCODECS_VERSION 100200\n", "1.3.0", "libhtscodecs-dev"),
    "LAPACKE": ("lapacke.h", "", "3.0", "liblapacke-dev libopenblas-dev"),
}
OLD = [name for name in LEAST if name not in ("libyaml", "LAPACKE")]  # whose headers say no version: only their functions are asked for
WITH_MPI = {"MPI": "-lmpi", "MPICC": "true"}


def refusal(name, why, **variables):
    code, _, err = libraries(**{**WITH_MPI, **variables})
    said = re.search(rf"^make: {name} (.*)\n +(.*)", err, re.M)
    check(code == 1 and said and re.search(why, said.group(1)), f"exit {code}: {err}")
    check(LEAST[name][3] in said.group(2) and "RHEL" in said.group(2) and "Spack" in said.group(2), err)


@pytest.mark.parametrize("name", OLD)
def test_a_library_that_is_too_old_is_named_with_its_packages(box, name):
    head, text, least, _ = LEAST[name]
    refusal(name, f"^is too old: {re.escape(least)} or later is needed", CPPFLAGS="-I" + header(box, head, text))


@pytest.mark.parametrize("name", LEAST)
def test_a_library_that_is_missing_is_named_with_its_packages(box, name):
    head, _, least, _ = LEAST[name]
    text = "#include <not_there_at_all.h>\n"
    refusal(name, rf"^is not found \(not_there_at_all.h\); {re.escape(least)} or later is needed", CPPFLAGS="-I" + header(box, f"missing/{head}", text) + "/missing")


# header, what it declares, how the library is named
UNLINKED = {
    "MPI": ("mpi.h", "#define MPI_VERSION 3\nint MPI_Init(int *, char ***);\n", {"MPI": "-lnot_there_at_all"}),
    "HDF5": ("hdf5.h", "#define H5_VERS_MAJOR 2\n#define H5_VERSION_GE(a, b, c) 1\nint H5Pset_dset_no_attrs_hint(void);\n", {"HDF5": "-lnot_there_at_all"}),
    "LAPACKE": ("lapacke.h", "int LAPACKE_dgesdd(void);\n", {"BLAS": "-lnot_there_at_all"}),
}


@pytest.mark.parametrize("name", UNLINKED)
def test_a_library_that_is_there_as_headers_only_does_not_link(box, name):
    head, text, linked = UNLINKED[name]
    refusal(name, r"^does not link \(-lnot_there_at_all\): .*cannot find -lnot_there_at_all", CPPFLAGS="-I" + header(box, f"{name}/{head}", text) + f"/{name}", **linked)


@pytest.mark.parametrize("name, library", [("jansson", "jansson"), ("libyaml", "yaml"), ("xxHash", "xxhash"), ("zstd", "zstd"), ("zlib", "z"), ("htscodecs", "htscodecs")])
def test_a_library_without_the_functions_does_not_link(box, name, library):
    folder = f"{box}/empty-{library}"
    write(f"{folder}/lib{library}.a", "!<arch>\n")
    refusal(name, rf"^does not link \(-l{library}\): .*undefined reference", LDFLAGS=f"-L{folder}")


def test_the_least_versions_in_the_page_are_those_of_the_script():
    asked = re.findall(r"^ *library (?:'([^']+)'|(\S+)) (?:'([^']+)'|(\S+))", read(f"{ROOT}/src/libraries.sh").decode(), re.M)
    asked = {a or b: c or d for a, b, c, d in asked}
    page = read(f"{ROOT}/src/doc/building.md").decode()
    for name, (_, _, least, package) in LEAST.items():
        equal(asked[name], least, f"{name} in libraries.sh")
        row = re.search(rf"^\| {name}[^|]*\| ([^|]*) \| ([^|]*) \|", page, re.M)
        check(row and row.group(1).replace(", not 1.12.0", " (not 1.12.0)") == least and row.group(2) == package, f"{name} in building.md")


def test_a_compiler_or_an_mpi_that_is_missing_is_named():
    for variables, wanted in (({"CC": "no-such-cc"}, "there is no compiler no-such-cc"), ({"MPI": "", "MPICC": "no-such-mpicc"}, "there is no no-such-mpicc")):
        code, _, err = libraries(**variables)
        check(code == 1 and wanted in err, f"exit {code}: {err}")


def test_a_pkg_config_that_is_missing_is_named_where_hdf5_is_not_found(box):
    none = "-I" + header(box, "none/hdf5.h", "#include <not_there_at_all.h>\n") + "/none"
    for variables, wanted in (({"PKG": "no-such-pkg-config", "CPPFLAGS": none}, True), ({"PKG": "true", "CPPFLAGS": none}, False)):
        code, _, err = libraries(**variables)
        check(code == 1 and ("there is no no-such-pkg-config" in err and "HDF5_PREFIX" in err) == wanted, f"exit {code}: {err}")


def test_the_library_s_interface_is_that_of_the_last_release():
    code, out, err = call([f"{ROOT}/tests/install/abi.sh", "check", "tests/install/abi.xml", "build/libdeltazoo.so"], cwd=ROOT)
    check(code == 0, out + err)


def stub_library(box, edit, soname="libdeltazoo.so.0"):
    """The folder of an edited header, and a library that has no more than its functions."""
    head = read(f"{ROOT}/include/deltazoo.h").decode()
    check(edit[0] in head, f"the header has no {edit[0]}")
    text = head.replace(*edit)
    bodies = re.findall(r"^DELTAZOO_API ((?:const char \*|int |size_t |void )deltazoo_\w+\([^;]*\));", text, re.M | re.S)
    check(len(bodies) > 10, f"{len(bodies)} functions")
    headers = header(box, "deltazoo.h", text)
    with open(f"{box}/stub.c", "w", encoding="utf-8") as f:
        f.write("#include <deltazoo.h>\n" + "\n".join(f"{b} {{ {'' if b.startswith('void ') else 'return 0;'} }}" for b in bodies))
    with open(f"{box}/map", "w", encoding="ascii") as f:
        f.write(read(f"{ROOT}/src/lib/library.map").decode())
    built, out, err = call(["gcc", "-g", "-w", "-shared", "-fPIC", f"-I{headers}", f"-Wl,--version-script={box}/map", f"-Wl,-soname,{soname}", f"{box}/stub.c", "-o", f"{box}/stub.so"])
    check(built == 0, out + err)
    return f"{box}/stub.so", headers


def abi(what, record, library):
    return call([f"{ROOT}/tests/install/abi.sh", what, record, *library], cwd=ROOT)


@pytest.mark.parametrize("edit, code, wanted", [
    (("", ""), 0, "that of the last release"),
    (("DELTAZOO_API const char *deltazoo_version(void)", "DELTAZOO_API int deltazoo_new(int a);\nDELTAZOO_API const char *deltazoo_version(void)"), 0, "new functions"),
    (("const char *deltazoo_version(void)", "const char *deltazoo_other(void)"), 1, "would break"),
    (("double sparsity, gamma, trace_norm;", "double gamma, sparsity, trace_norm, more;"), 1, "would break"),
    (("size_t task, size_t index, deltazoo_tensor *out", "size_t task, int index, deltazoo_tensor *out"), 1, "would break"),
])
def test_additions_to_the_interface_are_fine_and_changes_refused(box, edit, code, wanted):
    record = f"{box}/abi.xml"  # no checkout: the file itself counts
    write(record, read(f"{ROOT}/tests/install/abi.xml"))
    got, out, err = abi("check", record, stub_library(box, edit))
    check(got == code and wanted in out + err, f"exit {got}: {out}{err}")


def test_the_interface_is_compared_with_the_last_tag_s(box):
    """A record that was saved anew after the release does not hide what the release's programs miss; a new soname is free."""
    folder = f"{box}/tagged"
    record = f"{folder}/tests/abi.xml"
    git = ["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@example.org"]
    write(record, read(f"{ROOT}/tests/install/abi.xml"))
    for command in (["git", "init", "-q", folder], [*git, "add", "-A"], [*git, "commit", "-q", "-m", "x"], [*git, "tag", "-a", "v0.1.0", "-m", "x"]):
        code, out, err = call(command)
        check(code == 0, out + err)
    same = stub_library(box, ("", ""))
    code, out, err = abi("check", record, same)
    check(code == 0 and "that of the last release, v0.1.0" in out, f"exit {code}: {out}{err}")
    broken = "const char *deltazoo_version(void)", "const char *deltazoo_other(void)"
    library = stub_library(box, broken)
    code, out, err = abi("save", record, library)
    check(code == 0, out + err)
    code, out, err = abi("check", record, library)
    check(code == 1 and "last release, v0.1.0 would break" in err, f"exit {code}: {out}{err}")
    code, out, err = abi("check", record, stub_library(box, broken, "libdeltazoo.so.1"))
    check(code == 0 and "libdeltazoo.so.1" in out and "nothing to compare" in out, f"exit {code}: {out}{err}")
