/* A task as a patch of its base: the elements that differ, by position, with their new values, in the coordinates of the checkpoint, as
 * vLLM's sparse weight updates take them (tensor name, full shape, ascending flat int32 indices, absolute values). */
#ifndef DZ_ARCHIVE_OPS_PATCH_H
#define DZ_ARCHIVE_OPS_PATCH_H

#include "archive_ops/export.h"

/* Collective. Needs opt->base. The safetensors file opt->out has NAME.indices (I32) and NAME.values (the tensor's type) of each tensor that
 * differs from the base's of the same name, type and shape; of a tensor that would not be smaller so, that the base has not, or that has
 * 2^31 elements or more, NAME.values in its full shape. The value of its metadata's key "deltazoo" is JSON: FORMAT.md "Patches". The same
 * bytes for any number of ranks; each holds one tensor and its base's at a time. */
dz_rc dz_export_patch(const dz_world *world, const dz_export_options *opt, dz_export_result *result, dz_error *err);

#endif
