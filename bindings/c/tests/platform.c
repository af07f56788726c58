/* The host's callbacks: asked, refusing, slow, misusing, released. */

#define _GNU_SOURCE

#include "check.h"
#include "common.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

/* What the callbacks do and have seen. */
struct host {
    int answer;
    vmk_tunnel *tunnel;
    atomic_int protects;
    atomic_int resolves;
    atomic_int releases;
    atomic_int sockets;
    atomic_uint stop_result;
    sem_t *until;
};

static int protect_socket(void *userdata, int fd)
{
    struct host *host = userdata;
    int kind = 0;
    socklen_t length = sizeof kind;
    atomic_fetch_add(&host->protects, 1);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &length) == 0) {
        atomic_fetch_add(&host->sockets, 1);
    }
    if (host->tunnel != NULL) {
        atomic_store(&host->stop_result, vmk_tunnel_stop(host->tunnel, 1000, NULL));
    }
    if (host->until != NULL) {
        sem_wait(host->until);
    }
    return host->answer;
}

static int resolve(void *userdata, const char *name, const vmk_network_info *network, vmk_addresses *addresses)
{
    struct host *host = userdata;
    atomic_fetch_add(&host->resolves, 1);
    if (strcmp(name, "server.test") != 0 || (network != NULL && network->size < sizeof *network)) {
        return 1;
    }
    if (vmk_addresses_add(addresses, "no address") != VMK_MISUSE || vmk_addresses_add(addresses, NULL) != VMK_MISUSE) {
        return 2;
    }
    return vmk_addresses_add(addresses, "127.0.0.1") == VMK_OK ? 0 : 3;
}

static void release(void *userdata)
{
    struct host *host = userdata;
    atomic_fetch_add(&host->releases, 1);
}

static vmk_platform table(struct host *host)
{
    vmk_platform platform = {.size = sizeof platform,
                             .userdata = host,
                             .protect_socket = protect_socket,
                             .resolve = resolve,
                             .release = release};
    return platform;
}

/* A server that takes connections and closes them, as one does that knows us not. */
struct server {
    int listener;
    unsigned port;
    pthread_t thread;
};

static void *refuse_all(void *argument)
{
    struct server *server = argument;
    int client;
    while ((client = accept(server->listener, NULL, NULL)) >= 0) {
        close(client);
    }
    return NULL;
}

static void serve(struct server *server)
{
    server->listener = listen_anywhere(&server->port);
    CHECK(pthread_create(&server->thread, NULL, refuse_all, server) == 0);
}

static void end_server(struct server *server)
{
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
}

static vmk_tunnel *started(const char *address, unsigned port, const vmk_platform *platform)
{
    char config[1024];
    vmess_config(config, sizeof config, address, port);
    vmk_tunnel *tunnel = make_tunnel(config, platform);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);
    return tunnel;
}

static void a_refusal_fails_the_dial(const struct server *server)
{
    struct host host = {.answer = 1};
    vmk_platform platform = table(&host);
    vmk_tunnel *tunnel = started("127.0.0.1", server->port, &platform);
    vmk_error *error = NULL;
    vmk_check_report *report = NULL;
    CHECK_RESULT(vmk_tunnel_check(tunnel, 10000, &report, &error), VMK_PROTECT_FAILED);
    CHECK(report == NULL && vmk_error_text(error)[0] != '\0');
    vmk_error_free(error);
    CHECK(host.protects > 0 && host.sockets == host.protects && host.releases == 0);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    CHECK(host.releases == 1);
    vmk_tunnel_free(tunnel);
    CHECK(host.releases == 1);
}

static void every_socket_is_protected_first(const struct server *server)
{
    struct host host = {.answer = 0};
    vmk_platform platform = table(&host);
    vmk_tunnel *tunnel = started("server.test", server->port, &platform);
    vmk_error *error = NULL;
    CHECK_RESULT(vmk_tunnel_check(tunnel, 10000, NULL, &error), VMK_AUTH_REJECTED);
    CHECK(vmk_error_text(error)[0] != '\0');
    vmk_error_free(error);
    CHECK(host.resolves > 0 && host.protects > 0 && host.sockets == host.protects);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    CHECK(host.releases == 1);
    vmk_tunnel_free(tunnel);
}

static void a_name_that_does_not_resolve_is_told(const struct server *server)
{
    struct host host = {.answer = 0};
    vmk_platform platform = table(&host);
    vmk_tunnel *tunnel = started("other.test", server->port, &platform);
    vmk_error *error = NULL;
    CHECK_RESULT(vmk_tunnel_check(tunnel, 10000, NULL, &error), VMK_SERVER_UNREACHABLE);
    CHECK(vmk_error_stage(error) == VMK_STAGE_RESOLVE);
    vmk_error_free(error);
    CHECK(host.resolves > 0);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
}

static void stop_in_a_callback_is_misuse(const struct server *server)
{
    struct host host = {.answer = 0};
    vmk_platform platform = table(&host);
    vmk_tunnel *tunnel = started("127.0.0.1", server->port, &platform);
    host.tunnel = tunnel;
    atomic_store(&host.stop_result, 77);
    CHECK_RESULT(vmk_tunnel_check(tunnel, 10000, NULL, NULL), VMK_AUTH_REJECTED);
    CHECK_RESULT(host.stop_result, VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
}

static void a_stuck_callback_does_not_hold_stop_up(const struct server *server)
{
    sem_t until;
    sem_init(&until, 0, 0);
    struct host host = {.answer = 0, .until = &until};
    vmk_platform platform = table(&host);
    vmk_tunnel *tunnel = started("127.0.0.1", server->port, &platform);
    vmk_error *error = NULL;
    /* The callback has two seconds; then the dial fails, whatever it answers later. */
    CHECK_RESULT(vmk_tunnel_check(tunnel, 10000, NULL, NULL), VMK_PROTECT_FAILED);
    CHECK(host.protects == 1);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 200, &error), VMK_TIMEOUT);
    CHECK(vmk_error_what(error)[0] != '\0');
    vmk_error_free(error);
    CHECK(host.releases == 0);
    sem_post(&until);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    CHECK(host.releases == 1);
    vmk_tunnel_free(tunnel);
    sem_destroy(&until);
}

static void release_is_called_whatever_happens(void)
{
    struct host host = {.answer = 0};
    vmk_platform platform = table(&host);
    vmk_tunnel *tunnel = NULL;
    CHECK_RESULT(vmk_tunnel_new("{", NULL, &platform, &tunnel, NULL), VMK_CONFIG_INVALID);
    CHECK(host.releases == 1);
    CHECK_RESULT(vmk_tunnel_new(NULL, NULL, &platform, &tunnel, NULL), VMK_MISUSE);
    CHECK(host.releases == 2);
    vmk_tunnel_free(make_tunnel(QUIET, &platform));
    CHECK(host.releases == 3);
    vmk_measure_request request = {.size = sizeof request, .platform = &platform};
    vmk_measurements *measurements = NULL;
    CHECK_RESULT(vmk_measure(&request, &measurements, NULL), VMK_MISUSE);
    CHECK(host.releases == 4);
    platform.size = 8;
    CHECK_RESULT(vmk_tunnel_new(QUIET, NULL, &platform, &tunnel, NULL), VMK_MISUSE);
    CHECK(host.releases == 4 && tunnel == NULL);
}

static atomic_int lines;

static void count_line(void *userdata, uint32_t level, const char *text)
{
    if (userdata == &lines && level <= VMK_LOG_DEBUG && text[0] != '\0') {
        atomic_fetch_add(&lines, 1);
    }
}

static void the_log_sink_is_installed_once(void)
{
    CHECK_RESULT(vmk_set_log_sink(99, count_line, &lines, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_set_log_sink(VMK_LOG_DEBUG, count_line, &lines, NULL), VMK_OK);
    CHECK_RESULT(vmk_set_log_sink(VMK_LOG_DEBUG, count_line, &lines, NULL), VMK_MISUSE);
}

int main(void)
{
    struct server server;
    the_log_sink_is_installed_once();
    serve(&server);
    a_refusal_fails_the_dial(&server);
    every_socket_is_protected_first(&server);
    a_name_that_does_not_resolve_is_told(&server);
    stop_in_a_callback_is_misuse(&server);
    a_stuck_callback_does_not_hold_stop_up(&server);
    release_is_called_whatever_happens();
    end_server(&server);
    CHECK(atomic_load(&lines) > 0);
    return check_summary("platform");
}
