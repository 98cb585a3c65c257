// Pieces of Prometheus' text format, for metrics.c and metrics_net.c.
#pragma once

#include <stdio.h>

void metrics_label(FILE *out, const char *name, const char *value); // NULL is an empty value
void metrics_head(FILE *out, const char *metric, const char *type, const char *help);
