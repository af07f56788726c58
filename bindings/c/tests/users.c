/* Users of a VMess inbound, and counters by name. */

#define _GNU_SOURCE

#include "check.h"
#include "common.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ID "b831381d-6324-4d53-ad4f-8cda48b30811"

/* Writes a config with a VMess inbound, tagged "server", whose one user has the e-mail "Ann@example.com". */
static void server_config(char *out, size_t room, unsigned port)
{
    snprintf(out, room,
             "{\"inbounds\": [{\"tag\": \"server\", \"protocol\": \"vmess\", \"listen\": \"127.0.0.1\", \"port\": %u,"
             " \"settings\": {\"clients\": [{\"id\": \"" ID "\", \"level\": 3, \"email\": \"Ann@example.com\"}]}}],"
             " \"outbounds\": [{\"tag\": \"out\", \"protocol\": \"freedom\"}]}",
             port);
}

/* The error's path, or what came in its place. */
static void check_refused(const vmk_tunnel *tunnel, vmk_new_user user, vmk_result result, const char *path)
{
    vmk_error *error = NULL;
    CHECK_RESULT(vmk_tunnel_add_user(tunnel, "server", &user, &error), result);
    CHECK_TEXT(vmk_error_path(error), path);
    CHECK(strstr(vmk_error_text(error), ID) == NULL);
    vmk_error_free(error);
}

static size_t count_users(const vmk_tunnel *tunnel)
{
    vmk_users *users = NULL;
    CHECK_RESULT(vmk_tunnel_users(tunnel, "server", &users, NULL), VMK_OK);
    size_t count = vmk_users_count(users);
    vmk_users_free(users);
    return count;
}

static void users_come_and_go(void)
{
    char config[512];
    server_config(config, sizeof config, free_port());
    vmk_tunnel *tunnel = make_tunnel(config, NULL);
    vmk_users *users = NULL;
    CHECK_RESULT(vmk_tunnel_users(tunnel, "server", &users, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_users(tunnel, "other", &users, NULL), VMK_MISUSE);
    CHECK(users == NULL);

    vmk_new_user ben = {.size = sizeof ben, .level = 1, .id = "a text", .email = "ben", .alter_id = 2};
    CHECK_RESULT(vmk_tunnel_add_user(tunnel, "other", &ben, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_add_user(tunnel, "server", &ben, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_users(tunnel, "server", &users, NULL), VMK_OK);
    CHECK(vmk_users_count(users) == 2);
    vmk_user user = {.size = sizeof user};
    CHECK_RESULT(vmk_users_get(users, 0, &user), VMK_OK);
    CHECK_TEXT(user.email, "Ann@example.com");
    CHECK(user.level == 3 && user.alter_id == 0 && user.uplink_bytes == 0 && user.downlink_bytes == 0);
    CHECK_RESULT(vmk_users_get(users, 1, &user), VMK_OK);
    CHECK_TEXT(user.email, "ben");
    CHECK(user.level == 1 && user.alter_id == 2);
    CHECK_RESULT(vmk_users_get(users, 2, &user), VMK_MISUSE);
    vmk_users_free(users);

    check_refused(tunnel, ben, VMK_CONFIG_INVALID, "email");
    ben.email = "ben2";
    check_refused(tunnel, ben, VMK_CONFIG_INVALID, "id");
    ben.id = "0123456789012345678901234567890";
    check_refused(tunnel, ben, VMK_CONFIG_INVALID, "id");
    ben.id = "another";
    ben.alter_id = 65535;
    check_refused(tunnel, ben, VMK_CONFIG_INVALID, "alterId");
    ben.alter_id = 65536;
    check_refused(tunnel, ben, VMK_CONFIG_INVALID, "alterId");
    CHECK(count_users(tunnel) == 2);

    uint32_t removed = 77;
    CHECK_RESULT(vmk_tunnel_remove_user(tunnel, "server", "", &removed, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_remove_user(tunnel, "other", "ben", &removed, NULL), VMK_MISUSE);
    CHECK(removed == 77);
    CHECK_RESULT(vmk_tunnel_remove_user(tunnel, "server", "BEN", &removed, NULL), VMK_OK);
    CHECK(removed == 1);
    CHECK_RESULT(vmk_tunnel_remove_user(tunnel, "server", "ben", &removed, NULL), VMK_OK);
    CHECK(removed == 0);
    CHECK_RESULT(vmk_tunnel_remove_user(tunnel, "server", "ann@EXAMPLE.com", NULL, NULL), VMK_OK);
    CHECK(count_users(tunnel) == 0);

    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_users(tunnel, "server", &users, NULL), VMK_STOPPED);
    vmk_tunnel_free(tunnel);
}

/* The value of a counter; -1 if there is none of the name. */
static long long value_of(const vmk_tunnel *tunnel, uint32_t reset, const char *name)
{
    vmk_counters *counters = NULL;
    CHECK_RESULT(vmk_tunnel_counters(tunnel, reset, &counters, NULL), VMK_OK);
    long long value = -1;
    vmk_counter counter = {.size = sizeof counter};
    for (size_t index = 0; index < vmk_counters_count(counters); index++) {
        CHECK_RESULT(vmk_counters_get(counters, index, &counter), VMK_OK);
        if (strcmp(counter.name, name) == 0) {
            value = (long long)counter.value;
        }
    }
    CHECK_RESULT(vmk_counters_get(counters, vmk_counters_count(counters), &counter), VMK_MISUSE);
    vmk_counters_free(counters);
    return value;
}

static void counters_are_listed_and_reset(void)
{
    char config[1024];
    unsigned port = free_port();
    snprintf(config, sizeof config,
             "{\"inbounds\": [{\"tag\": \"in\", \"protocol\": \"socks\", \"listen\": \"127.0.0.1\", \"port\": %u}],"
             " \"outbounds\": [{\"tag\": \"out\", \"protocol\": \"freedom\"}], \"stats\": {},"
             " \"policy\": {\"system\": {\"statsInboundUplink\": true, \"statsOutboundDownlink\": true}}}",
             port);
    vmk_tunnel *tunnel = make_tunnel(config, NULL);
    CHECK(value_of(tunnel, 1, "inbound>>>in>>>traffic>>>uplink") == -1);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);
    unsigned target = 0;
    int listener = listen_anywhere(&target);
    int client = socks_connect(port, target);
    int server = accept(listener, NULL, NULL);
    CHECK(client >= 0 && server >= 0);
    char bytes[4] = "";
    CHECK(send(client, "vmk", 3, MSG_NOSIGNAL) == 3 && recv(server, bytes, 3, MSG_WAITALL) == 3);
    /* The answer shows that the first bytes have been counted, once it is back. */
    CHECK(send(server, "ok", 2, MSG_NOSIGNAL) == 2 && recv(client, bytes, 2, MSG_WAITALL) == 2);
    CHECK(value_of(tunnel, 0, "inbound>>>in>>>traffic>>>uplink") == 3);
    CHECK(value_of(tunnel, 0, "inbound>>>in>>>traffic>>>downlink") == -1);
    CHECK(value_of(tunnel, 1, "inbound>>>in>>>traffic>>>uplink") == 3);
    CHECK(value_of(tunnel, 0, "inbound>>>in>>>traffic>>>uplink") == 0);
    CHECK(value_of(tunnel, 0, "outbound>>>out>>>traffic>>>downlink") >= 0);
    close(client);
    close(server);
    close(listener);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
}

int main(void)
{
    users_come_and_go();
    counters_are_listed_and_reset();
    return check_summary("users");
}
