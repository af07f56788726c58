/* Every kind of error that a program can be given: made by the library itself, and all of it read. What is left is
 * VMK_INTERNAL, a defect, which a test of the crate makes. */

#define _GNU_SOURCE

#include "check.h"
#include "common.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* What an error has to say. NULL: anything; a text: holds it. */
struct expected {
    uint32_t code;
    const char *name;
    const char *text;
    const char *hint;
    const char *reason;
    const char *path;
    const char *what;
    uint32_t stage;
};

static uint32_t seen;

static void check_part(const char *actual, const char *expected, const char *part, const struct expected *error)
{
    int held = actual != NULL && (expected == NULL || (*expected == '\0' ? *actual == '\0' : strstr(actual, expected) != NULL));
    if (!CHECK(held)) {
        fprintf(stderr, "%s of %s: \"%s\", expected \"%s\"\n", part, error->name, actual, expected);
    }
}

/* Reads all of an error, which the caller keeps. */
static void judge_lent(const vmk_error *error, const struct expected *expected)
{
    if (!CHECK(error != NULL)) {
        return;
    }
    CHECK_RESULT(vmk_error_code(error), expected->code);
    CHECK_TEXT(vmk_error_name(error), expected->name);
    CHECK_TEXT(vmk_result_name(expected->code), expected->name);
    check_part(vmk_error_text(error), expected->text, "the text", expected);
    CHECK(vmk_error_text(error)[0] != '\0');
    check_part(vmk_error_hint(error), expected->hint, "the hint", expected);
    check_part(vmk_error_reason(error), expected->reason, "the reason", expected);
    check_part(vmk_error_path(error), expected->path, "the path", expected);
    check_part(vmk_error_what(error), expected->what, "the detail", expected);
    CHECK_RESULT(vmk_error_stage(error), expected->stage);
    CHECK((vmk_error_seconds(error) != 0) == (expected->code == VMK_CLOCK_SKEW));
    CHECK(strstr(vmk_error_text(error), "b831381d") == NULL && strstr(vmk_error_reason(error), "b831381d") == NULL);
    printf("  %s: %s (%s); %s\n", vmk_error_name(error), vmk_error_text(error), vmk_error_reason(error),
           vmk_error_hint(error));
    seen |= 1u << vmk_error_code(error);
}

/* The same of one that the caller owns, and frees it. By its address: a call that writes it may be an argument here. */
static void judge(vmk_result result, vmk_error **error, const struct expected *expected)
{
    CHECK_RESULT(result, expected->code);
    judge_lent(*error, expected);
    vmk_error_free(*error);
    *error = NULL;
}

/* A server that reads a little of what each client says, answers, and closes; or that is silent for ever. */
struct server {
    int listener;
    unsigned port;
    const char *answer;
    bool silent;
    pthread_t thread;
};

static void *answer_all(void *argument)
{
    struct server *server = argument;
    int held[64];
    int count = 0;
    int client;
    while ((client = accept(server->listener, NULL, NULL)) >= 0) {
        char bytes[4096];
        if (server->silent && count < 64) {
            held[count++] = client;
            continue;
        }
        if (recv(client, bytes, sizeof bytes, 0) > 0 && server->answer != NULL) {
            send(client, server->answer, strlen(server->answer), MSG_NOSIGNAL);
            while (recv(client, bytes, sizeof bytes, 0) > 0) {
            }
        }
        close(client);
    }
    while (count > 0) {
        close(held[--count]);
    }
    return NULL;
}

static void serve(struct server *server)
{
    server->listener = listen_anywhere(&server->port);
    CHECK(pthread_create(&server->thread, NULL, answer_all, server) == 0);
}

static void end_server(struct server *server)
{
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
}

/* A time server whose clock is an hour ahead of ours. */
static void *tell_the_time(void *argument)
{
    int fd = *(int *)argument;
    uint8_t packet[512];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    ssize_t got;
    while ((got = recvfrom(fd, packet, sizeof packet, 0, (struct sockaddr *)&from, &length)) > 0) {
        if (got < 48) {
            continue;
        }
        uint8_t answer[48] = {0x24, 2};
        uint32_t seconds = htonl((uint32_t)(time(NULL) + 3600 + 2208988800));
        memcpy(answer + 24, packet + 40, 8);
        memcpy(answer + 32, &seconds, 4);
        memcpy(answer + 40, &seconds, 4);
        sendto(fd, answer, sizeof answer, 0, (struct sockaddr *)&from, length);
        length = sizeof from;
    }
    return NULL;
}

/* What a check of a server says that is reached by the members `more` of the config's outbound and top level. */
static vmk_result checked(unsigned port, const char *stream, const char *top, uint32_t timeout_ms, vmk_error **error)
{
    char config[1024];
    snprintf(config, sizeof config,
             "{\"outbounds\": [{\"protocol\": \"vmess\", \"settings\": {\"vnext\": [{\"address\": \"127.0.0.1\", \"port\": "
             "%u, \"users\": [{\"id\": \"b831381d-6324-4d53-ad4f-8cda48b30811\"}]}]}%s}]%s}",
             port, stream, top);
    vmk_tunnel *tunnel = make_tunnel(config, NULL);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);
    vmk_result result = vmk_tunnel_check(tunnel, timeout_ms, NULL, error);
    /* A wrong clock is known only once a time server was asked, which a refusal leads to. */
    for (int i = 0; top[0] != '\0' && result != VMK_CLOCK_SKEW && i < 50; i++) {
        vmk_error_free(*error);
        usleep(100000);
        result = vmk_tunnel_check(tunnel, timeout_ms, NULL, error);
    }
    vmk_status *status = NULL;
    CHECK_RESULT(vmk_tunnel_status(tunnel, &status, NULL), VMK_OK);
    CHECK_RESULT(vmk_error_code(vmk_status_last_error(status)), result);
    vmk_status_free(status);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
    return result;
}

static void servers_fail(void)
{
    static const struct expected unreachable = {2, "ServerUnreachable", "connected", "port", "refused", "", "", VMK_STAGE_CONNECT};
    static const struct expected no_tls = {3, "TlsFailed", "TLS handshake failed", "port", "TLS", "", "", 0};
    static const struct expected rejected = {4, "AuthRejected", "closed", NULL, NULL, "", "", 0};
    static const struct expected skewed = {5, "ClockSkew", " s slow", "date and time", NULL, "", "", 0};
    static const struct expected late = {12, "Timeout", "in time", "id", NULL, "", "check", 0};
    struct server closing = {.answer = NULL};
    struct server talking = {.answer = "HTTP/1.1 400 Bad Request\r\n\r\n"};
    struct server silent = {.silent = true};
    serve(&closing);
    serve(&talking);
    serve(&silent);

    vmk_error *error = NULL;
    judge(checked(free_port(), "", "", 10000, &error), &error, &unreachable);
    judge(checked(talking.port, ", \"streamSettings\": {\"security\": \"tls\"}", "", 10000, &error), &error, &no_tls);
    judge(checked(closing.port, "", "", 10000, &error), &error, &rejected);
    judge(checked(silent.port, "", "", 300, &error), &error, &late);

    int clock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    pthread_t teller;
    CHECK(bind(clock, (struct sockaddr *)&address, sizeof address) == 0 &&
          getsockname(clock, (struct sockaddr *)&address, &length) == 0 &&
          pthread_create(&teller, NULL, tell_the_time, &clock) == 0);
    char sntp[128];
    snprintf(sntp, sizeof sntp, ", \"vmesskit\": {\"sntp\": {\"server\": \"127.0.0.1:%u\"}}", ntohs(address.sin_port));
    vmk_result result = checked(closing.port, "", sntp, 10000, &error);
    CHECK(vmk_error_seconds(error) <= -3590 && vmk_error_seconds(error) >= -3610);
    judge(result, &error, &skewed);
    shutdown(clock, SHUT_RDWR);
    pthread_join(teller, NULL);
    close(clock);

    end_server(&closing);
    end_server(&talking);
    end_server(&silent);
}

static int refuse(void *userdata, int fd)
{
    (void)fd;
    return *(int *)userdata;
}

static void hosts_refuse(void)
{
    static const struct expected refused = {6, "ProtectFailed", "refused", NULL, "returned 7", "", "", 0};
    int answer = 7;
    vmk_platform platform = {.size = sizeof platform, .userdata = &answer, .protect_socket = refuse};
    char config[1024];
    vmess_config(config, sizeof config, "127.0.0.1", free_port());
    vmk_tunnel *tunnel = make_tunnel(config, &platform);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);
    vmk_error *error = NULL;
    vmk_result result = vmk_tunnel_check(tunnel, 10000, NULL, &error);
    judge(result, &error, &refused);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
}

static void devices_fail(void)
{
    static const struct expected unusable = {7, "TunIo", NULL, NULL, NULL, "", "", 0};
    static const struct expected gone = {8, "TunGone", NULL, NULL, NULL, "", "", 0};
    char path[] = "/tmp/vmesskit-errors-XXXXXX";
    int file = mkstemp(path);
    unlink(path);
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    vmk_tun tun = tun_of(file, VMK_TUN_OWNED);
    vmk_error *error = NULL;
    vmk_result result = vmk_tunnel_start(tunnel, &tun, 10000, &error);
    judge(result, &error, &unusable);
    CHECK(!is_open(file));
    vmk_tunnel_free(tunnel);

    int pair[2];
    make_pair(pair);
    tunnel = make_tunnel(QUIET, NULL);
    tun = tun_of(pair[0], VMK_TUN_OWNED);
    CHECK_RESULT(vmk_tunnel_start(tunnel, &tun, 10000, NULL), VMK_OK);
    close(pair[1]);
    vmk_event *event = NULL;
    bool told = false;
    while (vmk_tunnel_next_event(tunnel, 20000, &event, NULL) == VMK_OK) {
        if (vmk_event_error(event) != NULL) {
            judge_lent(vmk_event_error(event), &gone);
            told = true;
        }
        vmk_event_free(event);
    }
    CHECK(told);
    vmk_tunnel_free(tunnel);
}

static void calls_are_refused(void)
{
    static const struct expected invalid = {
        1, "ConfigInvalid", "protocol", "vmess", "found", "outbounds[0].protocol", "", 0};
    static const struct expected taken = {
        9, "ResourceLimit", NULL, NULL, NULL, "inbounds[0].port", "listening port", 0};
    static const struct expected again = {10, "AlreadyRunning", "started", NULL, NULL, "", "", 0};
    static const struct expected over = {11, "Stopped", "over", NULL, NULL, "", "", 0};
    static const struct expected misused = {13, "Misuse", "memory", NULL, NULL, NULL, "", 0};
    static const struct expected absent = {14, "Unsupported", "groups", NULL, NULL, "", "", 0};
    vmk_error *error = NULL;
    vmk_tunnel *tunnel = NULL;
    judge(vmk_tunnel_new("{\"outbounds\": [{\"protocol\": \"vmes\"}]}", NULL, NULL, &tunnel, &error), &error, &invalid);

    char config[512];
    unsigned port = 0;
    int listener = listen_anywhere(&port);
    socks_config(config, sizeof config, port, "freedom");
    tunnel = make_tunnel(config, NULL);
    vmk_result result = vmk_tunnel_start(tunnel, NULL, 10000, &error);
    judge(result, &error, &taken);
    vmk_tunnel_free(tunnel);
    close(listener);

    tunnel = make_tunnel(QUIET, NULL);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);
    result = vmk_tunnel_start(tunnel, NULL, 10000, &error);
    judge(result, &error, &again);
    result = vmk_tunnel_select_outbound(tunnel, "group", "tag", &error);
    judge(result, &error, &absent);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    result = vmk_tunnel_start(tunnel, NULL, 10000, &error);
    judge(result, &error, &over);
    vmk_tunnel_free(tunnel);

    vmk_options *options = vmk_options_new();
    CHECK_RESULT(vmk_options_set_memory_limit(options, 1000, NULL), VMK_OK);
    result = vmk_tunnel_new(QUIET, options, NULL, &tunnel, &error);
    judge(result, &error, &misused);
    vmk_options_free(options);
}

int main(void)
{
    calls_are_refused();
    servers_fail();
    hosts_refuse();
    devices_fail();
    for (uint32_t code = VMK_CONFIG_INVALID; code < VMK_INTERNAL; code++) {
        if (!CHECK((seen & (1u << code)) != 0)) {
            fprintf(stderr, "no test has made %s\n", vmk_result_name(code));
        }
    }
    return check_summary("errors");
}
