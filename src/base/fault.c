#include "base/fault.h"

#ifdef DZ_FAULTS
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int my_rank;
static _Atomic int passed;

void dz_fault_rank(int rank) { my_rank = rank; }

int dz_fault(const char *point) {
    char where[32] = "", kind[16] = "eio";
    int rank = -1, n = 0;
    const char *wish = getenv("DZ_FAULT");
    if (!wish || sscanf(wish, "%31[^:]:%d:%d:%15s", where, &rank, &n, kind) < 3) return 0;
    if (rank != my_rank || strcmp(where, point) != 0 || ++passed != n) return 0;
    if (strcmp(kind, "kill") == 0) raise(SIGKILL);
    while (strcmp(kind, "hang") == 0) pause();
    return strcmp(kind, "enospc") == 0 ? ENOSPC : EIO;
}
#else
typedef int dz_fault_needs_a_declaration;
#endif
