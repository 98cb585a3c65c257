// The gateway of a network: see gateway.h.
#include "control/net/gateway.h"

#include "control/cleanup.h"
#include "control/net/net_spec.h"
#include "control/paths.h"
#include "control/tool.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define INNER "vn"
#define OUTER "out"
#define DEVICE "tvg" // and a number: the host's ends of pairs, all gateways' of this host
#define SLOTS 8000   // pairs of addresses, four each: 169.254.0.0 to 169.254.124.255
// The host did not forward before its first gateway came. In nftables since that is there exactly as long as what it speaks of, and
// for all supervisors of the host; no namespace's table has such a name.
#define WAS_OFF "trivet_forwarding_was_off"
#define FORWARDING "/proc/sys/net/ipv4/ip_forward"
// The link between a network that routes and its gateway, within the network's own addresses (RFC 3927); only the two see it.
#define LINK_ROUTER "169.254.255.1"
#define LINK_GATEWAY "169.254.255.2"
// The same of IPv6: a prefix of unique local addresses (RFC 4193), a subnet of it for each pair and one for that link.
#define ULA "fd74:7269:7665:"
#define LINK6_ROUTER ULA "ffff::1"
#define LINK6_GATEWAY ULA "ffff::2"
#define FORWARDING6 "/proc/sys/net/ipv6/conf/all/forwarding"
#define INTERFACES6 "/proc/sys/net/ipv6/conf"

static const char *text(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

static const json_t *service(const struct gateway *g, const char *key)
{
    return json_object_get(json_object_get(g->spec, "services"), key);
}

// The first of the family; NULL: there is none.
static const char *first_of(const json_t *list, bool is_6)
{
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        if ((strchr(json_string_value(entry), ':') != NULL) == is_6)
            return json_string_value(entry);
    }
    return NULL;
}

// The prefix of IPv6 that the outside is reached from; NULL: there is none, or the host has no IPv6.
static const char *prefix6_of(const struct gateway *g)
{
    return access(FORWARDING6, F_OK) == 0 ? first_of(json_object_get(g->spec, "prefixes"), true) : NULL;
}

static bool has_nat6(const struct gateway *g)
{
    return prefix6_of(g) && json_is_true(service(g, "nat"));
}

static uint64_t hash_of(const char *a, const char *b)
{
    uint64_t hash = 0xcbf29ce484222325; // FNV-1a
    for (const char *p = a; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 0x100000001b3;
    hash *= 0x100000001b3;
    for (const char *p = b; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 0x100000001b3;
    return hash ^ hash >> 32;
}

void gateway_init(struct gateway *g, const char *run_dir, const json_t *spec)
{
    const char *name = net_spec_name(spec);
    *g = (struct gateway){.spec = spec};
    if (strcmp(run_dir, "/run/trivet") == 0)
        snprintf(g->space, sizeof(g->space), "trivet-%s", name);
    else
        snprintf(g->space, sizeof(g->space), "trivet-%06x-%s", (unsigned)hash_of(run_dir, "") & 0xffffff, name);
}

static int open_space(const struct gateway *g)
{
    char path[128];
    snprintf(path, sizeof(path), "/run/netns/%s", g->space);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

bool gateway_is_there(const struct gateway *g)
{
    const int fd = open_space(g);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int gateway_enter(void *arg)
{
    const struct gateway *g = arg;
    cleanup_close int fd = open_space(g);
    if (fd < 0)
        return fd;
    return setns(fd, CLONE_NEWNET) ? -errno : 0;
}

// --- inside for the time of a call

static int with_space(const struct gateway *g, int (*fn)(const struct gateway *g, struct tv_error *err), struct tv_error *err)
{
    cleanup_close int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int rc = home < 0 ? -errno : gateway_enter((void *)g);
    if (rc)
        return tv_error_set(err, rc, "namespace %s: %s", g->space, strerror(-rc));
    rc = fn(g, err);
    if (setns(home, CLONE_NEWNET))
        abort(); // to go on in another namespace would be somebody else's network
    return rc;
}

static int open_tap(const struct gateway *g, struct tv_error *err)
{
    struct ifreq request = {.ifr_name = INNER, .ifr_flags = IFF_TAP | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return tv_error_set(err, -errno, "/dev/net/tun: %s", strerror(errno));
    if (ioctl(fd, TUNSETIFF, &request) == 0 && ioctl(fd, TUNSETPERSIST, 1) == 0)
        return fd;
    const int code = -errno;
    close(fd);
    return tv_error_set(err, code, "the TAP device of namespace %s: %s", g->space, strerror(-code));
}

static int write_word(const char *path, const char *word, struct tv_error *err)
{
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, word, strlen(word)) < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    return 0;
}

// Its device outlives the descriptor, and goes with the namespace.
static int prepare_inside(const struct gateway *g, struct tv_error *err)
{
    const int fd = open_tap(g, err);
    if (fd < 0)
        return fd;
    close(fd);
    const int rc = write_word(FORWARDING, "1", err);
    return rc || !has_nat6(g) ? rc : write_word(FORWARDING6, "1", err);
}

int gateway_open_device(const struct gateway *g, struct tv_error *err)
{
    return with_space(g, open_tap, err);
}

// --- programs of the host's

// Runs a program with the text on its standard input.
static int run(const char *const *argv, const char *package, const char *input, struct tv_error *err)
{
    cleanup_close int fd = memfd_create("input", MFD_CLOEXEC);
    const size_t len = strlen(input);
    if (fd < 0 || write(fd, input, len) != (ssize_t)len || lseek(fd, 0, SEEK_SET) < 0)
        return tv_error_set(err, -EIO, "memfd: cannot be written");
    const struct tool tool = {.argv = argv, .package = package, .stdin_fd = fd};
    return tool_run(&tool, err);
}

static void set_slot(struct gateway *g, unsigned slot)
{
    const unsigned link = slot * 4;
    snprintf(g->device, sizeof(g->device), DEVICE "%u", slot);
    snprintf(g->outer, sizeof(g->outer), "169.254.%u.%u", link >> 8, (link & 255) + 1);
    snprintf(g->inner, sizeof(g->inner), "169.254.%u.%u", link >> 8, (link & 255) + 2);
    snprintf(g->outer6, sizeof(g->outer6), ULA "%x::1", slot);
    snprintf(g->inner6, sizeof(g->inner6), ULA "%x::2", slot);
}

static bool is_free(const struct gateway *g, const struct ifaddrs *all)
{
    const uint32_t own = ntohl(inet_addr(g->outer));
    for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
        struct sockaddr_in in;
        if (strcmp(a->ifa_name, g->device) == 0)
            return false;
        if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET)
            continue;
        memcpy(&in, a->ifa_addr, sizeof(in));
        if ((ntohl(in.sin_addr.s_addr) ^ own) < 4) // of the same four
            return false;
    }
    return true;
}

// A device and addresses that nobody in the host has, whoever made them. The search begins where the name says, so a gateway that
// is made again mostly has the same.
static int choose_slot(struct gateway *g, struct tv_error *err)
{
    struct ifaddrs *all;
    const unsigned first = (unsigned)(hash_of(g->space, "") % SLOTS);
    if (getifaddrs(&all))
        return tv_error_set(err, -errno, "the host's addresses: %s", strerror(errno));
    unsigned i = 0;
    do
        set_slot(g, (first + i) % SLOTS);
    while (!is_free(g, all) && ++i < SLOTS);
    freeifaddrs(all);
    return i < SLOTS ? 0 : tv_error_set(err, -EADDRNOTAVAIL, "169.254.0.0 to 169.254.124.255 are all in use in this host");
}

static int make_devices(const struct gateway *g, struct tv_error *err)
{
    char input[640], path[PATH_MAX];
    const char *const argv[] = {"ip", "-batch", "-", NULL};
    const int at =
        snprintf(input, sizeof(input),
                 "netns add %s\nlink add %s type veth peer name " OUTER " netns %s\naddr add %s/30 dev %s\nlink set %s up\n",
                 g->space, g->device, g->space, g->outer, g->device, g->device);
    if (has_nat6(g))
        snprintf(input + at, sizeof(input) - (size_t)at, "addr add %s/64 dev %s nodad\n", g->outer6, g->device);
    int rc = run(argv, "iproute2", input, err);
    if (!rc && has_nat6(g) && path_format(path, NULL, INTERFACES6 "/%s/accept_ra", g->device) == 0)
        rc = write_word(path, "0", err); // whoever is behind it is no router of the host's
    return rc;
}

static int configure_inside6(const struct gateway *g, struct tv_error *err)
{
    char input[1024];
    const char *const argv[] = {"ip", "-6", "-netns", g->space, "-batch", "-", NULL};
    const char *prefix = prefix6_of(g), *gateway = first_of(json_object_get(g->spec, "gateways"), true);
    const bool is_router = net_spec_routes(g->spec);
    if (!prefix)
        return 0;
    int at =
        snprintf(input, sizeof(input), "addr add %s%s dev " INNER " nodad\n", gateway, is_router ? "/128" : strchr(prefix, '/'));
    if (is_router)
        at += snprintf(input + at, sizeof(input) - (size_t)at,
                       "addr add " LINK6_GATEWAY "/64 dev " INNER " nodad\nroute add %s via " LINK6_ROUTER "\n", prefix);
    if (has_nat6(g))
        snprintf(input + at, sizeof(input) - (size_t)at, "addr add %s/64 dev " OUTER " nodad\nroute add default via %s\n",
                 g->inner6, g->outer6);
    return run(argv, "iproute2", input, err);
}

static int configure_inside(const struct gateway *g, struct tv_error *err)
{
    char input[1024], mac[SPEC_MAC_TEXT_MAX];
    const char *const argv[] = {"ip", "-netns", g->space, "-batch", "-", NULL};
    const char *prefix = first_of(json_object_get(g->spec, "prefixes"), false),
               *gateway = first_of(json_object_get(g->spec, "gateways"), false);
    const bool is_router = net_spec_routes(g->spec);
    net_make_mac("gateway of", net_spec_name(g->spec), mac);
    int at = snprintf(input, sizeof(input),
                      "link set lo up\naddr add %s/30 dev " OUTER "\nlink set " OUTER " up\nlink set " INNER " address %s\n"
                      "addr add %s%s dev " INNER "\nlink set " INNER " up\nroute add default via %s\n",
                      g->inner, mac, is_router ? LINK_GATEWAY : gateway, is_router ? "/30" : strchr(prefix, '/'), g->outer);
    // What is for the network's own gateway, the router hands over to us (trivet-router(8), server).
    if (is_router)
        snprintf(input + at, sizeof(input) - (size_t)at, "addr add %s/32 dev " INNER "\nroute add %s via " LINK_ROUTER "\n",
                 gateway, prefix);
    return run(argv, "iproute2", input, err);
}

// What goes out by more than the limit waits for a while, and is then dropped; what comes from there the network's own port limits.
static int limit_outside(const struct gateway *g, struct tv_error *err)
{
    const uint64_t bit_rate = net_spec_outside_bit_rate(g->spec), burst = bit_rate / 8 / 250; // 4 ms of it, or a whole segment
    char rate[32], bytes[32];
    const char *const argv[] = {"tc",  "-netns", g->space, "qdisc", "add", "dev",     OUTER,  "root",
                                "tbf", "rate",   rate,     "burst", bytes, "latency", "50ms", NULL};
    const struct tool tool = {.argv = argv, .package = "iproute2"};
    snprintf(rate, sizeof(rate), "%" PRIu64 "bit", bit_rate);
    snprintf(bytes, sizeof(bytes), "%" PRIu64 "b", burst > 65536 ? burst : 65536);
    return bit_rate ? tool_run(&tool, err) : 0;
}

// --- rules

// "dnat" for each forward; format has the port and where to.
static void print_forwards(FILE *out, const struct gateway *g, const char *before, bool inside)
{
    size_t i;
    json_t *forward;
    json_array_foreach(service(g, "forwards"), i, forward)
    {
        const char *proto = text(forward, "protocol");
        const json_int_t port = json_integer_value(json_object_get(forward, "port"));
        fprintf(out, "    %s %s dport %" JSON_INTEGER_FORMAT " dnat to ", before, proto, port);
        if (inside)
            fprintf(out, "%s:%" JSON_INTEGER_FORMAT "\n", text(forward, "to"),
                    json_integer_value(json_object_get(forward, "to_port")));
        else
            fprintf(out, "%s:%" JSON_INTEGER_FORMAT "\n", g->inner, port);
    }
}

// From the network to the outside, and back; nothing comes in by itself but what is forwarded.
static void print_inside(FILE *out, const struct gateway *g)
{
    const bool nat = json_is_true(service(g, "nat"));
    fputs("table ip trivet {\n  chain translate {\n    type nat hook postrouting priority srcnat\n    oifname \"" OUTER
          "\" masquerade\n  }\n  chain forward_ports {\n    type nat hook prerouting priority dstnat\n",
          out);
    print_forwards(out, g, "iifname \"" OUTER "\"", true);
    fprintf(
        out,
        "  }\n  chain pass {\n    type filter hook forward priority filter; policy drop\n    ct state established,related accept\n"
        "    iifname \"" OUTER "\" ct status dnat accept\n%s  }\n}\n",
        nat ? "    iifname \"" INNER "\" oifname \"" OUTER "\" accept\n" : "");
}

// The host's part: what leaves has the host's address; neither the host itself nor other networks' gateways are reached from there.
static void print_outside(FILE *out, const struct gateway *g)
{
    fprintf(out,
            "table ip %s {\n  chain translate {\n    type nat hook postrouting priority srcnat\n    ip saddr %s oifname != \"%s\" "
            "masquerade\n  }\n  chain forward_ports {\n    type nat hook prerouting priority dstnat\n",
            g->space, g->inner, g->device);
    print_forwards(out, g, "fib daddr type local", false);
    fputs("  }\n  chain forward_own {\n    type nat hook output priority -100\n", out);
    print_forwards(out, g, "fib daddr type local", false);
    fprintf(
        out,
        "  }\n  chain reach_self {\n    type filter hook input priority filter\n    iifname \"%s\" ct state established,related "
        "accept\n    iifname \"%s\" drop\n  }\n  chain reach_others {\n    type filter hook forward priority filter\n"
        "    iifname \"%s\" oifname \"" DEVICE "*\" drop\n  }\n}\n",
        g->device, g->device, g->device);
}

// NAT66: who is outside sees the host's address, as with IPv4 (the prefix is the tenant's own choice, and two may have the same).
static void print_inside6(FILE *out)
{
    fputs("table ip6 trivet {\n  chain translate {\n    type nat hook postrouting priority srcnat\n    oifname \"" OUTER
          "\" masquerade\n  }\n  chain pass {\n    type filter hook forward priority filter; policy drop\n"
          "    ct state established,related accept\n    iifname \"" INNER "\" oifname \"" OUTER "\" accept\n  }\n}\n",
          out);
}

static void print_outside6(FILE *out, const struct gateway *g)
{
    fprintf(
        out,
        "table ip6 %s {\n  chain translate {\n    type nat hook postrouting priority srcnat\n    ip6 saddr %s oifname != \"%s\" "
        "masquerade\n  }\n  chain reach_self {\n    type filter hook input priority filter\n    iifname \"%s\" icmpv6 type { "
        "nd-neighbor-solicit, nd-neighbor-advert } accept\n    iifname \"%s\" ct state established,related accept\n"
        "    iifname \"%s\" drop\n  }\n  chain reach_others {\n    type filter hook forward priority filter\n"
        "    iifname \"%s\" oifname \"" DEVICE "*\" drop\n    iifname \"%s\" ip6 saddr != %s drop\n"
        "    oifname \"%s\" ct state established,related accept\n    oifname \"%s\" drop\n  }\n}\n",
        g->space, g->inner6, g->device, g->device, g->device, g->device, g->device, g->device, g->inner6, g->device, g->device);
}

static int set_rules(const struct gateway *g, bool inside, struct tv_error *err)
{
    cleanup_free char *rules = NULL;
    size_t len;
    const char *const within[] = {"ip", "netns", "exec", g->space, "nft", "-f", "-", NULL}, *const here[] = {"nft", "-f", "-",
                                                                                                             NULL};
    FILE *out = open_memstream(&rules, &len);
    if (!out)
        return tv_error_set(err, -ENOMEM, "no memory");
    if (inside)
        print_inside(out, g);
    else
        print_outside(out, g);
    if (has_nat6(g) && inside)
        print_inside6(out);
    else if (has_nat6(g))
        print_outside6(out, g);
    if (fclose(out))
        return tv_error_set(err, -ENOMEM, "no memory");
    return run(inside ? within : here, "nftables", rules, err);
}

// --- forwarding in the host

static bool any_gateway(void)
{
    struct if_nameindex *all = if_nameindex();
    bool found = !all; // not known: then nothing is switched off
    for (const struct if_nameindex *i = all; i && i->if_index; i++)
        found |= strncmp(i->if_name, DEVICE, strlen(DEVICE)) == 0;
    if_freenameindex(all);
    return found;
}

// The interfaces by which the host hears of routers (RFC 4861, 6.3): one that forwards IPv6 would not any more, but for those
// with 2.
static void each_hearing(void (*fn)(const char *path, const char *name, void *arg), void *arg)
{
    DIR *dir = opendir(INTERFACES6);
    const struct dirent *entry;
    char path[PATH_MAX];
    while (dir && (entry = readdir(dir))) {
        char now = 0;
        if (entry->d_name[0] == '.' || strncmp(entry->d_name, DEVICE, strlen(DEVICE)) == 0 ||
            path_format(path, NULL, INTERFACES6 "/%s/accept_ra", entry->d_name))
            continue;
        cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && read(fd, &now, 1) == 1 && now == '1')
            fn(path, entry->d_name, arg);
    }
    if (dir)
        closedir(dir);
}

static void note_hearing(const char *path, const char *name, void *arg)
{
    (void)path;
    fprintf(arg, "add element ip6 " WAS_OFF " heard_routers { \"%s\" }\n", name);
}

static void keep_hearing(const char *path, const char *name, void *arg)
{
    (void)name, (void)arg;
    write_word(path, "2", NULL);
}

static void hear_as_before(void)
{
    const char *const argv[] = {"nft", "-j", "list", "set", "ip6", WAS_OFF, "heard_routers", NULL};
    const struct tool tool = {.argv = argv, .package = "nftables"};
    cleanup_free char *said = NULL;
    if (tool_output(&tool, &said, NULL))
        return;
    cleanup_json json_t *json = json_loads(said, 0, NULL);
    json_t *object, *name;
    size_t i, j;
    json_array_foreach(json_object_get(json, "nftables"), i, object)
    {
        json_array_foreach(json_object_get(json_object_get(object, "set"), "elem"), j, name)
        {
            char path[PATH_MAX];
            if (path_format(path, NULL, INTERFACES6 "/%s/accept_ra", json_string_value(name)) == 0)
                write_word(path, "1", NULL);
        }
    }
}

static int mark(const char *family, struct tv_error *err)
{
    cleanup_free char *rules = NULL;
    size_t len;
    const char *const argv[] = {"nft", "-f", "-", NULL};
    FILE *out = open_memstream(&rules, &len);
    if (!out)
        return tv_error_set(err, -ENOMEM, "no memory");
    fprintf(out, "table %s " WAS_OFF " {\n  set heard_routers {\n    type ifname\n  }\n}\n", family);
    if (strcmp(family, "ip6") == 0)
        each_hearing(note_hearing, out);
    if (fclose(out))
        return tv_error_set(err, -ENOMEM, "no memory");
    return run(argv, "nftables", rules, err);
}

// The mark comes first and goes last: whoever is killed in between leaves one that is true.
static int start_one(const char *family, const char *switch_path, struct tv_error *err)
{
    char now = 0;
    cleanup_close int fd = open(switch_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, &now, 1) != 1)
        return tv_error_set(err, -EIO, "%s: cannot be read", switch_path);
    if (now != '0')
        return 0;
    const int rc = mark(family, err);
    if (!rc && strcmp(family, "ip6") == 0)
        each_hearing(keep_hearing, NULL);
    return rc ? rc : write_word(switch_path, "1", err);
}

static int start_forwarding(const struct gateway *g, struct tv_error *err)
{
    const int rc = start_one("ip", FORWARDING, err);
    return rc || !has_nat6(g) ? rc : start_one("ip6", FORWARDING6, err);
}

static void end_one(const char *family, const char *switch_path)
{
    const char *const look[] = {"nft", "list", "table", family, WAS_OFF, NULL};
    const char *const unmark[] = {"nft", "delete", "table", family, WAS_OFF, NULL};
    const struct tool is_marked = {.argv = look, .package = "nftables"}, done = {.argv = unmark, .package = "nftables"};
    if (tool_run(&is_marked, NULL) || write_word(switch_path, "0", NULL))
        return;
    if (strcmp(family, "ip6") == 0)
        hear_as_before();
    tool_run(&done, NULL);
}

static void end_forwarding(void)
{
    if (any_gateway())
        return;
    end_one("ip", FORWARDING);
    end_one("ip6", FORWARDING6);
}

// --- the whole

static void take_away(const struct gateway *g)
{
    const char *const table[] = {"nft", "delete", "table", "ip", g->space, NULL};
    const char *const table6[] = {"nft", "delete", "table", "ip6", g->space, NULL};
    const char *const pair[] = {"ip", "-netns", g->space, "link", "del", OUTER, NULL}; // both ends, and at once
    const char *const space[] = {"ip", "netns", "del", g->space, NULL};
    const char *const *const all[] = {table, table6, pair, space};
    if (!gateway_is_there(g))
        return;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        const struct tool tool = {.argv = all[i], .package = "iproute2"};
        tool_run(&tool, NULL); // what is not there need not go
    }
}

int gateway_make(struct gateway *g, struct tv_error *err)
{
    if (geteuid() != 0)
        return tv_error_set(
            err, -EPERM, "network '%s': NAT, DHCP and DNS need a network namespace, which root alone can make; run trivetd as root",
            net_spec_name(g->spec));
    take_away(g);
    int rc = choose_slot(g, err);
    if (!rc)
        rc = make_devices(g, err);
    if (!rc)
        rc = with_space(g, prepare_inside, err);
    if (!rc)
        rc = configure_inside(g, err);
    if (!rc)
        rc = configure_inside6(g, err);
    if (!rc)
        rc = limit_outside(g, err);
    if (!rc)
        rc = set_rules(g, true, err);
    if (!rc)
        rc = set_rules(g, false, err);
    if (!rc)
        rc = start_forwarding(g, err);
    if (rc)
        gateway_remove(g);
    return rc ? tv_error_prefix(err, "network '%s': its gateway", net_spec_name(g->spec)) : 0;
}

void gateway_remove(const struct gateway *g)
{
    take_away(g);
    end_forwarding();
}

static json_t *make_port(const struct gateway *g, const char *mac)
{
    if (net_spec_routes(g->spec))
        return json_pack(prefix6_of(g) ? "{s:s, s:s, s:s, s:[s,s]}" : "{s:s, s:s, s:s, s:[s]}", "name", GATEWAY_PORT, "kind", "tap",
                         "server", mac, "addresses", LINK_ROUTER "/30", LINK6_ROUTER "/64");
    return json_pack("{s:s, s:s, s:s, s:b}", "name", GATEWAY_PORT, "kind", "tap", "mac", mac, "router", true);
}

json_t *gateway_port(const struct gateway *g)
{
    char mac[SPEC_MAC_TEXT_MAX];
    net_make_mac("gateway of", net_spec_name(g->spec), mac);
    json_t *port = make_port(g, mac);
    if (service(g, "limit"))
        json_object_set_new(port, "promises", json_sprintf("limit: %s", json_string_value(service(g, "limit"))));
    return port;
}

json_t *gateway_routes(const struct gateway *g)
{
    if (!net_spec_routes(g->spec) || !json_is_true(service(g, "nat")))
        return json_array();
    json_t *routes = json_pack("[{s:s, s:s}]", "prefix", "0.0.0.0/0", "via", LINK_GATEWAY);
    if (has_nat6(g))
        json_array_append_new(routes, json_pack("{s:s, s:s}", "prefix", "::/0", "via", LINK6_GATEWAY));
    return routes;
}

// --- DHCP and DNS

static int add_word(struct gateway_words *w, char *word, struct tv_error *err)
{
    if (!word)
        return tv_error_set(err, -ENOMEM, "no memory");
    w->words[w->n++] = word;
    w->words[w->n] = NULL;
    return 0;
}

static char *format(const char *before, const char *behind)
{
    char *word = NULL;
    return asprintf(&word, "%s%s", before, behind) < 0 ? NULL : word;
}

// All addresses of the prefix, but its number, the gateway's where that is the first, and the broadcast address. A router knows
// its machines by their addresses, which are said: there nobody else has one to be given.
static char *range_of(const struct gateway *g)
{
    const char *prefix = first_of(json_object_get(g->spec, "prefixes"), false);
    unsigned char bytes[16];
    char first[INET_ADDRSTRLEN], last[INET_ADDRSTRLEN], *word = NULL;
    int bits;
    uint32_t number;
    if (net_parse_address(prefix, bytes, &bits) != AF_INET)
        return NULL;
    memcpy(&number, bytes, sizeof(number));
    const uint32_t rest = (uint32_t)(0xffffffffull >> bits), mask = htonl(~rest);
    const bool is_router = net_spec_routes(g->spec);
    const uint32_t least = is_router ? number : htonl(ntohl(number) + 2), most = htonl((ntohl(number) | rest) - 1);
    inet_ntop(AF_INET, &least, first, sizeof(first));
    inet_ntop(AF_INET, is_router ? &mask : &most, last, sizeof(last));
    return asprintf(&word, is_router ? "--dhcp-range=%s,static,%s,1h" : "--dhcp-range=%s,%s,1h", first, last) < 0 ? NULL : word;
}

// Of a switch: stations make addresses of their own in the prefix (RFC 4862), and hear of the router and the name server.
static int add_advertisements(const struct gateway *g, struct gateway_words *w, struct tv_error *err)
{
    const char *prefix = prefix6_of(g);
    char *word = NULL;
    if (!prefix || net_spec_routes(g->spec) || strcmp(strchr(prefix, '/'), "/64") != 0)
        return 0;
    if (asprintf(&word, "--dhcp-range=%.*s,ra-only,64,1h", (int)strcspn(prefix, "/"), prefix) < 0)
        word = NULL;
    const int rc = add_word(w, word, err);
    return rc ? rc : add_word(w, strdup("--enable-ra"), err);
}

static int add_hosts(struct gateway_words *w, const json_t *hosts, struct tv_error *err)
{
    size_t i;
    json_t *host;
    int rc = 0;
    json_array_foreach(hosts, i, host)
    {
        char *word = NULL;
        if (rc || w->n == GATEWAY_WORDS_MAX)
            break;
        if (asprintf(&word, "--dhcp-host=%s,%s,%s", text(host, "mac"), text(host, "address"), text(host, "name")) < 0)
            word = NULL;
        rc = add_word(w, word, err);
    }
    return rc;
}

int gateway_dnsmasq(const struct gateway *g, const char *leases, const json_t *hosts, struct gateway_words *w, struct tv_error *err)
{
    static const char of_device[] = "--interface=" INNER;
    static const char *const fixed[] = {
        "dnsmasq",           "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", of_device, "--except-interface=lo",
        "--bind-interfaces", "--pid-file=",          "--log-facility=-"};
    *w = (struct gateway_words){0};
    int rc = 0;
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]) && !rc; i++)
        rc = add_word(w, strdup(fixed[i]), err);
    if (!rc && !json_is_true(service(g, "dns")))
        rc = add_word(w, strdup("--port=0"), err);
    if (!rc && json_is_true(service(g, "dhcp"))) {
        rc = add_word(w, range_of(g), err);
        rc = rc ? rc : add_word(w, format("--dhcp-leasefile=", leases), err);
        rc = rc ? rc : add_word(w, strdup("--dhcp-authoritative"), err);
        rc = rc ? rc : add_advertisements(g, w, err);
        rc = rc ? rc : add_hosts(w, hosts, err);
    }
    if (rc)
        gateway_free_words(w);
    return rc;
}

void gateway_free_words(struct gateway_words *w)
{
    for (int i = 0; i < w->n; i++)
        free(w->words[i]);
    w->n = 0;
}
