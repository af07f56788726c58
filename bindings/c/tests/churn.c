/* Tunnels that start and stop, many times over: `churn [COUNT]`. Descriptors, threads and memory are counted. */

#define _GNU_SOURCE

#include "check.h"
#include "common.h"

#include <stdlib.h>
#include <unistd.h>

static void one_life(int round)
{
    int pair[2];
    make_pair(pair);
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    vmk_tun tun = tun_of(pair[0], round % 2 == 0 ? VMK_TUN_OWNED : VMK_TUN_BORROWED);
    int fine = vmk_tunnel_start(tunnel, &tun, 10000, NULL) == VMK_OK;
    fine &= round % 10 != 0 || ping(pair[1]);
    fine &= vmk_tunnel_stop(tunnel, 10000, NULL) == VMK_OK;
    fine &= is_open(pair[0]) == (round % 2 != 0);
    if (round % 2 != 0) {
        close(pair[0]);
    }
    close(pair[1]);
    vmk_tunnel_free(tunnel);
    CHECK(fine);
}

static long resident_pages(void)
{
    long size = 0;
    long resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%ld %ld", &size, &resident) != 2) {
        exit(1);
    }
    fclose(file);
    return resident;
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 1000;
    /* The first lives fill what a process fills once. */
    for (int round = 0; round < 20; round++) {
        one_life(round);
    }
    int descriptors = count_entries("fd");
    int threads = count_entries("task");
    long resident = resident_pages();
    for (int round = 0; round < count; round++) {
        one_life(round);
    }
    CHECK_RESULT((unsigned long)count_entries("fd"), (unsigned long)descriptors);
    CHECK_RESULT((unsigned long)count_entries("task"), (unsigned long)threads);
    long grown = (resident_pages() - resident) * sysconf(_SC_PAGESIZE) / 1024;
    printf("churn: %d lives, %ld KiB grown\n", count, grown);
    /* A leak of a kilobyte a life would be 1 MiB; instruments keep books of their own. */
    if (count >= 1000) {
        CHECK(grown < 1024);
    }
    return check_summary("churn");
}
