// Saved state: what is saved loads back; a stream that was cut, changed or made by hand is refused with its place named.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/state.h"

struct device {
    bool on;
    uint8_t a;
    uint16_t b;
    uint32_t c, n;
    uint64_t d, list[3];
    char name[5];
};

enum { N_MAX = 10 };

static void device_state(struct device *v, struct state *s, uint32_t version, uint32_t *found)
{
    *found = state_section_begin(s, "device", version);
    state_bool(s, "on", &v->on);
    state_u8(s, "a", &v->a);
    state_u16(s, "b", &v->b);
    state_section_begin(s, "inner", 1);
    state_u32(s, "c", &v->c);
    state_u64(s, "d", &v->d);
    state_section_end(s);
    state_u64_array(s, "list", v->list, 3);
    state_bytes(s, "name", v->name, sizeof(v->name));
    state_count(s, "n", &v->n, N_MAX);
    state_section_end(s);
}

static const struct device sample = {.on = true,
                                     .a = 0xa5,
                                     .b = 0xbeef,
                                     .c = 0xdeadbeef,
                                     .n = 7,
                                     .d = 0x0123456789abcdef,
                                     .list = {1, UINT64_MAX, 3},
                                     .name = "disk"};

static void *save(size_t *len, uint32_t version)
{
    struct device v = sample;
    struct state *s = state_create_save();
    assert_non_null(s);
    assert_false(state_is_loading(s));
    uint32_t found;
    device_state(&v, s, version, &found);
    assert_int_equal(found, version);
    void *buf = NULL;
    assert_int_equal(state_finish(s, &buf, len, NULL), 0);
    state_destroy(s);
    return buf;
}

static int load(const void *buf, size_t len, struct device *v, struct tv_error *err)
{
    struct state *s = state_create_load(buf, len);
    assert_non_null(s);
    assert_true(state_is_loading(s));
    uint32_t found;
    device_state(v, s, 2, &found);
    const int rc = state_finish(s, NULL, NULL, err);
    state_destroy(s);
    return rc;
}

static void test_round_trip(void **unused)
{
    (void)unused;
    size_t len;
    void *buf = save(&len, 2);
    struct device v;
    memset(&v, 0xff, sizeof(v));
    v.on = false;
    assert_int_equal(load(buf, len, &v, NULL), 0);
    assert_true(v.on);
    assert_int_equal(v.a, sample.a);
    assert_int_equal(v.b, sample.b);
    assert_int_equal(v.c, sample.c);
    assert_int_equal(v.n, sample.n);
    assert_true(v.d == sample.d);
    assert_memory_equal(v.list, sample.list, sizeof(v.list));
    assert_memory_equal(v.name, sample.name, sizeof(v.name));
    free(buf);
}

static void test_every_cut_is_refused(void **unused)
{
    (void)unused;
    size_t len;
    void *buf = save(&len, 2);
    for (size_t cut = 0; cut < len; cut++) {
        void *part = malloc(cut ? cut : 1); // its own block, so that the sanitizer sees a byte read beyond it
        assert_non_null(part);
        memcpy(part, buf, cut);
        struct device v;
        struct tv_error err = {0};
        assert_true(load(part, cut, &v, &err) < 0);
        assert_true(strlen(err.text) > 0);
        free(part);
    }
    free(buf);
}

static void test_bytes_left_over(void **unused)
{
    (void)unused;
    size_t len;
    unsigned char *buf = save(&len, 2);
    unsigned char *longer = malloc(len + 3);
    assert_non_null(longer);
    memcpy(longer, buf, len);
    memset(longer + len, 0, 3);
    struct device v;
    struct tv_error err = {0};
    assert_int_equal(load(longer, len + 3, &v, &err), -EINVAL);
    assert_non_null(strstr(err.text, "3 bytes are left over"));
    free(longer);
    free(buf);
}

static void test_newer_version_is_refused_older_is_told(void **unused)
{
    (void)unused;
    size_t len;
    struct device v;
    struct tv_error err = {0};
    void *newer = save(&len, 3);
    assert_int_equal(load(newer, len, &v, &err), -EINVAL);
    assert_non_null(strstr(err.text, "device: its version is 3, this program knows up to 2"));
    free(newer);

    void *zero = save(&len, 0);
    assert_int_equal(load(zero, len, &v, &err), -EINVAL);
    assert_non_null(strstr(err.text, "device: its version is 0"));
    free(zero);

    void *older = save(&len, 1);
    struct state *s = state_create_load(older, len);
    uint32_t found;
    device_state(&v, s, 2, &found);
    assert_int_equal(found, 1);
    assert_int_equal(state_finish(s, NULL, NULL, NULL), 0);
    state_destroy(s);
    free(older);
}

static void test_mismatch_names_the_place_and_leaves_zeroes(void **unused)
{
    (void)unused;
    size_t len;
    void *buf = save(&len, 2);
    struct state *s = state_create_load(buf, len);
    bool on = false;
    uint8_t a = 9;
    uint32_t later = 77;
    uint64_t list[2] = {5, 5};
    state_section_begin(s, "device", 2);
    state_bool(s, "on", &on);
    assert_true(on);
    state_u8(s, "z", &a);
    assert_true(state_failed(s));
    assert_int_equal(a, 0);
    state_u32(s, "c", &later);
    state_u64_array(s, "list", list, 2);
    assert_int_equal(later, 0);
    assert_true(list[0] == 0 && list[1] == 0);
    state_section_end(s);
    state_fail(s, "this comes second");
    struct tv_error err = {0};
    assert_int_equal(state_finish(s, NULL, NULL, &err), -EINVAL);
    assert_string_equal(err.text, "saved state: device: expected u8 'z', the stream has u8 'a'");
    state_destroy(s);
    free(buf);
}

static void test_count_over_the_maximum(void **unused)
{
    (void)unused;
    struct state *s = state_create_save();
    uint32_t n = 11;
    state_count(s, "n", &n, 20);
    void *buf;
    size_t len;
    assert_int_equal(state_finish(s, &buf, &len, NULL), 0);
    state_destroy(s);

    s = state_create_load(buf, len);
    state_count(s, "n", &n, 10);
    assert_int_equal(n, 0);
    struct tv_error err = {0};
    assert_int_equal(state_finish(s, NULL, NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "'n' is 11; at most 10"));
    state_destroy(s);
    free(buf);
}

static void test_wrong_size_and_bool(void **unused)
{
    (void)unused;
    struct state *s = state_create_save();
    char bytes[4] = "abc";
    uint8_t two = 2;
    state_bytes(s, "bytes", bytes, 4);
    state_u8(s, "flag", &two);
    void *buf;
    size_t len;
    assert_int_equal(state_finish(s, &buf, &len, NULL), 0);
    state_destroy(s);

    s = state_create_load(buf, len);
    char more[8];
    state_bytes(s, "bytes", more, sizeof(more));
    struct tv_error err = {0};
    state_finish(s, NULL, NULL, &err);
    assert_non_null(strstr(err.text, "'bytes' should have 8 bytes, the stream has 4"));
    state_destroy(s);

    // The item's kind becomes bool by hand: kind bytes are 4 (u8) and 3 (bool), and the last item is 2 + 4 + 4 + 1 bytes long.
    unsigned char *raw = buf;
    assert_int_equal(raw[len - 11], 4);
    raw[len - 11] = 3;
    s = state_create_load(buf, len);
    bool flag = true;
    state_bytes(s, "bytes", bytes, 4);
    state_bool(s, "flag", &flag);
    assert_false(flag);
    state_finish(s, NULL, NULL, &err);
    assert_non_null(strstr(err.text, "'flag' is 2; a bool is 0 or 1"));
    state_destroy(s);
    free(buf);
}

static void test_state_of_a_foreign_kind(void **unused)
{
    (void)unused;
    struct device v;
    struct tv_error err = {0};
    assert_int_equal(load("", 0, &v, &err), -EINVAL);
    assert_int_equal(load("GIF89a, and more of it", 22, &v, &err), -EINVAL);
    assert_string_equal(err.text, "saved state: this is not a saved state of trivet");
}

static void test_large(void **unused)
{
    (void)unused;
    enum { N = 300000 };
    uint64_t *values = malloc(N * sizeof(*values)), *back = calloc(N, sizeof(*back));
    assert_true(values && back);
    for (uint64_t i = 0; i < N; i++)
        values[i] = i * i;
    struct state *s = state_create_save();
    state_u64_array(s, "values", values, N);
    void *buf;
    size_t len;
    assert_int_equal(state_finish(s, &buf, &len, NULL), 0);
    state_destroy(s);
    s = state_create_load(buf, len);
    state_u64_array(s, "values", back, N);
    assert_int_equal(state_finish(s, NULL, NULL, NULL), 0);
    assert_memory_equal(values, back, N * sizeof(*values));
    state_destroy(s);
    free(buf);
    free(values);
    free(back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_cut_is_refused),
        cmocka_unit_test(test_bytes_left_over),
        cmocka_unit_test(test_newer_version_is_refused_older_is_told),
        cmocka_unit_test(test_mismatch_names_the_place_and_leaves_zeroes),
        cmocka_unit_test(test_count_over_the_maximum),
        cmocka_unit_test(test_wrong_size_and_bool),
        cmocka_unit_test(test_state_of_a_foreign_kind),
        cmocka_unit_test(test_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
