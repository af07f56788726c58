/* A peer that closes while data flows to it must not end the process: SIGPIPE keeps its default action here, as it has
 * in a host that knows nothing of it. */

#define _GNU_SOURCE

#include "check.h"
#include "common.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* Sends until nothing more is taken, for now (`wait` false) or for good; false if that never comes. */
static bool send_all_it_takes(int fd, bool wait)
{
    static char bytes[1 << 16];
    struct timeval patience = {wait ? 20 : 0, wait ? 0 : 300000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    for (int i = 0; i < 10000; i++) {
        if (send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) <= 0) {
            return true;
        }
    }
    return false;
}

int main(void)
{
    signal(SIGPIPE, SIG_DFL);
    char config[512];
    unsigned port = free_port();
    socks_config(config, sizeof config, port, "freedom");
    vmk_tunnel *tunnel = make_tunnel(config, NULL);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);
    unsigned target = 0;
    int listener = listen_anywhere(&target);
    for (int round = 0; round < 20; round++) {
        int client = socks_connect(port, target);
        int peer = accept(listener, NULL, NULL);
        char bytes[16] = "x";
        CHECK(client >= 0 && peer >= 0);
        CHECK(send(client, bytes, 1, MSG_NOSIGNAL) == 1 && recv(peer, bytes, 1, 0) == 1);
        /* Its end first, so that what follows is written to a connection that is half gone: EPIPE, not a reset. */
        shutdown(peer, SHUT_WR);
        if (round % 2 == 0) {
            /* With as much underway as the path holds. */
            CHECK(send_all_it_takes(client, false));
        }
        close(peer);
        CHECK(send_all_it_takes(client, true));
        close(client);
    }
    close(listener);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
    return check_summary("sigpipe");
}
