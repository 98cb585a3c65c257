// Which of several next hops a flow takes: by its hash into buckets, each of which belongs to a next hop. When one goes, its
// buckets are given to the others and all other flows stay where they are; when one comes, it gets its share of buckets and takes
// no more flows than that (resilient hashing, as Linux' next-hop groups have it: networking/nexthop-group-resilient.rst).
#pragma once

#include <stdint.h>

#define ECMP_MEMBERS_MAX 64
#define ECMP_NONE 0 // no member's number

// A power of two, at least four for each.
unsigned ecmp_n_buckets(unsigned n_members);
// Buckets have a member's number each, or ECMP_NONE; they come as they were, and go so that each of n_members (1 to
// ECMP_MEMBERS_MAX, no two the same) has the same number of them, or one more. As few as possible change.
void ecmp_assign(uint16_t *buckets, unsigned n_buckets, const uint16_t *members, unsigned n_members);
