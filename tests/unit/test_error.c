// Errors: text, code and prefix; a NULL error is fine.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"

static void test_set(void **state)
{
    (void)state;
    struct tv_error err = {0};
    assert_int_equal(tv_error_set(&err, -EINVAL, "disk '%s': no size", "db"), -EINVAL);
    assert_string_equal(err.text, "disk 'db': no size");
    assert_int_equal(tv_error_prefix(&err, "%s:%d", "a.yaml", 3), -EINVAL);
    assert_string_equal(err.text, "a.yaml:3: disk 'db': no size");
    assert_int_equal(tv_error_set(NULL, -ENOENT, "x"), -ENOENT);
}

static void test_long_text_is_cut(void **state)
{
    (void)state;
    struct tv_error err = {0};
    char text[2000];
    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = 0;
    tv_error_set(&err, -EIO, "%s", text);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    tv_error_prefix(&err, "%s", text);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_set), cmocka_unit_test(test_long_text_is_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
