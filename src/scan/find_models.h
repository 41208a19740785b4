/* Finding the models of a folder. */
#ifndef DZ_SCAN_FIND_MODELS_H
#define DZ_SCAN_FIND_MODELS_H

#include "base/notes.h"
#include "scan/scan.h"

/* Appends name, path and identity of each model below `dir` to the result: a directory with weights or an adapter (also inside another),
 * the only PyTorch file of a directory, and single files of `dir` itself. Links are followed, except to models that are found without them
 * and to places above `dir`. Skipped entries get a note. DZ_EUSAGE if `dir` is itself a model and holds no other. */
dz_rc dz_find_models(const char *dir, dz_scan_result *result, dz_notes *notes, dz_error *err);

/* A number is put behind the name of a model that is to join the result's, if one of these has it. */
dz_rc dz_scan_name_unique(const dz_scan_result *result, dz_scan_model *model, dz_error *err);

#endif
