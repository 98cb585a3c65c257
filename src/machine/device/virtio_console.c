// virtio-console with several ports (virtio 1.2, section 5.3). On the loop's thread.
//
// What the device has to tell its driver about a port is kept as a set of bits, not as a list of messages: it takes no more room
// however long the driver offers no buffer for it, and is told in the order of the bits.
#include "machine/device/virtio_pci.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

enum { CLASS_COMMUNICATION = 0x078000 };
// 5.3.2: queues 0 and 1 are port 0's, then come the control queues, then those of the other ports.
enum { QUEUE_CONTROL_IN = 2, QUEUE_CONTROL_OUT = 3, N_QUEUES = 2 + 2 * VIRTIO_CONSOLE_PORTS };
enum { ROUND_CHAINS = 64 };
// <linux/virtio_console.h> has a struct of the same name as ours, so its numbers are given here: 5.3.3, 5.3.4, 5.3.6.2.
enum { FEATURE_SIZE = 0, FEATURE_MULTIPORT = 1 };
enum { CONFIG_COLUMNS = 0, CONFIG_N_PORTS = 4, CONFIG_BYTES = 8 };
enum { DEVICE_READY = 0, PORT_ADD = 1, PORT_READY = 3, CONSOLE_PORT = 4, PORT_RESIZE = 5, PORT_OPEN = 6, PORT_NAME = 7 };

// In the order in which the driver is told.
enum tell {
    TELL_ADD = 1 << 0,
    TELL_CONSOLE = 1 << 1,
    TELL_RESIZE = 1 << 2,
    TELL_NAME = 1 << 3,
    TELL_OPEN = 1 << 4,
    TELL_ALL = 0x1f
};

struct port {
    uint8_t tell;     // enum tell
    bool is_open;     // by a program in the guest
    bool input_waits; // somebody wants to hear of room
};

struct virtio_console {
    struct virtio_console_config config;
    struct virtio_pci *vp;
    struct port ports[VIRTIO_CONSOLE_PORTS];
    uint16_t columns, rows;
};

struct control {
    uint32_t id; // of the port
    uint16_t event, value;
};

struct message { // a control message with what may follow it
    struct control control;
    char more[32];
};

static unsigned input_queue(unsigned port)
{
    return port == 0 ? 0 : 2 + 2 * port;
}

static bool has_ports(const struct virtio_console *c)
{
    return virtio_pci_features(c->vp) >> FEATURE_MULTIPORT & 1;
}

// --- from the device to the driver, 5.3.6.2

static size_t make_message(const struct virtio_console *c, unsigned port, unsigned what, struct message *m)
{
    size_t more = 0;
    *m = (struct message){.control = {.id = port, .value = 1}};
    switch (what) {
    case TELL_ADD:
        m->control.event = PORT_ADD;
        break;
    case TELL_CONSOLE:
        m->control.event = CONSOLE_PORT;
        break;
    case TELL_RESIZE:
        m->control.event = PORT_RESIZE;
        memcpy(m->more, (const uint16_t[2]){c->columns, c->rows}, 4);
        more = 4;
        break;
    case TELL_NAME:
        m->control.event = PORT_NAME;
        more = sizeof(VIRTIO_CONSOLE_CONTROL_NAME) - 1;
        memcpy(m->more, VIRTIO_CONSOLE_CONTROL_NAME, more);
        break;
    default:
        m->control.event = PORT_OPEN;
        break;
    }
    return sizeof(m->control) + more;
}

// Tells what is to be told, as far as there are buffers.
static void tell(struct virtio_console *c)
{
    struct virtqueue *vq = virtio_pci_queue(c->vp, QUEUE_CONTROL_IN);
    struct virtq_chain chain;
    struct message m;
    bool told = false;
    if (!virtio_pci_queue_is_live(c->vp, QUEUE_CONTROL_IN))
        return;
    for (unsigned port = 0; port < VIRTIO_CONSOLE_PORTS; port++) {
        while (c->ports[port].tell && virtqueue_pop(vq, &chain) == 1) {
            unsigned what = c->ports[port].tell & -c->ports[port].tell; // the lowest bit
            size_t len_bytes = make_message(c, port, what, &m);
            virtqueue_push(vq, chain.head, (uint32_t)virtq_chain_write(&chain, 0, &m, len_bytes));
            c->ports[port].tell &= (uint8_t)~what;
            told = true;
        }
    }
    if (told)
        virtio_pci_push(c->vp, QUEUE_CONTROL_IN);
    if (vq->broken)
        virtio_pci_needs_reset(c->vp, vq->why);
}

// --- from the driver to the device

static void set_open(struct virtio_console *c, unsigned port, bool is_open)
{
    if (c->ports[port].is_open == is_open)
        return;
    c->ports[port].is_open = is_open;
    if (c->config.opened)
        c->config.opened(c->config.arg, port, is_open);
}

static void port_is_ready(struct virtio_console *c, unsigned port)
{
    if (port == VIRTIO_CONSOLE_PORT_TERMINAL)
        c->ports[port].tell |= TELL_CONSOLE | TELL_OPEN | (c->columns && c->rows ? TELL_RESIZE : 0);
    else
        c->ports[port].tell |= TELL_NAME | TELL_OPEN;
}

static void take_control(struct virtio_console *c, const struct control *m)
{
    if (m->event == DEVICE_READY) {
        for (unsigned i = 0; i < VIRTIO_CONSOLE_PORTS && m->value; i++)
            c->ports[i].tell |= TELL_ADD;
        return;
    }
    if (m->id >= VIRTIO_CONSOLE_PORTS)
        return;
    if (m->event == PORT_READY && m->value)
        port_is_ready(c, m->id);
    else if (m->event == PORT_OPEN)
        set_open(c, m->id, m->value);
}

// These two serve at most ROUND_CHAINS buffers, and return how many there were.
static unsigned control_out(struct virtio_console *c, struct virtqueue *vq)
{
    struct virtq_chain chain;
    struct control m;
    unsigned n = 0;
    for (; n < ROUND_CHAINS && virtqueue_pop(vq, &chain) == 1; n++) {
        if (virtq_chain_read(&chain, 0, &m, sizeof(m)) == sizeof(m))
            take_control(c, &m);
        virtqueue_push(vq, chain.head, 0);
    }
    tell(c);
    return n;
}

static unsigned data_out(struct virtio_console *c, struct virtqueue *vq, unsigned port)
{
    struct virtq_chain chain;
    unsigned n = 0;
    for (; n < ROUND_CHAINS && virtqueue_pop(vq, &chain) == 1; n++) {
        for (unsigned i = 0; i < chain.n_out; i++)
            c->config.output(c->config.arg, port, chain.iov[i].iov_base, chain.iov[i].iov_len);
        virtqueue_push(vq, chain.head, 0);
    }
    return n;
}

static void tell_room(struct virtio_console *c, unsigned port)
{
    if (!c->ports[port].input_waits)
        return;
    c->ports[port].input_waits = false;
    if (c->config.room)
        c->config.room(c->config.arg, port);
}

static void notified(void *dev, unsigned index)
{
    struct virtio_console *c = dev;
    struct virtqueue *vq = virtio_pci_queue(c->vp, index);
    unsigned port = index < 2 ? 0 : (index - 2) / 2;
    if (index == QUEUE_CONTROL_IN) {
        tell(c);
        return;
    }
    if (index % 2 == 0) {
        tell_room(c, port);
        return;
    }
    unsigned n = index == QUEUE_CONTROL_OUT ? control_out(c, vq) : data_out(c, vq, port);
    if (n > 0)
        virtio_pci_push(c->vp, index);
    if (n == ROUND_CHAINS)
        virtio_pci_notify_again(c->vp, index);
}

size_t virtio_console_input(struct virtio_console *c, unsigned port, const uint8_t *buf, size_t len_bytes)
{
    unsigned index = input_queue(port);
    struct virtqueue *vq = virtio_pci_queue(c->vp, index);
    struct virtq_chain chain;
    size_t taken = 0;
    bool live = virtio_pci_queue_is_live(c->vp, index);
    while (live && taken < len_bytes && virtqueue_pop(vq, &chain) == 1) {
        size_t n = virtq_chain_write(&chain, 0, buf + taken, len_bytes - taken);
        virtqueue_push(vq, chain.head, (uint32_t)n);
        taken += n;
    }
    if (taken)
        virtio_pci_push(c->vp, index);
    if (live && vq->broken)
        virtio_pci_needs_reset(c->vp, vq->why);
    if (taken < len_bytes)
        c->ports[port].input_waits = true;
    return taken;
}

void virtio_console_resize(struct virtio_console *c, uint16_t columns, uint16_t rows)
{
    const uint16_t size[2] = {columns, rows};
    c->columns = columns;
    c->rows = rows;
    // With ports the driver is told by a message about its terminal, without by the configuration (5.3.4).
    virtio_pci_config_set(c->vp, CONFIG_COLUMNS, size, sizeof(size), !has_ports(c));
    if (has_ports(c)) {
        c->ports[VIRTIO_CONSOLE_PORT_TERMINAL].tell |= TELL_RESIZE;
        tell(c);
    }
}

bool virtio_console_is_open(const struct virtio_console *c, unsigned port)
{
    return c->ports[port].is_open;
}

// --- life

static int started(void *dev, uint64_t features)
{
    struct virtio_console *c = dev;
    if (!(features >> FEATURE_MULTIPORT & 1)) // then there is one port, and it is always open
        set_open(c, VIRTIO_CONSOLE_PORT_TERMINAL, true);
    return 0;
}

static void reset(void *dev)
{
    struct virtio_console *c = dev;
    for (unsigned i = 0; i < VIRTIO_CONSOLE_PORTS; i++) {
        c->ports[i].tell = 0;
        set_open(c, i, false);
    }
}

static int save_or_load(void *dev, struct state *s)
{
    struct virtio_console *c = dev;
    state_section_begin(s, "console", 1);
    state_u16(s, "columns", &c->columns);
    state_u16(s, "rows", &c->rows);
    for (unsigned i = 0; i < VIRTIO_CONSOLE_PORTS; i++) {
        bool is_open = c->ports[i].is_open;
        state_u8(s, "tell", &c->ports[i].tell);
        state_bool(s, "is_open", &is_open);
        if (c->ports[i].tell & ~TELL_ALL)
            state_fail(s, "virtio-console: port %u has 0x%x to tell", i, c->ports[i].tell);
        if (!state_failed(s))
            set_open(c, i, is_open); // the machine hears of it as it does when a program opens it
    }
    state_section_end(s);
    return state_failed(s) ? -EINVAL : 0;
}

static const struct virtio_ops ops = {.name = "virtio-console",
                                      .device_type = VIRTIO_ID_CONSOLE,
                                      .class_code = CLASS_COMMUNICATION,
                                      .started = started,
                                      .notified = notified,
                                      .reset = reset,
                                      .state = save_or_load,
                                      .destroy = free};

struct virtio_console *virtio_console_add(const struct virtio_console_config *config, struct tv_error *err)
{
    struct virtio_console *c = calloc(1, sizeof(*c));
    if (!c) {
        tv_error_set(err, -ENOMEM, "no memory for the console device");
        return NULL;
    }
    c->config = *config;
    const struct virtio_pci_config pci = {.home = config->home,
                                          .ops = &ops,
                                          .dev = c,
                                          .features = 1ull << FEATURE_SIZE | 1ull << FEATURE_MULTIPORT,
                                          .n_queues = N_QUEUES,
                                          .config_len_bytes = CONFIG_BYTES};
    c->vp = virtio_pci_create(&pci, err);
    if (!c->vp) {
        free(c);
        return NULL;
    }
    const uint32_t n_ports = VIRTIO_CONSOLE_PORTS;
    virtio_pci_config_set(c->vp, CONFIG_N_PORTS, &n_ports, sizeof(n_ports), false);
    return c;
}
