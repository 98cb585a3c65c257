// trivet net graph: the networks with their ports and machines, as a picture (SVG 1.1): devices above, machines below.
#include "control/cleanup.h"
#include "control/command/net.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define UNIT 150 // of a column, in pixels
#define BOX_WIDTH 130
#define BOX_HEIGHT 40
#define PORT_Y 30
#define NETWORK_Y 150
#define MACHINE_Y 290
#define HEIGHT 350

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

// Names of devices and paths may hold anything.
static void print_escaped(FILE *out, const char *word)
{
    for (; *word; word++) {
        if (*word == '<')
            fputs("&lt;", out);
        else if (*word == '&')
            fputs("&amp;", out);
        else if (*word == '"')
            fputs("&quot;", out);
        else if ((unsigned char)*word >= ' ')
            fputc(*word, out);
    }
}

static void print_text(FILE *out, double x, double y, const char *style, const char *word)
{
    fprintf(out, "<text x=\"%.0f\" y=\"%.0f\" class=\"%s\">", x, y, style);
    print_escaped(out, word);
    fputs("</text>\n", out);
}

static void print_box(FILE *out, double x, double y, double width, const char *style, const char *name, const char *what)
{
    fprintf(out, "<rect x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%d\" rx=\"6\" class=\"%s\"/>\n", x - width / 2, y, width,
            BOX_HEIGHT, style);
    print_text(out, x, y + 17, "name", name);
    print_text(out, x, y + 32, "what", what);
}

static void print_line(FILE *out, double x1, double y1, double x2, double y2, const char *style)
{
    fprintf(out, "<line x1=\"%.0f\" y1=\"%.0f\" x2=\"%.0f\" y2=\"%.0f\" class=\"%s\"/>\n", x1, y1, x2, y2, style);
}

// --- where things are

static size_t n_ports(const json_t *network)
{
    return json_array_size(json_object_get(json_object_get(network, "spec"), "ports"));
}

static size_t span(const json_t *network)
{
    const size_t n = n_ports(network);
    return n ? n : 1;
}

static double middle_of(const json_t *networks, size_t which)
{
    size_t before = 0;
    for (size_t i = 0; i < which; i++)
        before += span(json_array_get(networks, i));
    return UNIT * ((double)before + (double)span(json_array_get(networks, which)) / 2);
}

// Each machine once, however many networks it is in: in the order in which they are met.
static json_t *list_machines(const json_t *networks)
{
    json_t *machines = json_object(), *network, *machine;
    size_t i, j;
    json_array_foreach(networks, i, network)
    {
        json_array_foreach(json_object_get(network, "machines"), j, machine)
        {
            if (!json_object_get(machines, text(machine, "name")))
                json_object_set(machines, text(machine, "name"), machine);
        }
    }
    return machines;
}

static double place_of(const json_t *machines, const char *name, double width)
{
    const char *key;
    json_t *machine;
    size_t i = 0;
    const size_t n = json_object_size(machines);
    json_object_foreach((json_t *)machines, key, machine)
    {
        if (strcmp(key, name) == 0)
            break;
        i++;
    }
    return width / (double)n * ((double)i + 0.5);
}

// --- drawing

static const char *what_is_behind(const json_t *port)
{
    static const char *const keys[] = {"device", "remote", "address", "socket", NULL};
    for (const char *const *k = keys; *k; k++)
        if (json_object_get(port, *k))
            return text(port, *k);
    return "";
}

static void draw_ports(FILE *out, const json_t *networks, size_t which)
{
    const json_t *network = json_array_get(networks, which);
    const double middle = middle_of(networks, which), left = middle - UNIT * (double)span(network) / 2;
    size_t i;
    json_t *port;
    char what[64];
    json_array_foreach(json_object_get(json_object_get(network, "spec"), "ports"), i, port)
    {
        const double x = left + UNIT * ((double)i + 0.5);
        const char *behind = what_is_behind(port);
        snprintf(what, sizeof(what), "%s%s%.20s", text(port, "kind"), *behind ? " " : "", behind);
        print_line(out, x, PORT_Y + BOX_HEIGHT, middle, NETWORK_Y, "cable");
        print_box(out, x, PORT_Y, BOX_WIDTH, "port", text(port, "name"), what);
    }
}

static void draw_network(FILE *out, const json_t *networks, size_t which)
{
    const json_t *network = json_array_get(networks, which), *prefixes = json_object_get(network, "prefixes");
    char what[80];
    snprintf(what, sizeof(what), "%s%s%.40s", text(network, "type"), json_array_size(prefixes) ? " " : "",
             json_array_size(prefixes) ? json_string_value(json_array_get(prefixes, 0)) : "");
    print_box(out, middle_of(networks, which), NETWORK_Y, UNIT * (double)span(network) - 20,
              strcmp(text(network, "state"), "up") == 0 ? "network" : "network down", text(network, "name"), what);
    if (json_object_get(network, "tenant"))
        print_text(out, middle_of(networks, which), NETWORK_Y + BOX_HEIGHT + 14, "what", text(network, "tenant"));
}

static void draw_places(FILE *out, const json_t *networks, size_t which, const json_t *machines, double width)
{
    size_t i;
    json_t *machine;
    const double middle = middle_of(networks, which);
    json_array_foreach(json_object_get(json_array_get(networks, which), "machines"), i, machine)
    {
        const double x = place_of(machines, text(machine, "name"), width);
        const json_t *addresses = json_object_get(machine, "addresses");
        const char *label = json_array_size(addresses) ? json_string_value(json_array_get(addresses, 0)) : text(machine, "mac");
        print_line(out, middle, NETWORK_Y + BOX_HEIGHT, x, MACHINE_Y, "cable");
        print_text(out, middle + (x - middle) * 0.72, NETWORK_Y + BOX_HEIGHT + (MACHINE_Y - NETWORK_Y - BOX_HEIGHT) * 0.72, "what",
                   label);
    }
}

static void draw(FILE *out, const json_t *networks)
{
    cleanup_json json_t *machines = list_machines(networks);
    const size_t n = json_array_size(networks);
    size_t columns = 0;
    const char *name;
    json_t *machine;
    for (size_t i = 0; i < n; i++)
        columns += span(json_array_get(networks, i));
    if (columns < json_object_size(machines))
        columns = json_object_size(machines);
    const double width = UNIT * (double)(columns ? columns : 1);
    fprintf(out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%d\" viewBox=\"0 0 %.0f %d\">\n"
            "<style>text{font-family:sans-serif;text-anchor:middle}.name{font-size:13px;font-weight:bold}.what{font-size:10px;fill:"
            "#555}"
            "rect{stroke:#444}.network{fill:#cfe3f7}.down{fill:#f2c9c4}.port{fill:#eee}.machine{fill:#d6efd0}.off{fill:#fff}"
            ".cable{stroke:#888;stroke-width:1.5}</style>\n",
            width, HEIGHT, width, HEIGHT);
    for (size_t i = 0; i < n; i++) {
        draw_places(out, networks, i, machines, width);
        draw_ports(out, networks, i);
        draw_network(out, networks, i);
    }
    json_object_foreach(machines, name, machine)
    {
        const bool runs = json_is_true(json_object_get(machine, "running"));
        print_box(out, place_of(machines, name, width), MACHINE_Y, BOX_WIDTH, runs ? "machine" : "machine off", name,
                  runs ? "running" : "not running");
    }
    fputs("</svg>\n", out);
}

// All, or the one that was named, with what `net show` tells.
static int read_networks(const struct net_command *c, json_t *networks, struct tv_error *err)
{
    cleanup_json json_t *list = NULL;
    size_t i;
    json_t *one;
    int rc = c->n_words ? 0 : net_ask("net.list", NULL, NULL, &list, err);
    if (c->n_words)
        list = json_pack("{s:[{s:s}]}", "networks", "name", c->words[0]);
    json_array_foreach(json_object_get(list, "networks"), i, one)
    {
        json_t *network = NULL;
        if (!rc)
            rc = net_ask("net.get", text(one, "name"), NULL, &network, err);
        if (network)
            json_array_append_new(networks, network);
    }
    return rc;
}

int net_graph(const struct net_command *c)
{
    struct tv_error err = {0};
    cleanup_json json_t *networks = json_array();
    if (read_networks(c, networks, &err))
        return net_failed(c, &err);
    const bool to_file = c->output && strcmp(c->output, "-") != 0;
    FILE *out = to_file ? fopen(c->output, "we") : stdout;
    if (out)
        draw(out, networks);
    if (!out || fflush(out) || ferror(out) || (to_file && fclose(out))) {
        tv_error_set(&err, -errno, "%s: cannot be written: %s", to_file ? c->output : "standard output", strerror(errno));
        return net_failed(c, &err);
    }
    return EXIT_OK;
}
