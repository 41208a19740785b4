#%Module1.0
# Module file for Environment Modules: modulefiles/deltazoo/0.1.0, where deltazoo was installed by `make install PREFIX=...`.
module-whatis "MPI batch compressor for zoos of fine-tuned models"
proc ModulesHelp {} {
    puts stderr "deltazoo compresses fine-tuned models against their base: deltazoo --help; job scripts are in \$DELTAZOO_JOBS."
}

set prefix /opt/deltazoo/0.1.0 ;# Site
# Site: load the MPI and HDF5 that it was built with
# prereq openmpi hdf5

prepend-path PATH $prefix/bin
prepend-path MANPATH $prefix/share/man
prepend-path LIBRARY_PATH $prefix/lib
prepend-path LD_LIBRARY_PATH $prefix/lib
prepend-path CPATH $prefix/include
prepend-path PKG_CONFIG_PATH $prefix/lib/pkgconfig
prepend-path PYTHONPATH $prefix/share/deltazoo/python/src
setenv DELTAZOO_JOBS $prefix/share/deltazoo/jobs
