/* What a restored model says of itself where it is not the original: a mark in the metadata of each safetensors file with a lossy tensor,
 * and deltazoo.json beside them. A model that was restored exactly carries neither: its files are the original's, byte for byte. */
#ifndef DZ_CHECKPOINT_MARK_H
#define DZ_CHECKPOINT_MARK_H

#include <time.h>

#include "base/mem.h"

#define DZ_MARK_FILE "deltazoo.json"

typedef struct dz_mark {
    const char *task;   /* "math", or a sum: "0.6 * math + 0.4 * code" */
    const char *method; /* of its recipe; "sum" */
    double kept, noise; /* share of the lossy elements that is stored; expected |restored - true| / |true| of the delta; NAN: not known */
    const char *dtype;  /* in which float tensors were restored; NULL: as they were */
    const char *base;   /* name; "" where the archive does not know it */
    const char *fingerprint; /* of the base */
    const char *generator;   /* what wrote the archive */
    unsigned format_version;
    const char *archive; /* file name. From here on only in deltazoo.json: the tensors' files do not depend on it */
    time_t archive_date;
    uint64_t damaged; /* places with other values than the archive's, which is damaged there */
    int lossy;        /* 0: damaged only */
} dz_mark;

/* The mark's text, for metadata: JSON in one line, of what does not depend on the archive file's name and date. The caller frees. */
char *dz_mark_text(const dz_mark *mark, dz_error *err);

/* Puts the mark into a safetensors header (8-byte length and JSON), in the place of an earlier one. Appends the new header to `out`. */
dz_rc dz_mark_header(const char *header, size_t len, const char *text, dz_buf *out, dz_error *err);

/* Text of deltazoo.json; `files` and `sizes`: what was restored. Appended to `out`. */
dz_rc dz_mark_file(const dz_mark *mark, const char *const *files, const uint64_t *sizes, size_t nfiles, dz_buf *out, dz_error *err);

/* deltazoo.json of a folder, read once; empty where it has none, or one that is not a restored model's. */
typedef struct dz_folder_mark {
    struct json_t *json;
} dz_folder_mark;

dz_folder_mark dz_folder_mark_load(const char *folder);
void dz_folder_mark_free(dz_folder_mark *mark);

/* It lists a file of this name and size. */
int dz_folder_mark_lists(const dz_folder_mark *mark, const char *file, uint64_t size);

/* A line about a restored model, from its folder's mark or a safetensors header ("zoo.h5, task 'math', ..."); NULL without a mark. The
 * caller frees. */
char *dz_folder_mark_line(const dz_folder_mark *mark, dz_error *err);
char *dz_mark_of_header(const char *header, size_t len, dz_error *err);

/* The file at `path` is a restored model's deltazoo.json. */
int dz_mark_is_file(const char *path);

/* Appends text as JSON has it between quotation marks. */
void dz_mark_put_escaped(dz_buf *b, const char *text, dz_error *err);
void dz_mark_put_quoted(dz_buf *b, const char *text, dz_error *err); /* and the marks */

/* Of a task vector's header: names of the tensors of its task that it lacks, a line each (the first hundred); how many there are. */
dz_rc dz_mark_vector_lacks(const char *header, size_t len, dz_buf *names, uint64_t *count, dz_error *err);

/* Takes the marks off a model: blanks them in its headers in place, and removes deltazoo.json. `*n`: marks that were there. */
dz_rc dz_mark_remove(const char *path, size_t *n, dz_error *err);

#endif
