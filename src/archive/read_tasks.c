/* Which of the links of /tasks are read, and in what order. */
#include <stdlib.h>
#include <string.h>

#include "archive/reader_internal.h"
#include "archive/schema.h"
#include "archive/validate.h"
#include "base/file.h"
#include "base/lookup.h"

/* A link of /tasks. Groups are opened by their place: looking a name up is a walk through all links of the header. */
typedef struct task_link {
    char *name;
#if H5_VERSION_GE(1, 12, 0)
    H5O_token_t place;
#else
    haddr_t place;
#endif
} task_link;

typedef struct task_links {
    task_link *links;
    size_t n, cap;
    dz_error *err;
} task_links;

#if H5_VERSION_GE(1, 12, 0)
static herr_t add_link(hid_t group, const char *name, const H5L_info2_t *info, void *arg) {
#else
static herr_t add_link(hid_t group, const char *name, const H5L_info_t *info, void *arg) {
#endif
    task_links *l = arg;
    (void)group;
    if (dz_grow((void **)&l->links, &l->cap, l->n + 1, sizeof *l->links, l->err) != DZ_OK) return -1;
    task_link *link = &l->links[l->n];
    if (!(link->name = dz_strdup(name, l->err))) return -1;
    l->n++;
#if H5_VERSION_GE(1, 12, 0)
    link->place = info->u.token;
#else
    link->place = info->u.address;
#endif
    return 0;
}

/* In the order of their names. */
static int list_links(hid_t tasks, task_links *l) {
#if H5_VERSION_GE(1, 12, 0)
    return H5Literate2(tasks, H5_INDEX_NAME, H5_ITER_INC, NULL, add_link, l) >= 0;
#else
    return H5Literate(tasks, H5_INDEX_NAME, H5_ITER_INC, NULL, add_link, l) >= 0;
#endif
}

static hid_t open_link(hid_t tasks, const task_link *link) {
#if H5_VERSION_GE(1, 12, 0)
    return H5Oopen_by_token(tasks, link->place);
#else
    return H5Oopen_by_addr(tasks, link->place);
#endif
}

static dz_rc read_task(dz_archive *a, hid_t tasks, const task_link *link, dz_task_entry *t, dz_buf *b, dz_error *err) {
    hid_t g = open_link(tasks, link);
    if (g < 0) return dz_hdf5_fail(err, DZ_EDAMAGE, a->path, t->name);
    dz_reader_task(a, g, t, b, err);
    H5Oclose(g);
    return err->rc;
}

/* Reads a task into the catalog, or notes it as lost. One that is lost already is not looked at. */
static dz_rc try_task(dz_archive *a, hid_t tasks, const task_link *link, const dz_lookup *lost, dz_buf *b, dz_error *err) {
    dz_catalog *c = a->catalog;
    dz_task_entry *t = &c->tasks[c->ntasks];
    dz_error inner = {0};
    const char *name = link->name;
    if (dz_lookup_find(lost, name, strlen(name)) >= 0) return DZ_OK;
    *t = (dz_task_entry){.name = dz_strdup(name, err)};
    if (!t->name) return err->rc;
    if (read_task(a, tasks, link, t, b, &inner) == DZ_OK) {
        c->ntasks++;
        return DZ_OK;
    }
    dz_task_entry_free(t);
    return inner.rc == DZ_ENOMEM ? dz_fail(err, inner.rc, "%s", inner.text) : dz_catalog_lose(c, name, inner.text, err);
}

static int by_payload(const void *x, const void *y) {
    const dz_task_entry *a = x, *b = y;
    if (a->payload_offset != b->payload_offset) return a->payload_offset < b->payload_offset ? -1 : 1;
    return strcmp(a->name, b->name); /* without a payload */
}

/* Links still to be read, each once. */
typedef struct link_queue {
    dz_lookup names; /* of all links */
    size_t *list;    /* [links] numbers, in the order in which they are read */
    uint8_t *queued; /* [links] */
    size_t n;
} link_queue;

/* Returns 0 if there is no link of this name. */
static int enqueue(link_queue *q, const char *name) {
    int64_t at = dz_lookup_find(&q->names, name, strlen(name));
    if (at < 0 || q->queued[at]) return at >= 0;
    q->queued[at] = 1;
    q->list[q->n++] = (size_t)at;
    return 1;
}

/* Of the others that are lost, nothing is said. */
static void forget_lost(dz_catalog *c, const link_queue *q) {
    size_t kept = 0;
    for (size_t i = 0; i < c->nlost; i++) {
        int64_t at = dz_lookup_find(&q->names, c->lost[i].name, strlen(c->lost[i].name));
        if (at >= 0 && q->queued[at]) {
            c->lost[kept++] = c->lost[i];
            continue;
        }
        free(c->lost[i].name);
        free(c->lost[i].text);
    }
    c->nlost = kept;
}

/* The chosen tasks, and what they are coded against. Returns 0, having read none, if one of the chosen is not there. */
static int read_chosen(dz_archive *a, hid_t tasks, const task_links *l, const dz_task_choice *choice, const dz_lookup *lost, dz_buf *b,
                       dz_error *err) {
    dz_catalog *c = a->catalog;
    link_queue q = {.list = dz_alloc(l->n, sizeof *q.list, err), .queued = dz_alloc(l->n, 1, err)};
    int found = 1;
    for (size_t i = 0; i < l->n && err->rc == DZ_OK; i++)
        dz_lookup_add(&q.names, l->links[i].name, strlen(l->links[i].name), (uint32_t)i, err);
    for (size_t i = 0; i < choice->n && err->rc == DZ_OK; i++) found &= enqueue(&q, choice->names[i]);
    if (c->stored_name && err->rc == DZ_OK) enqueue(&q, c->stored_name);
    for (size_t i = 0; found && i < q.n && err->rc == DZ_OK; i++) {
        size_t before = c->ntasks;
        const task_link *link = &l->links[q.list[i]];
        if (!dz_catalog_is_foreign(c, link->name) && dz_task_name_ok(link->name)) try_task(a, tasks, link, lost, b, err);
        for (size_t s = 0; c->ntasks > before && s < c->tasks[before].nsources; s++)
            enqueue(&q, c->tasks[before].sources[s]); /* of one that is not there, dz_catalog_link tells */
    }
    if (found && err->rc == DZ_OK) forget_lost(c, &q);
    dz_lookup_free(&q.names);
    free(q.list);
    free(q.queued);
    return found;
}

dz_rc dz_reader_tasks(dz_archive *a, hid_t file, const dz_task_choice *choice, dz_buf *b, dz_error *err) {
    dz_catalog *c = a->catalog;
    hid_t tasks = H5Gopen2(file, "tasks", H5P_DEFAULT);
    H5G_info_t info;
    int chosen = 0;
    dz_lookup lost = {0};
    task_links links = {.err = err};
    for (size_t i = 0; i < c->nlost; i++) dz_lookup_add(&lost, c->lost[i].name, strlen(c->lost[i].name), (uint32_t)i, err);
    if (err->rc != DZ_OK) goto out;
    if (tasks < 0 || H5Gget_info(tasks, &info) < 0) {
        dz_hdf5_fail(err, DZ_EDAMAGE, a->path, "tasks");
        goto out;
    }
    if (info.nlinks > c->file_size / 16) {
        dz_fail(err, DZ_EDAMAGE, "%s: too many tasks", a->path);
        goto out;
    }
    if (!(c->tasks = dz_alloc((size_t)info.nlinks, sizeof *c->tasks, err))) goto out;
    if (!list_links(tasks, &links) || links.n != info.nlinks) dz_hdf5_fail(err, DZ_EDAMAGE, a->path, "tasks");
    chosen = choice->names && err->rc == DZ_OK && read_chosen(a, tasks, &links, choice, &lost, b, err);
    for (size_t i = 0; !chosen && i < links.n && err->rc == DZ_OK; i++) {
        if (dz_catalog_is_foreign(c, links.links[i].name)) continue;
        if (!dz_task_name_ok(links.links[i].name)) {
            dz_fail(err, DZ_EDAMAGE, "%s: a task's name is not sound", a->path);
            break;
        }
        try_task(a, tasks, &links.links[i], &lost, b, err);
    }
    if (err->rc != DZ_OK) goto out;
    qsort(c->tasks, c->ntasks, sizeof *c->tasks, by_payload); /* the order of the manifest */
    if (dz_catalog_link(c, err) == DZ_OK) dz_share_structures(c, chosen);
out:
    for (size_t i = 0; i < links.n; i++) free(links.links[i].name);
    free(links.links);
    dz_lookup_free(&lost);
    if (tasks >= 0) H5Gclose(tasks);
    return err->rc;
}
