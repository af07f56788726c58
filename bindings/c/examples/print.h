/* What a person reads. */

#ifndef PRINT_H
#define PRINT_H

#include <stdio.h>

#include <vmesskit.h>

/* Prints an error's text, reason, hint and path to standard error. */
void print_error(const char *step, const vmk_error *error);

/* Prints every finding, with its JSON path. */
void print_diagnostics(const vmk_diagnostics *findings, FILE *to);

/* Prints an event to standard error. */
void print_event(const vmk_event *event);

/*
 * Prints a progress line to standard error; `seconds` have passed between `before` and `now`. Connections are those open
 * now, of all so far.
 */
void print_stats(const vmk_stats *before, const vmk_stats *now, double seconds);

#endif
