// TLS of NBD connections: what nbd_stream.c leaves to nbd_tls.c.
#pragma once

#include "store/front/nbd_stream.h"

void nbd_tls_end(struct nbd_stream *stream); // in clear is fine
ssize_t nbd_tls_receive(struct nbd_stream *stream, const struct iovec *iov, unsigned n_iov);
ssize_t nbd_tls_send(struct nbd_stream *stream, const struct iovec *iov, unsigned n_iov);
