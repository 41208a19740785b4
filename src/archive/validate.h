/* Structure check of an untrusted archive. libhdf5 can crash on malformed structures, so we check them before it opens a file. Only the few
 * structures that the writer makes are accepted, each with sizes within the file, no header over another, none in another file (FORMAT.md
 * "Which HDF5"). Checksums are left to HDF5. */
#ifndef DZ_ARCHIVE_VALIDATE_H
#define DZ_ARCHIVE_VALIDATE_H

#include "archive/catalog.h"

/* DZ_EFAIL if the file is no HDF5 file, or of a kind that no archive has; DZ_EDAMAGE names the byte where it leaves the format. If only a
 * task or the blobs are damaged, the catalog records that (lost, blobs_lost), and HDF5 must not open these objects. Uses the catalog's path
 * and file_size; adds to shared_bytes the structures that belong to no task. */
dz_rc dz_structure_check(int fd, dz_catalog *catalog, dz_error *err);

#endif
