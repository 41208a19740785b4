/* A PyTorch file: zip directory and pickle. */
#include "model/torchfile.h"
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 1 << 18) return 0;
    dz_tensor *tensors = NULL;
    size_t n = 0;
    dz_buf notes = {0};
    dz_error err = {0};
    if (dz_torch_load(as_file(data, size), 0, &tensors, &n, &notes, &err) == DZ_OK) {
        for (size_t i = 0; i < n; i++) PROMISE(tensors[i].nbytes <= size && tensors[i].offset <= size - tensors[i].nbytes);
    }
    promise_error(&err);
    dz_tensors_free(tensors, n);
    dz_buf_free(&notes);
    return 0;
}
