// In the manner of gzip: LZ77 with hash chains, a Huffman code made for the symbols that came out, bits packed into bytes; and back
// again, compared with what went in. The format is not DEFLATE's.
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

enum {
    TEXT = 1 << 18,
    WINDOW = 1 << 15,
    HASHES = 1 << 14,
    CHAIN = 16,
    SHORTEST = 4,
    LONGEST = 66,
    LENGTHS = LONGEST - SHORTEST + 1,
    SYMBOLS = 256 + LENGTHS, // a byte, or the length of a match; the distance follows in 15 bits
    LONGEST_CODE = 40,
};

struct code {
    uint8_t bits[SYMBOLS];
    uint64_t value[SYMBOLS];
};

struct bit_stream {
    uint8_t *bytes;
    uint64_t position; // in bits
};

static void put_bits(struct bit_stream *stream, uint64_t value, unsigned count)
{
    while (count--)
        stream->bytes[stream->position / 8] |= (uint8_t)((value >> count & 1) << stream->position % 8), stream->position++;
}

static unsigned get_bit(struct bit_stream *stream)
{
    unsigned bit = stream->bytes[stream->position / 8] >> stream->position % 8 & 1;

    stream->position++;
    return bit;
}

static uint8_t *make_text(void)
{
    uint8_t *text = need_memory(TEXT + LONGEST);
    char words[256][12];
    uint64_t state = 13;

    for (int i = 0; i < 256; i++) {
        uint64_t number = next_random(&state);
        int length = 2 + (int)(number >> 60) % 9;

        for (int at = 0; at < length; at++)
            words[i][at] = (char)('a' + (number >> at * 6 & 63) % 26);
        words[i][length] = 0;
    }
    for (size_t at = 0; at < TEXT;) {
        uint64_t number = next_random(&state);
        const char *word = words[(number & 255) * (number >> 8 & 255) / 255]; // some more often than others

        while (*word && at < TEXT)
            text[at++] = (uint8_t)*word++;
        if (at < TEXT)
            text[at++] = ' ';
    }
    return text;
}

static uint32_t hash(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof value);
    return value * 2654435761u >> 18;
}

// Symbols, each match's distance behind it; how many.
static size_t find_matches(const uint8_t *text, uint16_t *out)
{
    int32_t *head = need_memory(HASHES * sizeof *head), *previous = need_memory(WINDOW * sizeof *previous);
    size_t count = 0;

    memset(head, 0xff, HASHES * sizeof *head);
    for (size_t at = 0; at < TEXT;) {
        size_t best = 0, distance = 0, limit = TEXT - at < LONGEST ? TEXT - at : LONGEST, step;
        int32_t candidate = head[hash(text + at)];

        for (int tries = CHAIN; tries && candidate >= 0 && at - (size_t)candidate < WINDOW; tries--) {
            size_t length = 0;

            while (length < limit && text[(size_t)candidate + length] == text[at + length])
                length++;
            if (length > best) {
                best = length;
                distance = at - (size_t)candidate;
            }
            candidate = previous[candidate % WINDOW];
        }
        step = best >= SHORTEST ? best : 1;
        out[count++] = (uint16_t)(best >= SHORTEST ? 256 + best - SHORTEST : text[at]);
        if (best >= SHORTEST)
            out[count++] = (uint16_t)distance;
        for (; step; step--, at++) {
            uint32_t slot = hash(text + at);

            previous[at % WINDOW] = head[slot];
            head[slot] = (int32_t)at;
        }
    }
    free(head);
    free(previous);
    return count;
}

// Lengths by joining the two rarest again and again, values in canonical order (RFC 1951, 3.2.2).
static void make_code(struct code *code, const uint32_t frequency[static SYMBOLS])
{
    uint64_t weight[2 * SYMBOLS], next = 0;
    int parent[2 * SYMBOLS], nodes = SYMBOLS;

    for (int i = 0; i < SYMBOLS; i++)
        weight[i] = frequency[i] + 1u;
    for (int alive = SYMBOLS; alive > 1; alive--, nodes++) {
        int least[2] = {-1, -1};

        for (int i = 0; i < nodes; i++) {
            if (!weight[i])
                continue;
            if (least[0] < 0 || weight[i] < weight[least[0]]) {
                least[1] = least[0];
                least[0] = i;
            } else if (least[1] < 0 || weight[i] < weight[least[1]]) {
                least[1] = i;
            }
        }
        weight[nodes] = weight[least[0]] + weight[least[1]];
        parent[least[0]] = parent[least[1]] = nodes;
        weight[least[0]] = weight[least[1]] = 0;
    }
    for (int i = 0; i < SYMBOLS; i++) {
        code->bits[i] = 0;
        for (int at = i; at != nodes - 1; at = parent[at])
            code->bits[i]++;
    }
    for (unsigned bits = 1; bits <= LONGEST_CODE; bits++, next <<= 1)
        for (int i = 0; i < SYMBOLS; i++)
            if (code->bits[i] == bits)
                code->value[i] = next++;
}

static void encode(struct bit_stream *stream, const struct code *code, const uint16_t *symbols, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        put_bits(stream, code->value[symbols[i]], code->bits[symbols[i]]);
        if (symbols[i] >= 256) {
            i++;
            put_bits(stream, symbols[i], 15);
        }
    }
}

struct decoder {
    uint64_t first[LONGEST_CODE + 1]; // the first value of each length
    uint16_t index[LONGEST_CODE + 2], symbols[SYMBOLS];
};

static void make_decoder(struct decoder *decoder, const struct code *code)
{
    uint16_t at = 0;
    uint64_t value = 0;

    for (unsigned bits = 1; bits <= LONGEST_CODE; bits++) {
        value <<= 1;
        decoder->first[bits] = value;
        decoder->index[bits] = at;
        for (unsigned i = 0; i < SYMBOLS; i++)
            if (code->bits[i] == bits) {
                decoder->symbols[at++] = (uint16_t)i;
                value++;
            }
    }
    decoder->index[LONGEST_CODE + 1] = at;
}

static unsigned get_symbol(struct bit_stream *stream, const struct decoder *decoder)
{
    uint64_t value = 0;

    for (unsigned bits = 1; bits <= LONGEST_CODE; bits++) {
        value = value << 1 | get_bit(stream);
        if (value - decoder->first[bits] < (uint64_t)(decoder->index[bits + 1] - decoder->index[bits]))
            return decoder->symbols[decoder->index[bits] + (value - decoder->first[bits])];
    }
    need(0, "a code that is none");
    return 0;
}

static void decode(struct bit_stream *stream, const struct code *code, uint8_t *text)
{
    struct decoder decoder;

    make_decoder(&decoder, code);
    for (size_t at = 0; at < TEXT;) {
        unsigned symbol = get_symbol(stream, &decoder);
        size_t length = symbol - 256 + SHORTEST, distance = 0;

        if (symbol < 256) {
            text[at++] = (uint8_t)symbol;
            continue;
        }
        for (int bit = 0; bit < 15; bit++)
            distance = distance << 1 | get_bit(stream);
        need(distance != 0 && distance <= at && length <= TEXT - at, "a match that is none");
        for (; length; length--, at++)
            text[at] = text[at - distance];
    }
}

uint64_t gzip(void)
{
    enum { ROUNDS = 16 };
    uint8_t *text = make_text(), *again = need_memory(TEXT);
    uint16_t *symbols = need_memory(TEXT * sizeof *symbols + sizeof *symbols);
    struct bit_stream stream = {.bytes = need_memory(2 * TEXT)};
    uint64_t sum = 0;

    for (int round = 0; round < ROUNDS; round++) {
        uint32_t frequency[SYMBOLS] = {0};
        struct code code;
        size_t count = find_matches(text, symbols);

        for (size_t i = 0; i < count; i += symbols[i] >= 256 ? 2 : 1)
            frequency[symbols[i]]++;
        make_code(&code, frequency);
        memset(stream.bytes, 0, 2 * TEXT);
        stream.position = 0;
        encode(&stream, &code, symbols, count);
        for (size_t i = 0; i <= stream.position / 8; i += 61)
            sum = mix(sum, stream.bytes[i]);
        sum = mix(sum, stream.position);
        stream.position = 0;
        decode(&stream, &code, again);
        need(!memcmp(text, again, TEXT), "what was packed and unpacked is not the same");
        text[round] ^= 1;
    }
    free(text);
    free(again);
    free(symbols);
    free(stream.bytes);
    return sum;
}
