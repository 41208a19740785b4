/* What models say of their base: a model card's base_model, a configuration's _name_or_path; and where they lie. */
#ifndef DZ_SCAN_BASE_CLAIMS_H
#define DZ_SCAN_BASE_CLAIMS_H

#include "scan/scan.h"

enum { DZ_TIER_CLAIMED = 0, DZ_TIER_PLAIN = 1, DZ_TIER_TRAINED = 2, DZ_TIER_CHECKPOINT = 3 };

/* Reads what each model says, once, into `claim`, and which file or folder its path is. On rank 0, before the others here. */
dz_rc dz_base_claims_read(dz_scan_result *result, dz_error *err);

/* tier[i]: CLAIMED for a model that another one names as its base, CHECKPOINT for one that is a state of a training (checkpoint-500) or
 * lies in another model's folder, TRAINED for one in whose folder such states lie, else PLAIN. */
void dz_base_claims(const dz_scan_result *result, uint8_t *tier);

/* The number of the model that an adapter is of: named by base_model_name_or_path of its adapter_config.json, or by its card, as a path or
 * a name. nmodels where it is not among the models. */
size_t dz_adapter_base(const dz_scan_result *result, size_t adapter);

#endif
