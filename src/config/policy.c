#include "config/policy.h"

const char *dz_policy_name(dz_policy policy) {
    static const char *const names[DZ_POLICIES] = {"lossless", "ultradelta", "drop", "equal", "absent", "tied"};
    return policy == DZ_POLICY_STRUCTURE ? "structure" : names[policy];
}
