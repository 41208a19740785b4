#include "archive/dense.h"

#include <string.h>

#include "archive/schema.h"
#include "base/overwrite.h"

static void text(hid_t at, const char *path, const char *name, const char *value, dz_error *err) {
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR), attr = -1;
    H5Tset_size(type, strlen(value) + 1);
    H5Tset_cset(type, H5T_CSET_UTF8);
    attr = H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attr < 0 || H5Awrite(attr, type, value) < 0) dz_hdf5_fail(err, DZ_EFAIL, path, name);
    if (attr >= 0) H5Aclose(attr);
    H5Sclose(space);
    H5Tclose(type);
}

/* Parts of a path that HDF5 would take for something else. */
static int is_path(const char *name) {
    for (const char *part = name; part;) {
        size_t len = strcspn(part, "/");
        if (len == 0 || (len == 1 && part[0] == '.')) return 0;
        part = part[len] ? part + len + 1 : NULL;
    }
    return 1;
}

/* A tensor 'a/b' is the dataset b of the group a. Where that cannot be (a is a tensor itself, or a part is empty) its slashes are "%2F". */
static hid_t create(hid_t file, const dz_tensor *t, hid_t space, hid_t props) {
    hid_t links = H5Pcreate(H5P_LINK_CREATE), set = -1;
    char name[3 * 1024];
    H5Pset_create_intermediate_group(links, 1);
    H5Pset_char_encoding(links, H5T_CSET_UTF8);
    if (is_path(t->name)) set = H5Dcreate2(file, t->name, H5T_IEEE_F32LE, space, links, props, H5P_DEFAULT);
    if (set < 0) {
        size_t n = 0;
        for (const char *at = t->name; *at && n + 4 < sizeof name; at++) {
            if (*at == '/' || (*at == '.' && t->name[1] == 0)) {
                memcpy(name + n, *at == '/' ? "%2F" : "%2E", 3);
                n += 3;
            } else {
                name[n++] = *at;
            }
        }
        name[n] = 0;
        set = H5Dcreate2(file, name, H5T_IEEE_F32LE, space, links, props, H5P_DEFAULT);
    }
    H5Pclose(links);
    return set;
}

static void dataset(hid_t file, const char *path, const dz_tensor *t, uint64_t *offset, dz_error *err) {
    hsize_t dims[DZ_MAX_NDIM];
    for (uint32_t d = 0; d < t->ndim; d++) dims[d] = t->shape[d];
    hid_t space = t->ndim ? H5Screate_simple((int)t->ndim, dims, NULL) : H5Screate(H5S_SCALAR), props = H5Pcreate(H5P_DATASET_CREATE),
          set = -1;
    if (space >= 0 && props >= 0 && H5Pset_layout(props, H5D_CONTIGUOUS) >= 0 && H5Pset_alloc_time(props, H5D_ALLOC_TIME_EARLY) >= 0 &&
        H5Pset_fill_time(props, H5D_FILL_TIME_NEVER) >= 0 && H5Pset_obj_track_times(props, 0) >= 0)
        set = create(file, t, space, props);
    haddr_t at = set >= 0 && t->count ? H5Dget_offset(set) : 0;
    if (set < 0 || at == HADDR_UNDEF) dz_hdf5_fail(err, DZ_EFAIL, path, t->name);
    *offset = at;
    if (set >= 0) H5Dclose(set);
    if (props >= 0) H5Pclose(props);
    if (space >= 0) H5Sclose(space);
}

dz_rc dz_dense_layout(const char *path, const char *task, const char *meaning, const dz_tensor *tensors, size_t ntensors, uint64_t *offsets,
                      dz_error *err) {
    dz_hdf5_quiet();
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), create_root = H5Pcreate(H5P_FILE_CREATE), file = -1;
    H5Pset_obj_track_times(create_root, 0);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
#if H5_VERSION_GE(1, 10, 7)
    H5Pset_file_locking(access, 0, 1);
#endif
    file = H5Fcreate(path, H5F_ACC_TRUNC, create_root, access);
    if (access >= 0) H5Pclose(access);
    if (create_root >= 0) H5Pclose(create_root);
    if (file < 0) return dz_hdf5_fail(err, DZ_EFAIL, path, "cannot create");
    text(file, path, "format", DZ_HDF5_VECTOR, err);
    text(file, path, "task", task, err);
    text(file, path, "meaning", meaning, err);
    for (size_t i = 0; i < ntensors && err->rc == DZ_OK; i++) dataset(file, path, &tensors[i], &offsets[i], err);
    if (H5Fclose(file) < 0 && err->rc == DZ_OK) dz_hdf5_fail(err, DZ_EFAIL, path, "cannot close");
    return err->rc;
}
