/* The command line: V2Ray's own, and what a tun device needs. */

#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>

/* What the command line asks for. The texts are borrowed from argv. */
struct arguments {
    const char *config;     /* a file, or "-" for standard input */
    const char *tun;        /* the tun device's name, or NULL */
    uint64_t memory_bytes;  /* the memory limit, or 0 */
    uint32_t stats_seconds; /* the seconds between progress lines, or 0 */
    bool test;
    bool version;
    bool help;
    bool vnet;
};

/* Reads the command line; on failure says on standard error what is wrong and returns false. */
bool arguments_read(int argc, char **argv, struct arguments *out);

/* Writes the usage to standard output or standard error. */
void arguments_usage(bool to_stderr);

#endif
