/* mosld/model/model_file.h - a model on disk: its config, and its weights by their Hugging Face names, whatever the
 * file calls them.
 *
 * Names: model.embed_tokens.weight, model.norm.weight, lm_head.weight (absent where tied), and for each layer N
 * model.layers.N.{input_layernorm,post_attention_layernorm}.weight, .self_attn.{q,k,v,o}_proj.weight,
 * .mlp.{gate,up,down}_proj.weight, and as the architecture has them .self_attn.{q,k,v}_proj.bias,
 * .self_attn.{q,k}_norm.weight.
 *
 * Opening checks that every weight is there with the shape that the config asks for, in a type that mosld runs (F32,
 * F16, BF16; in GGUF also Q8_0, Q4_0, Q4_1; vectors F32, F16, BF16), and that there is none that mosld would not use.
 * Files are mapped: file.h says what that means. Reading from several threads is fine. */
#ifndef MOSLD_MODEL_FILE_H
#define MOSLD_MODEL_FILE_H

#include "mosld/io/dtype.h"
#include "mosld/model/config.h"
#include "runtime/error.h"

struct gguf;

struct mosld_weight {
    char name[80];       /* the Hugging Face name */
    enum dtype dtype;
    uint32_t rows, cols; /* of a vector: 1 and its length */
    uint64_t row_bytes;
    const uint8_t *data; /* rows in the file's order, unaligned */
    bool permuted;       /* GGUF's llama q and k: rows in the order of interleaved rope, which is undone below */
};

struct mosld_model_file;

/* Opens a Hugging Face folder or a .gguf file. RT_BAD_FILE names file and tensor. After an error *out is NULL. */
enum rt_status mosld_model_file_open(const char *path, struct mosld_model_file **out, struct rt_error *err);
/* The same for a plan, which needs no weights: also a folder with no weights in it, or a config.json by its own path. Matrices are then of the
 * type that the config says (BF16 where it says nothing), and none can be read (RT_FAILED). */
enum rt_status mosld_model_file_open_shapes(const char *path, struct mosld_model_file **out, struct rt_error *err);
void mosld_model_file_close(struct mosld_model_file **file); /* NULL is fine; invalidates the weights */

const char *mosld_model_file_path(const struct mosld_model_file *file);
const struct mosld_config *mosld_model_file_config(const struct mosld_model_file *file);
/* Where the tokenizer is: the open GGUF (owned by the file), or NULL: then the folder mosld_model_file_path. */
const struct gguf *mosld_model_file_gguf(const struct mosld_model_file *file);

uint32_t mosld_model_file_count(const struct mosld_model_file *file);
/* In the order: embedding, layers, norm, head. */
const struct mosld_weight *mosld_model_file_at(const struct mosld_model_file *file, uint32_t i);
/* NULL: not there; after a successful open that is a bias, norm or head that the config says the model lacks. */
const struct mosld_weight *mosld_model_file_find(const struct mosld_model_file *file, const char *name);
/* What the weights occupy in the file. */
uint64_t mosld_model_file_bytes(const struct mosld_model_file *file);

/* Copies rows row0 .. row0+n-1, in Hugging Face's order, as they are in the file: out has n * w->row_bytes bytes.
 * RT_BAD_FILE names a row with a NaN or an infinity in it. The range must lie in the tensor (RT_FAILED). */
enum rt_status mosld_weight_rows(const struct mosld_model_file *file, const struct mosld_weight *w, uint32_t row0,
                                 uint32_t n, void *out, struct rt_error *err);
/* The same, as f32: out [n, cols]. */
enum rt_status mosld_weight_rows_f32(const struct mosld_model_file *file, const struct mosld_weight *w, uint32_t row0,
                                     uint32_t n, float *out, struct rt_error *err);

/* Once a weight is on the device: its pages of the mapped file need not stay in memory. Reading it again is fine. */
void mosld_weight_forget(const struct mosld_weight *w);

#endif
