// TLS between a TCP socket and a plain one: see tls.h.
#include "router/peer/tls.h"

#include "base/clock.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
#define HANDSHAKE_NS (10 * NS_PER_S)
#define SILENCE_MS 15000 // after which an end that does not acknowledge is gone
#define RECORD_BYTES 16384

struct tls_credentials {
    gnutls_certificate_credentials_t certificate;
    gnutls_priority_t priority;
};

// What was read at one side, and is not written at the other yet.
struct buffer {
    size_t at, len;
    uint8_t bytes[RECORD_BYTES];
};

struct tls {
    struct loop *loop;
    int fd, plain; // plain: our end
    gnutls_session_t session;
    struct tls_events events;
    struct loop_source *fd_source, *plain_source, *timer;
    bool is_shaken, is_done; // is_done: what is at the timer is its end
    const char *why;
    struct buffer in, out;
};

// ---- credentials ----

static gnutls_datum_t datum(const char *text)
{
    return (gnutls_datum_t){(unsigned char *)text, (unsigned)strlen(text)};
}

static int load(struct tls_credentials *c, const char *certificate, const char *key, const char *ca, struct tv_error *err)
{
    const gnutls_datum_t pem = datum(certificate), key_pem = datum(key), ca_pem = datum(ca);
    if (gnutls_certificate_allocate_credentials(&c->certificate) < 0 || gnutls_priority_init(&c->priority, PRIORITIES, NULL) < 0)
        return tv_error_set(err, -ENOMEM, "TLS: out of memory");
    int r = gnutls_certificate_set_x509_key_mem(c->certificate, &pem, &key_pem, GNUTLS_X509_FMT_PEM);
    if (r < 0)
        return tv_error_set(err, -EINVAL, "TLS: certificate and key: %s; they should be a pair, in PEM", gnutls_strerror(r));
    r = gnutls_certificate_set_x509_trust_mem(c->certificate, &ca_pem, GNUTLS_X509_FMT_PEM);
    return r > 0 ? 0
                 : tv_error_set(err, -EINVAL, "TLS: the CA's certificate: %s; it should be in PEM",
                                r ? gnutls_strerror(r) : "there is none in it");
}

struct tls_credentials *tls_credentials_create(const char *certificate, const char *key, const char *ca, struct tv_error *err)
{
    struct tls_credentials *credentials = calloc(1, sizeof(*credentials));
    if (!credentials) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    if (!load(credentials, certificate, key, ca, err))
        return credentials;
    tls_credentials_destroy(credentials);
    return NULL;
}

void tls_credentials_destroy(struct tls_credentials *credentials)
{
    if (!credentials)
        return;
    if (credentials->certificate)
        gnutls_certificate_free_credentials(credentials->certificate);
    if (credentials->priority)
        gnutls_priority_deinit(credentials->priority);
    free(credentials);
}

bool tls_is_host(gnutls_session_t session, const uint8_t *address, unsigned n_bytes)
{
    unsigned n = 0;
    gnutls_x509_crt_t certificate;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(session, &n);
    if (!list || !n || gnutls_x509_crt_init(&certificate) < 0)
        return false;
    const bool is_host = gnutls_x509_crt_import(certificate, &list[0], GNUTLS_X509_FMT_DER) >= 0 &&
                         gnutls_x509_crt_check_ip(certificate, address, n_bytes, 0);
    gnutls_x509_crt_deinit(certificate);
    return is_host;
}

// ---- the end ----

static void dispose(struct tls *tls)
{
    loop_remove(tls->fd_source);
    loop_remove(tls->plain_source);
    loop_remove(tls->timer);
    if (tls->session)
        gnutls_deinit(tls->session);
    close(tls->fd);
    if (tls->plain >= 0)
        close(tls->plain);
    free(tls);
}

void tls_destroy(struct tls *tls)
{
    if (tls->is_shaken)
        gnutls_bye(tls->session, GNUTLS_SHUT_WR);
    dispose(tls);
}

// Not here, but from the loop: whoever called may still look at it.
static void end(struct tls *tls, const char *why)
{
    if (tls->is_done)
        return;
    tls->is_done = true;
    tls->why = why;
    loop_set_events(tls->fd_source, 0);
    if (tls->plain_source)
        loop_set_events(tls->plain_source, 0);
    loop_set_timer(tls->timer, 1, 0);
}

static void on_timer(void *arg)
{
    struct tls *tls = arg;
    if (tls->is_done && tls->is_shaken && !tls->why)
        gnutls_bye(tls->session, GNUTLS_SHUT_WR);
    tls->events.ended(tls->events.arg, tls, tls->is_done ? tls->why : "no hands were shaken in time");
    dispose(tls);
}

// ---- moving bytes ----

static bool is_again(ssize_t r)
{
    return r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED;
}

// From the plain end into a record. False: nothing more for now.
static bool move_out(struct tls *tls)
{
    struct buffer *b = &tls->out;
    if (!b->len) {
        const ssize_t n = recv(tls->plain, b->bytes, sizeof(b->bytes), MSG_DONTWAIT);
        if (n <= 0) {
            if (!n || (errno != EAGAIN && errno != EINTR))
                end(tls, NULL);
            return false;
        }
        b->at = 0;
        b->len = (size_t)n;
    }
    const ssize_t r = gnutls_record_send(tls->session, b->bytes + b->at, b->len);
    if (r < 0) {
        if (!is_again(r))
            end(tls, gnutls_strerror((int)r));
        return false;
    }
    b->at += (size_t)r;
    b->len -= (size_t)r;
    return true;
}

// From a record to the plain end. False: nothing more for now.
static bool move_in(struct tls *tls)
{
    struct buffer *b = &tls->in;
    if (!b->len) {
        const ssize_t n = gnutls_record_recv(tls->session, b->bytes, sizeof(b->bytes));
        if (n <= 0) {
            if (!is_again(n))
                end(tls, n ? gnutls_strerror((int)n) : "the other end has closed it");
            return false;
        }
        b->at = 0;
        b->len = (size_t)n;
    }
    const ssize_t r = send(tls->plain, b->bytes + b->at, b->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (r < 0) {
        if (errno != EAGAIN && errno != EINTR)
            end(tls, NULL);
        return false;
    }
    b->at += (size_t)r;
    b->len -= (size_t)r;
    return true;
}

static void move(struct tls *tls)
{
    while (!tls->is_done && move_out(tls))
        ;
    while (!tls->is_done && move_in(tls)) // ends when the plain end is full: it is emptied by another callback
        ;
    if (tls->is_done)
        return;
    loop_set_events(tls->fd_source, (tls->in.len ? 0u : (unsigned)EPOLLIN) | (tls->out.len ? (unsigned)EPOLLOUT : 0));
    loop_set_events(tls->plain_source, (tls->out.len ? 0u : (unsigned)EPOLLIN) | (tls->in.len ? (unsigned)EPOLLOUT : 0));
}

static void on_plain(void *arg, int fd, uint32_t events)
{
    (void)fd;
    (void)events;
    move(arg);
}

// ---- the handshake ----

static void establish(struct tls *tls)
{
    int ends[2];
    struct tv_error err = {0};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends)) {
        end(tls, strerror(errno));
        return;
    }
    tls->plain = ends[0];
    tls->plain_source = loop_add_fd(tls->loop, tls->plain, EPOLLIN, on_plain, tls, &err);
    if (!tls->plain_source) {
        close(ends[1]);
        end(tls, "out of memory");
        return;
    }
    tls->is_shaken = true;
    loop_set_timer(tls->timer, 0, 0);
    tls->events.established(tls->events.arg, tls, tls->session, ends[1]);
}

static void shake_hands(struct tls *tls)
{
    int r;
    do {
        r = gnutls_handshake(tls->session);
    } while (r < 0 && !is_again(r) && !gnutls_error_is_fatal(r));
    if (is_again(r))
        loop_set_events(tls->fd_source, gnutls_record_get_direction(tls->session) ? EPOLLOUT : EPOLLIN);
    else if (r < 0)
        end(tls, gnutls_strerror(r));
    else
        establish(tls);
}

static void on_fd(void *arg, int fd, uint32_t events)
{
    struct tls *tls = arg;
    int error = 0;
    socklen_t len = sizeof(error);
    if (!tls->is_shaken && events & (EPOLLERR | EPOLLHUP) && !getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) && error) {
        end(tls, strerror(error));
        return;
    }
    if (!tls->is_shaken)
        shake_hands(tls);
    if (tls->is_shaken)
        move(tls);
}

static int set_up(struct tls *tls, const struct tls_credentials *credentials, bool is_server)
{
    const unsigned flags = (is_server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS;
    const int on = 1, silence_ms = SILENCE_MS, idle_s = SILENCE_MS / 3000, n_probes = 2;
    setsockopt(tls->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(tls->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(tls->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(tls->fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle_s, sizeof(idle_s));
    setsockopt(tls->fd, IPPROTO_TCP, TCP_KEEPCNT, &n_probes, sizeof(n_probes));
    setsockopt(tls->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof(silence_ms));
    int r = gnutls_init(&tls->session, flags);
    if (r < 0) {
        tls->session = NULL;
        return -ENOMEM;
    }
    r = gnutls_priority_set(tls->session, credentials->priority);
    if (r >= 0)
        r = gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, credentials->certificate);
    if (is_server)
        gnutls_certificate_server_set_request(tls->session, GNUTLS_CERT_REQUIRE);
    gnutls_session_set_verify_cert(tls->session, NULL, 0); // whose it is is for whoever asked
    gnutls_transport_set_int(tls->session, tls->fd);
    return r < 0 ? -ENOMEM : 0;
}

struct tls *tls_create(struct loop *loop, int fd, const struct tls_credentials *credentials, bool is_server,
                       const struct tls_events *events, struct tv_error *err)
{
    struct tls *tls = calloc(1, sizeof(*tls));
    if (!tls) {
        close(fd);
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    tls->loop = loop;
    tls->fd = fd;
    tls->plain = -1;
    tls->events = *events;
    int r = set_up(tls, credentials, is_server);
    if (r)
        tv_error_set(err, r, "TLS: out of memory");
    tls->fd_source = r ? NULL : loop_add_fd(loop, fd, is_server ? EPOLLIN : EPOLLOUT, on_fd, tls, err);
    tls->timer = tls->fd_source ? loop_add_timer(loop, on_timer, tls, err) : NULL;
    if (!tls->timer) {
        dispose(tls);
        return NULL;
    }
    loop_set_timer(tls->timer, HANDSHAKE_NS, 0);
    return tls;
}
