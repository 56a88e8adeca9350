/* tests/support/program.h - the program mosld as a child process, and a folder to run it in.
 *
 * Commands are lines for the shell, with the program's name left out: program("eval --model %s ...", path). They run in
 * the folder, so that file names in a test are short. What a run printed is kept until the next one. A sanitizer's
 * report fails the test. */
#ifndef TESTS_PROGRAM_H
#define TESTS_PROGRAM_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A language model of 260 thousand weights with a tokenizer, and one of random weights without. */
#define STORIES MOSLD_SOURCE_DIR "/tests/vectors/models/stories260K.gguf"
#define LLAMA2  MOSLD_SOURCE_DIR "/tests/vectors/models/llama2"

/* Check fixtures: makes the folder and goes into it; removes it with all that is in it. */
void program_folder_make_for(const char *mosld);
void program_cache_make(void); /* in the folder: see program_folder_make_with_cache */
#ifdef MOSLD_PROGRAM
static inline void program_folder_make(void)
{
    program_folder_make_for(MOSLD_PROGRAM);
} /* which the test programs know */
/* The same with a cache folder of the test's own (tuning files, pipelines), while Mesa keeps the kernels that it has. */
static inline void program_folder_make_with_cache(void)
{
    program_folder_make();
    program_cache_make();
}
#endif
void program_folder_remove(void);

/* Runs to its end. Returns the exit status, or 128 + the signal that ended it. */
int program(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *program_out(void);
const char *program_err(void);
/* Asserts that the status is `status` and that standard error has each of the texts, up to a NULL. */
void program_failed_as(int got, int status, ...) __attribute__((sentinel));
/* Asserts status 0 and parses standard output as one JSON document: the caller's to delete. */
cJSON *program_json(int got);

/* The same in the background. program_wait may be called once. */
pid_t program_start(const char *format, ...) __attribute__((format(printf, 1, 2)));
int program_wait(pid_t pid);

/* Files in the folder, or anywhere by their whole path. Failures abort the test. */
void write_text(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));
void write_bytes(const char *path, const void *data, size_t size);
char *read_bytes(const char *path, size_t *size); /* with a NUL behind; the caller's to free */
bool same_bytes(const char *a, const char *b);
bool path_exists(const char *path);

/* Line `i` (from 0) of a JSONL file as JSON, the caller's to delete; NULL behind the last. */
cJSON *json_line(const char *path, int i);
/* A number of line i; NaN where it is missing or null. */
double json_line_number(const char *path, int i, const char *key);

#endif
