// Metrics over HTTP: see metrics.h. One thread, the caller's: libmicrohttpd waits and answers in it.
#include "control/look/metrics.h"

#include "control/tool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 32u
#define IDLE_S 10u // a connection that says nothing for so long goes
#define WAIT_MS 200

struct server {
    char *(*make)(void *arg, size_t *len, struct tv_error *err);
    void *arg;
};

// "HOST:PORT", "[HOST]:PORT", "PORT" into the two; what stands in `text` is changed.
static int split(char *text, const char **host, const char **port)
{
    char *colon = strrchr(text, ':');
    *host = "127.0.0.1";
    *port = colon ? colon + 1 : text;
    if (colon && colon != text) {
        *colon = 0;
        *host = text;
        const size_t len = strlen(text);
        if (text[0] == '[' && text[len - 1] == ']') {
            text[len - 1] = 0;
            *host = text + 1;
        } else if (strchr(text, ':')) {
            return -EINVAL; // IPv6 without brackets: which colon is the port's?
        }
    }
    char *end;
    const long n = strtol(*port, &end, 10);
    return **port < '0' || **port > '9' || *end || n > 65535 || !**host ? -EINVAL : 0;
}

static int listen_at(const struct addrinfo *at)
{
    const int one = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0)
        return fd;
    const int rc = -errno;
    close(fd);
    return rc;
}

static int listen_on(const char *address, struct tv_error *err)
{
    char text[256];
    const char *host, *port;
    if (strlen(address) >= sizeof(text) || split(strcpy(text, address), &host, &port))
        return tv_error_set(err, -EINVAL, "--listen '%s': should be HOST:PORT, [IPv6]:PORT or PORT, such as 127.0.0.1:9469",
                            address);
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found;
    const int failed = getaddrinfo(host, port, &hints, &found);
    if (failed)
        return tv_error_set(err, -EINVAL, "--listen '%s': %s: %s", address, host, gai_strerror(failed));
    const int fd = listen_at(found);
    freeaddrinfo(found);
    return fd < 0 ? tv_error_set(err, fd, "--listen '%s': %s", address, strerror(-fd)) : fd;
}

static void say_where(int fd)
{
    struct sockaddr_storage at;
    socklen_t len = sizeof(at);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getsockname(fd, (struct sockaddr *)&at, &len) ||
        getnameinfo((struct sockaddr *)&at, len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
        return;
    printf(strchr(host, ':') ? "http://[%s]:%s/metrics\n" : "http://%s:%s/metrics\n", host, port);
    fflush(stdout);
}

// Takes the text.
static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status, const char *type, char *text, size_t len)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    const enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status, const char *why)
{
    char *text = NULL;
    const int len = asprintf(&text, "%s\n", why);
    return len < 0 ? MHD_NO : reply(connection, status, "text/plain; charset=utf-8", text, (size_t)len);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_len, void **state)
{
    const struct server *server = arg;
    (void)version, (void)upload, (void)upload_len;
    if (!*state) { // the head has come; the answer waits for the end of the request
        *state = (void *)server;
        return MHD_YES;
    }
    if (*upload_len) { // a body is of no use, and is let pass
        *upload_len = 0;
        return MHD_YES;
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD");
    if (strcmp(url, "/metrics") != 0)
        return refuse(connection, MHD_HTTP_NOT_FOUND, "there is nothing but /metrics");
    struct tv_error err = {0};
    size_t len = 0;
    char *text = server->make(server->arg, &len, &err);
    if (!text)
        return refuse(connection, MHD_HTTP_SERVICE_UNAVAILABLE, err.text);
    return reply(connection, MHD_HTTP_OK, METRICS_CONTENT_TYPE, text, len);
}

int metrics_serve(const char *address, char *(*make)(void *arg, size_t *len, struct tv_error *err), void *arg, struct tv_error *err)
{
    struct server server = {.make = make, .arg = arg};
    const int fd = listen_on(address, err);
    if (fd < 0)
        return fd;
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, &server, MHD_OPTION_LISTEN_SOCKET, fd,
                         MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S, MHD_OPTION_END);
    if (!daemon) {
        close(fd);
        return tv_error_set(err, -EIO, "--listen '%s': libmicrohttpd does not start", address);
    }
    say_where(fd);
    while (!tool_interrupted())
        MHD_run_wait(daemon, WAIT_MS);
    MHD_stop_daemon(daemon); // closes fd
    return 0;
}
