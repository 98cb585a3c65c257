// The bytes of an NBD connection: see nbd_stream.h. TLS is in nbd_tls.c.
#include "store/front/nbd_tls.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

void nbd_stream_close(struct nbd_stream *stream)
{
    nbd_tls_end(stream);
    if (stream->fd >= 0)
        close(stream->fd);
    stream->fd = -1;
}

ssize_t nbd_stream_receive(struct nbd_stream *stream, const struct iovec *iov, unsigned n_iov)
{
    if (stream->session)
        return nbd_tls_receive(stream, iov, n_iov);
    const struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n_iov};
    ssize_t n = n_iov == 1 ? recv(stream->fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT)
                           : recvmsg(stream->fd, (struct msghdr *)&message, MSG_DONTWAIT);
    return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}

ssize_t nbd_stream_send(struct nbd_stream *stream, const struct iovec *iov, unsigned n_iov)
{
    if (stream->session)
        return nbd_tls_send(stream, iov, n_iov);
    const struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n_iov};
    ssize_t n = sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}

bool nbd_stream_has_input(const struct nbd_stream *stream)
{
    return stream->session && gnutls_record_check_pending(stream->session);
}

bool nbd_stream_has_output(const struct nbd_stream *stream)
{
    return stream->record_len;
}
