-- Module file for Lmod: modulefiles/deltazoo/0.1.0.lua, where deltazoo was installed by `make install PREFIX=...`.
whatis("Name: deltazoo")
whatis("Description: MPI batch compressor for zoos of fine-tuned models")
help([[deltazoo compresses fine-tuned models against their base: deltazoo --help; job scripts are in $DELTAZOO_JOBS.]])

local prefix = "/opt/deltazoo/0.1.0" -- Site
-- Site: load the MPI and HDF5 that it was built with
-- depends_on("openmpi", "hdf5")

prepend_path("PATH", pathJoin(prefix, "bin"))
prepend_path("MANPATH", pathJoin(prefix, "share/man"))
prepend_path("LIBRARY_PATH", pathJoin(prefix, "lib"))
prepend_path("LD_LIBRARY_PATH", pathJoin(prefix, "lib"))
prepend_path("CPATH", pathJoin(prefix, "include"))
prepend_path("PKG_CONFIG_PATH", pathJoin(prefix, "lib/pkgconfig"))
prepend_path("PYTHONPATH", pathJoin(prefix, "share/deltazoo/python/src"))
setenv("DELTAZOO_JOBS", pathJoin(prefix, "share/deltazoo/jobs"))
