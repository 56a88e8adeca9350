/* tests/support/text_test.h - small tokenizers made on the spot, and the files they come from.
 *
 * The vocabulary of a test tokenizer has the 256 bytes in GPT-2's alphabet as ids 0 to 255, then one piece a merge. */
#ifndef TEXT_TEST_H
#define TEXT_TEST_H

#include "mosld/text/tokenizer.h"

/* What tokenizer.json is put together from. Strings are JSON; NULL leaves the part out (or the default below). */
struct tokenizer_recipe {
    const char *const *merges; /* "a b", NULL at the end; NULL: none */
    bool pairs;                /* write merges as pairs */
    const char *normalizer, *pre_tokenizer, *post_processor, *decoder;
    const char *added_tokens; /* an array */
    const char *model_fields; /* more members of "model", each with a comma behind it */
};

/* The first id behind the bytes and the merges: where added tokens may begin. */
int recipe_next_id(const struct tokenizer_recipe *r);

/* tokenizer.json as text; free() it. */
char *recipe_json(const struct tokenizer_recipe *r);

/* A fresh folder under $TMPDIR or /tmp; free() the name, and remove_folder it. */
char *make_folder(void);
void remove_folder(char *folder);

/* Writes folder/name. */
void write_text_file(const char *folder, const char *name, const char *text, size_t len);

/* Opens a tokenizer from the text of its tokenizer.json, and of tokenizer_config.json unless that is NULL. */
enum rt_status open_json(const char *json, const char *config, struct mosld_tokenizer **t, struct rt_error *err);

/* Opens a recipe's; aborts the test when that fails. */
struct mosld_tokenizer *open_recipe(const struct tokenizer_recipe *r);

/* Asserts that text has these ids ("1 2 3"). params NULL: no bos, special tokens parsed. */
void check_ids(const struct mosld_tokenizer *t, const char *text, size_t len, const struct mosld_encode_params *params,
               const char *want);
#define CHECK_IDS(t, text, want) check_ids(t, text, strlen(text), NULL, want)

#endif
