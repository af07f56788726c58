/* Several threads, several tunnels, and a host that forks. */

#define _GNU_SOURCE

#include "check.h"
#include "common.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long millis(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static vmk_tunnel *started(int fd, uint32_t ownership, const char *config, const vmk_platform *platform)
{
    vmk_tunnel *tunnel = make_tunnel(config, platform);
    vmk_tun tun = tun_of(fd, ownership);
    CHECK_RESULT(vmk_tunnel_start(tunnel, &tun, 10000, NULL), VMK_OK);
    return tunnel;
}

struct racer {
    vmk_tunnel *tunnel;
    pthread_barrier_t *line;
    int fd;
    vmk_result result;
};

static void *race_start(void *argument)
{
    struct racer *racer = argument;
    vmk_tun tun = tun_of(racer->fd, VMK_TUN_OWNED);
    pthread_barrier_wait(racer->line);
    racer->result = vmk_tunnel_start(racer->tunnel, &tun, 10000, NULL);
    return NULL;
}

/* A stop that comes while the start is under way leaves no session, whichever of them is first. */
static void a_stop_may_come_during_the_start(int rounds)
{
    int descriptors = count_entries("fd");
    int ran = 0;
    for (int round = 0; round < rounds; round++) {
        int pair[2];
        make_pair(pair);
        pthread_barrier_t line;
        pthread_barrier_init(&line, NULL, 2);
        struct racer racer = {make_tunnel(QUIET, NULL), &line, pair[0], VMK_INTERNAL};
        pthread_t starter;
        CHECK(pthread_create(&starter, NULL, race_start, &racer) == 0);
        pthread_barrier_wait(&line);
        for (int spins = round % 16 * 100; spins > 0; spins--) {
            atomic_thread_fence(memory_order_seq_cst);
        }
        CHECK_RESULT(vmk_tunnel_stop(racer.tunnel, 10000, NULL), VMK_OK);
        pthread_join(starter, NULL);
        CHECK(racer.result == VMK_OK || racer.result == VMK_STOPPED);
        ran += racer.result == VMK_OK;
        /* Whoever came second: what has ended stays so, and the descriptor is closed. */
        CHECK_RESULT(vmk_tunnel_stop(racer.tunnel, 10000, NULL), VMK_OK);
        CHECK(wait_for_event(racer.tunnel, VMK_EVENT_STATE, VMK_STATE_STOPPED));
        vmk_tunnel_free(racer.tunnel);
        CHECK(!is_open(pair[0]));
        close(pair[1]);
        pthread_barrier_destroy(&line);
    }
    printf("  %d of %d starts were first\n", ran, rounds);
    CHECK_RESULT((unsigned long)count_entries("fd"), (unsigned long)descriptors);
}

static void two_tunnels_live_side_by_side(void)
{
    int first[2];
    int second[2];
    make_pair(first);
    make_pair(second);
    vmk_tunnel *one = started(first[0], VMK_TUN_BORROWED, QUIET, NULL);
    vmk_tunnel *other = started(second[0], VMK_TUN_BORROWED, QUIET, NULL);
    CHECK(ping(first[1]) && ping(second[1]));
    CHECK_RESULT(vmk_tunnel_stop(one, 10000, NULL), VMK_OK);
    CHECK(ping(second[1]));
    vmk_tunnel_free(one);
    CHECK(ping(second[1]));
    CHECK_RESULT(vmk_tunnel_stop(other, 10000, NULL), VMK_OK);
    vmk_tunnel_free(other);
    for (int i = 0; i < 2; i++) {
        close(first[i]);
        close(second[i]);
    }
}

static atomic_int waits;

static int wait_for_seconds(void *userdata, int fd)
{
    (void)userdata;
    (void)fd;
    atomic_fetch_add(&waits, 1);
    sleep(3);
    return 0;
}

static void *check_path(void *tunnel)
{
    vmk_result result = vmk_tunnel_check(tunnel, 10000, NULL, NULL);
    return (void *)(uintptr_t)result;
}

/* A callback that takes seconds holds up the dial that asked for it, and nothing else. */
static void a_callback_that_blocks_holds_no_packet_up(void)
{
    char config[1024];
    vmess_config(config, sizeof config, "127.0.0.1", free_port());
    vmk_platform platform = {.size = sizeof platform, .protect_socket = wait_for_seconds};
    int pair[2];
    make_pair(pair);
    vmk_tunnel *tunnel = started(pair[0], VMK_TUN_OWNED, config, &platform);
    pthread_t checker;
    CHECK(pthread_create(&checker, NULL, check_path, tunnel) == 0);
    while (atomic_load(&waits) == 0) {
        usleep(1000);
    }
    long began = millis();
    long worst = 0;
    int pings = 0;
    while (millis() - began < 1500) {
        long sent = millis();
        CHECK(ping(pair[1]));
        pings++;
        worst = millis() - sent > worst ? millis() - sent : worst;
        vmk_stats stats = {.size = sizeof stats};
        CHECK_RESULT(vmk_tunnel_stats(tunnel, &stats), VMK_OK);
        usleep(10000);
    }
    printf("  %d pings while a callback blocks, the slowest took %ld ms\n", pings, worst);
    CHECK(pings >= 5 && worst < 1000);
    void *result = NULL;
    pthread_join(checker, &result);
    CHECK_RESULT((unsigned long)(uintptr_t)result, VMK_PROTECT_FAILED);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
    close(pair[1]);
}

static void a_thousand_calls(void)
{
    int pair[2];
    make_pair(pair);
    vmk_tunnel *tunnel = started(pair[0], VMK_TUN_OWNED, QUIET, NULL);
    for (int i = 0; i < 1000; i++) {
        vmk_status *status = NULL;
        vmk_connections *connections = NULL;
        vmk_counters *counters = NULL;
        vmk_reload_report report = {.size = sizeof report};
        int fine = vmk_tunnel_status(tunnel, &status, NULL) == VMK_OK;
        fine &= vmk_tunnel_connections(tunnel, 10000, &connections, NULL) == VMK_OK;
        fine &= vmk_tunnel_counters(tunnel, 1, &counters, NULL) == VMK_OK;
        fine &= vmk_tunnel_network_changed(tunnel, NULL, NULL) == VMK_OK;
        fine &= i % 100 != 0 || vmk_tunnel_reload(tunnel, QUIET, 10000, &report, NULL) == VMK_OK;
        CHECK(fine);
        vmk_status_free(status);
        vmk_connections_free(connections);
        vmk_counters_free(counters);
    }
    CHECK(ping(pair[1]));
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
    close(pair[1]);
}

/* A host that forks: the parent's tunnel goes on, and no program that a child becomes is given a descriptor of ours. */
static void a_host_may_fork(void)
{
    int before = count_entries("fd");
    int pair[2];
    make_pair(pair);
    vmk_tunnel *tunnel = started(pair[0], VMK_TUN_OWNED, QUIET, NULL);
    fflush(stdout);
    fflush(stderr);
    pid_t child = fork();
    if (child == 0) {
        /* Dead weight for the child, which must not touch it; as another program it ends without what runs at exit here. */
        execl("/bin/sh", "sh", "-c", is_open(pair[0]) ? "exit 7" : "exit 8", (char *)NULL);
        _exit(9);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    CHECK(ping(pair[1]));

    int out[2];
    if (pipe(out) != 0) {
        exit(1);
    }
    child = fork();
    if (child == 0) {
        dup2(out[1], STDOUT_FILENO);
        close(out[0]);
        close(out[1]);
        execl("/bin/sh", "sh", "-c", "ls /proc/self/fd | wc -l", (char *)NULL);
        _exit(9);
    }
    close(out[1]);
    char told[32] = "";
    ssize_t got = read(out[0], told, sizeof told - 1);
    close(out[0]);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    /* The three of every program, and the folder that ls reads; what this program inherited comes on top. */
    int own = count_entries("fd");
    CHECK(got > 0 && atoi(told) <= before - 3 + 1);
    CHECK(own > before);
    CHECK(ping(pair[1]));
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
    close(pair[1]);
}

int main(int argc, char **argv)
{
    two_tunnels_live_side_by_side();
    a_stop_may_come_during_the_start(argc > 1 ? atoi(argv[1]) : 200);
    a_callback_that_blocks_holds_no_packet_up();
    a_thousand_calls();
    a_host_may_fork();
    return check_summary("threads");
}
