/* compress --update: which models of the manifest are new or have changed since they were stored, by their content. */
#ifndef DZ_COMPRESS_UPDATE_H
#define DZ_COMPRESS_UPDATE_H

#include "compress/context.h"

/* Collective. Compares each task of the zoo with the archive's of the same name (archive/originals.h), takes unchanged ones out of the zoo,
 * and marks those to be replaced, and with --prune those that the manifest no longer names, to be left out of the next version. Tasks that
 * are coded against one that is replaced are coded anew, with the settings that they have in the archive where one job can (noted in
 * `generations`, as later generations open the zoo again). If no task is left to code, the base's values are compared as well (DZ_EVALUE).
 * `result` (rank 0): a line NAME<tab>ACTION<tab>WHY for each task, and the names of those that are pruned. */
dz_rc dz_update_settle(dz_context *ctx, dz_generations *generations, dz_compress_result *result, dz_error *err);

#endif
