#include "parallel/watchdog.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"

static volatile sig_atomic_t stop_asked;

static void on_signal(int number) {
    (void)number;
    stop_asked = 1;
}

void dz_stop_on_signals(void) {
    struct sigaction once = {.sa_handler = on_signal, .sa_flags = SA_RESTART | (int)SA_RESETHAND}, always = once;
    always.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &always, NULL); /* launchers send it more than once */
    sigaction(SIGINT, &once, NULL);
    sigaction(SIGUSR1, &always, NULL);
}

int dz_stop_asked(void) { return stop_asked; }
void dz_stop_ask(void) { stop_asked = 1; }

/* What the thread and the work share; under the lock. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    int running, stop, rank, size;
    double limit;
    const char *phase;
    double *heard; /* [size] rank 0: when */
    uint8_t *finished;
    void (*every_minute)(void *);
    void *arg;
} dog = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

double dz_watchdog_limit(void) { return dog.limit; }

void dz_watchdog_heard(int rank, const char *phase, int finished) {
    if (!dog.running || !dog.heard) return;
    pthread_mutex_lock(&dog.lock);
    for (int r = 0; dog.phase != phase && r < dog.size; r++) {
        dog.finished[r] = 0;
        dog.heard[r] = dz_now();
    }
    dog.phase = phase;
    dog.heard[rank] = dz_now();
    dog.finished[rank] = (uint8_t)finished;
    pthread_mutex_unlock(&dog.lock);
}

/* The unfinished rank whose last message is the oldest; -1: all have finished. */
static int behind(void) {
    int found = -1;
    for (int r = 0; dog.heard && r < dog.size; r++) {
        if (!dog.finished[r] && (found < 0 || dog.heard[r] < dog.heard[found])) found = r;
    }
    return found;
}

/* Rank 0, which takes messages all the while: for how long has the rank behind been silent? */
static double silence(void) {
    int late = behind();
    return late > 0 && !dog.finished[0] ? dog.heard[0] - dog.heard[late] : 0;
}

static void give_up(double still) {
    char text[256];
    int late = behind(), n = 0;
    if (silence() > dog.limit)
        n = snprintf(text, sizeof text, "deltazoo: error: nothing heard of rank %d for %.0f s in phase '%s'\n", late, silence(), dog.phase);
    else if (dog.rank != 0)
        n = snprintf(text, sizeof text, "deltazoo: error: rank %d: no progress for %.0f s, and no message from rank 0\n", dog.rank, still);
    else if (late >= 0)
        n = snprintf(text, sizeof text, "deltazoo: error: no progress on any rank for %.0f s in phase '%s': rank %d is behind\n", still,
                     dog.phase ? dog.phase : "open", late);
    else
        n = snprintf(text, sizeof text, "deltazoo: error: no progress on any rank for %.0f s after phase '%s'\n", still,
                     dog.phase ? dog.phase : "open");
    if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0) _exit(75);
    _exit(75);
}

static void *watch(void *arg) {
    (void)arg;
    uint64_t seen = dz_heartbeat_count();
    double moved = dz_now(), minute = moved;
    pthread_mutex_lock(&dog.lock);
    while (!dog.stop) {
        struct timespec at;
        clock_gettime(CLOCK_REALTIME, &at);
        at.tv_sec += 1;
        pthread_cond_timedwait(&dog.wake, &dog.lock, &at);
        double now = dz_now();
        uint64_t count = dz_heartbeat_count();
        if (count != seen) moved = now;
        seen = count;
        if (dog.every_minute && now - minute >= 60) {
            minute = now;
            dog.every_minute(dog.arg);
        }
        /* rank 0 speaks for all; the others end by themselves only when they are cut off from it */
        double limit = dog.rank == 0 ? dog.limit : 1.5 * dog.limit + 5;
        if (dog.limit > 0 && (now - moved > limit || silence() > limit) && !dog.stop) give_up(now - moved);
    }
    pthread_mutex_unlock(&dog.lock);
    return NULL;
}

void dz_watchdog_start(const dz_world *world, double seconds, void (*every_minute)(void *), void *arg) {
    dog.rank = world->rank;
    dog.size = world->size;
    dog.limit = seconds;
    dog.every_minute = every_minute;
    dog.arg = arg;
    dog.stop = 0;
    dog.phase = NULL;
    if (seconds <= 0 && !every_minute) return;
    if (world->rank == 0) {
        dog.heard = calloc((size_t)world->size, sizeof *dog.heard);
        dog.finished = calloc((size_t)world->size, 1);
        if (!dog.heard || !dog.finished) return;
    }
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the work's */
    dog.running = pthread_create(&dog.thread, NULL, watch, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void dz_watchdog_stop(void) {
    if (dog.running) {
        pthread_mutex_lock(&dog.lock);
        dog.stop = 1;
        pthread_cond_signal(&dog.wake);
        pthread_mutex_unlock(&dog.lock);
        pthread_join(dog.thread, NULL);
    }
    free(dog.heard);
    free(dog.finished);
    dog.heard = NULL;
    dog.finished = NULL;
    dog.running = 0;
    dog.limit = 0;
}
