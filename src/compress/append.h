/* compress --append: what the archive has already, and whether the zoo belongs to it. */
#ifndef DZ_COMPRESS_APPEND_H
#define DZ_COMPRESS_APPEND_H

#include "compress/statistics.h"

/* Collective. Opens the archive, if there is one, compares names and headers, and takes tasks that it keeps out of the zoo: `*skipped` of
 * them. `result` (rank 0): what --update found. In a later generation the archive of those before is taken along
 * whole. */
dz_rc dz_append_open(dz_context *ctx, dz_generations *generations, size_t *skipped, dz_compress_result *result, dz_error *err);

/* After the statistics: DZ_EVALUE when the base's values are not those of the archive. Alike on every rank. */
dz_rc dz_append_check_base(const dz_context *ctx, const dz_stats *stats, dz_error *err);

#endif
