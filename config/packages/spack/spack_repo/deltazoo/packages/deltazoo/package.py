# SPDX-License-Identifier: Apache-2.0

from spack_repo.builtin.build_systems.makefile import MakefilePackage

from spack.package import *


class Deltazoo(MakefilePackage):
    """MPI batch compressor for zoos of fine-tuned models: one base and small deltas in one HDF5
    archive, with the same bytes for any number of ranks."""

    homepage = "https://example.org/deltazoo"
    url = "https://example.org/deltazoo/deltazoo-0.1.0.tar.gz"

    license("Apache-2.0")

    # `make dist` prints the checksum of a release: version("0.1.0", sha256="...").
    version("0.1.0")

    variant("mpi", default=True, description="Run on many ranks")

    depends_on("c", type="build")
    depends_on("gmake", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("uthash@2:", type="build")
    depends_on("mpi@3:", when="+mpi")
    # Files are written by POSIX calls and MPI-IO, not by HDF5: its MPI support is not needed.
    depends_on("hdf5@1.10.5:")
    depends_on("hdf5~mpi", when="~mpi")
    conflicts("^hdf5@1.12.0", msg="it has no H5Pset_file_locking")
    depends_on("openblas")
    depends_on("jansson@2.10:")
    depends_on("libyaml@0.1.7:")
    depends_on("xxhash@0.8.0:")
    depends_on("zstd@1.4.0:")
    depends_on("zlib-api")
    depends_on("htscodecs@1.3:")

    def flags(self):
        flags = [f"HDF5_PREFIX={self.spec['hdf5'].prefix}", "BLAS_LIBS=-lopenblas"]
        if self.spec.satisfies("+mpi"):
            flags.append(f"MPICC={self.spec['mpi'].mpicc}")
        else:
            flags += ["SERIAL=1", "FLAVOUR=serial"]
        return flags

    def build(self, spec, prefix):
        make(*self.flags(), "all", "man")

    def install(self, spec, prefix):
        make(*self.flags(), f"PREFIX={prefix}", "install")

    def check(self):
        """Not `make check`, which installs Python modules from the network: the installed tree is
        tested, by check_installed."""

    @run_after("install")
    @on_package_attributes(run_tests=True)
    def check_installed(self):
        make(*self.flags(), f"PREFIX={self.prefix}", "check-installed")

    def test_installed(self):
        """make, verify and restore an archive with the installed program"""
        check = which(join_path(self.prefix.share, "deltazoo", "check-installed"), required=True)
        check()

    def setup_run_environment(self, env: EnvironmentModifications) -> None:
        env.prepend_path("PYTHONPATH", join_path(self.prefix.share, "deltazoo", "python", "src"))
