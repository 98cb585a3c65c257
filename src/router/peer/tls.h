// TLS over a connected TCP socket (GnuTLS, versions 1.2 and 1.3), with certificates at both ends. What comes out of it is a Unix
// stream socket, on which whoever has it speaks as if there were no TLS (rpc.h). The loop's thread.
#pragma once

#include "base/error.h"
#include "base/loop.h"

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stdint.h>

struct tls_credentials;

// From PEM texts: a certificate, its key, and that of who must have signed the other end's. NULL with err.
struct tls_credentials *tls_credentials_create(const char *certificate, const char *key, const char *ca, struct tv_error *err);
void tls_credentials_destroy(struct tls_credentials *credentials); // no session uses them; NULL is fine

// Whether the other end's certificate is for this address (a subjectAltName of the kind iPAddress, RFC 5280, 4.2.1.6).
bool tls_is_host(gnutls_session_t session, const uint8_t *address, unsigned n_bytes);

struct tls;

struct tls_events {
    // Hands are shaken and the certificate is one of the CA's; fd: the plain end, the callee's. The session is for looking only.
    void (*established)(void *arg, struct tls *tls, gnutls_session_t session, int fd);
    // It is over, for this reason (borrowed; NULL: the plain end was closed). The tls is freed after this.
    void (*ended)(void *arg, struct tls *tls, const char *why);
    void *arg;
};

// Takes fd, connected or about to be, non-blocking. NULL with err; fd is closed then, too.
struct tls *tls_create(struct loop *loop, int fd, const struct tls_credentials *credentials, bool is_server,
                       const struct tls_events *events, struct tv_error *err);
void tls_destroy(struct tls *tls); // at once, without `ended`
