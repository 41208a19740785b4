#include "tune/command.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "base/file.h"
#include "parallel/spread.h"
#include "parallel/watchdog.h"

#define KEPT ((size_t)64 << 10) /* bytes of output */

/* As a shell takes it as one word. */
static void put_word(dz_buf *out, const char *text, dz_error *err) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-=:@%,";
    if (*text && strspn(text, plain) == strlen(text)) {
        dz_buf_put(out, text, strlen(text), err);
        return;
    }
    dz_buf_put(out, "'", 1, err);
    for (; *text; text++) dz_buf_put(out, *text == '\'' ? "'\\''" : text, *text == '\'' ? 4 : 1, err);
    dz_buf_put(out, "'", 1, err);
}

char *dz_command_text(const char *command, const char *model, const char *task, const char *base, dz_error *err) {
    const char *names[] = {"{model}", "{task}", "{base}"}, *values[] = {model, task, base};
    dz_buf out = {0};
    for (const char *at = command; *at && err->rc == DZ_OK;) {
        size_t i = 0;
        while (i < 3 && strncmp(at, names[i], strlen(names[i])) != 0) i++;
        if (i < 3)
            put_word(&out, values[i], err);
        else
            dz_buf_put(&out, at, 1, err);
        at += i < 3 ? strlen(names[i]) : 1;
    }
    dz_buf_put(&out, "", 1, err);
    if (err->rc == DZ_OK) return (char *)out.data;
    dz_buf_free(&out);
    return NULL;
}

static int in_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* Length of the number that begins here, or 0. */
static size_t number_at(const char *text, size_t len) {
    size_t at = len && (text[0] == '-' || text[0] == '+'), digits = 0;
    if (at + 3 <= len && (strncasecmp(text + at, "nan", 3) == 0 || strncasecmp(text + at, "inf", 3) == 0))
        return at + 3 < len && in_word(text[at + 3]) ? 0 : at + 3;
    for (int point = 0; at < len && (isdigit((unsigned char)text[at]) || (text[at] == '.' && !point)); at++) {
        point |= text[at] == '.';
        digits += text[at] != '.';
    }
    if (!digits) return 0;
    if (at < len && (text[at] == 'e' || text[at] == 'E')) {
        size_t e = at + 1 + (at + 1 < len && (text[at + 1] == '-' || text[at + 1] == '+')), from = e;
        while (e < len && isdigit((unsigned char)text[e])) e++;
        if (e > from) at = e;
    }
    return at < len && in_word(text[at]) ? 0 : at;
}

int dz_last_number(const char *text, size_t len, double *number) {
    int any = 0;
    for (size_t at = 0; at < len;) {
        size_t n = at == 0 || !(in_word(text[at - 1]) || text[at - 1] == '.') ? number_at(text + at, len - at) : 0;
        char copy[64] = "";
        if (n && n < sizeof copy) {
            memcpy(copy, text + at, n);
            *number = strtod(copy, NULL);
            any = 1;
        }
        at += n ? n : 1;
    }
    return any;
}

extern char **environ;

static char **environment(dz_error *err) {
    size_t n = 0, kept = 0;
    while (environ[n]) n++;
    char **list = dz_alloc(n + 1, sizeof *list, err);
    for (size_t i = 0; list && i < n; i++) {
        if (!dz_is_of_launcher(environ[i])) list[kept++] = environ[i];
    }
    return list;
}

typedef struct stream {
    int fd, echo;
    char *text; /* the last bytes of it */
    size_t len;
} stream;

/* 0 at its end. */
static int take(stream *s) {
    ssize_t got = read(s->fd, s->text + s->len, 2 * KEPT - s->len);
    if (got < 0) return errno == EINTR || errno == EAGAIN;
    if (s->echo && got > 0) fwrite(s->text + s->len, 1, (size_t)got, stderr);
    s->len += (size_t)got;
    if (s->len == 2 * KEPT) memmove(s->text, s->text + KEPT, s->len = KEPT);
    return got > 0;
}

/* The last line that is not empty, at most 200 bytes of it; NULL: none. */
static const char *last_line(const stream *s, char line[201]) {
    size_t end = s->len, from;
    while (end > 0 && isspace((unsigned char)s->text[end - 1])) end--;
    for (from = end; from > 0 && s->text[from - 1] != '\n' && s->text[from - 1] != '\r';) from--;
    if (end == from) return NULL;
    snprintf(line, 201, "%.*s", (int)(end - from < 200 ? end - from : 200), s->text + from);
    return dz_one_line(line);
}

static void begin(const char *text, char **env, const dz_processors *processors, int out, int log) {
    int nothing = open("/dev/null", O_RDONLY);
    setpgid(0, 0);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
    dz_processors_use(processors);
    if (nothing >= 0) dup2(nothing, 0);
    dup2(out, 1);
    dup2(log, 2);
    char *args[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c", (char *)(uintptr_t)text, NULL};
    execve("/bin/sh", args, env);
    _exit(127);
}

/* Ends the command and what it has started. */
static void end(pid_t pid) {
    const struct timespec moment = {.tv_nsec = 50000000};
    kill(-pid, SIGTERM);
    for (int i = 0; i < 40 && waitpid(pid, NULL, WNOHANG) == 0; i++) nanosleep(&moment, NULL);
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* Reads until the command has ended, and what it has printed has been read. */
static dz_rc attend(pid_t pid, stream s[2], int *status, dz_error *err) {
    int ended = 0;
    for (int open = 3; open || !ended;) { /* a command may close its output and go on: then poll only waits */
        struct pollfd fds[2] = {{.fd = open & 1 ? s[0].fd : -1, .events = POLLIN}, {.fd = open & 2 ? s[1].fd : -1, .events = POLLIN}};
        int before = ended, ready = poll(fds, 2, 100);
        if (dz_stop_asked()) {
            if (!ended) end(pid);
            return dz_fail(err, DZ_EINTERRUPT, "interrupted while the command was running");
        }
        for (int i = 0; ready > 0 && i < 2; i++) {
            if (fds[i].revents && !take(&s[i])) open &= ~(1 << i);
        }
        if (!ended) ended = waitpid(pid, status, WNOHANG) == pid;
        if (before && ready == 0) break; /* all is read, and a process that it left behind keeps the pipe */
    }
    return DZ_OK;
}

static dz_rc judge(int status, const stream s[2], double *score, dz_error *err) {
    char out[201], log[201];
    const char *of_out = last_line(&s[0], out), *of_log = last_line(&s[1], log), *line = of_log ? of_log : of_out;
    if (WIFSIGNALED(status))
        return dz_fail(err, DZ_EFAIL, "the command was ended by signal %d; its last line: %s", WTERMSIG(status), line ? line : "(none)");
    if (WEXITSTATUS(status) != 0)
        return dz_fail(err, DZ_EFAIL, "the command ended with exit code %d; its last line: %s", WEXITSTATUS(status),
                       line ? line : "(none)");
    if (!dz_last_number(s[0].text, s[0].len, score))
        return dz_fail(err, DZ_EFAIL, "the command printed no number on standard output; its last line: %s", of_out ? of_out : "(none)");
    return DZ_OK;
}

dz_rc dz_command_score(const char *text, const dz_processors *processors, double *score, dz_error *err) {
    int out[2] = {-1, -1}, log[2] = {-1, -1}, status = 0;
    char **env = environment(err);
    stream s[2] = {{.text = dz_alloc(2 * KEPT, 1, err)}, {.text = dz_alloc(2 * KEPT, 1, err), .echo = 1}};
    if (err->rc == DZ_OK && (pipe2(out, O_CLOEXEC) != 0 || pipe2(log, O_CLOEXEC) != 0))
        dz_fail(err, DZ_EFAIL, "cannot run the command: %s", strerror(errno));
    if (err->rc == DZ_OK) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) begin(text, env, processors, out[1], log[1]);
        close(out[1]);
        close(log[1]);
        out[1] = log[1] = -1;
        s[0].fd = out[0];
        s[1].fd = log[0];
        if (pid < 0)
            dz_fail(err, DZ_EFAIL, "cannot run the command: %s", strerror(errno));
        else if (attend(pid, s, &status, err) == DZ_OK)
            judge(status, s, score, err);
    }
    for (int i = 0; i < 2; i++) {
        if (out[i] >= 0) close(out[i]);
        if (log[i] >= 0) close(log[i]);
        free(s[i].text);
    }
    free(env);
    return err->rc;
}
