#include "base/log.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int begins(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

/* The process that gave us our pipe, if it is a launcher: mpirun of Open MPI itself, of MPICH the parent of its proxy. 0: another one,
 * whose terminal is none of our business ("deltazoo ... 2>&1 | tee log" in a shell). */
static int launcher(void) {
    int pid = (int)getppid();
    for (int proxies = 0; proxies < 2; proxies++) {
        char path[64], name[32] = "";
        int parent = 0;
        snprintf(path, sizeof path, "/proc/%d/stat", pid);
        FILE *f = fopen(path, "re");
        if (!f) return 0;
        int n = fscanf(f, "%*d (%31[^)]) %*c %d", name, &parent);
        fclose(f);
        if (n != 2) return 0;
        if (begins(name, "mpirun") || begins(name, "mpiexec") || begins(name, "orterun") || begins(name, "prterun")) return pid;
        if (!begins(name, "hydra_pmi_proxy")) return 0;
        pid = parent;
    }
    return 0;
}

static int launcher_on_terminal(void) {
    struct stat st;
    char path[64];
    if (fstat(STDERR_FILENO, &st) != 0 || !S_ISFIFO(st.st_mode)) return 0;
    int pid = launcher();
    snprintf(path, sizeof path, "/proc/%d/fd/2", pid);
    int fd = pid > 0 ? open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    int terminal = isatty(fd);
    close(fd);
    return terminal;
}

static int is_terminal(void) { return isatty(STDERR_FILENO) || launcher_on_terminal(); }

/* Lines break between words before the terminal's edge, and go on in column `indent`. In a log a message is one line. It is written at
 * once, so that nothing that other ranks or the table write comes between. */
static void put_line(const char *start, size_t indent, const char *fmt, va_list args) {
    char *text = NULL, *out = NULL;
    size_t size = 0;
    int len = vasprintf(&text, fmt, args), columns = is_terminal() ? dz_log_columns() : INT_MAX;
    FILE *to = open_memstream(&out, &size);
    if (!to) to = stderr;
    int at = fprintf(to, "%s", start);
    for (const char *word = len >= 0 ? text : "out of memory"; *word;) {
        at += fprintf(to, "%.*s", (int)strcspn(word, " "), word);
        word += strcspn(word, " ");
        int spaces = (int)strspn(word, " "), next = (int)strcspn(word + spaces, " ");
        word += spaces;
        if (*word && at + spaces + next > columns)
            at = fprintf(to, "\n%*s", (int)indent, "") - 1;
        else
            at += fprintf(to, "%*s", spaces, "");
    }
    fputc('\n', to);
    if (to != stderr && fclose(to) == 0) fwrite(out, 1, size, stderr);
    free(out);
    free(len >= 0 ? text : NULL);
}

void dz_log(const char *fmt, ...) {
    char stamp[32];
    struct tm tm;
    time_t now = time(NULL);
    va_list args;
    strftime(stamp, sizeof stamp, "%F %T  ", localtime_r(&now, &tm));
    va_start(args, fmt);
    put_line(stamp, strlen(stamp), fmt, args);
    va_end(args);
}

void dz_message(const char *kind, const char *fmt, ...) {
    char start[64];
    va_list args;
    snprintf(start, sizeof start, "deltazoo: %s: ", kind);
    va_start(args, fmt);
    put_line(start, 4, fmt, args);
    va_end(args);
}

int dz_log_on_terminal(void) {
    const char *wish = getenv("DZ_PROGRESS");
    if (wish && (strcmp(wish, "bar") == 0 || strcmp(wish, "lines") == 0)) return wish[0] == 'b';
    return is_terminal();
}

int dz_log_columns(void) {
    struct winsize size = {0};
    const char *wish = getenv("COLUMNS");
    int n = wish ? atoi(wish) : 0;
    if (n < 1 && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0) n = size.ws_col;
    return n < 1 ? 80 : n > 200 ? 200 : n;
}

double dz_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

char *dz_format_time(double secs, char text[32]) {
    long n = secs < 1e9 ? (long)(secs + 0.5) : 1000000000;
    if (secs < 10)
        snprintf(text, 32, "%.2f s", secs);
    else if (n < 120)
        snprintf(text, 32, "%ld s", n);
    else if (n < 7200)
        snprintf(text, 32, "%ld min %02ld s", n / 60, n % 60);
    else
        snprintf(text, 32, "%ld h %02ld min", n / 3600, n / 60 % 60);
    return text;
}

double dz_peak_memory(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return 1024.0 * (double)usage.ru_maxrss;
}
