/* tools/inspect_text.h - prints what inspect found, for people. */
#ifndef MOSLD_TOOLS_INSPECT_TEXT_H
#define MOSLD_TOOLS_INSPECT_TEXT_H

#include <cjson/cJSON.h>
#include <stdio.h>

/* Prints an object: a line a member, nested objects indented, "tensors" as a table. Members named bytes are shown in
 * KiB, MiB or GiB too. Control characters in strings from files are shown as \xNN, so that a file cannot steer the
 * terminal. */
void inspect_print_text(const cJSON *document, FILE *to);

#endif
