#define _POSIX_C_SOURCE 200809L

#include "print.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

void print_error(const char *step, const vmk_error *error)
{
    const char *path = vmk_error_path(error);
    const char *reason = vmk_error_reason(error);
    const char *hint = vmk_error_hint(error);
    flockfile(stderr);
    fprintf(stderr, "vmesskit: %s failed: %s: %s\n", step, vmk_error_name(error), vmk_error_text(error));
    if (path[0] != '\0') {
        fprintf(stderr, "  at:     %s\n", path);
    }
    if (reason[0] != '\0') {
        fprintf(stderr, "  reason: %s\n", reason);
    }
    if (hint[0] != '\0') {
        fprintf(stderr, "  hint:   %s\n", hint);
    }
    funlockfile(stderr);
}

void print_diagnostics(const vmk_diagnostics *findings, FILE *to)
{
    for (size_t i = 0; i < vmk_diagnostics_count(findings); i++) {
        vmk_diagnostic one = {.size = sizeof one};
        if (vmk_diagnostics_get(findings, i, &one) != VMK_OK) {
            continue;
        }
        fprintf(to, "%s: %s: %s", one.severity == VMK_SEVERITY_ERROR ? "error" : "warning", one.path, one.text);
        if (one.found[0] != '\0') {
            fprintf(to, "; found %s", one.found);
        }
        if (one.allowed[0] != '\0') {
            fprintf(to, "; allowed: %s", one.allowed);
        }
        if (one.hint[0] != '\0') {
            fprintf(to, "; %s", one.hint);
        }
        fputc('\n', to);
    }
}

static const char *level_name(uint32_t level)
{
    switch (level) {
    case VMK_LOG_ERROR:
        return "error";
    case VMK_LOG_WARNING:
        return "warning";
    case VMK_LOG_INFO:
        return "info";
    case VMK_LOG_DEBUG:
        return "debug";
    default:
        return "log";
    }
}

static void print_log(const vmk_event *event)
{
    for (size_t i = 0; i < vmk_event_log_count(event); i++) {
        vmk_log_line line = {.size = sizeof line};
        if (vmk_event_log_get(event, i, &line) != VMK_OK) {
            continue;
        }
        time_t seconds = (time_t)(line.unix_millis / 1000);
        struct tm local;
        char when[32] = "?";
        if (localtime_r(&seconds, &local) != NULL) {
            strftime(when, sizeof when, "%Y/%m/%d %H:%M:%S", &local);
        }
        fprintf(stderr, "%s.%03d [%s] %s\n", when, (int)(line.unix_millis % 1000), level_name(line.level), line.text);
    }
}

static void print_causes(const vmk_event *event)
{
    for (size_t i = 0; i < vmk_event_cause_count(event); i++) {
        vmk_cause cause = {.size = sizeof cause};
        if (vmk_event_cause_get(event, i, &cause) == VMK_OK) {
            fprintf(stderr, "  %" PRIu32 " %%: %s\n", cause.confidence, cause.text);
        }
    }
}

static void print_state(const vmk_event *event)
{
    uint32_t state = vmk_event_state(event);
    const char *reason = vmk_event_reason(event);
    fprintf(stderr, "vmesskit: %s%s%s\n", vmk_state_name(state), reason[0] != '\0' ? ": " : "", reason);
}

void print_event(const vmk_event *event)
{
    flockfile(stderr);
    switch (vmk_event_kind(event)) {
    case VMK_EVENT_STATE:
        print_state(event);
        break;
    case VMK_EVENT_LOG:
        print_log(event);
        break;
    case VMK_EVENT_NETWORK_CHANGED:
        fputs("vmesskit: the network has changed\n", stderr);
        break;
    case VMK_EVENT_OUTBOUND_UNHEALTHY:
        fprintf(stderr, "vmesskit: outbound \"%s\" does not answer; likely:\n", vmk_event_outbound(event));
        print_causes(event);
        break;
    case VMK_EVENT_AUTH_REJECTED:
        fprintf(stderr, "vmesskit: the server of outbound \"%s\" refuses us; likely:\n", vmk_event_outbound(event));
        print_causes(event);
        break;
    case VMK_EVENT_CLOCK_SKEW:
        fprintf(stderr, "vmesskit: the clock is off by %" PRId64 " s\n", vmk_event_seconds(event));
        break;
    case VMK_EVENT_RESOURCE_LIMIT:
        fprintf(stderr, "vmesskit: a limit was reached: %s\n", vmk_event_reason(event));
        break;
    case VMK_EVENT_DEGRADED:
        fprintf(stderr, "vmesskit: degraded: %s\n", vmk_event_reason(event));
        break;
    case VMK_EVENT_EVENTS_DROPPED:
        fprintf(stderr, "vmesskit: %" PRIu64 " events were dropped\n", vmk_event_count(event));
        break;
    default:
        fprintf(stderr, "vmesskit: event %" PRIu32 "\n", vmk_event_kind(event));
    }
    funlockfile(stderr);
}

static double rate(uint64_t before, uint64_t now, double seconds)
{
    return seconds > 0 && now >= before ? (double)(now - before) * 8.0 / 1e6 / seconds : 0.0;
}

void print_stats(const vmk_stats *before, const vmk_stats *now, double seconds)
{
    fprintf(stderr,
            "stats: up %.1f Mbit/s, down %.1f Mbit/s, total %.1f / %.1f MB, tcp %" PRIu64 " of %" PRIu64
            ", udp %" PRIu64 " of %" PRIu64 ", dropped %" PRIu64 ", failed dials %" PRIu64 ", buffers %.1f MiB, memory %.1f MiB\n",
            rate(before->uplink_bytes, now->uplink_bytes, seconds),
            rate(before->downlink_bytes, now->downlink_bytes, seconds), (double)now->uplink_bytes / 1e6,
            (double)now->downlink_bytes / 1e6, now->tcp_open, now->tcp_total, now->udp_open, now->udp_total,
            now->dropped, now->dial_failures, (double)now->buffer_bytes / 1048576.0, (double)now->footprint_bytes / 1048576.0);
}
