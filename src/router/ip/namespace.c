// The network namespace of a network's control plane: see namespace.h.
#include "router/ip/namespace.h"

#include "router/ip/netlink.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER "/run/netns" // ip-netns(8)
#define MADE_BY "trivet-router"
#define LOOPBACK 1 // the index of `lo`, the first device of every namespace

struct namespace
{
    char name[NAMESPACE_NAME_MAX + 1], path[sizeof(FOLDER) + NAMESPACE_NAME_MAX + 1];
    int fd, own_fd; // own_fd: the process's own
    bool is_ours;
};

static int enter(const struct namespace *space, struct tv_error *err)
{
    if (setns(space->fd, CLONE_NEWNET) == 0)
        return 0;
    return tv_error_set(err, -errno, "namespace '%s' cannot be entered: %s; it needs CAP_SYS_ADMIN", space->name, strerror(errno));
}

// In a network's namespace nothing else of this process may happen.
static void leave(const struct namespace *space)
{
    if (setns(space->own_fd, CLONE_NEWNET) < 0)
        abort();
}

// ---- requests to the kernel; inside ----

// The answer's length, or -errno: of an acknowledgement's, if that is what came.
static int ask(struct netlink_writer *w, void *answer, size_t answer_max)
{
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    ssize_t n = fd < 0 ? -1 : sendto(fd, w->bytes, w->len, 0, (const struct sockaddr *)&kernel, sizeof(kernel));
    if (n >= 0)
        n = recv(fd, answer, answer_max, 0);
    const int code = n < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    struct nlmsghdr h;
    struct nlmsgerr e;
    if (code || (size_t)n < sizeof(h))
        return code ? code : -EBADMSG;
    memcpy(&h, answer, sizeof(h));
    if (h.nlmsg_type != NLMSG_ERROR)
        return (int)n;
    if ((size_t)n < sizeof(h) + sizeof(e))
        return -EBADMSG;
    memcpy(&e, (const uint8_t *)answer + sizeof(h), sizeof(e));
    return e.error;
}

static int change(struct netlink_writer *w)
{
    uint8_t answer[1024];
    const int r = ask(w, answer, sizeof(answer));
    return r < 0 ? r : 0;
}

static void begin_link(struct netlink_writer *w, unsigned index, unsigned flags, unsigned mask)
{
    const struct ifinfomsg link = {.ifi_index = (int)index, .ifi_flags = flags, .ifi_change = mask};
    netlink_begin(w, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &link, sizeof(link));
}

// The mark by which a later router knows what an earlier one made: the alias of `lo`.
static int mark(void)
{
    struct netlink_writer w;
    begin_link(&w, LOOPBACK, IFF_UP, IFF_UP);
    netlink_put(&w, IFLA_IFALIAS, MADE_BY, strlen(MADE_BY));
    return change(&w);
}

static bool is_marked(void)
{
    const struct ifinfomsg link = {.ifi_index = LOOPBACK};
    struct netlink_writer w;
    struct netlink_attribute a;
    uint8_t answer[16384];
    netlink_begin(&w, RTM_GETLINK, NLM_F_REQUEST, &link, sizeof(link));
    const int n = ask(&w, answer, sizeof(answer));
    const size_t header = NLMSG_LENGTH(sizeof(link));
    if (n < (int)header)
        return false;
    const uint8_t *at = answer + header;
    for (size_t len = (size_t)n - header; netlink_next(&at, &len, &a);)
        if (a.type == IFLA_IFALIAS && a.len_bytes >= strlen(MADE_BY) && !memcmp(a.data, MADE_BY, strlen(MADE_BY)))
            return true;
    return false;
}

// ---- making and finding ----

// A folder whose mounts are seen by all, as ip-netns(8) makes it.
static int make_folder(void)
{
    bool is_mounted = false;
    if (mkdir(FOLDER, 0755) < 0 && errno != EEXIST)
        return -errno;
    while (mount("", FOLDER, "none", MS_SHARED | MS_REC, NULL) < 0) {
        if (errno != EINVAL || is_mounted || mount(FOLDER, FOLDER, "none", MS_BIND | MS_REC, NULL) < 0)
            return -errno;
        is_mounted = true;
    }
    return 0;
}

// Where the thread comes back from it: the own one.
static int make_inside(const struct namespace *space)
{
    if (unshare(CLONE_NEWNET) < 0)
        return -errno;
    int r = mark();
    if (!r && mount("/proc/thread-self/ns/net", space->path, "none", MS_BIND, NULL) < 0)
        r = -errno;
    leave(space);
    return r;
}

static int make(struct namespace *space, struct tv_error *err)
{
    int r = make_folder();
    int fd = r ? r : open(space->path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);
    if (!r && fd < 0)
        r = -errno;
    if (!r) {
        close(fd);
        r = make_inside(space);
        if (r)
            unlink(space->path);
    }
    if (r)
        return tv_error_set(err, r, "namespace '%s' cannot be made: %s; it needs root, or CAP_SYS_ADMIN and CAP_NET_ADMIN",
                            space->name, strerror(-r));
    space->is_ours = true;
    return 0;
}

static int find(struct namespace *space, struct tv_error *err)
{
    int r = enter(space, err);
    if (r)
        return r;
    space->is_ours = is_marked();
    struct netlink_writer w;
    begin_link(&w, LOOPBACK, IFF_UP, IFF_UP);
    r = change(&w);
    leave(space);
    return r ? tv_error_set(err, r, "namespace '%s': its lo cannot be set up: %s", space->name, strerror(-r)) : 0;
}

static int open_or_make(struct namespace *space, struct tv_error *err)
{
    space->own_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (space->own_fd < 0)
        return tv_error_set(err, -errno, "/proc/thread-self/ns/net: %s", strerror(errno));
    const bool is_there = access(space->path, F_OK) == 0;
    int r = is_there ? 0 : make(space, err);
    if (r)
        return r;
    space->fd = open(space->path, O_RDONLY | O_CLOEXEC);
    if (space->fd < 0)
        return tv_error_set(err, -errno, "%s: %s", space->path, strerror(errno));
    return is_there ? find(space, err) : 0;
}

struct namespace *namespace_open(const char *name, struct tv_error *err)
{
    struct namespace *space = calloc(1, sizeof(*space));
    if (!space) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    space->fd = space->own_fd = -1;
    snprintf(space->name, sizeof(space->name), "%s", name);
    snprintf(space->path, sizeof(space->path), "%s/%s", FOLDER, space->name);
    if (open_or_make(space, err)) {
        namespace_close(space);
        return NULL;
    }
    return space;
}

// Who still runs in it has it until he ends, without a name.
void namespace_close(struct namespace *space)
{
    if (!space)
        return;
    if (space->is_ours) {
        umount2(space->path, MNT_DETACH);
        unlink(space->path);
    }
    if (space->fd >= 0)
        close(space->fd);
    if (space->own_fd >= 0)
        close(space->own_fd);
    free(space);
}

const char *namespace_name(const struct namespace *space)
{
    return space->name;
}

// ---- devices; inside ----

static int open_tap(const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        const int code = -errno;
        close(fd);
        return code;
    }
    return fd;
}

// The kernel's own habits that are the router's business, or nobody's. Where /proc/sys cannot be written they do no harm.
static void set_option(const char *device, const char *option, const char *value)
{
    char path[128];
    snprintf(path, sizeof(path), "/proc/sys/net/%.4s/conf/%s/%s", option, device, option + 5);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, value, strlen(value)) < 0)
        errno = 0;
    close(fd);
}

static int set_up_link(unsigned index, const struct namespace_device *device)
{
    struct netlink_writer w;
    const uint32_t mtu = device->mtu;
    set_option("all", "ipv4/rp_filter", "0"); // packets come by the port they came by
    set_option(device->name, "ipv4/rp_filter", "0");
    set_option(device->name, "ipv6/accept_ra", "0"); // and no solicitations
    begin_link(&w, index, IFF_UP | IFF_NOARP, IFF_UP | IFF_NOARP);
    netlink_put(&w, IFLA_ADDRESS, device->mac, 6);
    netlink_put(&w, IFLA_MTU, &mtu, sizeof(mtu));
    return change(&w);
}

static int add_address(unsigned index, const struct ip_prefix *a)
{
    struct netlink_writer w;
    uint8_t bytes[16];
    const bool is_4 = a->family == IP4;
    const size_t len = is_4 ? 4 : 16;
    const struct ifaddrmsg message = {
        .ifa_family = is_4 ? AF_INET : AF_INET6, .ifa_prefixlen = a->len, .ifa_flags = IFA_F_NODAD, .ifa_index = index};
    netlink_begin(&w, RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &message, sizeof(message));
    ip6_bytes(a->key, bytes);
    netlink_put(&w, IFA_LOCAL, bytes, len);
    netlink_put(&w, IFA_ADDRESS, bytes, len);
    if (is_4 && a->len < 31) {
        ip6_bytes(a->key | rib_mask(~(rib_key)0 >> a->len, 32), bytes);
        netlink_put(&w, IFA_BROADCAST, bytes, len);
    }
    return change(&w);
}

static int add_station(unsigned index, const struct ip_prefix *station)
{
    struct netlink_writer w;
    uint8_t bytes[16];
    const bool is_4 = station->family == IP4;
    const struct rtmsg message = {.rtm_family = is_4 ? AF_INET : AF_INET6,
                                  .rtm_dst_len = station->len,
                                  .rtm_table = RT_TABLE_MAIN,
                                  .rtm_protocol = RTPROT_STATIC,
                                  .rtm_scope = RT_SCOPE_LINK,
                                  .rtm_type = RTN_UNICAST};
    netlink_begin(&w, RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &message, sizeof(message));
    ip6_bytes(station->key, bytes);
    netlink_put(&w, RTA_DST, bytes, is_4 ? 4 : 16);
    netlink_put(&w, RTA_OIF, &index, sizeof(index));
    return change(&w);
}

static int set_up(const struct namespace_device *device, unsigned *index)
{
    *index = if_nametoindex(device->name);
    int r = *index ? set_up_link(*index, device) : -errno;
    for (unsigned i = 0; !r && i < device->n_addresses; i++)
        r = add_address(*index, &device->addresses[i]);
    for (unsigned i = 0; !r && i < device->n_stations; i++)
        r = add_station(*index, &device->stations[i]);
    return r;
}

int namespace_add_device(struct namespace *space, const struct namespace_device *device, unsigned *index, struct tv_error *err)
{
    int r = enter(space, err);
    if (r)
        return r;
    int fd = open_tap(device->name);
    r = fd < 0 ? fd : set_up(device, index);
    leave(space);
    if (r && fd >= 0)
        close(fd);
    if (r)
        return tv_error_set(err, r, "namespace '%s': device '%s': %s; the port's name must be one that no device there has",
                            space->name, device->name, strerror(-r));
    return fd;
}

int namespace_socket(struct namespace *space, int domain, int type, int protocol, struct tv_error *err)
{
    int r = enter(space, err);
    if (r)
        return r;
    const int fd = socket(domain, type, protocol), code = fd < 0 ? -errno : 0;
    leave(space);
    return code ? tv_error_set(err, code, "namespace '%s': a socket: %s", space->name, strerror(-code)) : fd;
}
