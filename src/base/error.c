// Errors that a person will read: see error.h.
#include "base/error.h"

#include <stdio.h>
#include <string.h>

// One line, whatever was quoted: a name from a file or a peer may hold ends of lines, or orders to the terminal.
static void keep_to_a_line(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = ' ';
}

int tv_error_set(struct tv_error *err, int code, const char *format, ...)
{
    if (!err)
        return code;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    keep_to_a_line(err->text);
    err->code = code;
    return code;
}

int tv_error_prefix(struct tv_error *err, const char *format, ...)
{
    if (!err)
        return 0;
    char old[sizeof(err->text)];
    memcpy(old, err->text, sizeof(old));
    va_list args;
    va_start(args, format);
    int used = vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof(err->text))
        snprintf(err->text + used, sizeof(err->text) - (size_t)used, ": %.400s", old);
    return err->code;
}
