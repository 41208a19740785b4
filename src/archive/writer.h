/* Writing an archive, by the only pattern that lost nothing when disks filled and ranks died (results/): the whole layout first, into
 * NAME.partial; then every rank writes its byte ranges (parallel/extent_writer.h), syncs, and reads them back; then a rename
 * (archive/publish.h). */
#ifndef DZ_ARCHIVE_WRITER_H
#define DZ_ARCHIVE_WRITER_H

#include "archive/catalog.h"

/* Lays the file out: all tables and attributes written, one contiguous `payload` dataset of payload_len bytes a task, space allocated.
 * Fills payload_offset of each task and file_size. One process calls it (rank 0). */
dz_rc dz_archive_layout(const char *path, dz_catalog *catalog, dz_error *err);

#endif
