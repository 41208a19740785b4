#include <stdlib.h>

#include "numeric/kernels.h"

#define MOST_VARIANTS 4

/* Variants this processor runs, slowest first. */
static int list(const dz_kernel_table *out[MOST_VARIANTS]) {
    int n = 0;
    out[n++] = &dz_kernels_portable;
#ifdef __x86_64__
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (avx2) out[n++] = &dz_kernels_avx2;
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd"))
        out[n++] = &dz_kernels_avx512;
#endif
    out[n] = NULL;
    return n;
}

const dz_kernel_table *const *dz_kernels_all(void) {
    static const dz_kernel_table *all[MOST_VARIANTS];
    list(all);
    return all;
}

static const dz_kernel_table *choose(void) {
    const dz_kernel_table *all[MOST_VARIANTS];
    int n = list(all);
    const char *asked = getenv("DZ_KERNELS");
    for (int i = 0; asked && i < n; i++) {
        if (strcmp(all[i]->name, asked) == 0) return all[i];
    }
    return all[n - 1];
}

const dz_kernel_table *dz_kernels(void) {
    static _Atomic(const dz_kernel_table *) chosen; /* by whichever thread: all choose the same */
    const dz_kernel_table *table = chosen;
    if (!table) chosen = table = choose();
    return table;
}
