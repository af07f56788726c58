/* What several tests need: configs, a socket pair in a tun's place, counting. */

#ifndef COMMON_H
#define COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmesskit.h>

/* A config that needs no network: everything goes nowhere. */
extern const char QUIET[];

/* Makes a pair of sockets that keep packets apart, as a tun does. */
void make_pair(int pair[2]);

/* Describes a tun descriptor. */
vmk_tun tun_of(int fd, uint32_t ownership);

/* Makes a tunnel of a config, or ends the program. */
vmk_tunnel *make_tunnel(const char *json, const vmk_platform *platform);

/* Writes a config with a VMess outbound to `address`:`port`. */
void vmess_config(char *out, size_t room, const char *address, unsigned port);

/* Takes events until `kind` (and, for states, `state`) comes; false when the events end before. */
bool wait_for_event(vmk_tunnel *tunnel, uint32_t kind, uint32_t state);

/* How many entries a folder of /proc/self has: "fd" or "task". */
int count_entries(const char *folder);

/* Whether a descriptor is open. */
bool is_open(int fd);

/* Listens on a free port of the loopback. */
int listen_anywhere(unsigned *port);

/* A port of the loopback that was free a moment ago. */
unsigned free_port(void);

/* Connects to a port of the loopback; -1 if nobody listens there. */
int connect_to(unsigned port);

/* Writes a config with a SOCKS inbound, tagged "in", and an outbound, tagged "out". */
void socks_config(char *out, size_t room, unsigned port, const char *outbound);

/* Connects to a port of the loopback through the SOCKS inbound at `port`; -1 if that fails. */
int socks_connect(unsigned port, unsigned target);

/* Sends an ICMP echo request into the tun and waits for the reply. */
bool ping(int host_end);

#endif
