// TLS of NBD connections by GnuTLS: see nbd_stream.h. Credentials come as texts, so that nothing is opened here. TLS 1.2 and 1.3
// ("Security considerations": 1.2 must be there, older ones should not).
#include "store/front/nbd_tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
#define PRIORITIES_PSK PRIORITIES ":+ECDHE-PSK:+DHE-PSK:+PSK"
#define KEY_BYTES_MAX 64u // of a pre-shared one
#define KEY_BYTES_MIN 16u

// ---- pre-shared keys: lines of "name:key in hexadecimal", as psktool(1) writes them ----

static const char *find_key(const char *lines, const char *name, size_t *hex_len)
{
    const size_t name_len = strlen(name);
    for (const char *line = lines; *line;) {
        const size_t len = strcspn(line, "\r\n");
        if (len > name_len && !strncmp(line, name, name_len) && line[name_len] == ':') {
            *hex_len = len - name_len - 1;
            return line + name_len + 1;
        }
        line += len;
        line += strspn(line, "\r\n");
    }
    return NULL;
}

// The session's pointer is its credentials. Negative: such a client is not known.
static int on_psk(gnutls_session_t session, const char *name, gnutls_datum_t *key)
{
    const struct nbd_credentials *credentials = gnutls_session_get_ptr(session);
    size_t len = 0;
    const char *hex = find_key(credentials->keys, name, &len);
    if (!hex)
        return -1;
    const gnutls_datum_t text = {(unsigned char *)hex, (unsigned)len};
    return gnutls_hex_decode2(&text, key) < 0 ? -1 : 0;
}

static int check_keys(const char *lines, struct tv_error *err)
{
    unsigned n = 0;
    for (const char *line = lines; *line;) {
        n++;
        const size_t len = strcspn(line, "\r\n"), name_len = strcspn(line, ":\r\n");
        const size_t hex_len = len > name_len ? len - name_len - 1 : 0;
        if (!name_len || hex_len % 2 || hex_len < 2 * KEY_BYTES_MIN || hex_len > 2 * KEY_BYTES_MAX ||
            strspn(line + name_len + 1, "0123456789abcdefABCDEF") < hex_len)
            return tv_error_set(err, -EINVAL, "TLS: pre-shared key %u: must be NAME:KEY, the key %u to %u bytes in hexadecimal", n,
                                KEY_BYTES_MIN, KEY_BYTES_MAX);
        line += len;
        line += strspn(line, "\r\n");
    }
    return n ? 0 : tv_error_set(err, -EINVAL, "TLS: the pre-shared keys are none; psktool(1) makes them");
}

// ---- credentials ----

static gnutls_datum_t datum(const char *text)
{
    return (gnutls_datum_t){(unsigned char *)text, (unsigned)strlen(text)};
}

static int load_certificate(struct nbd_credentials *credentials, const struct store_nbd_config *config, struct tv_error *err)
{
    if (!config->certificate || !config->key)
        return tv_error_set(err, -EINVAL, "TLS: a certificate and its key are needed together, and a CA's goes beside them alone");
    int r = gnutls_certificate_allocate_credentials(&credentials->certificate);
    const gnutls_datum_t certificate = datum(config->certificate), key = datum(config->key);
    if (r >= 0)
        r = gnutls_certificate_set_x509_key_mem(credentials->certificate, &certificate, &key, GNUTLS_X509_FMT_PEM);
    if (r < 0)
        return tv_error_set(err, -EINVAL, "TLS: certificate and key: %s; they should be a pair, in PEM", gnutls_strerror(r));
    if (!config->ca)
        return 0;
    const gnutls_datum_t ca = datum(config->ca);
    r = gnutls_certificate_set_x509_trust_mem(credentials->certificate, &ca, GNUTLS_X509_FMT_PEM);
    if (r <= 0)
        return tv_error_set(err, -EINVAL, "TLS: the CA's certificate: %s; it should be in PEM",
                            r ? gnutls_strerror(r) : "there is none in it");
    credentials->wants_client_certificate = true;
    return 0;
}

static int load_psk(struct nbd_credentials *credentials, const struct store_nbd_config *config, struct tv_error *err)
{
    int r = check_keys(config->psk, err);
    if (r)
        return r;
    credentials->keys = strdup(config->psk);
    if (!credentials->keys || gnutls_psk_allocate_server_credentials(&credentials->psk) < 0)
        return tv_error_set(err, -ENOMEM, "TLS: out of memory");
    gnutls_psk_set_server_credentials_function(credentials->psk, on_psk);
    return 0;
}

static int load(struct nbd_credentials *credentials, const struct store_nbd_config *config, struct tv_error *err)
{
    int r = 0;
    if (config->certificate || config->key || config->ca)
        r = load_certificate(credentials, config, err);
    if (!r && config->psk)
        r = load_psk(credentials, config, err);
    if (!r && !credentials->certificate && !credentials->psk)
        r = tv_error_set(err, -EINVAL, "TLS: wants certificate and key, or pre-shared keys");
    if (r)
        return r;
    r = gnutls_priority_init(&credentials->priority, config->psk ? PRIORITIES_PSK : PRIORITIES, NULL);
    return r < 0 ? tv_error_set(err, -EINVAL, "TLS: priorities: %s", gnutls_strerror(r)) : 0;
}

struct nbd_credentials *nbd_credentials_create(const struct store_nbd_config *config, struct tv_error *err)
{
    struct nbd_credentials *credentials = calloc(1, sizeof(*credentials));
    if (!credentials) {
        tv_error_set(err, -ENOMEM, "TLS: out of memory");
        return NULL;
    }
    if (!load(credentials, config, err))
        return credentials;
    nbd_credentials_destroy(credentials);
    return NULL;
}

void nbd_credentials_destroy(struct nbd_credentials *credentials)
{
    if (!credentials)
        return;
    if (credentials->certificate)
        gnutls_certificate_free_credentials(credentials->certificate);
    if (credentials->psk)
        gnutls_psk_free_server_credentials(credentials->psk);
    if (credentials->priority)
        gnutls_priority_deinit(credentials->priority);
    if (credentials->keys)
        explicit_bzero(credentials->keys, strlen(credentials->keys));
    free(credentials->keys);
    free(credentials);
}

// ---- a session ----

static int set_up(struct nbd_stream *stream, const struct nbd_credentials *credentials)
{
    gnutls_session_t session = stream->session;
    gnutls_session_set_ptr(session, (void *)credentials);
    int r = gnutls_priority_set(session, credentials->priority);
    if (r >= 0 && credentials->certificate)
        r = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials->certificate);
    if (r >= 0 && credentials->psk)
        r = gnutls_credentials_set(session, GNUTLS_CRD_PSK, credentials->psk);
    if (credentials->wants_client_certificate) {
        gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
        gnutls_session_set_verify_cert(session, NULL, 0);
    }
    gnutls_transport_set_int(session, stream->fd);
    return r;
}

int nbd_stream_start_tls(struct nbd_stream *stream, const struct nbd_credentials *credentials)
{
    stream->record = malloc(NBD_RECORD_BYTES);
    if (!stream->record ||
        gnutls_init(&stream->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS) < 0) {
        stream->session = NULL;
        return -ENOMEM;
    }
    return set_up(stream, credentials) < 0 ? -ENOMEM : 0;
}

int nbd_stream_shake_hands(struct nbd_stream *stream, bool *wants_output, const char **why)
{
    int r;
    do {
        r = gnutls_handshake(stream->session);
    } while (r < 0 && r != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(r));
    *wants_output = gnutls_record_get_direction(stream->session);
    if (!r)
        return 0;
    *why = gnutls_strerror(r);
    return r == GNUTLS_E_AGAIN ? -EAGAIN : -EPROTO;
}

void nbd_tls_end(struct nbd_stream *stream)
{
    if (stream->session) {
        if (!stream->record_len)
            gnutls_bye(stream->session, GNUTLS_SHUT_WR);
        gnutls_deinit(stream->session);
    }
    stream->session = NULL;
    free(stream->record);
    stream->record = NULL;
    stream->record_len = 0;
}

// ---- records ----

static ssize_t receive_record(struct nbd_stream *stream, const struct iovec *iov)
{
    const ssize_t r = gnutls_record_recv(stream->session, iov->iov_base, iov->iov_len);
    if (r >= 0)
        return r;
    return r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED ? -EAGAIN : -EPROTO; // a second handshake is refused too
}

ssize_t nbd_tls_receive(struct nbd_stream *stream, const struct iovec *iov, unsigned n_iov)
{
    ssize_t taken = 0;
    for (unsigned i = 0; i < n_iov; i++) {
        struct iovec piece = iov[i];
        while (piece.iov_len) {
            const ssize_t r = receive_record(stream, &piece);
            if (r <= 0)
                return taken ? taken : r; // what is wrong will be so the next time
            taken += r;
            piece.iov_base = (uint8_t *)piece.iov_base + r;
            piece.iov_len -= (size_t)r;
        }
    }
    return taken;
}

// Fills the record with what lies from `skip` bytes on.
static void gather(struct nbd_stream *stream, const struct iovec *iov, unsigned n_iov, size_t skip)
{
    for (unsigned i = 0; i < n_iov && stream->record_len < NBD_RECORD_BYTES; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        const size_t there = iov[i].iov_len - skip, room = NBD_RECORD_BYTES - stream->record_len;
        const size_t len = there < room ? there : room;
        memcpy(stream->record + stream->record_len, (const uint8_t *)iov[i].iov_base + skip, len);
        stream->record_len += len;
        skip = 0;
    }
}

ssize_t nbd_tls_send(struct nbd_stream *stream, const struct iovec *iov, unsigned n_iov)
{
    size_t taken = 0;
    for (;;) {
        if (!stream->record_len) {
            gather(stream, iov, n_iov, taken);
            taken += stream->record_len;
        }
        if (!stream->record_len)
            return (ssize_t)taken;
        // Of one that did not go, GnuTLS wants the same again.
        const ssize_t r = gnutls_record_send(stream->session, stream->record, stream->record_len);
        if (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED)
            return taken ? (ssize_t)taken : -EAGAIN;
        if (r < 0)
            return -EPIPE;
        // Less when the other end takes smaller records.
        stream->record_len -= (size_t)r;
        memmove(stream->record, stream->record + r, stream->record_len);
    }
}
