/* Checks that count. A test program ends with `return check_summary("name");`. */

#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <string.h>

static int check_passed;
static int check_failed;

#define CHECK(condition) check_one((condition) ? 1 : 0, #condition, __FILE__, __LINE__)
#define CHECK_TEXT(actual, expected) check_text((actual), (expected), __FILE__, __LINE__)
#define CHECK_RESULT(actual, expected) check_number((actual), (expected), __FILE__, __LINE__)

static inline int check_one(int held, const char *what, const char *file, int line)
{
    if (held) {
        check_passed++;
    } else {
        check_failed++;
        fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    }
    return held;
}

static inline int check_text(const char *actual, const char *expected, const char *file, int line)
{
    int held = actual != NULL && strcmp(actual, expected) == 0;
    if (!held) {
        fprintf(stderr, "%s:%d: \"%s\", expected \"%s\"\n", file, line, actual == NULL ? "(NULL)" : actual, expected);
    }
    return check_one(held, "the text", file, line);
}

static inline int check_number(unsigned long actual, unsigned long expected, const char *file, int line)
{
    if (actual != expected) {
        fprintf(stderr, "%s:%d: %lu, expected %lu\n", file, line, actual, expected);
    }
    return check_one(actual == expected, "the number", file, line);
}

static inline int check_summary(const char *name)
{
    printf("%s: %d passed, %d failed\n", name, check_passed, check_failed);
    return check_failed == 0 && check_passed > 0 ? 0 : 1;
}

#endif
