/* The clock of one process set wrong: preloaded, it adds to CLOCK_REALTIME what stands in a file (seconds, a double),
 * which is looked at anew at every reading. Monotonic clocks, sleeping and time limits are left alone: a step of the
 * machine's clock does not touch them either. (libfaketime makes clock_nanosleep fail under Python 3.11.)
 *
 *     cc -shared -fPIC -O2 -o clock.so fault_clock.c -ldl
 *     FAULT_CLOCK=offset.bin LD_PRELOAD=./clock.so python ...
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile double *offset;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FAULT_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *place = MAP_FAILED;

    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    if (file >= 0) {
        place = mmap(NULL, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
        close(file);
    }
    if (place != MAP_FAILED)
        offset = place;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (!real_clock_gettime)
        begin();
    int result = real_clock_gettime(clock, now);
    if (result == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        double step = *offset;
        long long whole = (long long)step;
        long rest = (long)((step - (double)whole) * 1e9);
        now->tv_sec += whole;
        now->tv_nsec += rest;
        if (now->tv_nsec >= 1000000000L) {
            now->tv_nsec -= 1000000000L;
            now->tv_sec += 1;
        } else if (now->tv_nsec < 0) {
            now->tv_nsec += 1000000000L;
            now->tv_sec -= 1;
        }
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;

    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
        return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

int timespec_get(struct timespec *now, int base)
{
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

time_t time(time_t *place)
{
    struct timespec exact;

    if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
        return (time_t)-1;
    if (place)
        *place = exact.tv_sec;
    return exact.tv_sec;
}
