/* Any bytes as a PyTorch file: zip directory and pickle, and the elements by their strides. */
#include <fcntl.h>

#include "checkpoint/torch/torchfile.h"
#include "target.h"

/* Element `number` of the row-major copy is the one that the strides lead to. */
static void promise_element(const uint8_t *file, const dz_tensor *t, const dz_strided *p, const uint8_t *copy, uint64_t number) {
    uint64_t width = dz_element_bits(t->dtype_name) / 8, at = p->strided ? 0 : number, left = number;
    for (uint32_t d = t->ndim; p->strided && d-- > 0; left /= t->shape[d]) at += left % t->shape[d] * p->stride[d];
    PROMISE(memcmp(copy + number * width, file + p->offset + at * width, (size_t)width) == 0);
}

static void promise_tensor(const char *path, const uint8_t *file, size_t size, const dz_tensor *t, const dz_strided *p) {
    static uint8_t copy[1 << 16];
    uint64_t span = dz_strided_span(p, t);
    dz_error err = {0};
    PROMISE((span > 0 || t->nbytes == 0) && p->offset <= size && span <= size - p->offset);
    if (t->nbytes == 0 || t->nbytes > sizeof copy) return;
    int fd = open(path, O_RDONLY);
    PROMISE(fd >= 0 && dz_strided_read(p, t, fd, path, 0, (size_t)t->nbytes, copy, &err) == DZ_OK);
    for (uint64_t i = 0; i < t->nbytes / (dz_element_bits(t->dtype_name) / 8); i++) promise_element(file, t, p, copy, i);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 1 << 18) return 0;
    dz_tensor *tensors = NULL;
    dz_strided *places = NULL;
    size_t n = 0;
    dz_buf notes = {0};
    dz_error err = {0};
    const char *path = as_file(data, size);
    if (dz_torch_load(path, &tensors, &places, &n, &notes, &err) == DZ_OK) {
        for (size_t i = 0; i < n; i++) promise_tensor(path, data, size, &tensors[i], &places[i]);
    }
    promise_error(&err);
    dz_tensors_free(tensors, n);
    free(places);
    dz_buf_free(&notes);
    return 0;
}
