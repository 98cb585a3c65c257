// Bounded lock-free rings of pointers between threads: one producer (SPSC) or many (MPSC), one consumer.
//
// Capacity is a power of two, memory is taken at creation only. Push fails when the ring is full, pop when it is empty; neither
// waits, and waking a consumer that sleeps is the caller's (an eventfd). What was written before a push is seen after the pop that
// got it. Pointers must not be NULL. Destroying needs all threads to have left; what is still in the ring is the caller's.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct spsc_ring;
struct mpsc_ring;

// NULL without memory, or when capacity is not a power of two from 2 to 2^31.
struct spsc_ring *spsc_ring_create(size_t capacity);
void spsc_ring_destroy(struct spsc_ring *ring);
bool spsc_ring_push(struct spsc_ring *ring, void *item); // the producer
void *spsc_ring_pop(struct spsc_ring *ring);             // the consumer; NULL: empty
size_t spsc_ring_pop_many(struct spsc_ring *ring, void **items, size_t max);

// A producer that stops in the middle of a push hides what others pushed behind it until it goes on; nobody else waits for it.
struct mpsc_ring *mpsc_ring_create(size_t capacity);
void mpsc_ring_destroy(struct mpsc_ring *ring);
bool mpsc_ring_push(struct mpsc_ring *ring, void *item); // any thread
void *mpsc_ring_pop(struct mpsc_ring *ring);             // the consumer; NULL: empty
