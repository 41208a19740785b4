/* What a model is called and where it comes from, as far as its files and its path tell. */
#ifndef DZ_CHECKPOINT_DESCRIBE_H
#define DZ_CHECKPOINT_DESCRIBE_H

#include "checkpoint/checkpoint.h"

/* `*name`: its repository in a hub's cache (org/name), else its config's `_name_or_path` where that is no local path, else the last part of
 * its path. `*revision`: of the hub's snapshot, or its config's `_commit_hash`; "" where neither is known. UTF-8 of one line, at most 512
 * bytes each. The caller frees both. */
dz_rc dz_checkpoint_describe(const dz_checkpoint *ck, char **name, char **revision, dz_error *err);

/* A text as an archive can hold it: UTF-8, one line, at most 512 bytes; "" for what is not. The caller frees. */
char *dz_plain_text(const char *text, size_t len, dz_error *err);

#endif
