#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "archive/writer.h"
#include "base/file.h"
#include "base/version.h"
#include "cli/cli.h"
#include "numeric/kernels.h"

/* Names of the file systems that matter here, by their magic numbers (statfs(2)). */
static const char *file_system(const char *path) {
    static const struct {
        unsigned long magic;
        const char *name;
    } known[] = {{0xEF53, "ext"},     {0x58465342, "xfs"},    {0x9123683E, "btrfs"}, {0x01021994, "tmpfs"},
                 {0x6969, "nfs"},     {0x0BD00BD0, "lustre"}, {0x47504653, "gpfs"},  {0x794C7630, "overlay"},
                 {0x2FC12FC1, "zfs"}, {0x19830326, "beegfs"}, {0x00C36400, "ceph"},  {0x65735546, "fuse"}};
    struct statfs fs;
    if (statfs(path, &fs) != 0) return "unknown";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if ((unsigned long)fs.f_type == known[i].magic) return known[i].name;
    }
    return "another kind";
}

/* 1: locks of flock(2) work here. 0: they do not. -1: nothing can be written here. */
static int can_lock(const char *folder) {
    dz_error none = {0};
    char *path = dz_format(&none, "%s/.deltazoo-doctor-%ld", folder, (long)getpid());
    int fd = path ? dz_open(path, O_RDWR | O_CREAT | O_EXCL) : -1, works = fd < 0 ? -1 : flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (fd >= 0) close(fd);
    if (fd >= 0) unlink(path);
    free(path);
    return works;
}

static double memory_bytes(void) { return (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE); }

static int cores_allowed(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

static void advise(const dz_world *world, const char *folder, int lock, int fewest_cores) {
    int said = 0;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (world->size > online && ++said) printf("  slow:   %d ranks on %ld processors: one rank a core is best\n", world->size, online);
    if (world->size > 1 && fewest_cores == 1 && world->size <= online && ++said)
        printf("  note:   each rank is bound to one core; that is right where no two are bound to the same (mpirun --report-bindings)\n");
    if (memory_bytes() / world->size < 1e9 && ++said)
        printf("  slow:   less than 1 GB of memory a rank: give fewer ranks, or --mem-per-rank\n");
    if (lock == 0 && ++said)
        printf("  unsafe: files in %s cannot be locked: two jobs on different nodes are kept apart by the lock's time stamp only\n",
               folder);
    if (lock < 0 && ++said) printf("  unsafe: nothing can be written in %s\n", folder);
    const char *kernels = getenv("DZ_KERNELS");
    if (kernels && ++said) {
        if (strcmp(kernels, dz_kernels()->name) == 0)
            printf("  slow:   DZ_KERNELS chooses kernels: without it the fastest are taken\n");
        else
            printf("  note:   DZ_KERNELS: '%s' are no kernels of this processor:\n          %s are taken\n", kernels, dz_kernels()->name);
    }
    if (!said) printf("  nothing that would be slow or unsafe was found\n");
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *folder = ".";
    char mpi[256], hdf5[64], a[32], b[32];
    int helped = 0;
    const dz_option options[] = {{"dir", 'd', DZ_OPTION_TEXT, &folder, "DIR", "the folder where archives are to be written (this one)"},
                                 {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_DOCTOR, argc, argv, options, NULL, 0, &helped, err) != DZ_OK || helped) return err->rc;
    double fewest[1] = {-(double)cores_allowed()};
    dz_max_f64(world, fewest, 1);
    if (world->rank != 0) return DZ_OK;
    struct utsname os = {0};
    struct statfs fs = {0};
    int lock = can_lock(folder);
    uname(&os);
    statfs(folder, &fs);
    dz_mpi_version(mpi, sizeof mpi);
    dz_hdf5_version(hdf5, sizeof hdf5);
    printf("deltazoo     %s\n", DZ_VERSION);
    printf("MPI          %s, %d rank%s\n", mpi, world->size, world->size == 1 ? "" : "s");
    printf("HDF5         %s\n", hdf5);
    printf("zstd         %s\n", dz_zstd_version());
    printf("system       %s %s, %s\n", os.sysname, os.release, os.machine);
    printf("processors   %ld, of which this rank may use %d\n", sysconf(_SC_NPROCESSORS_ONLN), cores_allowed());
    printf("kernels      %s\n", dz_kernels()->name);
    printf("memory       %s\n", dz_format_size(memory_bytes(), a));
    printf("%-12s %s, %s free, locking %s\n", "storage", file_system(folder), dz_format_size((double)fs.f_bavail * (double)fs.f_bsize, b),
           lock > 0    ? "works"
           : lock == 0 ? "does not work"
                       : "not tried: read-only");
    printf("SLURM        %s\n\n", getenv("SLURM_JOB_ID") ? getenv("SLURM_JOB_ID") : "not in a job");
    advise(world, folder, lock, (int)-fewest[0]);
    return DZ_OK;
}

const dz_command DZ_CMD_DOCTOR = {
    "doctor", "[--dir DIR]", "Versions, memory, cores and storage of this machine, for bug reports, and what would be slow or unsafe here.",
    run,
    "deltazoo doctor\n"
    "mpirun -n 2 deltazoo doctor --dir ."};
