#include "arguments.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void arguments_usage(bool to_stderr)
{
    fputs("usage: vmesskit -config FILE [-test] [-tun NAME [-vnet]] [-memory MIB] [-stats SECONDS]\n"
          "       vmesskit -version\n"
          "\n"
          "  -config FILE    V2Ray's JSON; - reads it from standard input (also: -c)\n"
          "  -test           checks the config, prints every finding with its JSON path, and ends\n"
          "  -tun NAME       carries the packets of this tun device, which is made if it does not exist;\n"
          "                  it takes the device's MTU, and sets nothing else\n"
          "  -vnet           opens the device with segmentation offload\n"
          "  -memory MIB     the most memory for buffers and tables\n"
          "  -stats SECONDS  prints a progress line so often\n"
          "  -version        prints the version, and ends\n"
          "\n"
          "Exit status: 0 after SIGINT or SIGTERM, 1 if it failed, 2 for a wrong command line, 23 for a config with\n"
          "errors.\n",
          to_stderr ? stderr : stdout);
}

/* Reads a positive decimal number of at most `most`. */
static bool read_number(const char *text, uint64_t most, uint64_t *out)
{
    char *end = NULL;
    if (!isdigit((unsigned char)text[0])) {
        return false;
    }
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || number == 0 || number > most) {
        return false;
    }
    *out = number;
    return true;
}

static bool complain(const char *what, const char *option)
{
    fprintf(stderr, "vmesskit: %s: %s\n", option, what);
    return false;
}

/* Handles an option that stands alone; false if it is none of those. */
static bool read_flag(const char *name, struct arguments *out)
{
    if (strcmp(name, "test") == 0) {
        out->test = true;
    } else if (strcmp(name, "version") == 0) {
        out->version = true;
    } else if (strcmp(name, "vnet") == 0) {
        out->vnet = true;
    } else if (strcmp(name, "help") == 0 || strcmp(name, "h") == 0) {
        out->help = true;
    } else {
        return false;
    }
    return true;
}

static bool takes_value(const char *name)
{
    static const char *const names[] = {"config", "c", "tun", "memory", "stats"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Handles an option with a value. */
static bool read_value(const char *option, const char *name, const char *value, struct arguments *out)
{
    uint64_t number = 0;
    if (strcmp(name, "config") == 0 || strcmp(name, "c") == 0) {
        if (out->config != NULL) {
            return complain("one config is enough", option);
        }
        /* V2Ray's own word for standard input is "stdin:". */
        out->config = strcmp(value, "stdin:") == 0 ? "-" : value;
    } else if (strcmp(name, "tun") == 0) {
        out->tun = value;
    } else if (strcmp(name, "memory") == 0) {
        if (!read_number(value, UINT64_C(1) << 40, &number)) {
            return complain("expected a number of MiB above 0", option);
        }
        out->memory_bytes = number << 20;
    } else {
        if (!read_number(value, 86400, &number)) {
            return complain("expected a number of seconds from 1 to 86400", option);
        }
        out->stats_seconds = (uint32_t)number;
    }
    return value[0] != '\0' || complain("expected a value", option);
}

bool arguments_read(int argc, char **argv, struct arguments *out)
{
    memset(out, 0, sizeof *out);
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i];
        /* As Go's flags have it: one dash or two, a value behind a blank or a "=". */
        if (option[0] != '-' || option[1] == '\0') {
            return complain("not an option", option);
        }
        const char *text = option + (option[1] == '-' ? 2 : 1);
        const char *equals = strchr(text, '=');
        char name[16];
        size_t length = equals != NULL ? (size_t)(equals - text) : strlen(text);
        if (length >= sizeof name) {
            return complain("unknown option", option);
        }
        memcpy(name, text, length);
        name[length] = '\0';

        if (takes_value(name)) {
            const char *value = equals != NULL ? equals + 1 : (i + 1 < argc ? argv[++i] : "");
            if (!read_value(option, name, value, out)) {
                return false;
            }
        } else if (equals != NULL || !read_flag(name, out)) {
            return complain("unknown option", option);
        }
    }
    if (out->version || out->help) {
        return true;
    }
    if (out->config == NULL) {
        return complain("is missing", "-config");
    }
    if (out->vnet && out->tun == NULL) {
        return complain("needs -tun", "-vnet");
    }
    return true;
}
