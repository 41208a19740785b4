/* Lists an archive's tasks and prints the first values of one tensor, restored and as a delta. An example of libdeltazoo, compiled and run
 * by tests/install/run.sh from an installed tree:
 *
 *   cc example.c $(pkg-config --cflags --libs deltazoo) -o example
 *   ./example ARCHIVE TASK TENSOR BASE
 */
#include <deltazoo.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    deltazoo_archive *archive = NULL;
    char message[512] = "";
    if (argc != 5) {
        fprintf(stderr, "usage: %s ARCHIVE TASK TENSOR BASE\n", argv[0]);
        return 2;
    }
    int rc = deltazoo_open(argv[1], &archive, message, sizeof message);
    if (rc == DELTAZOO_OK) rc = deltazoo_set_base(archive, argv[4], message, sizeof message);
    if (rc != DELTAZOO_OK) {
        fprintf(stderr, "%s\n", message);
        deltazoo_close(archive);
        return rc;
    }
    size_t task = SIZE_MAX, index = 0;
    for (size_t t = 0; t < deltazoo_task_count(archive); t++) {
        deltazoo_task about;
        deltazoo_task_at(archive, t, &about);
        printf("task %s: %" PRIu64 " bytes in %" PRIu64 ", gamma %.4f\n", about.name, about.source_bytes, about.stored_bytes, about.gamma);
        if (strcmp(about.name, argv[2]) == 0) task = t;
    }
    deltazoo_tensor tensor;
    if (deltazoo_tensor_find(archive, task, argv[3], &index) != DELTAZOO_OK ||
        deltazoo_tensor_at(archive, task, index, &tensor) != DELTAZOO_OK) {
        fprintf(stderr, "%s: no tensor %s of task %s\n", argv[1], argv[3], argv[2]);
        deltazoo_close(archive);
        return 2;
    }
    uint8_t *restored = malloc(tensor.nbytes);
    uint64_t count = 0;
    rc = restored ? deltazoo_restore(archive, task, index, restored, message, sizeof message) : DELTAZOO_ENOMEM;
    if (rc == DELTAZOO_OK && strcmp(tensor.policy, "ultradelta") == 0)
        rc = deltazoo_delta_sparse(archive, task, index, &count, NULL, NULL, message, sizeof message);
    if (rc == DELTAZOO_OK) {
        printf("tensor %s %s, %" PRIu64 " of its elements differ from the base's:", tensor.name, tensor.dtype, count);
        for (size_t i = 0; i < 16 && i < tensor.nbytes; i++) printf(" %02x", restored[i]);
        printf("\n");
    } else {
        fprintf(stderr, "%s\n", message);
    }
    free(restored);
    deltazoo_close(archive);
    return rc;
}
