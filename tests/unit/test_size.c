// Sizes: what people write, what is refused and how it is told, and back.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/size.h"

static void test_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"0", 0},
        {"512", 512},
        {"512B", 512},
        {"1k", 1024},
        {"256M", 256ull << 20},
        {"256m", 256ull << 20},
        {"256MB", 256ull << 20},
        {"10GiB", 10ull << 30},
        {"10 GiB", 10ull << 30},
        {"1.5G", 3ull << 29},
        {"0.5K", 512},
        {"2T", 2ull << 40},
        {"15E", 15ull << 60},
        {"0.1234567890123456789G", 132560717},
        {"18446744073709551615", UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 1;
        struct tv_error err = {0};
        if (size_parse(cases[i].text, &bytes, &err) != 0 || bytes != cases[i].bytes)
            fail_msg("%s: %llu %s", cases[i].text, (unsigned long long)bytes, err.text);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",    "M",    "-1",    "+1",  " 1",  "1 ",    "1  M", "1X",    "1MM",  "1iB", "1.5", "1.G",
                                      ".5G", "1.5B", "0x10M", "1e3", "1M ", "256Mi", "1 2M", "1MiBs", "1,5G", "nan", "1\n"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t bytes = 77;
        struct tv_error err = {0};
        if (size_parse(bad[i], &bytes, &err) != -EINVAL)
            fail_msg("'%s' was taken for %llu", bad[i], (unsigned long long)bytes);
        assert_true(bytes == 77);
        assert_non_null(strstr(err.text, "is not a size: write bytes, or a number with K, M, G or T"));
    }
    static const char *const large[] = {"18446744073709551616", "16E", "99999999999999999999999G"};
    for (size_t i = 0; i < 3; i++) {
        uint64_t bytes;
        struct tv_error err = {0};
        assert_int_equal(size_parse(large[i], &bytes, &err), -ERANGE);
        assert_non_null(strstr(err.text, "too large"));
    }
}

static void test_format_reads_back(void **state)
{
    (void)state;
    static const uint64_t values[] = {0, 1, 512, 1000, 1023, 1024, 1025, 256ull << 20, 3ull << 29, 1ull << 63, UINT64_MAX};
    char text[SIZE_TEXT_MAX];
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        uint64_t bytes;
        assert_int_equal(size_parse(size_format(values[i], text), &bytes, NULL), 0);
        assert_true(bytes == values[i]);
    }
    assert_string_equal(size_format(256ull << 20, text), "256M");
    assert_string_equal(size_format(1536ull << 20, text), "1536M");
    assert_string_equal(size_format(1000, text), "1000");
    assert_string_equal(size_format(0, text), "0");
}

static void test_format_about(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},
        {1023, "1023 B"},
        {1024, "1 KiB"},
        {1536, "1.5 KiB"},
        {(1 << 20) - 1, "1 MiB"},
        {(1 << 20) - 60, "1023.9 KiB"},
        {256ull << 20, "256 MiB"},
        {3ull << 29, "1.5 GiB"},
        {UINT64_MAX, "16 EiB"},
    };
    char text[SIZE_TEXT_MAX];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(size_format_about(cases[i].bytes, text), cases[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_format_reads_back),
        cmocka_unit_test(test_format_about),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
