/*
 * A desktop host of VMessKit, with V2Ray's own command line: `vmesskit -config FILE`. It uses vmesskit.h, and of the
 * system only what a tun device, signals and threads need: read it as an example of how to embed the library.
 */

#define _GNU_SOURCE

#include "arguments.h"
#include "file.h"
#include "print.h"
#include "tun_linux.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <vmesskit.h>

enum exit_status {
    EXIT_FINE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    /* As V2Ray has it. */
    EXIT_CONFIG = 23
};

/* How long start and stop may take. */
enum { START_MILLIS = 30000, STOP_MILLIS = 10000 };

/* A running host. */
struct host {
    vmk_tunnel *tunnel;
    pthread_t main_thread;
};

/* Prints events until the last one, then wakes the main thread. Runs on its own thread. */
static void *watch(void *argument)
{
    const struct host *host = argument;
    vmk_event *event = NULL;
    while (vmk_tunnel_next_event(host->tunnel, VMK_WAIT_FOREVER, &event, NULL) == VMK_OK) {
        print_event(event);
        vmk_event_free(event);
    }
    pthread_kill(host->main_thread, SIGUSR1);
    return NULL;
}

static double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Waits for the first of the signals, printing a progress line every `period` seconds (0: none). */
static int wait_for_signal(const sigset_t *signals, const struct host *host, uint32_t period)
{
    vmk_stats before = {.size = sizeof before};
    vmk_tunnel_stats(host->tunnel, &before);
    double since = now_seconds();
    for (;;) {
        if (period == 0) {
            int got = sigwaitinfo(signals, NULL);
            if (got > 0) {
                return got;
            }
            continue;
        }
        double left = since + period - now_seconds();
        struct timespec timeout = {0, 0};
        if (left > 0) {
            timeout.tv_sec = (time_t)left;
            timeout.tv_nsec = (long)((left - (double)timeout.tv_sec) * 1e9);
        }
        int got = sigtimedwait(signals, NULL, &timeout);
        if (got > 0) {
            return got;
        }
        if (errno == EAGAIN) {
            vmk_stats now = {.size = sizeof now};
            double at = now_seconds();
            if (vmk_tunnel_stats(host->tunnel, &now) == VMK_OK) {
                print_stats(&before, &now, at - since);
            }
            before = now;
            since = at;
        }
    }
}

/* Says why the tunnel has ended by itself. */
static int explain_end(const vmk_tunnel *tunnel)
{
    vmk_status *status = NULL;
    if (vmk_tunnel_status(tunnel, &status, NULL) == VMK_OK && vmk_status_last_error(status) != NULL) {
        print_error("the tunnel", vmk_status_last_error(status));
    }
    vmk_status_free(status);
    return EXIT_FAILED;
}

/* Holds the signals that end the host back, in every thread that is made from here on, until they are waited for. */
static void hold_signals(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, signals, NULL);
    /* A reader of our output may go; that is no reason to end. */
    signal(SIGPIPE, SIG_IGN);
}

/* Runs a tunnel until it is told to stop, or ends by itself. */
static int run_tunnel(vmk_tunnel *tunnel, const vmk_tun *tun, const sigset_t *signals,
                      const struct arguments *arguments)
{
    struct host host = {tunnel, pthread_self()};
    pthread_t watcher;
    if (pthread_create(&watcher, NULL, watch, &host) != 0) {
        fputs("vmesskit: no thread could be made\n", stderr);
        if (tun != NULL) {
            close(tun->fd);
        }
        return EXIT_FAILED;
    }

    int result = EXIT_FINE;
    vmk_error *error = NULL;
    vmk_result started = vmk_tunnel_start(tunnel, tun, START_MILLIS, &error);
    if (started == VMK_OK) {
        if (wait_for_signal(signals, &host, arguments->stats_seconds) == SIGUSR1) {
            result = explain_end(tunnel);
        }
    } else {
        print_error("start", error);
        result = started == VMK_CONFIG_INVALID ? EXIT_CONFIG : EXIT_FAILED;
    }
    vmk_error_free(error);

    error = NULL;
    if (vmk_tunnel_stop(tunnel, STOP_MILLIS, &error) != VMK_OK) {
        print_error("stop", error);
        vmk_error_free(error);
        result = EXIT_FAILED;
    }
    pthread_join(watcher, NULL);
    return result;
}

static vmk_tunnel *make_tunnel(const char *json, const struct arguments *arguments, int *result)
{
    vmk_tunnel *tunnel = NULL;
    vmk_error *error = NULL;
    vmk_options *options = vmk_options_new();
    vmk_result made = vmk_options_set_memory_limit(options, arguments->memory_bytes, &error);
    if (made == VMK_OK) {
        made = vmk_tunnel_new(json, options, NULL, &tunnel, &error);
    }
    if (made != VMK_OK) {
        print_error(made == VMK_CONFIG_INVALID ? "the config" : "making the tunnel", error);
        *result = made == VMK_CONFIG_INVALID ? EXIT_CONFIG : EXIT_FAILED;
    }
    vmk_error_free(error);
    vmk_options_free(options);
    return tunnel;
}

static int run(const char *json, const sigset_t *signals, const struct arguments *arguments)
{
    int result = EXIT_FAILED;
    vmk_tunnel *tunnel = make_tunnel(json, arguments, &result);
    if (tunnel == NULL) {
        return result;
    }
    struct tun_device device;
    vmk_tun tun = {.size = sizeof tun, .ownership = VMK_TUN_OWNED};
    if (arguments->tun != NULL) {
        if (!tun_open(arguments->tun, arguments->vnet, &device)) {
            vmk_tunnel_free(tunnel);
            return EXIT_FAILED;
        }
        tun.fd = device.fd;
        tun.mtu = device.mtu;
        tun.framing = arguments->vnet ? VMK_FRAMING_VNET_HDR : VMK_FRAMING_RAW_IP;
    }
    result = run_tunnel(tunnel, arguments->tun != NULL ? &tun : NULL, signals, arguments);
    vmk_tunnel_free(tunnel);
    return result;
}

/* Prints every finding; counts the errors, or returns -1 if the check itself failed. */
static int check(const char *json, FILE *to)
{
    vmk_diagnostics *findings = NULL;
    vmk_error *error = NULL;
    if (vmk_validate_config(json, &findings, &error) != VMK_OK) {
        print_error("the check", error);
        vmk_error_free(error);
        return -1;
    }
    print_diagnostics(findings, to);
    int errors = (int)vmk_diagnostics_errors(findings);
    vmk_diagnostics_free(findings);
    return errors;
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    if (!arguments_read(argc, argv, &arguments)) {
        arguments_usage(true);
        return EXIT_USAGE;
    }
    if (vmk_abi_version() != VMK_ABI_VERSION) {
        fputs("vmesskit: the library is not the one that this program was built for\n", stderr);
        return EXIT_FAILED;
    }
    if (arguments.help) {
        arguments_usage(false);
        return EXIT_FINE;
    }
    if (arguments.version) {
        printf("VMessKit %s (ABI %u)\n", vmk_version(), (unsigned)vmk_abi_version());
        return EXIT_FINE;
    }
    char *json = file_read(arguments.config);
    if (json == NULL) {
        return EXIT_CONFIG;
    }
    sigset_t signals;
    if (!arguments.test) {
        hold_signals(&signals);
    }
    int errors = check(json, arguments.test ? stdout : stderr);
    int result = errors == 0 ? EXIT_FINE : EXIT_CONFIG;
    if (errors == 0 && arguments.test) {
        puts("Configuration OK.");
    } else if (errors == 0) {
        result = run(json, &signals, &arguments);
    }
    free(json);
    return result;
}
