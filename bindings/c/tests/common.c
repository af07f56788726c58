#define _GNU_SOURCE

#include "common.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const char QUIET[] = "{\"outbounds\": [{\"protocol\": \"blackhole\"}]}";

static void give_up(const char *what)
{
    perror(what);
    exit(1);
}

void make_pair(int pair[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        give_up("socketpair");
    }
}

vmk_tun tun_of(int fd, uint32_t ownership)
{
    vmk_tun tun = {.size = sizeof tun, .fd = fd, .mtu = 1500, .ownership = ownership, .framing = VMK_FRAMING_RAW_IP};
    return tun;
}

vmk_tunnel *make_tunnel(const char *json, const vmk_platform *platform)
{
    vmk_tunnel *tunnel = NULL;
    vmk_error *error = NULL;
    if (vmk_tunnel_new(json, NULL, platform, &tunnel, &error) != VMK_OK) {
        fprintf(stderr, "no tunnel: %s\n", vmk_error_text(error));
        exit(1);
    }
    return tunnel;
}

void vmess_config(char *out, size_t room, const char *address, unsigned port)
{
    snprintf(out, room,
             "{\"outbounds\": [{\"tag\": \"proxy\", \"protocol\": \"vmess\", \"settings\": {\"vnext\": [{\"address\": "
             "\"%s\", \"port\": %u, \"users\": [{\"id\": \"b831381d-6324-4d53-ad4f-8cda48b30811\"}]}]}}]}",
             address, port);
}

bool wait_for_event(vmk_tunnel *tunnel, uint32_t kind, uint32_t state)
{
    vmk_event *event = NULL;
    while (vmk_tunnel_next_event(tunnel, 20000, &event, NULL) == VMK_OK) {
        bool found = vmk_event_kind(event) == kind && (kind != VMK_EVENT_STATE || vmk_event_state(event) == state);
        vmk_event_free(event);
        if (found) {
            return true;
        }
    }
    return false;
}

int count_entries(const char *folder)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/%s", folder);
    DIR *directory = opendir(path);
    if (directory == NULL) {
        give_up(path);
    }
    int count = 0;
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}

bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) != -1;
}

static uint16_t checksum(const uint8_t *bytes, size_t length)
{
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < length; i += 2) {
        sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
    }
    while (sum > 0xffff) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)~sum;
}

bool ping(int host_end)
{
    /* IPv4 172.19.0.5 -> 192.0.2.1, and an echo request with eight bytes of data. */
    uint8_t packet[36] = {0x45, 0, 0, 36, 0, 1, 0, 0, 64, 1, 0, 0, 172, 19, 0, 5, 192, 0, 2, 1,
                          8,    0, 0, 0,  0, 7, 0, 1, 'v', 'm', 'e', 's', 's', 'k', 'i', 't'};
    uint16_t sum = checksum(packet, 20);
    packet[10] = (uint8_t)(sum >> 8);
    packet[11] = (uint8_t)sum;
    sum = checksum(packet + 20, 16);
    packet[22] = (uint8_t)(sum >> 8);
    packet[23] = (uint8_t)sum;
    if (send(host_end, packet, sizeof packet, MSG_NOSIGNAL) != (ssize_t)sizeof packet) {
        return false;
    }
    struct pollfd readable = {host_end, POLLIN, 0};
    uint8_t reply[64];
    return poll(&readable, 1, 20000) == 1 && recv(host_end, reply, sizeof reply, 0) == (ssize_t)sizeof packet &&
           reply[20] == 0 && memcmp(reply + 28, "vmesskit", 8) == 0 && memcmp(reply + 12, packet + 16, 4) == 0;
}

static struct sockaddr_in loopback(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

int listen_anywhere(unsigned *port)
{
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 8) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
        give_up("listen");
    }
    *port = ntohs(address.sin_port);
    return fd;
}

unsigned free_port(void)
{
    unsigned port = 0;
    close(listen_anywhere(&port));
    return port;
}

int connect_to(unsigned port)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

void socks_config(char *out, size_t room, unsigned port, const char *outbound)
{
    snprintf(out, room,
             "{\"inbounds\": [{\"tag\": \"in\", \"protocol\": \"socks\", \"listen\": \"127.0.0.1\", \"port\": %u}],"
             " \"outbounds\": [{\"tag\": \"out\", \"protocol\": \"%s\"}]}",
             port, outbound);
}

/* Reads and throws away `count` bytes. */
static bool read_exactly(int fd, size_t count)
{
    char bytes[64];
    while (count > 0) {
        ssize_t got = recv(fd, bytes, count < sizeof bytes ? count : sizeof bytes, 0);
        if (got <= 0) {
            return false;
        }
        count -= (size_t)got;
    }
    return true;
}

int socks_connect(unsigned port, unsigned target)
{
    int fd = connect_to(port);
    uint8_t request[13] = {5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, (uint8_t)(target >> 8), (uint8_t)target};
    if (fd >= 0 && send(fd, request, 3, MSG_NOSIGNAL) == 3 && read_exactly(fd, 2) &&
        send(fd, request + 3, 10, MSG_NOSIGNAL) == 10 && read_exactly(fd, 10)) {
        return fd;
    }
    close(fd);
    return -1;
}
