/*
 * VMessKit: the VMess tunnel core that VPN apps embed.
 *
 * A tunnel is made of a config (vmk_tunnel_new), started with a tun descriptor (vmk_tunnel_start), watched
 * (vmk_tunnel_next_event), stopped (vmk_tunnel_stop) and freed (vmk_tunnel_free). Any number may live in one process.
 *
 * Results.    A vmk_result is VMK_OK (0) or says what went wrong. A function with a `vmk_error **error` also hands out
 *             the details, to be freed with vmk_error_free; `error` may be NULL. It is written on failure only, all
 *             other out-parameters on success only. A pointer that may be NULL is documented as such; NULL anywhere
 *             else is VMK_MISUSE, or neutral (0, an empty text, NULL) for an accessor. A defect of the library is
 *             VMK_INTERNAL; it never unwinds into the caller.
 * Ownership.  What is received through `T **out` belongs to the caller, who frees it once with vmk_T_free (a `char **`
 *             with vmk_string_free). A `const char *` or `const T *` that is returned is borrowed: it lives as long as
 *             the object that it was asked of. Arguments are copied, or only read during the call, unless it says
 *             otherwise.
 * Texts.      UTF-8, NUL-terminated; a text that is returned is never NULL. Config JSON and share links hold secrets,
 *             texts of errors, events and diagnostics never do.
 * Structs.    Each begins with `size`, which the caller sets to its sizeof, for input and output alike. The library
 *             touches nothing behind it, and sets it on output to what it has written; members that an older caller
 *             lacks are taken as zero.
 * Numbers.    VMK_ constants travel as uint32_t. A newer library may send ones that the caller does not know.
 * Threads.    A tunnel's functions may be called on any thread. Every other object is for one thread at a time.
 * Waiting.    Functions with `timeout_ms` block for at most that long: 0 asks once, VMK_WAIT_FOREVER does not give up.
 * Not built.  What returns VMK_UNSUPPORTED in this version is there so that programs can be written against it:
 *             vmk_tunnel_select_outbound.
 */

#ifndef VMESSKIT_H
#define VMESSKIT_H

/* Generated from the crate vmesskit-c by scripts/gen-bindings. Do not edit. */

#include <stddef.h>
#include <stdint.h>

// The version of this interface. It is raised when a program built for an older one would no longer work.
#define VMK_ABI_VERSION 1

// A `timeout_ms` that waits as long as it takes (for `vmk_tunnel_check` and `vmk_tunnel_stop`: 49 days).
#define VMK_WAIT_FOREVER UINT32_MAX

// It worked.
#define VMK_OK 0

// The config has errors; `vmk_error_path` says where.
#define VMK_CONFIG_INVALID 1

// No connection to the server could be made; `vmk_error_stage` says which step failed.
#define VMK_SERVER_UNREACHABLE 2

// The TLS handshake or the certificate failed.
#define VMK_TLS_FAILED 3

// The server closed without a valid answer, as it does for an unknown id or a wrong clock.
#define VMK_AUTH_REJECTED 4

// This device's clock is off by `vmk_error_seconds`.
#define VMK_CLOCK_SKEW 5

// `protect_socket` refused a socket.
#define VMK_PROTECT_FAILED 6

// Reading or writing the tun device failed.
#define VMK_TUN_IO 7

// The tun device is gone.
#define VMK_TUN_GONE 8

// A limit was reached; `vmk_error_what` names it.
#define VMK_RESOURCE_LIMIT 9

// The tunnel has been started before.
#define VMK_ALREADY_RUNNING 10

// The tunnel has been stopped, or there are no more events.
#define VMK_STOPPED 11

// Something took longer than it may; `vmk_error_what` names it.
#define VMK_TIMEOUT 12

// The call is not legal here, or an argument is NULL or out of its range.
#define VMK_MISUSE 13

// Not built into this version.
#define VMK_UNSUPPORTED 14

// A defect of the library.
#define VMK_INTERNAL 15

// No stage: the error is not `VMK_SERVER_UNREACHABLE`, or the stage is one that this header does not know.
#define VMK_STAGE_NONE 0

// The server's name was being resolved.
#define VMK_STAGE_RESOLVE 1

// The socket was being connected.
#define VMK_STAGE_CONNECT 2

// The TLS handshake was under way.
#define VMK_STAGE_TLS 3

// The HTTP upgrade, or what the transport has in its place, was under way.
#define VMK_STAGE_UPGRADE 4

// The VMess header had been sent, its answer had not come.
#define VMK_STAGE_VMESS 5

// Made, not started.
#define VMK_STATE_IDLE 0

// Start is under way.
#define VMK_STATE_STARTING 1

// Started; no server has answered yet.
#define VMK_STATE_CONNECTING 2

// A server has answered, or there is none to dial.
#define VMK_STATE_CONNECTED 3

// There is no network.
#define VMK_STATE_NO_NETWORK 4

// Running, with a fault that may pass.
#define VMK_STATE_DEGRADED 5

// Stop is under way.
#define VMK_STATE_STOPPING 6

// Over, for good.
#define VMK_STATE_STOPPED 7

// The state has changed: `vmk_event_state`, `vmk_event_reason` (degraded), `vmk_event_error` (stopped). Never
// dropped; the last event of a tunnel is always `VMK_STATE_STOPPED`.
#define VMK_EVENT_STATE 1

// Log lines: `vmk_event_log_count`, `vmk_event_log_get`.
#define VMK_EVENT_LOG 2

// The network below has changed and has been taken up: `vmk_event_network`.
#define VMK_EVENT_NETWORK_CHANGED 3

// Several flows in a row have sent data to an outbound and received nothing: `vmk_event_outbound`, and the likely
// causes, `vmk_event_cause_count`, `vmk_event_cause_get`.
#define VMK_EVENT_OUTBOUND_UNHEALTHY 4

// A server closed before a valid answer: `vmk_event_outbound` and the likely causes.
#define VMK_EVENT_AUTH_REJECTED 5

// This device's clock is off: `vmk_event_seconds`.
#define VMK_EVENT_CLOCK_SKEW 6

// A limit was reached: `vmk_event_reason` names it.
#define VMK_EVENT_RESOURCE_LIMIT 7

// Something is wrong that may pass: `vmk_event_reason`.
#define VMK_EVENT_DEGRADED 8

// The host was too slow; `vmk_event_count` events other than states were dropped.
#define VMK_EVENT_EVENTS_DROPPED 9

// The id is not known to the server, or its alterId differs.
#define VMK_CAUSE_ID 1

// This device's clock is off by more than VMess bears.
#define VMK_CAUSE_CLOCK 2

// The server is gone, or something between drops the traffic.
#define VMK_CAUSE_SERVER_GONE 3

// The server refuses the security that is configured.
#define VMK_CAUSE_SECURITY 4

// The target behind the server does not answer.
#define VMK_CAUSE_TARGET 5

// A finding with which the config works, but perhaps not as its writer thinks.
#define VMK_SEVERITY_WARNING 1

// A finding with which the config cannot be used.
#define VMK_SEVERITY_ERROR 2

// Nothing is logged.
#define VMK_LOG_NONE 0

// Errors.
#define VMK_LOG_ERROR 1

// And warnings.
#define VMK_LOG_WARNING 2

// And what happened.
#define VMK_LOG_INFO 3

// And host names, flow by flow.
#define VMK_LOG_DEBUG 4

// TCP: IP's own protocol number.
#define VMK_PROTOCOL_TCP 6

// UDP: IP's own protocol number.
#define VMK_PROTOCOL_UDP 17

// The descriptor stays the caller's; the library works on a duplicate.
#define VMK_TUN_BORROWED 0

// The descriptor is the library's from the call on, also when the call fails: it closes it.
#define VMK_TUN_OWNED 1

// One bare IP packet a read or write (Linux with `IFF_NO_PI`, Android).
#define VMK_FRAMING_RAW_IP 0

// Four bytes of address family before each packet (macOS and iOS utun).
#define VMK_FRAMING_DARWIN_UTUN 1

// A 10-byte virtio-net header before each packet; the host has set `IFF_VNET_HDR` and the offloads (Linux).
#define VMK_FRAMING_VNET_HDR 2

// Memory is as usual.
#define VMK_MEMORY_NORMAL 0

// Free what is not needed.
#define VMK_MEMORY_LOW 1

// Free what can be freed, or be ended.
#define VMK_MEMORY_CRITICAL 2

// The network carries IPv4.
#define VMK_NETWORK_HAS_V4 1

// The network carries IPv6.
#define VMK_NETWORK_HAS_V6 2

// Traffic costs money.
#define VMK_NETWORK_METERED 4

// The operating system has reached the internet through it.
#define VMK_NETWORK_VALIDATED 8

// A captive portal stands in the way.
#define VMK_NETWORK_CAPTIVE_PORTAL 16

// Addresses of the device with their prefixes, such as `172.19.0.1/30`.
#define VMK_TUN_ADDRESSES 1

// What to route into it, with prefixes.
#define VMK_TUN_ROUTES 2

// What to keep out of it, with prefixes.
#define VMK_TUN_EXCLUDED_ROUTES 3

// DNS servers to announce, without prefixes.
#define VMK_TUN_DNS 4

// Apps that alone use the tunnel (Android package names).
#define VMK_TUN_ALLOW_APPS 5

// Apps that do not use it.
#define VMK_TUN_DENY_APPS 6

// Where `resolve` puts the addresses that it finds: opaque, lent for the call.
typedef struct vmk_addresses vmk_addresses;

// What a check proved: opaque, freed with `vmk_check_report_free`.
typedef struct vmk_check_report vmk_check_report;

// The connections that were open at one moment: opaque, freed with `vmk_connections_free`.
typedef struct vmk_connections vmk_connections;

// The counters by name at one moment: opaque, freed with `vmk_counters_free`.
typedef struct vmk_counters vmk_counters;

// What was found in a config: opaque, freed with `vmk_diagnostics_free`.
typedef struct vmk_diagnostics vmk_diagnostics;

// What went wrong: opaque, read by the `vmk_error_` functions.
typedef struct vmk_error vmk_error;

// What a tunnel tells its host: opaque, freed with `vmk_event_free`. Each accessor answers for the kinds named in the
// `VMK_EVENT_` constants and is neutral (0, empty, NULL) for any other.
typedef struct vmk_event vmk_event;

// What was measured of several configs: opaque, freed with `vmk_measurements_free`.
typedef struct vmk_measurements vmk_measurements;

// How a tunnel is started: opaque, made by `vmk_options_new`. Not for two threads at once.
typedef struct vmk_options vmk_options;

// The state, since when, and the newest error: opaque, freed with `vmk_status_free`.
typedef struct vmk_status vmk_status;

// What a subscription holds: opaque, freed with `vmk_subscription_free`.
typedef struct vmk_subscription vmk_subscription;

// How a host sets its tun device up: opaque, freed with `vmk_tun_settings_free`.
typedef struct vmk_tun_settings vmk_tun_settings;

// A tunnel: opaque, made by `vmk_tunnel_new`, single-use. Its functions may be called on any thread, and several at
// once; `vmk_tunnel_free` is the last.
typedef struct vmk_tunnel vmk_tunnel;

// The users at one moment: opaque, freed with `vmk_users_free`.
typedef struct vmk_users vmk_users;

// What a function returns: `VMK_OK` or the number of what went wrong. A number unknown to the caller is an error.
typedef uint32_t vmk_result;

// One finding in a config. The texts are borrowed from the list.
typedef struct vmk_diagnostic {
    // `sizeof(vmk_diagnostic)`.
    uint32_t size;
    // A `VMK_SEVERITY_`.
    uint32_t severity;
    // The JSON path: `outbounds[0].settings.vnext[0].port`. For text that is no JSON: `line 3, column 7`.
    const char *path;
    // What is wrong, for a person.
    const char *text;
    // The value found, shortened, never a secret; may be empty.
    const char *found;
    // What is allowed there; may be empty.
    const char *allowed;
    // What to do, such as the nearest known name; may be empty.
    const char *hint;
} vmk_diagnostic;

// Keeps a socket out of the tunnel (`VpnService.protect`, `SO_MARK`, `SO_BINDTODEVICE`), before it connects or binds.
// Returns 0 if it did; with anything else the dial fails with `VMK_PROTECT_FAILED`. The descriptor is lent for the
// call. After 2 s a late answer is discarded.
typedef int (*vmk_protect_socket_fn)(void *userdata, int fd);

// The network below the tunnel. Addresses are texts, such as `192.0.2.1` or `2001:db8::1`.
//
// Given to the library, it is copied before the call returns. Lent by the library (an event, the `resolve` callback),
// its texts live as long as what lent it.
typedef struct vmk_network_info {
    // `sizeof(vmk_network_info)`.
    uint32_t size;
    // `VMK_NETWORK_` flags, or-ed.
    uint32_t flags;
    // The host's own name for the network (Android's network handle); equal ids mean the same network.
    uint64_t id;
    // The interface's index; 0 if unknown.
    uint32_t index;
    // How many texts `addresses` holds.
    uint32_t addresses_count;
    // How many texts `dns` holds.
    uint32_t dns_count;
    // Zero.
    uint32_t reserved;
    // Our addresses on it; may be NULL if there are none.
    const char *const *addresses;
    // Its DNS servers; may be NULL if there are none. Server names are asked of them, outside the tunnel.
    const char *const *dns;
    // Its NAT64 prefix (of 96 bits, without `/96`); NULL if unknown.
    const char *nat64_prefix;
    // NULL.
    const char *reserved_pointer;
} vmk_network_info;

// Resolves a server's name outside the tunnel: adds addresses with `vmk_addresses_add` and returns 0; anything else
// means that it failed. `host` and `network` (NULL: unknown) and `addresses` are lent for the call. After 5 s a late
// answer is discarded.
typedef int (*vmk_resolve_fn)(void *userdata,
                              const char *host,
                              const struct vmk_network_info *network,
                              struct vmk_addresses *addresses);

// Finds the app that owns a flow: writes its uid and returns 0, or anything else if it is unknown. `protocol` is a
// `VMK_PROTOCOL_`, the ends are texts such as `192.0.2.1:443`. Asked only when a rule needs it; none does yet.
typedef int (*vmk_find_owner_fn)(void *userdata,
                                 uint32_t protocol,
                                 const char *source,
                                 const char *destination,
                                 uint32_t *uid);

// Told once that no callback will be called any more and `userdata` may go: when the tunnel has stopped, or was never
// made.
typedef void (*vmk_release_fn)(void *userdata);

// The host's callbacks. They are called on threads of the tunnel's own, `protect_socket` and `resolve` perhaps at the
// same time; they must not unwind, nor call `vmk_tunnel_stop` (that is `VMK_MISUSE`), but may call
// `vmk_tunnel_request_stop`.
typedef struct vmk_platform {
    // `sizeof(vmk_platform)`.
    uint32_t size;
    // Zero.
    uint32_t reserved;
    // Handed to every callback; the library never looks at it.
    void *userdata;
    // NULL: no socket needs protection.
    vmk_protect_socket_fn protect_socket;
    // NULL: the library asks the network's DNS servers itself.
    vmk_resolve_fn resolve;
    // NULL: owners are unknown.
    vmk_find_owner_fn find_owner;
    // May be NULL.
    vmk_release_fn release;
} vmk_platform;

// What `vmk_measure` is asked to do.
typedef struct vmk_measure_request {
    // `sizeof(vmk_measure_request)`.
    uint32_t size;
    // How many configs there are.
    uint32_t configs_count;
    // The configs as JSON.
    const char *const *configs;
    // What to fetch through each: an `http://` or `https://` address.
    const char *url;
    // The host's callbacks, or NULL; taken over as by `vmk_tunnel_new`.
    const struct vmk_platform *platform;
    // How long each may take; not 0.
    uint32_t timeout_ms;
    // How many at a time, 1 to 128.
    uint32_t parallel;
} vmk_measure_request;

// One line of the log. The text is borrowed from the event.
typedef struct vmk_log_line {
    // `sizeof(vmk_log_line)`.
    uint32_t size;
    // A `VMK_LOG_` level.
    uint32_t level;
    // When, in milliseconds since 1970 (UTC).
    int64_t unix_millis;
    // The text, without an end of line.
    const char *text;
} vmk_log_line;

// A likely cause of a fault. The text is borrowed from the event.
typedef struct vmk_cause {
    // `sizeof(vmk_cause)`.
    uint32_t size;
    // A `VMK_CAUSE_`, perhaps one that the caller does not know.
    uint32_t kind;
    // How sure, in percent.
    uint32_t confidence;
    // Zero.
    uint32_t reserved;
    // For a person: what it is and what to do.
    const char *text;
} vmk_cause;

// Receives one log line: a `VMK_LOG_` level, and the text without an end of line, lent for the call. Called on any
// thread, and on several at once; it must not unwind.
typedef void (*vmk_log_fn)(void *userdata, uint32_t level, const char *text);

// Counters since the start, and gauges. Bytes are payload, not packets.
typedef struct vmk_stats {
    // `sizeof(vmk_stats)`.
    uint32_t size;
    // Zero.
    uint32_t reserved;
    // Payload bytes sent to the network.
    uint64_t uplink_bytes;
    // Payload bytes received from the network.
    uint64_t downlink_bytes;
    // IP packets read from the tun device.
    uint64_t tun_packets_in;
    // IP packets written to the tun device.
    uint64_t tun_packets_out;
    // Packets and datagrams dropped: malformed, over a bound, undeliverable.
    uint64_t dropped;
    // TCP connections accepted so far.
    uint64_t tcp_total;
    // TCP connections open now.
    uint64_t tcp_open;
    // UDP flows made so far.
    uint64_t udp_total;
    // UDP flows open now.
    uint64_t udp_open;
    // DNS queries forwarded.
    uint64_t dns_queries;
    // Connections made to servers.
    uint64_t dials;
    // Dials that failed.
    uint64_t dial_failures;
    // Bytes of payload buffers in use.
    uint64_t buffer_bytes;
    // Bytes of memory of the whole process, as the operating system counts it; 0 if unknown.
    uint64_t footprint_bytes;
    // Milliseconds since the start.
    uint64_t uptime_millis;
} vmk_stats;

// One connection. The texts are borrowed from the list.
typedef struct vmk_connection {
    // `sizeof(vmk_connection)`.
    uint32_t size;
    // A `VMK_PROTOCOL_`.
    uint32_t protocol;
    // Its id, unique in the tunnel's life.
    uint64_t id;
    // Payload bytes sent.
    uint64_t uplink_bytes;
    // Payload bytes received.
    uint64_t downlink_bytes;
    // Milliseconds since it was opened.
    uint64_t age_millis;
    // The app's end, such as `172.19.0.1:40000`.
    const char *source;
    // Where it goes: `host:port`.
    const char *target;
    // The inbound's tag.
    const char *inbound;
    // The outbound's tag.
    const char *outbound;
} vmk_connection;

// A tun file descriptor and what may be done with it.
typedef struct vmk_tun {
    // `sizeof(vmk_tun)`.
    uint32_t size;
    // The descriptor.
    int32_t fd;
    // The device's MTU in bytes; 0: the one of `vmk_tunnel_tun_settings`.
    uint32_t mtu;
    // `VMK_TUN_BORROWED` or `VMK_TUN_OWNED`.
    uint32_t ownership;
    // A `VMK_FRAMING_`.
    uint32_t framing;
} vmk_tun;

// What a reload changed.
typedef struct vmk_reload_report {
    // `sizeof(vmk_reload_report)`.
    uint32_t size;
    // 1: the tun settings differ; set the device up again and call `vmk_tunnel_set_tun`. Else 0.
    uint32_t tun_changed;
} vmk_reload_report;

// One user of a VMess inbound. The text is borrowed from the list.
typedef struct vmk_user {
    // `sizeof(vmk_user)`.
    uint32_t size;
    // The policy level.
    uint32_t level;
    // Payload bytes that the user sent since the last reset, if the policy has the user counted.
    uint64_t uplink_bytes;
    // Payload bytes that the user received since the last reset, if the policy has the user counted.
    uint64_t downlink_bytes;
    // The e-mail; may be empty for a user of the config.
    const char *email;
    // How many alter ids.
    uint32_t alter_id;
    // Zero.
    uint32_t reserved;
} vmk_user;

// A user for `vmk_tunnel_add_user`. Its texts are copied before the call returns; the id is a secret.
typedef struct vmk_new_user {
    // `sizeof(vmk_new_user)`.
    uint32_t size;
    // The policy level.
    uint32_t level;
    // The id: a UUID, or another text of 1 to 30 bytes, which is mapped to one as Xray does it.
    const char *id;
    // The e-mail, by which the user is counted, routed and removed. Not empty, and the inbound's only one of it, without
    // regard to case.
    const char *email;
    // How many alter ids, 0 to 65535; 0 for the AEAD header alone.
    uint32_t alter_id;
    // Zero.
    uint32_t reserved;
} vmk_new_user;

// One counter. The text is borrowed from the list.
typedef struct vmk_counter {
    // `sizeof(vmk_counter)`.
    uint32_t size;
    // Zero.
    uint32_t reserved;
    // Payload bytes since the last reset.
    uint64_t value;
    // V2Ray's name: `user>>>EMAIL>>>traffic>>>uplink`, or `inbound` or `outbound` and a tag, or `downlink`.
    const char *name;
} vmk_counter;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Returns the `VMK_ABI_VERSION` that the library was built with. Compare it before any other call.
uint32_t vmk_abi_version(void);

// Returns the name of a result, such as `ConfigInvalid`; `Unknown` for a number that this library does not know.
// Static: never freed.
const char *vmk_result_name(vmk_result result);

// Returns the name of a `VMK_STATE_`, such as `connecting`; `unknown` for a number that this library does not know.
// Static: never freed.
const char *vmk_state_name(uint32_t state);

// Returns the name of a `VMK_STAGE_`, such as `connect`; empty for a number that this library does not know.
// Static: never freed.
const char *vmk_stage_name(uint32_t stage);

// Returns the library's version, such as `0.1.0`. Static: never freed.
const char *vmk_version(void);

// Checks a config (V2Ray's JSON, comments allowed) without doing any IO. `VMK_OK` means that it was checked: the list
// may hold errors.
//
// json: the config. out: receives the findings, to be freed with `vmk_diagnostics_free`.
vmk_result vmk_validate_config(const char *json,
                               struct vmk_diagnostics **out,
                               struct vmk_error **error);

// Returns how many findings there are; 0 for NULL.
size_t vmk_diagnostics_count(const struct vmk_diagnostics *diagnostics);

// Returns how many of them are errors; 0 for NULL.
size_t vmk_diagnostics_errors(const struct vmk_diagnostics *diagnostics);

// Reads one finding; `VMK_MISUSE` behind the end.
//
// out: its `size` is set by the caller.
vmk_result vmk_diagnostics_get(const struct vmk_diagnostics *diagnostics,
                               size_t index,
                               struct vmk_diagnostic *out);

// Frees the findings and every text borrowed from them. NULL is ignored.
void vmk_diagnostics_free(struct vmk_diagnostics *diagnostics);

// Writes a config in a uniform layout.
//
// json: the config. out: receives the text, to be freed with `vmk_string_free`.
vmk_result vmk_format_config(const char *json, char **out, struct vmk_error **error);

// Makes a config of a `vmess://` share link.
//
// uri: the link. out: receives the config as JSON, to be freed with `vmk_string_free`.
vmk_result vmk_parse_share_link(const char *uri, char **out, struct vmk_error **error);

// Makes a `vmess://` share link of a config's first VMess outbound.
//
// json: the config. out: receives the link, which holds the id, to be freed with `vmk_string_free`.
vmk_result vmk_to_share_link(const char *json, char **out, struct vmk_error **error);

// Reads a subscription's body: links, a line each, as they are or as base64 of the whole; or JSON: a list of links, of
// v2rayN's objects, of V2Ray's configs or VMess outbounds, one such config, or sing-box's config. What cannot be read
// is a finding; `VMK_CONFIG_INVALID` means that the body is none of that. At most 5000 servers of at most 4 MiB are
// read.
//
// bytes: the body, `length` bytes. out: receives what it holds, to be freed with `vmk_subscription_free`.
vmk_result vmk_parse_subscription(const uint8_t *bytes,
                                  size_t length,
                                  struct vmk_subscription **out,
                                  struct vmk_error **error);

// Returns how many servers there are; 0 for NULL.
size_t vmk_subscription_count(const struct vmk_subscription *subscription);

// Returns a server's name for people, borrowed from the subscription; empty behind the end.
const char *vmk_subscription_name(const struct vmk_subscription *subscription, size_t index);

// Returns a server's complete config as JSON, borrowed from the subscription; empty behind the end.
const char *vmk_subscription_config(const struct vmk_subscription *subscription, size_t index);

// Returns what could not be read, borrowed from the subscription; NULL for NULL. A path is `line 3`, or a JSON path in
// the body, perhaps with one inside of the server's config behind it.
const struct vmk_diagnostics *vmk_subscription_diagnostics(const struct vmk_subscription *subscription);

// Frees what a subscription holds, and every text borrowed from it. NULL is ignored.
void vmk_subscription_free(struct vmk_subscription *subscription);

// Fetches an address through each config and tells how long it took. Needs no running tunnel; one thread of its own
// measures all, and is gone when this returns. Of each config the first outbound that dials a server is measured, or,
// without one, the first freedom. Blocks until all have ended, `timeout_ms` for each round of `parallel`.
//
// out: receives the figures in the configs' order, to be freed with `vmk_measurements_free`.
vmk_result vmk_measure(const struct vmk_measure_request *request,
                       struct vmk_measurements **out,
                       struct vmk_error **error);

// Returns how many figures there are; 0 for NULL.
size_t vmk_measurements_count(const struct vmk_measurements *measurements);

// Returns the microseconds from the dial to the head of the HTTP answer; `UINT64_MAX` if the config failed, and behind
// the end.
uint64_t vmk_measurements_latency_micros(const struct vmk_measurements *measurements,
                                         size_t index);

// Returns why a config failed, borrowed from the list; NULL if it did not, and behind the end.
const struct vmk_error *vmk_measurements_error(const struct vmk_measurements *measurements, size_t index);

// Frees the figures. NULL is ignored.
void vmk_measurements_free(struct vmk_measurements *measurements);

// Returns the error's number, a `VMK_` result; `VMK_OK` for NULL.
vmk_result vmk_error_code(const struct vmk_error *error);

// Returns the name of its number, such as `ServerUnreachable`. Static: never freed.
const char *vmk_error_name(const struct vmk_error *error);

// Returns what went wrong and where, for a person: one sentence. Borrowed from the error; empty for NULL.
const char *vmk_error_text(const struct vmk_error *error);

// Returns what to do about it; may be empty. Borrowed from the error.
const char *vmk_error_hint(const struct vmk_error *error);

// Returns the technical reason below it (an error of the system, a peer's answer); may be empty. Borrowed from the
// error.
const char *vmk_error_reason(const struct vmk_error *error);

// Returns the JSON path of a `VMK_CONFIG_INVALID`, such as `outbounds[0].settings.vnext[0].port`; else empty.
// Borrowed from the error.
const char *vmk_error_path(const struct vmk_error *error);

// Returns what ran out (`VMK_RESOURCE_LIMIT`) or was waited for (`VMK_TIMEOUT`); else empty. Borrowed from the error.
const char *vmk_error_what(const struct vmk_error *error);

// Returns the `VMK_STAGE_` at which a `VMK_SERVER_UNREACHABLE` failed; else `VMK_STAGE_NONE`.
uint32_t vmk_error_stage(const struct vmk_error *error);

// Returns by how many seconds the clock is off in a `VMK_CLOCK_SKEW` (positive: it is fast); else 0.
int64_t vmk_error_seconds(const struct vmk_error *error);

// Frees an error that was written to a `vmk_error **`. NULL is ignored. Never for an error that an event or a status
// has lent.
void vmk_error_free(struct vmk_error *error);

// Returns the event's `VMK_EVENT_` kind, perhaps one that the caller does not know; 0 for NULL.
uint32_t vmk_event_kind(const struct vmk_event *event);

// Returns the `VMK_STATE_` of a `VMK_EVENT_STATE`.
uint32_t vmk_event_state(const struct vmk_event *event);

// Returns the tag of the outbound concerned, borrowed from the event.
const char *vmk_event_outbound(const struct vmk_event *event);

// Returns what is wrong, or what ran out, for a person; borrowed from the event.
const char *vmk_event_reason(const struct vmk_event *event);

// Returns why the tunnel has stopped, borrowed from the event; NULL if it was asked to.
const struct vmk_error *vmk_event_error(const struct vmk_event *event);

// Returns by how many seconds the clock is off; positive: it is fast.
int64_t vmk_event_seconds(const struct vmk_event *event);

// Returns how many events were dropped.
uint64_t vmk_event_count(const struct vmk_event *event);

// Returns how many log lines there are.
size_t vmk_event_log_count(const struct vmk_event *event);

// Reads one log line, oldest first; `VMK_MISUSE` behind the end.
//
// out: its `size` is set by the caller.
vmk_result vmk_event_log_get(const struct vmk_event *event, size_t index, struct vmk_log_line *out);

// Returns how many likely causes there are.
size_t vmk_event_cause_count(const struct vmk_event *event);

// Reads one likely cause, surest first; `VMK_MISUSE` behind the end.
//
// out: its `size` is set by the caller.
vmk_result vmk_event_cause_get(const struct vmk_event *event, size_t index, struct vmk_cause *out);

// Reads the network that was taken up; `VMK_MISUSE` for an event of another kind. Its texts are borrowed from the
// event.
//
// out: its `size` is set by the caller.
vmk_result vmk_event_network(const struct vmk_event *event,
                             struct vmk_network_info *out);

// Frees an event and all that is borrowed from it. NULL is ignored.
void vmk_event_free(struct vmk_event *event);

// Sends the log lines of every tunnel in the process to a callback, besides their `VMK_EVENT_LOG`. Once in a process,
// before or after tunnels are made: `VMK_MISUSE` the second time. The callback and `userdata` stay for good.
//
// level: a `VMK_LOG_`; lines that are less grave are left out. callback: not NULL.
vmk_result vmk_set_log_sink(uint32_t level,
                            vmk_log_fn callback,
                            void *userdata,
                            struct vmk_error **error);

// Makes options that leave everything to the defaults. Freed with `vmk_options_free`.
struct vmk_options *vmk_options_new(void);

// Frees options. NULL is ignored. A tunnel keeps its own copy, so they may go once it is made.
void vmk_options_free(struct vmk_options *options);

// Sets the most memory, in bytes, that the tunnel's buffers and tables may take; 0 restores the default (the config's
// `memoryLimit`, else 32 MiB on iOS and 64 MiB elsewhere). At least 4 MiB.
vmk_result vmk_options_set_memory_limit(struct vmk_options *options,
                                        uint64_t bytes,
                                        struct vmk_error **error);

// Sets which log lines become events: a `VMK_LOG_` level instead of the config's `loglevel`.
vmk_result vmk_options_set_log_level(struct vmk_options *options, uint32_t level, struct vmk_error **error);

// Sets the network at the start; copied. NULL: unknown, the default.
vmk_result vmk_options_set_network(struct vmk_options *options,
                                   const struct vmk_network_info *network,
                                   struct vmk_error **error);

// Adds an address that `resolve` has found; `VMK_MISUSE` if it is none.
//
// address: a text such as `192.0.2.1` or `2001:db8::1`.
vmk_result vmk_addresses_add(struct vmk_addresses *addresses, const char *address);

// Reads the counters. Never blocks.
//
// out: its `size` is set by the caller.
vmk_result vmk_tunnel_stats(const struct vmk_tunnel *tunnel, struct vmk_stats *out);

// Lists the open connections.
//
// out: receives the list, to be freed with `vmk_connections_free`.
vmk_result vmk_tunnel_connections(const struct vmk_tunnel *tunnel,
                                  uint32_t timeout_ms,
                                  struct vmk_connections **out,
                                  struct vmk_error **error);

// Returns how many connections there are; 0 for NULL.
size_t vmk_connections_count(const struct vmk_connections *connections);

// Reads one connection; `VMK_MISUSE` behind the end.
//
// out: its `size` is set by the caller.
vmk_result vmk_connections_get(const struct vmk_connections *connections,
                               size_t index,
                               struct vmk_connection *out);

// Frees a list and every text borrowed from it. NULL is ignored.
void vmk_connections_free(struct vmk_connections *connections);

// Closes one connection.
//
// id: from `vmk_connection`. closed: receives 1, or 0 if there is no such connection (any more); may be NULL.
vmk_result vmk_tunnel_close_connection(const struct vmk_tunnel *tunnel,
                                       uint64_t id,
                                       uint32_t timeout_ms,
                                       uint32_t *closed,
                                       struct vmk_error **error);

// Reads the state. Never blocks.
//
// out: receives the status, to be freed with `vmk_status_free`.
vmk_result vmk_tunnel_status(const struct vmk_tunnel *tunnel,
                             struct vmk_status **out,
                             struct vmk_error **error);

// Returns the `VMK_STATE_`.
uint32_t vmk_status_state(const struct vmk_status *status);

// Returns for how many milliseconds it has been so.
uint64_t vmk_status_since_millis(const struct vmk_status *status);

// Returns what is wrong in `VMK_STATE_DEGRADED`, borrowed from the status; else empty.
const char *vmk_status_reason(const struct vmk_status *status);

// Returns the newest error, borrowed from the status; NULL if there was none.
const struct vmk_error *vmk_status_last_error(const struct vmk_status *status);

// Frees a status and all that is borrowed from it. NULL is ignored.
void vmk_status_free(struct vmk_status *status);

// Frees a string that the library has handed over with ownership (`char **out`). NULL is ignored.
void vmk_string_free(char *text);

// Reads how to set the tun device up: the only source for it.
//
// out: receives the settings, to be freed with `vmk_tun_settings_free`; NULL if the config has no tun inbound.
vmk_result vmk_tunnel_tun_settings(const struct vmk_tunnel *tunnel,
                                   struct vmk_tun_settings **out,
                                   struct vmk_error **error);

// Returns the MTU in bytes; 0 for NULL.
uint32_t vmk_tun_settings_mtu(const struct vmk_tun_settings *settings);

// Returns 1 if the tunnel is to count as metered, 0 if not, -1 if the config does not say.
int32_t vmk_tun_settings_metered(const struct vmk_tun_settings *settings);

// Returns how many texts a list holds; 0 for NULL and for a list that does not exist.
//
// list: `VMK_TUN_ADDRESSES` to `VMK_TUN_DENY_APPS`.
size_t vmk_tun_settings_count(const struct vmk_tun_settings *settings, uint32_t list);

// Returns one text of a list, borrowed from the settings; empty behind the end.
const char *vmk_tun_settings_get(const struct vmk_tun_settings *settings, uint32_t list, size_t index);

// Frees settings and every text borrowed from them. NULL is ignored.
void vmk_tun_settings_free(struct vmk_tun_settings *settings);

// Makes a tunnel, without doing any IO. Every config error that needs none is found here.
//
// json: the config. options: copied; NULL: the defaults. platform: the host's callbacks, copied; NULL: none. From the
// call on, also when it fails, `platform->release` tells when they are no longer needed (but for a `platform->size`
// that is refused). out: receives the tunnel, to be freed with `vmk_tunnel_free`.
vmk_result vmk_tunnel_new(const char *json,
                          const struct vmk_options *options,
                          const struct vmk_platform *platform,
                          struct vmk_tunnel **out,
                          struct vmk_error **error);

// Frees a tunnel. If it runs, it is told to stop, and that is not waited for: call `vmk_tunnel_stop` before, where
// nothing may be left behind. No other call on the tunnel may be under way. NULL is ignored.
void vmk_tunnel_free(struct vmk_tunnel *tunnel);

// Starts a tunnel, and returns when the tun device and the listeners are up; the network is not asked. A start that
// does not end in time is cancelled, which is a stop.
//
// tun: NULL for a proxy or a server alone. `VMK_ALREADY_RUNNING` the second time, `VMK_STOPPED` after a stop.
vmk_result vmk_tunnel_start(const struct vmk_tunnel *tunnel,
                            const struct vmk_tun *tun,
                            uint32_t timeout_ms,
                            struct vmk_error **error);

// Swaps the tun device under the live flows; the old one is closed after the new one is in place.
vmk_result vmk_tunnel_set_tun(const struct vmk_tunnel *tunnel,
                              const struct vmk_tun *tun,
                              uint32_t timeout_ms,
                              struct vmk_error **error);

// Proves the path to the server: dials the first outbound that has one and waits for a valid answer.
//
// out: receives the report, to be freed with `vmk_check_report_free`; may be NULL.
vmk_result vmk_tunnel_check(const struct vmk_tunnel *tunnel,
                            uint32_t timeout_ms,
                            struct vmk_check_report **out,
                            struct vmk_error **error);

// Returns the tag of the outbound that was checked, borrowed from the report.
const char *vmk_check_report_outbound(const struct vmk_check_report *report);

// Returns the microseconds from the dial to the first valid answer.
uint64_t vmk_check_report_latency_micros(const struct vmk_check_report *report);

// Frees a report. NULL is ignored.
void vmk_check_report_free(struct vmk_check_report *report);

// Tells a tunnel to stop. Never blocks, and is legal anywhere, callbacks included (but not in signal handlers).
vmk_result vmk_tunnel_request_stop(const struct vmk_tunnel *tunnel);

// Stops a tunnel, and returns when every descriptor, task and callback is gone. Legal at any time and any number of
// times. A callback that does not return makes it `VMK_TIMEOUT`; it may be called again. `VMK_MISUSE` from a callback.
vmk_result vmk_tunnel_stop(const struct vmk_tunnel *tunnel,
                           uint32_t timeout_ms,
                           struct vmk_error **error);

// Replaces the config, all or nothing. Flows that exist live on as they are.
//
// json: the new config. out: its `size` is set by the caller; may be NULL.
vmk_result vmk_tunnel_reload(const struct vmk_tunnel *tunnel,
                             const char *json,
                             uint32_t timeout_ms,
                             struct vmk_reload_report *out,
                             struct vmk_error **error);

// Chooses the outbound of a group. Not built yet: `VMK_UNSUPPORTED`.
//
// group, tag: the group's name and the outbound's tag.
vmk_result vmk_tunnel_select_outbound(const struct vmk_tunnel *tunnel,
                                      const char *group,
                                      const char *tag,
                                      struct vmk_error **error);

// Tells which network is below the tunnel now. Only carriers that died with the old path are dropped.
//
// network: copied; NULL: there is none.
vmk_result vmk_tunnel_network_changed(const struct vmk_tunnel *tunnel,
                                      const struct vmk_network_info *network,
                                      struct vmk_error **error);

// Corrects the clock: so many seconds are added to the system's UTC.
vmk_result vmk_tunnel_set_clock_offset(const struct vmk_tunnel *tunnel, int64_t seconds);

// Tells that the device goes to sleep: timers rest. Traffic is never refused.
vmk_result vmk_tunnel_pause(const struct vmk_tunnel *tunnel);

// Tells that the device is awake again: ages and deadlines are judged anew.
vmk_result vmk_tunnel_wake(const struct vmk_tunnel *tunnel);

// Tells how short memory is.
//
// level: a `VMK_MEMORY_`.
vmk_result vmk_tunnel_memory_pressure(const struct vmk_tunnel *tunnel, uint32_t level);

// Waits for the next event. `VMK_TIMEOUT` if none came in time, `VMK_STOPPED` after the last one was handed out.
// Events queue while nobody waits; one thread at a time gets each.
//
// out: receives the event, to be freed with `vmk_event_free`.
vmk_result vmk_tunnel_next_event(const struct vmk_tunnel *tunnel,
                                 uint32_t timeout_ms,
                                 struct vmk_event **out,
                                 struct vmk_error **error);

// Lists the users of a VMess inbound: those of the config and those that were added.
//
// inbound: its tag. out: receives the list, to be freed with `vmk_users_free`.
vmk_result vmk_tunnel_users(const struct vmk_tunnel *tunnel,
                            const char *inbound,
                            struct vmk_users **out,
                            struct vmk_error **error);

// Returns how many users there are; 0 for NULL.
size_t vmk_users_count(const struct vmk_users *users);

// Reads one user; `VMK_MISUSE` behind the end.
//
// out: its `size` is set by the caller.
vmk_result vmk_users_get(const struct vmk_users *users, size_t index, struct vmk_user *out);

// Frees a list and every text borrowed from it. NULL is ignored.
void vmk_users_free(struct vmk_users *users);

// Adds a user to a VMess inbound, who may connect from then on. The user stays until removed, and until a reload gives the
// inbound other clients. Takes some milliseconds where there are thousands of users. `VMK_CONFIG_INVALID` with the path
// `id`, `alterId` or `email` if that is not valid, or another user's; `VMK_MISUSE` if no VMess inbound has the tag.
//
// inbound: its tag. user: read during the call only.
vmk_result vmk_tunnel_add_user(const struct vmk_tunnel *tunnel,
                               const char *inbound,
                               const struct vmk_new_user *user,
                               struct vmk_error **error);

// Removes a user of a VMess inbound by e-mail, without regard to case. Connections that the user has open live on, and no
// new one is served. `VMK_MISUSE` if the e-mail is empty, or no VMess inbound has the tag.
//
// inbound: its tag. email: the user's. removed: receives 1, or 0 if there is no such user; may be NULL.
vmk_result vmk_tunnel_remove_user(const struct vmk_tunnel *tunnel,
                                  const char *inbound,
                                  const char *email,
                                  uint32_t *removed,
                                  struct vmk_error **error);

// Lists the counters that the config's policy asks for: of users, inbounds and outbounds. Never blocks. A counter is there
// from its first connection on; one that has stayed at 0 from one reset to the next, without a connection, is gone until
// there is one again.
//
// reset: not 0 to set them to 0 in the same step, without losing a byte. out: receives the list, to be freed with
// `vmk_counters_free`.
vmk_result vmk_tunnel_counters(const struct vmk_tunnel *tunnel,
                               uint32_t reset,
                               struct vmk_counters **out,
                               struct vmk_error **error);

// Returns how many counters there are; 0 for NULL.
size_t vmk_counters_count(const struct vmk_counters *counters);

// Reads one counter; `VMK_MISUSE` behind the end.
//
// out: its `size` is set by the caller.
vmk_result vmk_counters_get(const struct vmk_counters *counters, size_t index, struct vmk_counter *out);

// Frees a list and every text borrowed from it. NULL is ignored.
void vmk_counters_free(struct vmk_counters *counters);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VMESSKIT_H */
