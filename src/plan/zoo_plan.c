#include "plan/zoo_plan.h"

#include <stdlib.h>
#include <string.h>

/* The notes of the first plan about what was left out, before those of the second. */
static void keep_notes(const dz_plan *first, dz_buf *lines, dz_error *err) {
    static const char LEFT_OUT[] = "left out: ";
    for (size_t at = 0; at < first->notes.len;) {
        const char *line = (const char *)first->notes.data + at, *end = memchr(line, '\n', first->notes.len - at);
        size_t len = end ? (size_t)(end - line) : first->notes.len - at;
        if (len > strlen(LEFT_OUT) && strncmp(line, LEFT_OUT, strlen(LEFT_OUT)) == 0) dz_buf_note(lines, err, "%.*s", (int)len, line);
        at += len + 1;
    }
}

dz_rc dz_zoo_plan(dz_zoo *zoo, int nranks, int skip_unmatched, dz_plan **out, dz_error *err) {
    dz_plan *plan = NULL;
    dz_buf left_out = {0};
    size_t before = zoo->ntasks;
    uint8_t *unmatched = skip_unmatched ? dz_alloc(zoo->ntasks, 1, err) : NULL;
    if (err->rc != DZ_OK) goto out;
    if (dz_plan_make(zoo->base, zoo->stored, zoo->tasks, zoo->names, zoo->ntasks, zoo->recipe, nranks, unmatched, &plan, err) != DZ_OK)
        goto out;
    if (unmatched && memchr(unmatched, 1, zoo->ntasks)) {
        keep_notes(plan, &left_out, err);
        dz_plan_free(plan);
        plan = NULL;
        dz_zoo_leave_out(zoo, unmatched);
        if (zoo->ntasks == 0) {
            dz_fail(err, DZ_EUSAGE, "%s: none of the %zu tasks can be matched with the base %s", zoo->manifest->path, before,
                    zoo->base->path);
            goto out;
        }
        if (dz_plan_make(zoo->base, zoo->stored, zoo->tasks, zoo->names, zoo->ntasks, zoo->recipe, nranks, NULL, &plan, err) != DZ_OK)
            goto out;
        dz_buf_put(&left_out, plan->notes.data, plan->notes.len, err);
        dz_buf_free(&plan->notes);
        plan->notes = left_out;
        left_out = (dz_buf){0};
    }
    if (err->rc != DZ_OK) goto out;
    *out = plan;
    plan = NULL;
out:
    dz_plan_free(plan);
    dz_buf_free(&left_out);
    free(unmatched);
    return err->rc;
}
