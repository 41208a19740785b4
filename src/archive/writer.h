/* Writing an archive: first the whole layout, into NAME.partial; then every rank writes its byte ranges (parallel/extent_writer.h), syncs
 * them and reads them back; then a rename (archive/publish.h). This pattern lost nothing when disks filled and ranks died
 * (results/reliability.md). */
#ifndef DZ_ARCHIVE_WRITER_H
#define DZ_ARCHIVE_WRITER_H

#include "archive/catalog.h"

/* Lays out the file: writes all tables and attributes, and allocates a contiguous `payload` dataset of payload_len bytes for each task.
 * Fills payload_offset of each task and file_size. One process calls it (rank 0). */
dz_rc dz_archive_layout(const char *path, dz_catalog *catalog, dz_error *err);

/* Versions of the libraries in use. */
const char *dz_zstd_version(void);
void dz_hdf5_version(char *text, size_t size);

#endif
