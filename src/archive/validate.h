/* Is this file built as archives are? HDF5 has many more structures than an archive needs, and its library does not survive all that a file
 * can say in them. So before HDF5 sees a file, its structures are walked here: only those few that the writer makes pass, each with sizes
 * that lie in the file, no header over another, none in another file (FORMAT.md "Which HDF5"). Checksums are left to HDF5. */
#ifndef DZ_ARCHIVE_VALIDATE_H
#define DZ_ARCHIVE_VALIDATE_H

#include "archive/catalog.h"

/* DZ_EFAIL when the file is no HDF5 file, or a kind of it that no archive is; DZ_EDAMAGE naming the byte where it leaves the format. Where
 * only a task does, or what the blobs are in, that is noted in the catalog (lost, blobs_lost), and must not be shown to HDF5. Uses the
 * catalog's path and file_size; adds to shared_bytes the structures that are no task's. */
dz_rc dz_structure_check(int fd, dz_catalog *catalog, dz_error *err);

#endif
