/* The JSON header of a safetensors file. Input: bytes of data that the file is said to have (u32), then the header. */
#include "checkpoint/header.h"
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4 || size > 1 << 16) return 0;
    dz_view view = {.data = data, .len = size};
    uint64_t data_len = dz_view_u32(&view);
    dz_tensor *tensors = NULL, *again = NULL;
    size_t n = 0, m = 0;
    dz_error err = {0};
    dz_buf header = {0};
    char *text = (char *)guarded(0, size - 4);
    memcpy(text, data + 4, size - 4);
    if (dz_safetensors_parse("file", text, size - 4, 8 + (size - 4) + data_len, 0, &tensors, &n, &err) == DZ_OK) {
        uint64_t sum = 0;
        for (size_t i = 0; i < n; i++) {
            char shape[DZ_SHAPE_TEXT];
            PROMISE(tensors[i].offset == 8 + (size - 4) + sum && tensors[i].ndim <= DZ_MAX_NDIM);
            PROMISE(tensors[i].count * dz_dtype_size(tensors[i].dtype) == tensors[i].nbytes);
            dz_shape_text(&tensors[i], shape);
            sum += tensors[i].nbytes;
        }
        PROMISE(sum == data_len);
        PROMISE(dz_safetensors_header(tensors, n, (dz_like){0}, &header, &err) ==
                DZ_OK); /* what was read can be written, and is read alike */
        PROMISE(dz_safetensors_parse("file", (char *)header.data + 8, header.len - 8, header.len + data_len, 0, &again, &m, &err) == DZ_OK);
        PROMISE(m == n);
    }
    promise_error(&err);
    dz_tensors_free(tensors, n);
    dz_tensors_free(again, m);
    dz_buf_free(&header);
    return 0;
}
