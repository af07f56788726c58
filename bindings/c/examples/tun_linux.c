#define _GNU_SOURCE

#include "tun_linux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* The length of `struct virtio_net_hdr`, the framing that the library calls vnet_hdr. */
#define VNET_HEADER 10

static bool complain(const char *name, const char *step)
{
    int error = errno;
    const char *hint = "";
    if (error == EPERM || error == EACCES) {
        hint = error == EACCES ? "; run as root, or let root run chmod 666 /dev/net/tun"
                               : "; it takes root or CAP_NET_ADMIN";
    } else if (error == ENOENT) {
        hint = "; is the tun driver there?";
    } else if (error == EBUSY) {
        hint = "; another program has attached to it";
    } else if (error == EINVAL) {
        hint = "; it exists as another kind of device (tap, multi-queue, or with other flags)";
    }
    fprintf(stderr, "vmesskit: tun %s: %s: %s%s\n", name, step, strerror(error), hint);
    return false;
}

/* Says why the kernel would not take this name, or returns NULL. */
static const char *name_fault(const char *name)
{
    if (strlen(name) >= IFNAMSIZ) {
        return "a device's name has at most 15 letters";
    }
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strpbrk(name, "/:% \t\n\v\f\r") != NULL) {
        return "a device's name has no blank, slash, colon or percent sign";
    }
    return NULL;
}

static bool set_offloads(int fd, const char *name)
{
    int header = VNET_HEADER;
    if (ioctl(fd, TUNSETVNETHDRSZ, &header) != 0) {
        return complain(name, "the header's length");
    }
    if (ioctl(fd, TUNSETOFFLOAD, (unsigned long)(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)) != 0) {
        return complain(name, "the offloads");
    }
    return true;
}

static bool read_mtu(const struct ifreq *request, const char *name, uint32_t *out)
{
    struct ifreq query = *request;
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (any < 0) {
        any = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    }
    bool known = any >= 0 && ioctl(any, SIOCGIFMTU, &query) == 0;
    int error = errno;
    if (any >= 0) {
        close(any);
    }
    errno = error;
    if (!known) {
        return complain(name, "its MTU");
    }
    *out = (uint32_t)query.ifr_mtu;
    return true;
}

bool tun_open(const char *name, bool vnet, struct tun_device *out)
{
    const char *fault = name_fault(name);
    if (fault != NULL) {
        fprintf(stderr, "vmesskit: tun %s: %s\n", name, fault);
        return false;
    }
    struct ifreq request;
    memset(&request, 0, sizeof request);
    strcpy(request.ifr_name, name);
    request.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | (vnet ? IFF_VNET_HDR : 0));

    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return complain(name, "/dev/net/tun");
    }
    if (ioctl(fd, TUNSETIFF, &request) != 0) {
        complain(name, "attach");
        close(fd);
        return false;
    }
    if ((vnet && !set_offloads(fd, name)) || !read_mtu(&request, name, &out->mtu)) {
        close(fd);
        return false;
    }
    out->fd = fd;
    return true;
}
