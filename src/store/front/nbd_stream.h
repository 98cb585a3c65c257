// The bytes of an NBD connection, in clear or by TLS (GnuTLS), never blocking. The store's thread.
#pragma once

#include "base/error.h"
#include "store/store.h"

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

// What a server shows of itself by TLS, and what it wants to see.
struct nbd_credentials {
    gnutls_certificate_credentials_t certificate; // NULL: none
    gnutls_psk_server_credentials_t psk;          // NULL: none
    gnutls_priority_t priority;
    bool wants_client_certificate;
    char *keys; // pre-shared ones: the lines of `psk`
};

struct nbd_credentials *nbd_credentials_create(const struct store_nbd_config *config, struct tv_error *err);
void nbd_credentials_destroy(struct nbd_credentials *credentials); // NULL is fine; no session is left

#define NBD_RECORD_BYTES 16384u // TLS: the most that a record holds (RFC 8446, section 5.1)

struct nbd_stream {
    int fd;
    gnutls_session_t session; // NULL: in clear
    // TLS: bytes that were taken from the caller and are not sent yet
    uint8_t *record;
    size_t record_len;
};

void nbd_stream_close(struct nbd_stream *stream); // says good-bye by TLS, if that goes at once
// All of them: bytes (of receive 0: the other end has closed), -EAGAIN, or another -errno: it is over.
ssize_t nbd_stream_receive(struct nbd_stream *stream, const struct iovec *iov, unsigned n_iov);
ssize_t nbd_stream_send(struct nbd_stream *stream, const struct iovec *iov, unsigned n_iov);
bool nbd_stream_has_input(const struct nbd_stream *stream); // which no event of the descriptor will tell of
bool nbd_stream_has_output(const struct nbd_stream *stream);

// TLS from here on. After that nbd_stream_shake_hands() until it gives 0: -EAGAIN means when the descriptor can be read, or, if
// *wants_output, written.
int nbd_stream_start_tls(struct nbd_stream *stream, const struct nbd_credentials *credentials);
int nbd_stream_shake_hands(struct nbd_stream *stream, bool *wants_output, const char **why);
