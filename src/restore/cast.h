/* restore --dtype: float tensors written in another type. */
#ifndef DZ_RESTORE_CAST_H
#define DZ_RESTORE_CAST_H

#include "restore/job.h"

/* The tensor of a row as it is written: of another type and size where opt->dtype says so. F64, F32, F16 and BF16 are converted; integers
 * and F8, which are codes, stay. */
dz_tensor dz_restore_written(const dz_restore_job *r, const dz_index_row *row);

/* Whether the row is written in another type, and whether that may lose bits of an exact value. */
int dz_restore_is_cast(const dz_restore_job *r, const dz_index_row *row);
int dz_restore_cast_rounds(const dz_restore_job *r, const dz_index_row *row);

/* A tile in opt->dtype, into `out`: base and delta are added in float (sums of tasks in double), and rounded once. DZ_EVALUE names a finite
 * value beyond the type's range. */
dz_rc dz_restore_cast_tile(dz_restore_job *r, const dz_index_row *row, uint32_t tile, void *out, dz_error *err);

/* What takes the place of a damaged tile, in opt->dtype. */
dz_rc dz_restore_cast_substitute(dz_restore_job *r, const dz_index_row *row, uint32_t tile, void *out, dz_error *err);

#endif
