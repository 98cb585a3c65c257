// Floating point. Where a multiplication and an addition are to be one instruction the source says so (fma), and the compiler is
// told not to join others: so the last bit of every result is the same on every machine.
#include "kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t bits_of(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

uint64_t matmul(void)
{
    enum { N = 160, ROUNDS = 16 };
    double *a = need_memory(sizeof(double) * N * N), *b = need_memory(sizeof(double) * N * N),
           *c = need_memory(sizeof(double) * N * N);
    uint64_t state = 4, sum = 0;

    for (size_t i = 0; i < (size_t)N * N; i++) {
        a[i] = (double)(next_random(&state) >> 40) * 0x1p-24 - 0.5;
        b[i] = (double)(next_random(&state) >> 40) * 0x1p-24 - 0.5;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < N; i++)
            for (size_t j = 0; j < N; j++) {
                double product = 0;

                for (size_t k = 0; k < N; k++)
                    product = fma(a[i * N + k], b[k * N + j], product);
                c[i * N + j] = product;
            }
        for (size_t i = 0; i < (size_t)N * N; i++)
            a[i] = c[i] * 0.25;
    }
    for (size_t i = 0; i < (size_t)N * N; i++)
        sum = mix(sum, bits_of(c[i]));
    free(a);
    free(b);
    free(c);
    return sum;
}

struct body {
    double at[3], velocity[3], mass;
};

static void advance(struct body *bodies, size_t count, double dt)
{
    for (size_t i = 0; i < count; i++)
        for (size_t j = i + 1; j < count; j++) {
            double d[3], square = 0.01, pull;

            for (int x = 0; x < 3; x++) {
                d[x] = bodies[i].at[x] - bodies[j].at[x];
                square = square + d[x] * d[x];
            }
            pull = dt / (square * sqrt(square));
            for (int x = 0; x < 3; x++) {
                bodies[i].velocity[x] = fma(-d[x], bodies[j].mass * pull, bodies[i].velocity[x]);
                bodies[j].velocity[x] = fma(d[x], bodies[i].mass * pull, bodies[j].velocity[x]);
            }
        }
    for (size_t i = 0; i < count; i++)
        for (int x = 0; x < 3; x++)
            bodies[i].at[x] += dt * bodies[i].velocity[x];
}

uint64_t nbody(void)
{
    enum { BODIES = 5, STEPS = 500000 };
    struct body bodies[BODIES];
    uint64_t state = 5, sum = 0;

    for (size_t i = 0; i < BODIES; i++)
        for (int x = 0; x < 3; x++) {
            bodies[i].at[x] = (double)(next_random(&state) >> 40) * 0x1p-20;
            bodies[i].velocity[x] = (double)(next_random(&state) >> 40) * 0x1p-24 - 0.5;
            bodies[i].mass = 1.0 + (double)i;
        }
    for (int step = 0; step < STEPS; step++)
        advance(bodies, BODIES, 0.001);
    for (size_t i = 0; i < BODIES; i++)
        for (int x = 0; x < 3; x++)
            sum = mix(sum, bits_of(bodies[i].at[x]));
    return sum;
}

// In single precision.
uint64_t mandelbrot(void)
{
    enum { WIDTH = 320, HEIGHT = 240, MOST = 400 };
    uint64_t sum = 0;

    for (int row = 0; row < HEIGHT; row++)
        for (int column = 0; column < WIDTH; column++) {
            float cx = (float)column * (3.0f / WIDTH) - 2.2f, cy = (float)row * (2.4f / HEIGHT) - 1.2f, x = 0, y = 0;
            unsigned n = 0;

            while (n < MOST && x * x + y * y < 4.0f) {
                float next = fmaf(x, x, cx) - y * y;

                y = fmaf(x + x, y, cy);
                x = next;
                n++;
            }
            sum = mix(sum, n);
        }
    return sum;
}
