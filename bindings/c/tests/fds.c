/* Who closes a tun's descriptor, in each ownership and each state of the tunnel. Every close of the process is watched, as
 * Android's fdsan does it: one of a descriptor that is not open, or is somebody else's by then, is found. */

#define _GNU_SOURCE

#include "check.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The descriptor that is watched, how often it was closed, and how often one that was none. */
static atomic_int watched = -1;
static atomic_int closes;
static atomic_int bad_closes;

/* Stands in the place of the C library's, for the library under test too. */
int close(int fd)
{
    int result = (int)syscall(SYS_close, fd);
    if (result != 0 && errno == EBADF) {
        atomic_fetch_add(&bad_closes, 1);
    }
    if (fd >= 0 && fd == atomic_load(&watched)) {
        atomic_fetch_add(&closes, 1);
    }
    return result;
}

/* What is done to a tunnel with a descriptor. */
enum step {
    START,                 /* an idle tunnel: it takes it, and is stopped later */
    START_TWICE,           /* one that runs */
    START_STOPPED,         /* one that is over */
    START_CANCELLED,       /* one that has been told to stop before its start */
    START_NO_FRAMING,      /* with a framing that is none */
    START_NO_DEVICE,       /* with something that is no device */
    START_FREED,           /* taken, then freed without a stop */
    SWAP_IDLE,             /* a swap before the start */
    SWAP_RUNNING,          /* a swap under way */
    SWAP_STOPPED,          /* a swap after the end */
    SWAP_AND_END_OF_OTHER, /* a swap, and the other end of the new one goes */
    STEPS,
};

static const char *const NAMES[STEPS] = {
    "start",       "second start", "start after stop", "cancelled start", "start without framing",   "start without device",
    "start, free", "early swap",   "swap",             "late swap",       "swap, the other end ends"};

static bool is_taken(enum step step)
{
    return step == START || step == START_FREED || step == SWAP_RUNNING || step == SWAP_AND_END_OF_OTHER;
}

static void try_one(enum step step, uint32_t ownership)
{
    int before = count_entries("fd");
    int pair[2];
    make_pair(pair);
    int other_end = pair[1];
    if (step == START_NO_DEVICE) {
        close(pair[0]);
        pair[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
    }
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    vmk_tun tun = tun_of(pair[0], ownership);
    if (step == START_NO_FRAMING) {
        tun.framing = 99;
    }
    bool runs = step == START_TWICE || step == SWAP_RUNNING || step == SWAP_AND_END_OF_OTHER;
    bool over = step == START_STOPPED || step == SWAP_STOPPED;
    if (runs || over) {
        CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);
    }
    if (over) {
        CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    }
    if (step == START_CANCELLED) {
        CHECK_RESULT(vmk_tunnel_request_stop(tunnel), VMK_OK);
    }
    atomic_store(&closes, 0);
    atomic_store(&bad_closes, 0);
    atomic_store(&watched, pair[0]);
    bool swaps = step >= SWAP_IDLE;
    vmk_result result = swaps ? vmk_tunnel_set_tun(tunnel, &tun, 10000, NULL) : vmk_tunnel_start(tunnel, &tun, 10000, NULL);
    CHECK((result == VMK_OK) == is_taken(step));
    bool owned = ownership == VMK_TUN_OWNED;
    /* One that was not taken is closed already if it was ours to close, and its number is free for somebody else. */
    int stranger = -1;
    if (owned && !is_taken(step)) {
        CHECK_RESULT((unsigned long)atomic_load(&closes), 1);
        stranger = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, pair[0]);
        CHECK(stranger == pair[0]);
    } else if (is_taken(step)) {
        CHECK(ping(other_end));
    }
    if (step == SWAP_AND_END_OF_OTHER) {
        close(other_end);
        CHECK(wait_for_event(tunnel, VMK_EVENT_STATE, VMK_STATE_STOPPED));
        other_end = -1;
    } else if (step != START_FREED) {
        CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    }
    if (owned && is_taken(step) && step != START_FREED) {
        CHECK_RESULT((unsigned long)atomic_load(&closes), 1);
        stranger = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, pair[0]);
        CHECK(stranger == pair[0]);
    }
    if (step != START_FREED) {
        CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    }
    vmk_tunnel_free(tunnel);
    if (step == START_FREED) {
        /* Nobody waits for its end, which comes by itself. */
        for (int i = 0; i < 2000 && count_entries("task") > 1; i++) {
            usleep(10000);
        }
    }
    if (stranger >= 0) {
        CHECK(is_open(stranger));
        CHECK_RESULT((unsigned long)atomic_load(&closes), 1);
        atomic_store(&watched, -1);
        close(stranger);
    } else if (owned) {
        CHECK_RESULT((unsigned long)atomic_load(&closes), 1);
    } else {
        CHECK(is_open(pair[0]));
        CHECK_RESULT((unsigned long)atomic_load(&closes), 0);
        atomic_store(&watched, -1);
        close(pair[0]);
    }
    atomic_store(&watched, -1);
    if (other_end >= 0) {
        close(other_end);
    }
    if (!CHECK(atomic_load(&bad_closes) == 0) || !CHECK(count_entries("fd") == before)) {
        fprintf(stderr, "after: %s, %s\n", NAMES[step], owned ? "owned" : "borrowed");
    }
}

int main(void)
{
    /* What a process opens once. */
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    CHECK_RESULT(vmk_tunnel_start(tunnel, NULL, 10000, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_stop(tunnel, 10000, NULL), VMK_OK);
    vmk_tunnel_free(tunnel);
    for (int step = 0; step < STEPS; step++) {
        try_one((enum step)step, VMK_TUN_BORROWED);
        try_one((enum step)step, VMK_TUN_OWNED);
    }
    return check_summary("fds");
}
