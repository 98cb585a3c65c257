// virtio-rng (virtio 1.2, section 5.4): random numbers from the host's getrandom(2). On the loop's thread.
//
// A guest that asks for more than ROUND_BYTES at once gets it in several rounds of the loop, so that it does not keep the machine's
// other devices waiting.
#include "machine/device/virtio_pci.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

enum { CLASS_OTHERS = 0xff0000 };
enum { CHUNK_BYTES = 4096, ROUND_BYTES = 65536 };

struct virtio_rng {
    struct virtio_pci *vp;
};

// At most CHUNK_BYTES of a buffer: what is given back may be shorter than what was offered (5.4.6.1).
static uint32_t fill(const struct virtq_chain *chain)
{
    uint8_t bytes[CHUNK_BYTES];
    size_t want = chain->len_in_bytes < sizeof(bytes) ? chain->len_in_bytes : sizeof(bytes);
    ssize_t got = getrandom(bytes, want, 0);
    return got > 0 ? (uint32_t)virtq_chain_write(chain, 0, bytes, (size_t)got) : 0;
}

static void notified(void *dev, unsigned index)
{
    struct virtio_rng *rng = dev;
    struct virtqueue *vq = virtio_pci_queue(rng->vp, index);
    struct virtq_chain chain;
    unsigned budget = ROUND_BYTES / CHUNK_BYTES;
    while (budget > 0 && virtqueue_pop(vq, &chain) == 1) {
        virtqueue_push(vq, chain.head, fill(&chain));
        budget--;
    }
    if (budget < ROUND_BYTES / CHUNK_BYTES)
        virtio_pci_push(rng->vp, index);
    if (budget == 0)
        virtio_pci_notify_again(rng->vp, index);
}

static void reset(void *dev)
{
    (void)dev; // it remembers nothing
}

static int save_or_load(void *dev, struct state *s)
{
    (void)dev;
    return state_failed(s) ? -EINVAL : 0;
}

static const struct virtio_ops ops = {.name = "virtio-rng",
                                      .device_type = VIRTIO_ID_RNG,
                                      .class_code = CLASS_OTHERS,
                                      .notified = notified,
                                      .reset = reset,
                                      .state = save_or_load,
                                      .destroy = free};

struct virtio_rng *virtio_rng_add(const struct device_home *home, struct tv_error *err)
{
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    if (!rng) {
        tv_error_set(err, -ENOMEM, "no memory for the random number device");
        return NULL;
    }
    const struct virtio_pci_config config = {.home = *home, .ops = &ops, .dev = rng, .n_queues = 1};
    rng->vp = virtio_pci_create(&config, err);
    if (!rng->vp) {
        free(rng);
        return NULL;
    }
    return rng;
}
