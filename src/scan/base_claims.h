/* What models say of their base: a model card's base_model, a configuration's _name_or_path; and where they lie. */
#ifndef DZ_SCAN_BASE_CLAIMS_H
#define DZ_SCAN_BASE_CLAIMS_H

#include "scan/scan.h"

enum { DZ_TIER_CLAIMED = 0, DZ_TIER_PLAIN = 1, DZ_TIER_TRAINED = 2, DZ_TIER_CHECKPOINT = 3 };

/* tier[i]: CLAIMED for a model that another one names as its base, CHECKPOINT for one that is a state of a training (checkpoint-500) or
 * lies in another model's folder, TRAINED for one in whose folder such states lie, else PLAIN. */
dz_rc dz_base_claims(const dz_scan_result *result, uint8_t *tier, dz_error *err);

#define DZ_CLAIM_MAX 256

/* The model that an adapter is of: named by base_model_name_or_path of its adapter_config.json, or by its card, as a path or a name.
 * `*base` is nmodels where it is not among the models. `claim` is the name, empty for none. */
dz_rc dz_adapter_base(const dz_scan_result *result, size_t adapter, size_t *base, char claim[DZ_CLAIM_MAX], dz_error *err);

#endif
