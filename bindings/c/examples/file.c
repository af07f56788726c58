#include "file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A config larger than this is no config. */
#define MOST_BYTES ((size_t)64 << 20)

static char *read_all(FILE *file, const char *path)
{
    size_t room = 1 << 14;
    size_t used = 0;
    char *text = malloc(room);
    while (text != NULL) {
        used += fread(text + used, 1, room - 1 - used, file);
        if (used < room - 1) {
            break;
        }
        room *= 2;
        char *larger = room <= MOST_BYTES ? realloc(text, room) : NULL;
        if (larger == NULL) {
            fprintf(stderr, "vmesskit: %s: %s\n", path,
                    room > MOST_BYTES ? "larger than 64 MiB, so no config" : strerror(ENOMEM));
            free(text);
            return NULL;
        }
        text = larger;
    }
    if (text == NULL || ferror(file)) {
        fprintf(stderr, "vmesskit: %s: %s\n", path, strerror(errno));
        free(text);
        return NULL;
    }
    if (memchr(text, '\0', used) != NULL) {
        fprintf(stderr, "vmesskit: %s: not a text file\n", path);
        free(text);
        return NULL;
    }
    text[used] = '\0';
    return text;
}

char *file_read(const char *path)
{
    if (strcmp(path, "-") == 0) {
        return read_all(stdin, "standard input");
    }
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "vmesskit: %s: %s\n", path, strerror(errno));
        return NULL;
    }
    char *text = read_all(file, path);
    fclose(file);
    return text;
}
