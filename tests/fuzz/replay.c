/* A fuzz target without libFuzzer: gives it every file named, and every file of every directory named, one after another. A file that makes
 * it crash ends the program; the last line reported its name. */
#include <dirent.h>
#include <sys/stat.h>

#include "base/file.h"
#include "target.h"

static size_t replayed;

static int replay(const char *path) {
    dz_error err = {0};
    char *bytes = NULL;
    size_t size = 0;
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        struct dirent **names = NULL;
        int n = scandir(path, &names, NULL, alphasort), bad = n < 0;
        for (int i = 0; i < n; i++) {
            char *inner = names[i]->d_name[0] == '.' ? NULL : dz_format(&err, "%s/%s", path, names[i]->d_name);
            if (inner && !bad) bad = replay(inner);
            free(inner);
            free(names[i]);
        }
        free(names);
        return bad;
    }
    if (dz_read_file(path, (size_t)1 << 24, &bytes, &size, &err) != DZ_OK) {
        printf("%s\n", err.text);
        return 1;
    }
    printf("%s\n", path);
    fflush(stdout);
    uint8_t *exact = malloc(size ? size : 1); /* without the NUL that follows: a read beyond is seen */
    if (exact) {
        memcpy(exact, bytes, size);
        LLVMFuzzerTestOneInput(exact, size);
        replayed++;
    }
    free(exact);
    free(bytes);
    return exact == NULL;
}

int main(int argc, char **argv) {
    int bad = argc < 2;
    for (int i = 1; i < argc && !bad; i++) bad = replay(argv[i]);
    printf("%zu passed, %d failed\n", replayed, bad || replayed == 0);
    return bad || replayed == 0;
}
