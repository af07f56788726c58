/* Files. */

#ifndef FILE_H
#define FILE_H

/*
 * Reads a whole file, or standard input for "-", as text. The caller frees it. On failure says on standard error what
 * is wrong and returns NULL.
 */
char *file_read(const char *path);

#endif
