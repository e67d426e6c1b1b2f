/* A preloaded library that makes CLOCK_REALTIME jump: an hour forward after a second, two hours back after two, and
 * ten percent too fast from the third on (GT-19). CLOCK_MONOTONIC stays as it is. A load generator that measures with
 * the wrong clock shows it.
 *
 *   CLOCKSTEP_REPORT=FILE LD_PRELOAD=clockstep.so PROGRAM...
 *
 * At exit it writes how often CLOCK_REALTIME was asked for before and after the first jump, and CLOCK_MONOTONIC: where
 * all are 0 the program did not go through the C library, and the check has shown nothing.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t began;
static long realtime_before, realtime_after, monotonic;

static int64_t true_ns(clockid_t id) {
    struct timespec t;
    syscall(SYS_clock_gettime, id, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t false_realtime(void) {
    const int64_t second = 1000000000, hour = 3600 * second;
    int64_t since = true_ns(CLOCK_MONOTONIC) - began, step = 0;
    if (since >= second) step = hour;
    if (since >= 2 * second) step = -hour;
    if (since >= 3 * second) step = -hour + (since - 3 * second) / 10;
    __atomic_add_fetch(since >= second ? &realtime_after : &realtime_before, 1, __ATOMIC_RELAXED);
    return true_ns(CLOCK_REALTIME) + step;
}

int clock_gettime(clockid_t id, struct timespec *t) {
    if (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE) {
        /* The detour is a system call where the C library needs none: about 100 ns more. */
        if (id == CLOCK_MONOTONIC) __atomic_add_fetch(&monotonic, 1, __ATOMIC_RELAXED);
        return (int)syscall(SYS_clock_gettime, id, t);
    }
    int64_t ns = false_realtime();
    *t = (struct timespec){ns / 1000000000, ns % 1000000000};
    return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    (void)zone;
    int64_t ns = false_realtime();
    *t = (struct timeval){ns / 1000000000, ns % 1000000000 / 1000};
    return 0;
}

time_t time(time_t *t) {
    time_t now = false_realtime() / 1000000000;
    if (t) *t = now;
    return now;
}

__attribute__((constructor)) static void begin(void) { began = true_ns(CLOCK_MONOTONIC); }

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("CLOCKSTEP_REPORT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file, "{\"realtime_before\": %ld, \"realtime_after\": %ld, \"monotonic\": %ld}\n", realtime_before,
            realtime_after, monotonic);
    fclose(file);
}
