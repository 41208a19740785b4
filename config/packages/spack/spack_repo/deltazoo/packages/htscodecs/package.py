# SPDX-License-Identifier: Apache-2.0

from spack_repo.builtin.build_systems.autotools import AutotoolsPackage

from spack.package import *


class Htscodecs(AutotoolsPackage):
    """Entropy codecs of the CRAM format: rANS, adaptive arithmetic coding, name tokeniser."""

    homepage = "https://github.com/samtools/htscodecs"
    url = "https://github.com/samtools/htscodecs/archive/refs/tags/v1.6.1.tar.gz"

    license("BSD-3-Clause")

    # The checksum of Debian's htscodecs_1.6.1.orig.tar.gz, which is this archive.
    version("1.6.1", sha256="d2b454ef08339638c1be1922fca863062e0bbf4e0bf93dc31c29b8328ac8b697")

    depends_on("c", type="build")
    depends_on("autoconf", type="build")
    depends_on("automake", type="build")
    depends_on("libtool", type="build")
    depends_on("bzip2")
    depends_on("zlib-api")
