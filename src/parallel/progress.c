#include "parallel/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "parallel/watchdog.h"

#define TAG 7       /* to rank 0: bytes done, and LAST or STOP */
#define TAG_ORDER 8 /* from rank 0: NEWS or STOP */
#define BAR_MAX 24  /* columns */
enum { NEWS = 0, LAST = 1, STOP = 2 };
#define LINES_EVERY 60.0       /* seconds between lines of a log, */
#define LINES_EVERY_FIRST 15.0 /* and in the first minute of a phase */

static double interval(const dz_progress *p, double secs) {
    if (p->terminal) return 0.1;
    if (p->interval > 0) return p->interval;
    return secs < 60 ? LINES_EVERY_FIRST : LINES_EVERY;
}

/* The last line of an unfinished phase. */
static void show_end_before_time(const dz_progress *p, double share, const char *done, const char *all, const char *secs) {
    dz_log("%-14s %s at %.1f %%, %s of %s, after %s", p->phase, dz_stop_asked() ? "interrupted" : "ended", 100 * share, done, all, secs);
}

static void show(dz_progress *p, int last) {
    char done[32], all[32], rate[32], time[32], rest[48];
    double now = dz_now(), secs = now - p->begun, bytes = p->mine + p->others;
    if (p->quiet || p->total <= 0) return;
    if (!last && now - p->shown < interval(p, secs)) return;
    if (last && !p->terminal && p->shown == p->begun) return; /* a short phase needs no line in a log: the final table has its seconds */
    p->shown = now;
    if (last && p->terminal) { /* the bar goes: what comes next begins on a clean line */
        fprintf(stderr, "\r\033[K");
        return;
    }
    double share = bytes / p->total, left = bytes > 0 ? secs * (p->total - bytes) / bytes : 0;
    if (share > 1) share = 1;
    dz_format_size(bytes, done);
    dz_format_size(p->total, all);
    dz_format_size(secs > 0 ? bytes / secs : 0, rate);
    dz_format_time(last ? secs : left, time);
    snprintf(rest, sizeof rest, "%s%.24s%s", last ? "in " : "", last || bytes > 0 ? time : "", last || bytes <= 0 ? "" : " left");
    if (last && share < 0.9995) {
        show_end_before_time(p, share, done, all, time);
        return;
    }
    if (!p->terminal) {
        dz_log("%-14s %5.1f %%  %s of %s  %s/s  %s", p->phase, 100 * share, done, all, rate, rest);
        return;
    }
    char bar[BAR_MAX + 1], line[256];
    int columns = dz_log_columns(),
        others = snprintf(line, sizeof line, "%-14s [] %3.0f %%  %s of %s  %s/s  %s", p->phase, 100 * share, done, all, rate, rest);
    int width = columns - 1 - others; /* the bar gets what is left of the line, and goes where that is nothing */
    if (width > BAR_MAX) width = BAR_MAX;
    for (int i = 0; i < width; i++) bar[i] = i < (int)(width * share + 0.5) ? '#' : '.';
    bar[width > 0 ? width : 0] = '\0';
    snprintf(line, sizeof line, "%-14s [%s] %3.0f %%  %s of %s  %s/s  %s", p->phase, bar, 100 * share, done, all, rate, rest);
    fprintf(stderr, "\r%.*s\033[K", columns > 1 ? columns - 1 : 1, line);
    fflush(stderr);
}

void dz_progress_begin(dz_progress *p, const dz_world *world, const char *phase, double total, int quiet) {
    *p = (dz_progress){.world = world, .phase = phase, .total = total, .quiet = quiet, .request = MPI_REQUEST_NULL};
    const char *seconds = getenv("DZ_LOG_INTERVAL");
    p->interval = seconds ? atof(seconds) : 0;
    p->begun = p->shown = p->sent = p->ordered = dz_now();
    if (world->rank != 0) return;
    p->of_rank = calloc((size_t)world->size, sizeof *p->of_rank);
    dz_watchdog_heard(0, phase, 0);
    p->terminal = dz_log_on_terminal();
    if (!p->terminal) return;
    p->shown = 0; /* a first piece of work may take a while */
    show(p, 0);
}

/* Rank 0: tells all others that it lives, or that all are to stop. */
static void order(dz_progress *p, int what) {
    p->ordered = dz_now();
    for (int r = 1; r < p->world->size; r++) MPI_Send(&what, 1, MPI_INT, r, TAG_ORDER, p->world->progress);
}

/* Rank 0: takes the messages that have come. */
static void take(dz_progress *p) {
    int heard = 0;
    for (int flag = p->world->size > 1; flag;) {
        MPI_Status status;
        double message[2];
        MPI_Iprobe(MPI_ANY_SOURCE, TAG, p->world->progress, &flag, &status);
        if (!flag) break;
        MPI_Recv(message, 2, MPI_DOUBLE, status.MPI_SOURCE, TAG, p->world->progress, MPI_STATUS_IGNORE);
        if (p->of_rank) {
            p->others += message[0] - p->of_rank[status.MPI_SOURCE];
            p->of_rank[status.MPI_SOURCE] = message[0];
        }
        int what = (int)message[1];
        if (what & STOP) dz_stop_ask();
        if (what & LAST) p->finished_ranks++;
        dz_watchdog_heard(status.MPI_SOURCE, p->phase, what & LAST);
        dz_heartbeat();
        heard = 1;
    }
    if (dz_stop_asked() && !p->stop_reported) {
        p->stop_reported = 1;
        order(p, STOP);
    } else if (heard && dz_watchdog_limit() > 0 && dz_now() - p->ordered > dz_watchdog_limit() / 4) {
        order(p, NEWS);
    }
}

/* The others: what rank 0 has to say. */
static void obey(const dz_progress *p) {
    for (int flag = 1; flag;) {
        int what = NEWS;
        MPI_Iprobe(0, TAG_ORDER, p->world->progress, &flag, MPI_STATUS_IGNORE);
        if (!flag) return;
        MPI_Recv(&what, 1, MPI_INT, 0, TAG_ORDER, p->world->progress, MPI_STATUS_IGNORE);
        if (what == STOP) dz_stop_ask();
        dz_heartbeat();
    }
}

static void send(dz_progress *p, int last) {
    int free_to_send = 1;
    if (last)
        MPI_Wait(&p->request, MPI_STATUS_IGNORE);
    else
        MPI_Test(&p->request, &free_to_send, MPI_STATUS_IGNORE);
    if (!free_to_send) return;
    p->message[0] = p->mine;
    p->message[1] = (last ? LAST : NEWS) | (dz_stop_asked() ? STOP : NEWS);
    MPI_Isend(p->message, 2, MPI_DOUBLE, 0, TAG, p->world->progress, &p->request);
    if (last) MPI_Wait(&p->request, MPI_STATUS_IGNORE);
}

static void exchange(dz_progress *p) {
    double now = dz_now();
    if (now - p->sent < 0.1 + 0.002 * p->world->size) return; /* rank 0 is to hear some hundred messages a second at the most */
    p->sent = now;
    if (p->world->rank == 0) {
        dz_watchdog_heard(0, p->phase, 0);
        take(p);
        show(p, 0);
    } else {
        obey(p);
        send(p, 0);
    }
}

void dz_progress_add(dz_progress *p, double nbytes) {
    p->mine += nbytes;
    dz_heartbeat();
    exchange(p);
}

dz_rc dz_progress_check(dz_progress *p, dz_error *err) {
    if (dz_fault("work")) dz_fail(err, DZ_EFAIL, "an injected fault");
    if (dz_stop_asked() && err->rc == DZ_OK) dz_fail(err, DZ_EINTERRUPT, "asked to stop");
    exchange(p);
    return err->rc;
}

/* Waits until every rank is here; a barrier in which orders are still obeyed. */
static void meet(dz_progress *p) {
    MPI_Request all;
    int done = 0;
    if (p->world->size == 1) return;
    MPI_Ibarrier(p->world->progress, &all);
    for (int tries = 0; MPI_Test(&all, &done, MPI_STATUS_IGNORE), !done; tries++) {
        if (p->world->rank != 0) obey(p);
        if (tries > 100) nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
}

double dz_progress_end(dz_progress *p) {
    double secs = dz_now() - p->begun;
    if (p->world->rank != 0) {
        send(p, 1);
        meet(p);
        return secs;
    }
    dz_watchdog_heard(0, p->phase, 1);
    while (take(p), p->finished_ranks < p->world->size - 1) {
        show(p, 0);
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    meet(p);
    show(p, 1);
    free(p->of_rank);
    return secs;
}
