// What networks and their ports do, for metrics.h.
#include "control/look/metrics.h"

#include "control/look/metrics_text.h"

#include <stdbool.h>
#include <string.h>

struct subject {
    FILE *out;
    const json_t *network, *port; // port: NULL for what is of the whole
};

static void begin_sample(const struct subject *s, const char *metric)
{
    fprintf(s->out, "%s{", metric);
    metrics_label(s->out, "tenant", json_string_value(json_object_get(s->network, "tenant")));
    fputc(',', s->out);
    metrics_label(s->out, "network", json_string_value(json_object_get(s->network, "name")));
    if (!s->port)
        return;
    fputc(',', s->out);
    metrics_label(s->out, "port", json_string_value(json_object_get(s->port, "name")));
}

static void end_sample(const struct subject *s, const json_t *value)
{
    fprintf(s->out, "} %.15g\n", json_number_value(value));
}

// `key` of vn.stat, or of one of its ports. Samples of one metric stand together.
struct plain {
    const char *metric, *type, *help, *key, *direction;
};

static const struct plain of_networks[] = {
    {"trivet_network_buffers", "gauge", "Packets that the network may have on their way.", "buffers", NULL},
    {"trivet_network_buffers_used", "gauge", "Packets that it has on their way.", "buffers_used", NULL},
    {"trivet_network_cycles_total", "counter", "Cycles of a worker's time-stamp counter that the network has used.", "cycles",
     NULL},
    {"trivet_network_addresses", "gauge", "Addresses that a switch has learned.", "addresses", NULL},
    {"trivet_network_routes", "gauge", "Routes, by family.", "routes4", "ip4"},
    {"trivet_network_routes", "gauge", "", "routes6", "ip6"},
    {"trivet_network_neighbours", "gauge", "Neighbours that a router knows or asks for.", "neighbours", NULL},
};

static const struct plain of_ports[] = {
    {"trivet_network_port_packets_total", "counter", "Packets by direction, as the network sees it.", "received_packets",
     "received"},
    {"trivet_network_port_packets_total", "counter", "", "sent_packets", "sent"},
    {"trivet_network_port_bytes_total", "counter", "Bytes by direction, as the network sees it.", "received_bytes", "received"},
    {"trivet_network_port_bytes_total", "counter", "", "sent_bytes", "sent"},
    {"trivet_network_port_icmp_errors_total", "counter", "Errors of ICMP that a router sent for what came by the port.",
     "icmp_errors", NULL},
};

static void print_plain(const struct subject *s, const struct plain *p, const char *label)
{
    const json_t *value = json_object_get(s->port ? s->port : json_object_get(s->network, "stat"), p->key);
    if (!json_is_number(value))
        return;
    begin_sample(s, p->metric);
    if (p->direction) {
        fputc(',', s->out);
        metrics_label(s->out, label, p->direction);
    }
    end_sample(s, value);
}

static void print_plains(FILE *out, const json_t *networks, bool ports, const struct plain *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t j, k;
        json_t *network, *port;
        if (i == 0 || strcmp(list[i].metric, list[i - 1].metric) != 0)
            metrics_head(out, list[i].metric, list[i].type, list[i].help);
        json_array_foreach(networks, j, network)
        {
            struct subject s = {.out = out, .network = network};
            if (!ports)
                print_plain(&s, &list[i], "family");
            json_array_foreach(ports ? json_object_get(json_object_get(network, "stat"), "ports") : NULL, k, port)
            {
                s.port = port;
                print_plain(&s, &list[i], "direction");
            }
        }
    }
}

// Causes that there were: a series for each cause of each port would be mostly zeros.
static void print_drops(FILE *out, const json_t *networks)
{
    size_t i, j;
    json_t *network, *port, *value;
    const char *cause;
    metrics_head(out, "trivet_network_port_dropped_total", "counter", "Packets that came by the port and were dropped, by cause.");
    json_array_foreach(networks, i, network)
    {
        json_array_foreach(json_object_get(json_object_get(network, "stat"), "ports"), j, port)
        {
            const struct subject s = {.out = out, .network = network, .port = port};
            json_object_foreach(json_object_get(port, "drops"), cause, value)
            {
                if (!json_integer_value(value))
                    continue;
                begin_sample(&s, "trivet_network_port_dropped_total");
                fputc(',', out);
                metrics_label(out, "cause", cause);
                end_sample(&s, value);
            }
        }
    }
}

void metrics_print_networks(FILE *out, const json_t *networks)
{
    size_t i;
    json_t *network;
    metrics_head(out, "trivet_network_up", "gauge", "1 while the router has the network, 0 in any other state.");
    json_array_foreach(networks, i, network)
    {
        const char *state = json_string_value(json_object_get(network, "state"));
        const struct subject s = {.out = out, .network = network};
        begin_sample(&s, "trivet_network_up");
        fprintf(out, "} %d\n", state && strcmp(state, "up") == 0);
    }
    print_plains(out, networks, false, of_networks, sizeof(of_networks) / sizeof(of_networks[0]));
    print_plains(out, networks, true, of_ports, sizeof(of_ports) / sizeof(of_ports[0]));
    print_drops(out, networks);
}
