/* mosld/io/jsonl.h - records from a JSON Lines file, or from a file that holds one JSON array of them.
 *
 * Which of the two a file is, its first character says: [ opens an array. Every record must be an object. Lines end in
 * LF or CRLF, the last one perhaps in neither; blank lines and a byte order mark are skipped; a line may be as long as
 * the file. The file is read into memory when it is opened, so that a change to it during a run changes nothing. */
#ifndef MOSLD_IO_JSONL_H
#define MOSLD_IO_JSONL_H

#include "mosld/io/json.h"

struct jsonl;

/* RT_BAD_FILE for what file_read refuses; at most 8 GiB. After an error *out is NULL. */
enum rt_status jsonl_open(const char *path, struct jsonl **out, struct rt_error *err);
/* The next record, the caller's to cJSON_Delete, and the line (1 is the first) on which it begins; *record is NULL
 * behind the last one. RT_BAD_FILE names file and line; the reader then stands at its end. */
enum rt_status jsonl_next(struct jsonl *r, cJSON **record, uint64_t *line, struct rt_error *err);
void jsonl_close(struct jsonl **r); /* NULL is fine */

#endif
