/* A tunnel's life, with a socket pair in the tun's place. */

#define _GNU_SOURCE

#include "check.h"
#include "common.h"

#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static uint32_t state_of(const vmk_tunnel *tunnel)
{
    vmk_status *status = NULL;
    CHECK_RESULT(vmk_tunnel_status(tunnel, &status, NULL), VMK_OK);
    uint32_t state = vmk_status_state(status);
    CHECK(vmk_status_since_millis(status) < 600000);
    CHECK_TEXT(vmk_status_reason(status), "");
    vmk_status_free(status);
    return state;
}

static void a_whole_life(void)
{
    int pair[2];
    make_pair(pair);
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    CHECK(state_of(tunnel) == VMK_STATE_IDLE);
    vmk_tun tun = tun_of(pair[0], VMK_TUN_BORROWED);
    CHECK_RESULT(vmk_tunnel_start(tunnel, &tun, 10000, NULL), VMK_OK);
    CHECK(wait_for_event(tunnel, VMK_EVENT_STATE, VMK_STATE_CONNECTED));
    CHECK(state_of(tunnel) == VMK_STATE_CONNECTED);
    CHECK(ping(pair[1]));
    /* The second echo shows that the first one has been counted. */
    CHECK(ping(pair[1]));

    vmk_stats stats = {.size = sizeof stats};
    CHECK_RESULT(vmk_tunnel_stats(tunnel, &stats), VMK_OK);
    CHECK(stats.size == sizeof stats && stats.tun_packets_in >= 1 && stats.tun_packets_out >= 1);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 1000, NULL), VMK_ALREADY_RUNNING);

    CHECK_RESULT(vmk_tunnel_pause(tunnel), VMK_OK);
    CHECK_RESULT(vmk_tunnel_wake(tunnel), VMK_OK);
    CHECK_RESULT(vmk_tunnel_memory_pressure(tunnel, VMK_MEMORY_CRITICAL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_set_clock_offset(tunnel, 5), VMK_OK);
    CHECK(ping(pair[1]));

    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    CHECK(state_of(tunnel) == VMK_STATE_STOPPED);
    CHECK(wait_for_event(tunnel, VMK_EVENT_STATE, VMK_STATE_STOPPED));
    vmk_event *event = NULL;
    CHECK_RESULT(vmk_tunnel_next_event(tunnel, 1000, &event, NULL), VMK_STOPPED);
    CHECK(event == NULL);
    CHECK(is_open(pair[0]));
    vmk_tunnel_free(tunnel);
    close(pair[0]);
    close(pair[1]);
}

/* What a tunnel that is over answers: every call is refused or harmless. */
static void a_stopped_tunnel_refuses(void)
{
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_request_stop(tunnel), VMK_OK);

    int pair[2];
    make_pair(pair);
    vmk_tun tun = tun_of(pair[0], VMK_TUN_OWNED);
    CHECK_RESULT(vmk_tunnel_start(tunnel, &tun, 1000, NULL), VMK_STOPPED);
    CHECK(!is_open(pair[0]));
    tun = tun_of(pair[1], VMK_TUN_OWNED);
    CHECK_RESULT(vmk_tunnel_set_tun(tunnel, &tun, 1000, NULL), VMK_STOPPED);
    CHECK(!is_open(pair[1]));

    vmk_connections *connections = NULL;
    CHECK_RESULT(vmk_tunnel_check(tunnel, 1000, NULL, NULL), VMK_STOPPED);
    CHECK_RESULT(vmk_tunnel_reload(tunnel, QUIET, 1000, NULL, NULL), VMK_STOPPED);
    CHECK_RESULT(vmk_tunnel_connections(tunnel, 1000, &connections, NULL), VMK_STOPPED);
    CHECK_RESULT(vmk_tunnel_close_connection(tunnel, 1, 1000, NULL, NULL), VMK_STOPPED);
    CHECK(connections == NULL);
    vmk_stats stats = {.size = sizeof stats};
    CHECK_RESULT(vmk_tunnel_stats(tunnel, &stats), VMK_OK);
    CHECK_RESULT(vmk_tunnel_network_changed(tunnel, NULL, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_pause(tunnel), VMK_OK);
    CHECK_RESULT(vmk_tunnel_wake(tunnel), VMK_OK);
    CHECK_RESULT(vmk_tunnel_set_clock_offset(tunnel, 0), VMK_OK);
    CHECK_RESULT(vmk_tunnel_memory_pressure(tunnel, VMK_MEMORY_LOW), VMK_OK);
    vmk_tunnel_free(tunnel);
}

static void descriptors_are_taken_as_told(void)
{
    int pair[2];
    make_pair(pair);
    close(pair[1]);
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    vmk_tun tun = tun_of(pair[0], VMK_TUN_OWNED);
    vmk_error *error = NULL;

    /* Owned is ours on an error too, and no error leaves the tunnel started. */
    tun.framing = 99;
    CHECK_RESULT(vmk_tunnel_start(tunnel, &tun, 1000, &error), VMK_MISUSE);
    CHECK(strstr(vmk_error_text(error), "99") != NULL);
    vmk_error_free(error);
    CHECK(!is_open(pair[0]));

    /* A closed descriptor, none at all, and a struct without its size. */
    tun.framing = VMK_FRAMING_RAW_IP;
    error = NULL;
    CHECK_RESULT(vmk_tunnel_start(tunnel, &tun, 1000, &error), VMK_MISUSE);
    CHECK(vmk_error_reason(error)[0] != '\0');
    vmk_error_free(error);
    tun.fd = -1;
    CHECK_RESULT(vmk_tunnel_start(tunnel, &tun, 1000, NULL), VMK_MISUSE);
    tun.size = 0;
    CHECK_RESULT(vmk_tunnel_start(tunnel, &tun, 1000, NULL), VMK_MISUSE);
    CHECK(state_of(tunnel) == VMK_STATE_IDLE);

    make_pair(pair);
    tun = tun_of(pair[0], VMK_TUN_OWNED);
    CHECK_RESULT(vmk_tunnel_start(tunnel, &tun, 10000, NULL), VMK_OK);
    CHECK(ping(pair[1]));
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    CHECK(!is_open(pair[0]));
    close(pair[1]);
    vmk_tunnel_free(tunnel);
}

static void a_tun_is_swapped(void)
{
    int first[2];
    int second[2];
    make_pair(first);
    make_pair(second);
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    vmk_tun tun = tun_of(first[0], VMK_TUN_OWNED);
    CHECK_RESULT(vmk_tunnel_set_tun(tunnel, &tun, 1000, NULL), VMK_MISUSE);
    CHECK(!is_open(first[0]));
    close(first[1]);
    make_pair(first);
    tun = tun_of(first[0], VMK_TUN_OWNED);
    CHECK_RESULT(vmk_tunnel_start(tunnel, &tun, 10000, NULL), VMK_OK);
    CHECK(ping(first[1]));
    tun = tun_of(second[0], VMK_TUN_OWNED);
    CHECK_RESULT(vmk_tunnel_set_tun(tunnel, &tun, 10000, NULL), VMK_OK);
    CHECK(ping(second[1]));
    CHECK(!is_open(first[0]));
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
    close(first[1]);
    close(second[1]);
}

static void the_end_of_the_tun_is_told(void)
{
    int pair[2];
    make_pair(pair);
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    vmk_tun tun = tun_of(pair[0], VMK_TUN_OWNED);
    CHECK_RESULT(vmk_tunnel_start(tunnel, &tun, 10000, NULL), VMK_OK);
    close(pair[1]);
    vmk_event *event = NULL;
    uint32_t code = VMK_OK;
    while (vmk_tunnel_next_event(tunnel, 20000, &event, NULL) == VMK_OK) {
        if (vmk_event_error(event) != NULL) {
            code = vmk_error_code(vmk_event_error(event));
        }
        vmk_event_free(event);
    }
    CHECK_RESULT(code, VMK_TUN_GONE);
    CHECK(state_of(tunnel) == VMK_STATE_STOPPED);
    vmk_status *status = NULL;
    CHECK_RESULT(vmk_tunnel_status(tunnel, &status, NULL), VMK_OK);
    CHECK_RESULT(vmk_error_code(vmk_status_last_error(status)), VMK_TUN_GONE);
    vmk_status_free(status);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
}

static void waiting_for_events_ends_in_time(void)
{
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    vmk_event *event = NULL;
    vmk_error *error = NULL;
    CHECK_RESULT(vmk_tunnel_next_event(tunnel, 0, &event, NULL), VMK_TIMEOUT);
    CHECK_RESULT(vmk_tunnel_next_event(tunnel, 20, &event, &error), VMK_TIMEOUT);
    CHECK_TEXT(vmk_error_what(error), "next_event");
    vmk_error_free(error);
    CHECK(event == NULL);
    CHECK_RESULT(vmk_tunnel_request_stop(tunnel), VMK_OK);
    CHECK(wait_for_event(tunnel, VMK_EVENT_STATE, VMK_STATE_STOPPED));
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 1000, NULL), VMK_STOPPED);
    vmk_tunnel_free(tunnel);
}

static void *collect(void *argument)
{
    vmk_tunnel *tunnel = argument;
    vmk_event *event = NULL;
    uintptr_t last = 0;
    while (vmk_tunnel_next_event(tunnel, VMK_WAIT_FOREVER, &event, NULL) == VMK_OK) {
        last = vmk_event_kind(event) == VMK_EVENT_STATE ? vmk_event_state(event) : 99;
        vmk_event_free(event);
    }
    return (void *)last;
}

static void a_waiting_thread_sees_the_end(void)
{
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    pthread_t collector;
    CHECK(pthread_create(&collector, NULL, collect, tunnel) == 0);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    void *last = NULL;
    CHECK(pthread_join(collector, &last) == 0);
    CHECK((uintptr_t)last == VMK_STATE_STOPPED);
    vmk_tunnel_free(tunnel);
}

static void connections_are_listed_and_closed(void)
{
    char config[512];
    unsigned port = free_port();
    socks_config(config, sizeof config, port, "freedom");
    vmk_tunnel *tunnel = make_tunnel(config, NULL);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);

    /* The target is a listener that takes the connection and says nothing. */
    unsigned target = 0;
    int listener = listen_anywhere(&target);
    int client = socks_connect(port, target);
    CHECK(client >= 0);

    vmk_connections *connections = NULL;
    CHECK_RESULT(vmk_tunnel_connections(tunnel, 10000, &connections, NULL), VMK_OK);
    CHECK(vmk_connections_count(connections) == 1);
    vmk_connection one = {.size = sizeof one};
    CHECK_RESULT(vmk_connections_get(connections, 0, &one), VMK_OK);
    CHECK_RESULT(vmk_connections_get(connections, 1, &one), VMK_MISUSE);
    CHECK(one.protocol == VMK_PROTOCOL_TCP);
    CHECK_TEXT(one.inbound, "in");
    CHECK_TEXT(one.outbound, "out");
    CHECK(strncmp(one.source, "127.0.0.1:", 10) == 0 && strncmp(one.target, "127.0.0.1:", 10) == 0);
    uint32_t closed = 77;
    CHECK_RESULT(vmk_tunnel_close_connection(tunnel, one.id + 1, 10000, &closed, NULL), VMK_OK);
    CHECK(closed == 0);
    CHECK_RESULT(vmk_tunnel_close_connection(tunnel, one.id, 10000, &closed, NULL), VMK_OK);
    CHECK(closed == 1);
    vmk_connections_free(connections);
    char byte;
    CHECK(recv(client, &byte, 1, 0) <= 0);
    close(client);
    close(listener);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
}

/* Whether nobody serves a port: a connection is refused, or ended unserved. */
static bool is_unserved(unsigned port)
{
    int client = connect_to(port);
    if (client < 0) {
        return true;
    }
    struct timeval patience = {20, 0};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    char byte;
    bool ended = send(client, "\5\1\0", 3, MSG_NOSIGNAL) < 0 || recv(client, &byte, 1, 0) <= 0;
    close(client);
    return ended;
}

static void a_reload_is_all_or_nothing(void)
{
    char first[512];
    char second[512];
    unsigned ports[2] = {free_port(), free_port()};
    socks_config(first, sizeof first, ports[0], "freedom");
    socks_config(second, sizeof second, ports[1], "blackhole");
    vmk_tunnel *tunnel = make_tunnel(first, NULL);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);
    vmk_reload_report report = {.size = sizeof report, .tun_changed = 77};
    vmk_error *error = NULL;
    CHECK_RESULT(vmk_tunnel_reload(tunnel, "{", 10000, &report, &error), VMK_CONFIG_INVALID);
    CHECK(vmk_error_path(error)[0] != '\0' && report.tun_changed == 77);
    vmk_error_free(error);
    int before = connect_to(ports[0]);
    CHECK(before >= 0);
    close(before);
    CHECK_RESULT(vmk_tunnel_reload(tunnel, second, 10000, &report, NULL), VMK_OK);
    CHECK(report.tun_changed == 0);
    int after = connect_to(ports[1]);
    CHECK(after >= 0);
    close(after);
    CHECK(is_unserved(ports[0]));
    report.size = 1;
    CHECK_RESULT(vmk_tunnel_reload(tunnel, second, 10000, &report, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
}

static void a_port_in_use_fails_the_start(void)
{
    char config[512];
    unsigned port = free_port();
    socks_config(config, sizeof config, port, "freedom");
    vmk_tunnel *first = make_tunnel(config, NULL);
    vmk_tunnel *second = make_tunnel(config, NULL);
    CHECK_RESULT(vmk_tunnel_start(first, NULL, 10000, NULL), VMK_OK);
    vmk_error *error = NULL;
    CHECK(vmk_tunnel_start(second, NULL, 10000, &error) != VMK_OK);
    CHECK(vmk_error_text(error)[0] != '\0' && vmk_error_reason(error)[0] != '\0');
    vmk_error_free(error);
    CHECK(wait_for_event(second, VMK_EVENT_STATE, VMK_STATE_STOPPED));
    CHECK_RESULT(vmk_tunnel_stop(second, 10000, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_stop(first, 10000, NULL), VMK_OK);
    vmk_tunnel_free(first);
    vmk_tunnel_free(second);
}

static void a_tunnel_may_be_freed_while_it_runs(void)
{
    int pair[2];
    make_pair(pair);
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    vmk_tun tun = tun_of(pair[0], VMK_TUN_OWNED);
    CHECK_RESULT(vmk_tunnel_start(tunnel, &tun, 10000, NULL), VMK_OK);
    CHECK(ping(pair[1]));
    vmk_tunnel_free(tunnel);
    /* It stops by itself, which closes its end. */
    char byte;
    CHECK(recv(pair[1], &byte, 1, 0) <= 0);
    close(pair[1]);
}

int main(void)
{
    a_whole_life();
    a_stopped_tunnel_refuses();
    descriptors_are_taken_as_told();
    a_tun_is_swapped();
    the_end_of_the_tun_is_told();
    waiting_for_events_ends_in_time();
    a_waiting_thread_sees_the_end();
    connections_are_listed_and_closed();
    a_reload_is_all_or_nothing();
    a_port_in_use_fails_the_start();
    a_tunnel_may_be_freed_while_it_runs();
    return check_summary("lifecycle");
}
