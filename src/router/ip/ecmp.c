// Several next hops: see ecmp.h.
#include "router/ip/ecmp.h"

unsigned ecmp_n_buckets(unsigned n_members)
{
    return n_members <= 16 ? 64 : 256;
}

static int find_member(const uint16_t *members, unsigned n_members, uint16_t member)
{
    for (unsigned i = 0; i < n_members; i++)
        if (members[i] == member)
            return (int)i;
    return -1;
}

// What is not a member's, or more than its share, is nobody's.
static void vacate(uint16_t *buckets, unsigned n_buckets, const uint16_t *members, unsigned n_members, unsigned *has)
{
    unsigned more = n_buckets % n_members; // as many may have one more
    for (unsigned i = 0; i < n_members; i++)
        has[i] = 0;
    for (unsigned b = 0; b < n_buckets; b++) {
        const int m = find_member(members, n_members, buckets[b]);
        const unsigned share = n_buckets / n_members;
        if (m < 0 || has[m] > share || (has[m] == share && !more)) {
            buckets[b] = ECMP_NONE;
            continue;
        }
        more -= has[m] == share;
        has[m]++;
    }
}

void ecmp_assign(uint16_t *buckets, unsigned n_buckets, const uint16_t *members, unsigned n_members)
{
    unsigned has[ECMP_MEMBERS_MAX];
    vacate(buckets, n_buckets, members, n_members, has);
    for (unsigned b = 0; b < n_buckets; b++) {
        unsigned least = 0;
        for (unsigned i = 1; buckets[b] == ECMP_NONE && i < n_members; i++)
            if (has[i] < has[least])
                least = i;
        if (buckets[b] == ECMP_NONE) {
            buckets[b] = members[least];
            has[least]++;
        }
    }
}
