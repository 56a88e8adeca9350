/* mosld/adapter/adapter_file.c - an adapter's tensors in and out of safetensors: see adapter_file.h. */
#include "mosld/adapter/adapter_file.h"

#include "mosld/io/file.h"
#include "mosld/io/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One tensor of the file and where its numbers stand in the flat vector: element [i, j] at base + i * row_step + j. */
struct piece {
    char name[160];
    uint64_t rows, cols, base, row_step;
};

static void name_piece(struct piece *p, const struct mosld_adapter_module *m, const char *what)
{
    snprintf(p->name, sizeof p->name, "base_model.model.model.layers.%u.%s.%s.weight", m->layer,
             mosld_linear_paths[m->linear], what);
}

/* Piece i of a module: A, then the router where there is one, then each B. Returns how many there are. */
static uint32_t piece_of(const struct mosld_adapter_module *m, uint32_t i, struct piece *p)
{
    uint32_t routers = m->experts > 1, n = 1 + routers + m->experts;
    uint64_t stack = m->group->offset + (uint64_t)m->row * m->d_in;
    char what[32] = "lora_B";
    if (i == 0) {
        *p = (struct piece){.rows = m->r, .cols = m->d_in, .base = stack, .row_step = m->d_in};
        name_piece(p, m, "lora_A");
    } else if (routers && i == 1) {
        *p = (struct piece){
            .rows = m->experts, .cols = m->d_in, .base = stack + (uint64_t)m->r * m->d_in, .row_step = m->d_in};
        name_piece(p, m, "lora_router");
    } else if (i < n) {
        uint32_t e = i - 1 - routers;
        *p = (struct piece){.rows = m->d_out,
                            .cols = m->r,
                            .base = m->b_offset + (uint64_t)e * m->r,
                            .row_step = (uint64_t)m->experts * m->r};
        if (routers)
            snprintf(what, sizeof what, "lora_B.%u", e);
        name_piece(p, m, what);
    }
    return n;
}

static uint64_t count_pieces(const struct mosld_adapter *a)
{
    uint64_t n = 0;
    struct piece p;
    for (uint32_t m = 0; m < a->n_modules; m++)
        n += piece_of(&a->modules[m], 0, &p);
    return n;
}

/* ---- out ---- */

/* Cuts a flat vector into the file's tensors; `dense` receives their numbers, one tensor behind the other. */
static void cut(const struct mosld_adapter *a, const float *flat, const char *suffix, float *dense,
                struct piece *pieces, struct safetensors_entry *entries)
{
    uint64_t n = 0;
    struct piece p;
    for (uint32_t m = 0; m < a->n_modules; m++) {
        uint32_t of = piece_of(&a->modules[m], 0, &p);
        for (uint32_t i = 0; i < of; i++, n++) {
            piece_of(&a->modules[m], i, &p);
            strncat(p.name, suffix, sizeof p.name - strlen(p.name) - 1);
            pieces[n] = p;
            entries[n] = (struct safetensors_entry){
                .name = pieces[n].name, .dtype = DTYPE_F32, .rank = 2, .shape = {p.rows, p.cols}, .data = dense};
            for (uint64_t row = 0; row < p.rows; row++, dense += p.cols)
                memcpy(dense, flat + p.base + row * p.row_step, p.cols * sizeof *dense);
        }
    }
}

enum rt_status mosld_adapter_write_vectors(const struct mosld_adapter *a, const struct mosld_adapter_vector *vectors,
                                           uint32_t n_vectors, const char *path, struct rt_error *err)
{
    uint64_t n = count_pieces(a);
    float *flat = malloc(a->words * 4), *dense = malloc(n_vectors * a->parameters * 4);
    struct piece *pieces = calloc(n_vectors * n, sizeof *pieces);
    struct safetensors_entry *entries = calloc(n_vectors * n, sizeof *entries);
    const struct safetensors_pair metadata = {"format", "pt"};
    enum rt_status st =
        flat && dense && pieces && entries ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to write %s", path);
    for (uint32_t v = 0; v < n_vectors && !st; v++) {
        st = rt_download(a->dev, vectors[v].vector, vectors[v].offset * 4, flat, a->words * 4, err);
        if (!st)
            cut(a, flat, vectors[v].suffix, dense + v * a->parameters, pieces + v * n, entries + v * n);
    }
    if (!st)
        st = safetensors_write(path, entries, n_vectors * n, &metadata, 1, err);
    free(flat);
    free(dense);
    free(pieces);
    free(entries);
    return st;
}

static char *file_in(const char *dir, const char *name, struct rt_error *err)
{
    char *path = file_join(dir, name);
    if (!path)
        rt_fail(err, RT_NO_MEMORY, "no memory for the name of a file");
    return path;
}

enum rt_status mosld_adapter_write(const struct mosld_adapter *a, const char *base_model, const char *dir,
                                   struct rt_error *err)
{
    char *path = file_in(dir, "adapter_model.safetensors", err);
    enum rt_status st =
        path ? mosld_adapter_write_vectors(a, &(struct mosld_adapter_vector){a->values, 0, ""}, 1, path, err)
             : RT_NO_MEMORY;
    free(path);
    return st ? st : mosld_adapter_write_params(&a->params, a->layers, base_model, dir, err);
}

/* ---- in ---- */

static enum rt_status wrong_shape(const struct safetensor *t, const struct piece *p, struct rt_error *err)
{
    char shape[128];
    return rt_fail(err, RT_BAD_FILE, "%s: tensor %s is %s, this model and adapter_config.json make it [%llu, %llu]",
                   t->file, t->name, shape_text(t->shape, t->rank, shape, sizeof shape), (unsigned long long)p->rows,
                   (unsigned long long)p->cols);
}

static enum rt_status read_piece(const struct safetensors *s, const char *path, const struct piece *p, float *flat,
                                 struct rt_error *err)
{
    const struct safetensor *t = safetensors_find(s, p->name);
    if (!t)
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %s is missing", path, p->name);
    if (t->rank != 2 || t->shape[0] != p->rows || t->shape[1] != p->cols)
        return wrong_shape(t, p, err);
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16)
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %s is %s, an adapter is F32, F16 or BF16", path, p->name,
                       dtype_name(t->dtype));
    if (dtype_first_nonfinite(t->dtype, t->data, t->elements) != t->elements)
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %s has a number that is not finite", path, p->name);
    uint64_t row_bytes = t->bytes / p->rows;
    for (uint64_t row = 0; row < p->rows; row++)
        dtype_to_f32(t->dtype, t->data + row * row_bytes, p->cols, flat + p->base + row * p->row_step);
    return RT_OK;
}

static enum rt_status read_pieces(struct mosld_adapter *a, const struct safetensors *s, const char *suffix,
                                  const char *path, float *flat, struct rt_error *err)
{
    struct piece p;
    enum rt_status st = RT_OK;
    for (uint32_t m = 0; m < a->n_modules; m++) {
        uint32_t of = piece_of(&a->modules[m], 0, &p);
        for (uint32_t i = 0; i < of && !st; i++) {
            piece_of(&a->modules[m], i, &p);
            strncat(p.name, suffix, sizeof p.name - strlen(p.name) - 1);
            st = read_piece(s, path, &p, flat, err);
        }
    }
    return st;
}

enum rt_status mosld_adapter_read_vectors(struct mosld_adapter *a, const struct mosld_adapter_vector *vectors,
                                          uint32_t n_vectors, const char *path, struct rt_error *err)
{
    struct safetensors *s;
    enum rt_status st = safetensors_open(path, &s, err);
    if (st)
        return st;
    float *flat = calloc(a->words, 4);
    uint64_t expected = n_vectors * count_pieces(a);
    if (!flat)
        st = rt_fail(err, RT_NO_MEMORY, "no memory to read %s", path);
    for (uint32_t v = 0; v < n_vectors && !st; v++) {
        st = read_pieces(a, s, vectors[v].suffix, path, flat, err);
        if (!st)
            st = rt_upload(a->dev, vectors[v].vector, vectors[v].offset * 4, flat, a->words * 4, err);
    }
    if (!st && safetensors_count(s) != expected)
        st = rt_fail(err, RT_BAD_FILE,
                     "%s: has %zu tensors where adapter_config.json makes %llu: it has modules or experts that the "
                     "configuration does not name",
                     path, safetensors_count(s), (unsigned long long)expected);
    a->is_transposed = false;
    free(flat);
    safetensors_close(&s);
    return st;
}

enum rt_status mosld_adapter_read(struct mosld_adapter *a, const char *dir, struct rt_error *err)
{
    char *path = file_in(dir, "adapter_model.safetensors", err);
    enum rt_status st =
        path ? mosld_adapter_read_vectors(a, &(struct mosld_adapter_vector){a->values, 0, ""}, 1, path, err)
             : RT_NO_MEMORY;
    free(path);
    return st;
}

static enum rt_status read_masks(struct mosld_adapter *a, const struct safetensors *s, const char *path, float *masks,
                                 struct rt_error *err)
{
    struct piece p;
    for (uint32_t i = 0; i < a->n_modules; i++) {
        const struct mosld_adapter_module *m = &a->modules[i];
        piece_of(m, 0, &p);
        const struct safetensor *t = safetensors_find(s, p.name);
        if (!t)
            return rt_fail(err, RT_BAD_FILE, "%s: the mask of tensor %s is missing", path, p.name);
        if (t->rank != 2 || t->shape[0] != p.rows || t->shape[1] != p.cols)
            return wrong_shape(t, &p, err);
        if (t->dtype != DTYPE_U8 && t->dtype != DTYPE_BOOL)
            return rt_fail(err, RT_BAD_FILE, "%s: mask %s is %s, masks are U8", path, p.name, dtype_name(t->dtype));
        for (uint64_t e = 0; e < t->elements; e++) {
            if (t->data[e] > 1)
                return rt_fail(err, RT_BAD_FILE, "%s: mask %s has a %u, masks are 0 and 1", path, p.name, t->data[e]);
            masks[m->group->masked_offset + (uint64_t)m->row * m->d_in + e] = t->data[e];
        }
    }
    return RT_OK;
}

enum rt_status mosld_adapter_read_masks(struct mosld_adapter *a, const char *path, struct rt_error *err)
{
    struct safetensors *s;
    enum rt_status st = safetensors_open(path, &s, err);
    if (st)
        return st;
    float *masks = calloc(a->masked_words + 1, 4);
    st = masks ? read_masks(a, s, path, masks, err) : rt_fail(err, RT_NO_MEMORY, "no memory to read %s", path);
    if (!st)
        st = rt_upload(a->dev, a->mask, 0, masks, a->masked_words * 4, err);
    free(masks);
    safetensors_close(&s);
    return st;
}
