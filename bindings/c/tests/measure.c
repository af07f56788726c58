/* Measuring and subscriptions: what an app does before it has a tunnel. */

#define _GNU_SOURCE

#include "check.h"
#include "common.h"

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

/* A web server that has no content to give. */
static void *give_nothing(void *argument)
{
    int listener = *(int *)argument;
    int client;
    while ((client = accept(listener, NULL, NULL)) >= 0) {
        char bytes[2048];
        static const char answer[] = "HTTP/1.1 204 No Content\r\n\r\n";
        if (recv(client, bytes, sizeof bytes, 0) > 0) {
            send(client, answer, sizeof answer - 1, MSG_NOSIGNAL);
        }
        close(client);
    }
    return NULL;
}

static void servers_are_measured_without_a_tunnel(void)
{
    unsigned port = 0;
    int listener = listen_anywhere(&port);
    pthread_t web;
    CHECK(pthread_create(&web, NULL, give_nothing, &listener) == 0);
    unsigned long threads = (unsigned long)count_entries("task");

    char server[512];
    char dead[1024];
    char good[1024];
    unsigned door = free_port();
    snprintf(server, sizeof server,
             "{\"inbounds\": [{\"protocol\": \"vmess\", \"listen\": \"127.0.0.1\", \"port\": %u, \"settings\": {\"clients\": "
             "[{\"id\": \"b831381d-6324-4d53-ad4f-8cda48b30811\"}]}}], \"outbounds\": [{\"protocol\": \"freedom\"}]}",
             door);
    vmess_config(good, sizeof good, "127.0.0.1", door);
    vmess_config(dead, sizeof dead, "127.0.0.1", free_port());
    vmk_tunnel *theirs = make_tunnel(server, NULL);
    CHECK_RESULT(vmk_tunnel_start(theirs, NULL, 10000, NULL), VMK_OK);
    unsigned long running = (unsigned long)count_entries("task");

    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%u/generate_204", port);
    const char *configs[] = {good, dead, "{", QUIET, good};
    vmk_measure_request request = {.size = sizeof request,
                                   .configs = configs,
                                   .configs_count = 5,
                                   .url = url,
                                   .timeout_ms = 10000,
                                   .parallel = 2};
    static const vmk_result expected[] = {VMK_OK, VMK_SERVER_UNREACHABLE, VMK_CONFIG_INVALID, VMK_MISUSE, VMK_OK};
    vmk_measurements *measurements = NULL;
    CHECK_RESULT(vmk_measure(&request, &measurements, NULL), VMK_OK);
    CHECK(vmk_measurements_count(measurements) == 5);
    for (size_t i = 0; i < 5; i++) {
        const vmk_error *error = vmk_measurements_error(measurements, i);
        uint64_t micros = vmk_measurements_latency_micros(measurements, i);
        CHECK_RESULT(vmk_error_code(error), expected[i]);
        CHECK(error == NULL ? micros > 0 && micros < 10000000 : micros == UINT64_MAX && vmk_error_text(error)[0] != '\0');
    }
    CHECK(vmk_measurements_error(measurements, 5) == NULL);
    CHECK(vmk_measurements_latency_micros(measurements, 5) == UINT64_MAX);
    vmk_measurements_free(measurements);
    CHECK_RESULT((unsigned long)count_entries("task"), running);

    vmk_error *error = NULL;
    measurements = NULL;
    request.url = "gopher://127.0.0.1";
    CHECK_RESULT(vmk_measure(&request, &measurements, &error), VMK_MISUSE);
    CHECK(measurements == NULL && vmk_error_hint(error)[0] != '\0');
    vmk_error_free(error);
    request.url = url;
    request.configs_count = 0;
    request.configs = NULL;
    CHECK_RESULT(vmk_measure(&request, &measurements, NULL), VMK_OK);
    CHECK(vmk_measurements_count(measurements) == 0);
    vmk_measurements_free(measurements);

    CHECK_RESULT(vmk_tunnel_stop(theirs, 10000, NULL), VMK_OK);
    vmk_tunnel_free(theirs);
    CHECK_RESULT((unsigned long)count_entries("task"), threads);
    shutdown(listener, SHUT_RDWR);
    pthread_join(web, NULL);
    close(listener);
}

static void subscriptions_are_read(void)
{
    static const char body[] = "vmess://b831381d-6324-4d53-ad4f-8cda48b30811@server.example:443?type=tcp#home\n"
                               "ss://nothing\n"
                               "vmess://broken\n";
    vmk_subscription *found = NULL;
    CHECK_RESULT(vmk_parse_subscription((const uint8_t *)body, sizeof body - 1, &found, NULL), VMK_OK);
    CHECK(vmk_subscription_count(found) == 1);
    CHECK_TEXT(vmk_subscription_name(found, 0), "home");
    CHECK_TEXT(vmk_subscription_name(found, 1), "");
    CHECK_TEXT(vmk_subscription_config(found, SIZE_MAX), "");
    vmk_tunnel_free(make_tunnel(vmk_subscription_config(found, 0), NULL));
    const vmk_diagnostics *findings = vmk_subscription_diagnostics(found);
    CHECK(vmk_diagnostics_count(findings) == 2 && vmk_diagnostics_errors(findings) == 1);
    vmk_diagnostic one = {.size = sizeof one};
    CHECK_RESULT(vmk_diagnostics_get(findings, 0, &one), VMK_OK);
    CHECK(one.severity == VMK_SEVERITY_WARNING);
    CHECK_TEXT(one.path, "line 2");
    vmk_subscription_free(found);

    vmk_error *error = NULL;
    found = NULL;
    CHECK_RESULT(vmk_parse_subscription((const uint8_t *)"<html>", 6, &found, &error), VMK_CONFIG_INVALID);
    CHECK(found == NULL && strstr(vmk_error_text(error), "web page") != NULL);
    vmk_error_free(error);
}

int main(void)
{
    servers_are_measured_without_a_tunnel();
    subscriptions_are_read();
    return check_summary("measure");
}
