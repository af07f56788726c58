/* The tun device of Linux. */

#ifndef TUN_LINUX_H
#define TUN_LINUX_H

#include <stdbool.h>
#include <stdint.h>

/* An open tun device. */
struct tun_device {
    int fd;
    uint32_t mtu;
};

/*
 * Opens the tun device `name`, or attaches to it if it exists, and reads its MTU; sets nothing else. With `vnet` each
 * packet has a virtio-net header of 10 bytes, and TCP segmentation and checksums are left to us. On failure says on
 * standard error what is wrong and returns false.
 */
bool tun_open(const char *name, bool vnet, struct tun_device *out);

#endif
