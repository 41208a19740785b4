#include "cli/report_originals.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "archive_ops/coverage.h"
#include "base/file.h"
#include "base/lookup.h"
#include "base/mem.h"
#include "cli/cli.h"

/* A model, by what the best of the archives that have it says; strings belong to the reports. */
typedef struct original {
    const char *path, *why, *quality, *archive;
    dz_cover cover;
    double bytes;
} original;

typedef struct originals {
    original *list;
    size_t n, cap;
    dz_lookup by_path;
} originals;

/* The lower, the stronger: a base is never free, and the best of the other ones counts. */
static int rank_of(dz_cover cover) { return cover == DZ_COVER_BASE ? -1 : (int)cover; }

static dz_cover cover_of(const char *name) {
    for (int c = 0; name && c < DZ_COVERS; c++) {
        if (strcmp(dz_cover_name((dz_cover)c), name) == 0) return (dz_cover)c;
    }
    return DZ_COVER_MISSING;
}

/* Sizes and times are those of the comparison. */
static int is_unchanged(json_t *files) {
    json_t *file;
    size_t i;
    json_array_foreach(files, i, file) {
        const char *path = json_string_value(json_object_get(file, "path"));
        struct stat st;
        if (!path || stat(path, &st) != 0 || (json_int_t)st.st_size != json_integer_value(json_object_get(file, "size")) ||
            (json_int_t)dz_mtime_ns(&st) != json_integer_value(json_object_get(file, "mtime_ns")))
            return 0;
    }
    return json_array_size(files) > 0;
}

static original read_original(const dz_job_row *row, const json_t *entry) {
    original o = {.path = json_string_value(json_object_get(entry, "path")),
                  .why = json_string_value(json_object_get(entry, "why")),
                  .quality = json_string_value(json_object_get(entry, "quality")),
                  .archive = row->archive,
                  .cover = cover_of(json_string_value(json_object_get(entry, "cover"))),
                  .bytes = json_number_value(json_object_get(entry, "bytes"))};
    struct stat st;
    if (o.path && o.cover != DZ_COVER_GONE && stat(o.path, &st) != 0) {
        o.cover = DZ_COVER_GONE;
    } else if (o.cover == DZ_COVER_EXACT || o.cover == DZ_COVER_LOSSY || o.cover == DZ_COVER_PARTLY) {
        if (row->checked != DZ_CHECKED_SOUND) {
            o.cover = DZ_COVER_CHANGED;
            o.why = row->checked == DZ_CHECKED_DAMAGED ? "the archive is damaged" : "the archive was written since it was verified";
        } else if (!is_unchanged(json_object_get(entry, "files"))) {
            o.cover = DZ_COVER_CHANGED;
            o.why = "its files were written since they were compared";
        }
    }
    return o;
}

static dz_rc add(originals *all, original o, dz_error *err) {
    int64_t at = dz_lookup_find(&all->by_path, o.path, strlen(o.path));
    if (at >= 0) {
        if (rank_of(o.cover) < rank_of(all->list[at].cover)) all->list[at] = o;
        return DZ_OK;
    }
    if (dz_grow((void **)&all->list, &all->cap, all->n + 1, sizeof *all->list, err) != DZ_OK) return err->rc;
    all->list[all->n] = o;
    return dz_lookup_add(&all->by_path, o.path, strlen(o.path), (uint32_t)all->n++, err);
}

static dz_rc collect(const dz_job_rows *rows, originals *all, dz_error *err) {
    json_t *entry;
    size_t i;
    for (size_t k = 0; k < rows->n; k++) {
        const dz_job_row *row = &rows->rows[k];
        if (k && row->verify && row->verify == rows->rows[k - 1].verify) continue; /* two reports of one archive */
        json_array_foreach(json_object_get(row->verify, "originals"), i, entry) {
            original o = read_original(row, entry);
            if (o.path && add(all, o, err) != DZ_OK) return err->rc;
        }
    }
    return err->rc;
}

/* Models of some kinds, a line each; how many. */
static size_t print_kind(const originals *all, const char *title, const dz_cover *covers, size_t ncovers) {
    double bytes = 0;
    size_t n = 0;
    char size[32], line[4096];
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < all->n; i++) {
            const original *o = &all->list[i];
            size_t k = 0;
            while (k < ncovers && covers[k] != o->cover) k++;
            if (k == ncovers) continue;
            if (!pass) bytes += o->bytes;
            if (!pass) n++;
            if (!pass) continue;
            printf("  %9s  %s", o->bytes > 0 ? dz_format_size(o->bytes, size) : "-", dz_report_line(o->path, line, sizeof line));
            const char *about = o->cover == DZ_COVER_LOSSY ? o->quality : o->why;
            if (about && about[0]) printf("  (%s)", dz_report_line(about, line, sizeof line));
            putchar('\n');
        }
        if (!pass && n == 0) return 0;
        if (!pass) printf("%s: %zu, %s\n", title, n, dz_format_size(bytes, size));
    }
    return n;
}

static void print_text(const dz_job_rows *rows, const originals *all) {
    static const dz_cover exact[] = {DZ_COVER_EXACT}, lossy[] = {DZ_COVER_LOSSY}, gone[] = {DZ_COVER_GONE},
                          keep[] = {DZ_COVER_BASE, DZ_COVER_PARTLY, DZ_COVER_CHANGED, DZ_COVER_MISSING};
    size_t n = print_kind(all, "covered, restored exactly", exact, 1);
    n += print_kind(all, "covered, restored with noise", lossy, 1);
    print_kind(all, "to be kept", keep, 4);
    print_kind(all, "gone already", gone, 1);
    for (size_t i = 0; i < rows->n; i++) {
        const dz_job_row *r = &rows->rows[i];
        if (r->known && !json_object_get(r->verify, "originals"))
            printf("%s: not known: deltazoo verify --originals has not looked at its models\n", r->archive);
    }
    if (n) printf("Models were compared by content when their archive was verified; since then by sizes and\ntimes of their files. ");
    printf("Nothing is deleted by this command.\n");
}

static json_t *all_json(const originals *all) {
    json_t *list = json_array(), *bytes = json_object();
    double sums[DZ_COVERS] = {0};
    for (size_t i = 0; i < all->n; i++) {
        const original *o = &all->list[i];
        sums[o->cover] += o->bytes;
        json_array_append_new(list, json_pack("{s:o, s:s, s:s?, s:f, s:o, s:o}", "path", dz_json_text(o->path, strlen(o->path)), "cover",
                                              dz_cover_name(o->cover), "quality", o->quality, "bytes", o->bytes, "why",
                                              dz_json_text(o->why ? o->why : "", strlen(o->why ? o->why : "")), "archive",
                                              dz_json_text(o->archive, strlen(o->archive))));
    }
    for (int c = 0; c < DZ_COVERS; c++) json_object_set_new(bytes, dz_cover_name((dz_cover)c), json_real(sums[c]));
    return json_pack("{s:o, s:o}", "originals", list, "bytes", bytes);
}

dz_rc dz_print_originals(const dz_job_rows *rows, int json, dz_error *err) {
    originals all = {0};
    if (collect(rows, &all, err) == DZ_OK) {
        if (json)
            dz_print_json(all_json(&all), NULL, err);
        else
            print_text(rows, &all);
    }
    dz_lookup_free(&all.by_path);
    free(all.list);
    return err->rc;
}
