#include "parallel/spread.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void dz_wait_asleep(const dz_world *world) {
    if (world->size == 1) return;
    MPI_Request request = MPI_REQUEST_NULL;
    int done = 0;
    struct timespec pause = {.tv_nsec = 1000000};
    MPI_Ibarrier(world->comm, &request);
    for (MPI_Test(&request, &done, MPI_STATUS_IGNORE); !done; MPI_Test(&request, &done, MPI_STATUS_IGNORE)) {
        nanosleep(&pause, NULL);
        if (pause.tv_nsec < 50000000) pause.tv_nsec *= 2;
    }
}

struct dz_processors {
    char host[64];
    cpu_set_t set;
};

dz_processors *dz_processors_of_host(const dz_world *world) {
    dz_processors mine = {0}, *all = NULL;
    if (gethostname(mine.host, sizeof mine.host - 1) != 0) mine.host[0] = '\0';
    if (sched_getaffinity(0, sizeof mine.set, &mine.set) != 0) CPU_ZERO(&mine.set);
    if (world->rank == 0) all = calloc((size_t)world->size, sizeof *all);
    double missing = world->rank == 0 && !all;
    dz_max_f64(world, &missing, 1);
    if (missing <= 0) dz_gather(world, &mine, sizeof mine, all);
    for (int r = 1; all && missing <= 0 && r < world->size; r++) {
        if (strcmp(all[r].host, all[0].host) == 0) CPU_OR(&all[0].set, &all[0].set, &all[r].set);
    }
    return all;
}

void dz_processors_use(const dz_processors *p) {
    if (p && CPU_COUNT(&p->set) > 0) sched_setaffinity(0, sizeof p->set, &p->set);
}

int dz_is_of_launcher(const char *variable) {
    static const char *const prefixes[] = {
        "OMPI_COMM_", "OMPI_UNIVERSE_", "OMPI_MCA_orte_", "OMPI_MCA_ess_", "OMPI_MCA_pmix", "OMPI_MCA_pml=",
        "OMPI_FILE_", "OMPI_FIRST_",    "OMPI_APP_",      "OMPI_NUM_",     "OMPI_ARGV",     "OMPI_COMMAND",
        "PMIX_",      "PMI_",           "PRTE_",          "MPI_LOCAL",     "MV2_COMM",      "HYDRA_",
        NULL};
    for (int i = 0; prefixes[i]; i++) {
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0) return 1;
    }
    return 0;
}
