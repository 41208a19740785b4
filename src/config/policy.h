/* What becomes of a tensor. Numbers and names stand in archives and are never changed. */
#ifndef DZ_CONFIG_POLICY_H
#define DZ_CONFIG_POLICY_H

typedef enum dz_policy {
    DZ_POLICY_LOSSLESS = 0,
    DZ_POLICY_ULTRADELTA = 1,
    DZ_POLICY_DROP = 2,
    DZ_POLICY_EQUAL = 3,      /* never in a recipe: a lossless tensor that turned out to equal its base */
    DZ_POLICY_ABSENT = 4,     /* never in a recipe: a tensor of the base that the task does not have */
    DZ_POLICY_TIED = 5,       /* never in a recipe: the bytes are another tensor's of the task */
    DZ_POLICIES,              /* how many there are */
    DZ_POLICY_STRUCTURE = 255 /* only in a recipe: ultradelta or lossless, as the tensor's place in the model says */
} dz_policy;

/* "lossless"; the policy is one of the above. */
const char *dz_policy_name(dz_policy policy);

#endif
