// Load on a guest's network, in the guest: a stream of TCP, or small packets of UDP, and what came of it, by the guest's clock.
//
//   netload sink PORT             receives whatever comes by TCP and UDP
//   netload stream ADDRESS PORT   one connection that always has something to send
//   netload flood ADDRESS PORT    packets of UDP that are 64 bytes as frames (with the frame check sequence), as fast as they go
//   netload rate DEVICE SECONDS   prints "RATE bits packets", a second, as received by the device meanwhile
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256 * 1024)
#define PAYLOAD (64 - 4 - 14 - 20 - 8) // frame check sequence, Ethernet, IPv4, UDP
#define BATCH 64

static char buffer[CHUNK];

static void need(long long r, const char *what)
{
    if (r < 0) {
        perror(what);
        exit(1);
    }
}

static struct sockaddr_in address_of(const char *address, const char *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    inet_pton(AF_INET, address, &a.sin_addr);
    return a;
}

static void sink(const char *port)
{
    const struct sockaddr_in any = address_of("0.0.0.0", port);
    const int udp = socket(AF_INET, SOCK_DGRAM, 0), tcp = socket(AF_INET, SOCK_STREAM, 0);
    need(bind(udp, (const struct sockaddr *)&any, sizeof(any)), "bind"); // full: the rest is counted by the device, and dropped
    need(bind(tcp, (const struct sockaddr *)&any, sizeof(any)), "bind");
    need(listen(tcp, 1), "listen");
    puts("READY");
    fflush(stdout);
    for (;;) {
        const int connection = accept(tcp, NULL, NULL);
        while (read(connection, buffer, sizeof(buffer)) > 0)
            ;
        close(connection);
    }
}

static void stream(const char *address, const char *port)
{
    const struct sockaddr_in to = address_of(address, port);
    const int s = socket(AF_INET, SOCK_STREAM, 0);
    need(connect(s, (const struct sockaddr *)&to, sizeof(to)), "connect");
    for (;;)
        need(write(s, buffer, sizeof(buffer)), "write");
}

static void flood(const char *address, const char *port)
{
    const struct sockaddr_in to = address_of(address, port);
    struct iovec piece = {buffer, PAYLOAD};
    struct mmsghdr messages[BATCH];
    const int s = socket(AF_INET, SOCK_DGRAM, 0);
    need(connect(s, (const struct sockaddr *)&to, sizeof(to)), "connect");
    memset(messages, 0, sizeof(messages));
    for (int i = 0; i < BATCH; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &piece, .msg_iovlen = 1};
    for (;;)
        sendmmsg(s, messages, BATCH, 0); // that nobody reads there is not of interest
}

static double counter(const char *device, const char *what)
{
    char path[128];
    double n = 0;
    snprintf(path, sizeof(path), "/sys/class/net/%s/statistics/rx_%s", device, what);
    FILE *f = fopen(path, "r");
    if (!f || fscanf(f, "%lf", &n) != 1)
        need(-1, path);
    fclose(f);
    return n;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void rate(const char *device, const char *seconds)
{
    const double bytes = counter(device, "bytes"), packets = counter(device, "packets"), began = now();
    usleep((useconds_t)(atof(seconds) * 1e6));
    const double bytes_then = counter(device, "bytes"), packets_then = counter(device, "packets"), took = now() - began;
    printf("RATE %.0f %.0f\n", 8 * (bytes_then - bytes) / took, (packets_then - packets) / took);
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "sink"))
        sink(argv[2]);
    else if (argc == 4 && !strcmp(argv[1], "stream"))
        stream(argv[2], argv[3]);
    else if (argc == 4 && !strcmp(argv[1], "flood"))
        flood(argv[2], argv[3]);
    else if (argc == 4 && !strcmp(argv[1], "rate"))
        rate(argv[2], argv[3]);
    else
        fputs("usage: netload sink PORT | stream|flood ADDRESS PORT | rate DEVICE SECONDS\n", stderr);
    return 1;
}
