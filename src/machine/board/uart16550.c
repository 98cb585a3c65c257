// The serial port: see uart16550.h. Section numbers are those of the PC16550D data sheet.
#include "machine/board/uart16550.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { // registers; DLL and DLM stand in the place of the first two while LCR_DLAB is set
    REG_RBR_THR = 0,
    REG_IER = 1,
    REG_IIR_FCR = 2,
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_MSR = 6,
    REG_SCR = 7,
};
enum { IER_RDA = 1 << 0, IER_THRE = 1 << 1, IER_LINE = 1 << 2, IER_MODEM = 1 << 3, IER_ALL = 0x0f };
enum { IIR_NONE = 0x01, IIR_MODEM = 0x00, IIR_THRE = 0x02, IIR_RDA = 0x04, IIR_LINE = 0x06, IIR_TIMEOUT = 0x0c, IIR_FIFO = 0xc0 };
enum { FCR_ENABLE = 1 << 0, FCR_CLEAR_RX = 1 << 1, FCR_TRIGGER = 0xc0 };
enum { LCR_DLAB = 1 << 7 };
enum { MCR_DTR = 1 << 0, MCR_RTS = 1 << 1, MCR_OUT1 = 1 << 2, MCR_OUT2 = 1 << 3, MCR_LOOP = 1 << 4, MCR_ALL = 0x1f };
enum {
    LSR_DR = 1 << 0,
    LSR_OE = 1 << 1,
    LSR_PE = 1 << 2,
    LSR_FE = 1 << 3,
    LSR_BI = 1 << 4,
    LSR_THRE = 1 << 5,
    LSR_TEMT = 1 << 6,
    LSR_RX_ERROR = 1 << 7,
    LSR_CHAR_ERRORS = LSR_PE | LSR_FE | LSR_BI, // those that belong to a character in the FIFO
};
enum { MSR_DELTAS = 0x0f, MSR_TERI = 1 << 2, MSR_CTS = 1 << 4, MSR_DSR = 1 << 5, MSR_RI = 1 << 6, MSR_DCD = 1 << 7 };

struct uart16550 {
    struct uart16550_config config;
    pthread_mutex_t lock; // guards all below
    uint8_t ier, fcr, lcr, mcr, msr, scr, dll, dlm;
    bool overrun;                                           // LSR_OE
    bool thre_pending;                                      // the transmitter became empty and nobody looked
    bool irq_level;                                         // as the interrupt controller was told
    bool input_waits;                                       // somebody wants to hear of room in the receiver
    uint32_t n;                                             // characters in the receiver; at most 1 without FIFO
    uint8_t data[UART_FIFO_BYTES], errors[UART_FIFO_BYTES]; // oldest first
};

static uint32_t capacity(const struct uart16550 *u)
{
    return u->fcr & FCR_ENABLE ? UART_FIFO_BYTES : 1;
}

static uint32_t trigger_level(const struct uart16550 *u)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};
    return u->fcr & FCR_ENABLE ? levels[u->fcr >> 6] : 1;
}

static uint8_t line_status(const struct uart16550 *u)
{
    unsigned lsr = LSR_THRE | LSR_TEMT;
    if (u->n)
        lsr |= LSR_DR | u->errors[0];
    if (u->overrun)
        lsr |= LSR_OE;
    for (uint32_t i = 0; i < u->n && u->fcr & FCR_ENABLE; i++)
        if (u->errors[i])
            lsr |= LSR_RX_ERROR;
    return (uint8_t)lsr;
}

// The interrupt of the highest priority, 8.5 and table IV.
static uint8_t interrupt_id(const struct uart16550 *u)
{
    if (u->ier & IER_LINE && line_status(u) & (LSR_OE | LSR_CHAR_ERRORS))
        return IIR_LINE;
    if (u->ier & IER_RDA && u->n >= trigger_level(u))
        return IIR_RDA;
    if (u->ier & IER_RDA && u->n)
        return IIR_TIMEOUT;
    if (u->ier & IER_THRE && u->thre_pending)
        return IIR_THRE;
    if (u->ier & IER_MODEM && u->msr & MSR_DELTAS)
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(struct uart16550 *u)
{
    bool level = interrupt_id(u) != IIR_NONE;
    if (level == u->irq_level)
        return;
    u->irq_level = level;
    u->config.irq(u->config.arg, level);
}

static void receive(struct uart16550 *u, uint8_t byte, uint8_t errors)
{
    if (u->n == capacity(u)) {
        u->overrun = true;
        if (u->fcr & FCR_ENABLE) // 8.4: the character in the shift register is lost, the FIFO stays
            return;
        u->n = 0;
    }
    u->data[u->n] = byte;
    u->errors[u->n] = errors;
    u->n++;
}

static uint8_t take(struct uart16550 *u)
{
    if (!u->n)
        return 0;
    uint8_t byte = u->data[0];
    u->n--;
    memmove(u->data, u->data + 1, u->n);
    memmove(u->errors, u->errors + 1, u->n);
    return byte;
}

static uint8_t read_line_status(struct uart16550 *u)
{
    uint8_t lsr = line_status(u);
    u->overrun = false;
    u->errors[0] = 0;
    return lsr;
}

static uint8_t read_interrupt_id(struct uart16550 *u)
{
    uint8_t id = interrupt_id(u);
    if (id == IIR_THRE) // table IV: reading the IIR that says so resets it
        u->thre_pending = false;
    return u->fcr & FCR_ENABLE ? (uint8_t)(id | IIR_FIFO) : id;
}

// The modem lines: a terminal that is always there, or our own outputs in loopback (8.6).
static void update_modem(struct uart16550 *u)
{
    unsigned now = MSR_CTS | MSR_DSR | MSR_DCD;
    if (u->mcr & MCR_LOOP)
        now = (u->mcr & MCR_RTS ? MSR_CTS : 0u) | (u->mcr & MCR_DTR ? MSR_DSR : 0u) | (u->mcr & MCR_OUT1 ? MSR_RI : 0u) |
              (u->mcr & MCR_OUT2 ? MSR_DCD : 0u);
    unsigned before = u->msr;
    unsigned deltas = (before ^ now) >> 4;
    if (!(before & MSR_RI)) // the ring indicator tells its trailing edge only
        deltas &= ~(unsigned)MSR_TERI;
    u->msr = (uint8_t)(now | (before & MSR_DELTAS) | (deltas & MSR_DELTAS));
}

static uint8_t read_modem_status(struct uart16550 *u)
{
    uint8_t msr = u->msr;
    u->msr &= (uint8_t)~MSR_DELTAS;
    return msr;
}

static uint8_t read_register(struct uart16550 *u, uint64_t reg)
{
    switch (reg) {
    case REG_RBR_THR:
        return u->lcr & LCR_DLAB ? u->dll : take(u);
    case REG_IER:
        return u->lcr & LCR_DLAB ? u->dlm : u->ier;
    case REG_IIR_FCR:
        return read_interrupt_id(u);
    case REG_LCR:
        return u->lcr;
    case REG_MCR:
        return u->mcr;
    case REG_LSR:
        return read_line_status(u);
    case REG_MSR:
        return read_modem_status(u);
    case REG_SCR:
        return u->scr;
    default:
        return 0;
    }
}

static void write_fifo_control(struct uart16550 *u, uint8_t value)
{
    // 8.4: the other bits count only with bit 0, and both FIFOs are cleared when it changes.
    if ((u->fcr ^ value) & FCR_ENABLE || (value & FCR_ENABLE && value & FCR_CLEAR_RX))
        u->n = 0;
    u->fcr = value & FCR_ENABLE ? value & (FCR_ENABLE | FCR_TRIGGER) : 0;
}

static void write_interrupt_enable(struct uart16550 *u, uint8_t value)
{
    if (value & ~u->ier & IER_THRE) // the transmitter is empty, as it always is
        u->thre_pending = true;
    u->ier = value & IER_ALL;
}

// Returns true when the byte is to be put out on the line.
static bool write_transmitter(struct uart16550 *u, uint8_t value)
{
    u->thre_pending = true; // it is full for no time at all
    if (!(u->mcr & MCR_LOOP))
        return true;
    receive(u, value, 0);
    return false;
}

static bool write_register(struct uart16550 *u, uint64_t reg, uint8_t value)
{
    switch (reg) {
    case REG_RBR_THR:
        if (!(u->lcr & LCR_DLAB))
            return write_transmitter(u, value);
        u->dll = value;
        break;
    case REG_IER:
        if (u->lcr & LCR_DLAB)
            u->dlm = value;
        else
            write_interrupt_enable(u, value);
        break;
    case REG_IIR_FCR:
        write_fifo_control(u, value);
        break;
    case REG_LCR:
        u->lcr = value;
        break;
    case REG_MCR:
        u->mcr = value & MCR_ALL;
        update_modem(u);
        break;
    case REG_SCR:
        u->scr = value;
        break;
    default: // LSR and MSR are for reading
        break;
    }
    return false;
}

// Somebody waits for room and now there is plenty; clears the wish.
static bool room_to_tell(struct uart16550 *u)
{
    bool tell = u->input_waits && u->n == 0 && !(u->mcr & MCR_LOOP);
    if (tell)
        u->input_waits = false;
    return tell && u->config.room;
}

static uint64_t uart_read(void *device, uint64_t offset, unsigned size)
{
    struct uart16550 *u = device;
    (void)size; // a byte, however wide one asks
    pthread_mutex_lock(&u->lock);
    uint8_t value = read_register(u, offset);
    update_irq(u);
    bool room = room_to_tell(u);
    pthread_mutex_unlock(&u->lock);
    if (room)
        u->config.room(u->config.sink);
    return value;
}

static void uart_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct uart16550 *u = device;
    (void)size;
    uint8_t byte = (uint8_t)value;
    pthread_mutex_lock(&u->lock);
    bool put_out = write_register(u, offset, byte);
    update_irq(u);
    bool room = room_to_tell(u);
    pthread_mutex_unlock(&u->lock);
    if (put_out)
        u->config.output(u->config.sink, &byte, 1);
    if (room)
        u->config.room(u->config.sink);
}

const struct bus_ops uart16550_bus_ops = {.name = "serial", .read = uart_read, .write = uart_write};

size_t uart16550_input(struct uart16550 *u, const uint8_t *buf, size_t len_bytes)
{
    size_t taken = 0;
    pthread_mutex_lock(&u->lock);
    while (taken < len_bytes && u->n < capacity(u) && !(u->mcr & MCR_LOOP)) // in loopback the line is cut
        receive(u, buf[taken++], 0);
    if (taken < len_bytes)
        u->input_waits = true;
    update_irq(u);
    pthread_mutex_unlock(&u->lock);
    return taken;
}

int uart16550_break(struct uart16550 *u)
{
    pthread_mutex_lock(&u->lock);
    bool room = u->n < capacity(u) && !(u->mcr & MCR_LOOP);
    if (room)
        receive(u, 0, LSR_BI | LSR_FE); // 8.3: a zero character whose stop bit is missing
    else
        u->input_waits = true;
    update_irq(u);
    pthread_mutex_unlock(&u->lock);
    return room ? 0 : -EAGAIN;
}

static void power_on(struct uart16550 *u)
{
    u->ier = u->fcr = u->lcr = u->mcr = u->scr = u->dll = u->dlm = 0;
    u->msr = MSR_CTS | MSR_DSR | MSR_DCD;
    u->overrun = u->thre_pending = false;
    u->n = 0;
    memset(u->data, 0, sizeof(u->data));
    memset(u->errors, 0, sizeof(u->errors));
}

struct uart16550 *uart16550_create(const struct uart16550_config *config, struct tv_error *err)
{
    struct uart16550 *u = calloc(1, sizeof(*u));
    if (!u) {
        tv_error_set(err, -ENOMEM, "no memory for the serial port");
        return NULL;
    }
    u->config = *config;
    pthread_mutex_init(&u->lock, NULL);
    power_on(u);
    return u;
}

void uart16550_destroy(struct uart16550 *u)
{
    if (!u)
        return;
    pthread_mutex_destroy(&u->lock);
    free(u);
}

void uart16550_reset(struct uart16550 *u)
{
    pthread_mutex_lock(&u->lock);
    power_on(u);
    update_irq(u);
    bool room = room_to_tell(u);
    pthread_mutex_unlock(&u->lock);
    if (room)
        u->config.room(u->config.sink);
}

// The invariants of struct uart16550, for what was loaded.
static void check_loaded(struct uart16550 *u, struct state *s)
{
    if (u->n > capacity(u) || u->ier & ~IER_ALL || u->mcr & ~MCR_ALL || u->fcr & ~(FCR_ENABLE | FCR_TRIGGER) ||
        (u->fcr && !(u->fcr & FCR_ENABLE)))
        state_fail(s, "serial: %u characters in the receiver, ier 0x%x, mcr 0x%x, fcr 0x%x cannot be", u->n, u->ier, u->mcr,
                   u->fcr);
    for (uint32_t i = 0; i < UART_FIFO_BYTES; i++)
        if (u->errors[i] & ~LSR_CHAR_ERRORS)
            state_fail(s, "serial: character %u has errors 0x%x", i, u->errors[i]);
}

int uart16550_state(struct uart16550 *u, struct state *s)
{
    pthread_mutex_lock(&u->lock);
    state_section_begin(s, "serial", 1);
    uint8_t *const registers[] = {&u->ier, &u->fcr, &u->lcr, &u->mcr, &u->msr, &u->scr, &u->dll, &u->dlm};
    for (size_t i = 0; i < sizeof(registers) / sizeof(registers[0]); i++)
        state_u8(s, "register", registers[i]);
    state_bool(s, "overrun", &u->overrun);
    state_bool(s, "thre_pending", &u->thre_pending);
    state_count(s, "characters", &u->n, UART_FIFO_BYTES);
    state_bytes(s, "data", u->data, sizeof(u->data));
    state_bytes(s, "errors", u->errors, sizeof(u->errors));
    state_section_end(s);
    if (state_is_loading(s))
        check_loaded(u, s);
    bool failed = state_failed(s);
    if (failed && state_is_loading(s))
        power_on(u);
    if (state_is_loading(s))
        update_irq(u);
    pthread_mutex_unlock(&u->lock);
    return failed ? -EINVAL : 0;
}
