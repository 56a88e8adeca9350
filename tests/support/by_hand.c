/* tests/support/by_hand.c - see by_hand.h. */
#include "tests/support/by_hand.h"

#include "mosld/io/safetensors.h"
#include "tests/support/program.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct safetensors *open_file(const char *path)
{
    struct safetensors *s;
    struct rt_error err;
    ck_assert_msg(safetensors_open(path, &s, &err) == RT_OK, "%s", err.text);
    return s;
}

static float *numbers(const struct safetensors *s, const char *name, uint64_t *n)
{
    const struct safetensor *t = safetensors_find(s, name);
    ck_assert_msg(t != NULL, "tensor %s is missing", name);
    float *v = malloc(t->elements * 4 + 4);
    ck_assert_ptr_nonnull(v);
    dtype_to_f32(t->dtype, t->data, t->elements, v);
    *n = t->elements;
    return v;
}

float *tensor_of(const char *path, const char *name, uint64_t *n)
{
    struct safetensors *s = open_file(path);
    float *v = numbers(s, name, n);
    safetensors_close(&s);
    return v;
}

float *logits_of(const char *model, const char *adapter, const int *ids, int n, int *vocab)
{
    char tokens[8192] = "";
    uint64_t count;
    for (int i = 0, at = 0; i < n; i++)
        at += snprintf(tokens + at, sizeof tokens - (size_t)at, "%s%d", i ? "," : "", ids[i]);
    int status = program("logits --model '%s' %s%s --device host --tokens %s --out .logits", model,
                         adapter ? "--adapter " : "", adapter ? adapter : "", tokens);
    ck_assert_msg(status == 0, "%s", program_err());
    float *logits = tensor_of(".logits", "logits", &count);
    *vocab = (int)(count / (uint64_t)n);
    return logits;
}

double loss_of(const char *model, const char *adapter, const int *ids, int n, int first)
{
    int V;
    float *logits = logits_of(model, adapter, ids, n, &V);
    double loss = 0;
    for (int i = first; i < n; i++) {
        const float *row = logits + (size_t)(i - 1) * (size_t)V;
        double sum = 0;
        for (int v = 0; v < V; v++)
            sum += exp((double)row[v] - row[ids[i]]);
        loss += log(sum);
    }
    free(logits);
    return loss;
}

double files_differ(const char *a, const char *b)
{
    struct safetensors *x = open_file(a), *y = open_file(b);
    double difference = 0, norm = 0;
    ck_assert_uint_eq(safetensors_count(x), safetensors_count(y));
    for (size_t i = 0; i < safetensors_count(y); i++) {
        uint64_t n, m;
        if (!dtype_converts(safetensors_at(y, i)->dtype)) { /* token ids: the same, to the byte */
            const struct safetensor *t = safetensors_find(x, safetensors_at(y, i)->name);
            ck_assert(t && t->bytes == safetensors_at(y, i)->bytes && memcmp(t->data, safetensors_at(y, i)->data, t->bytes) == 0);
            continue;
        }
        float *p = numbers(x, safetensors_at(y, i)->name, &n), *q = numbers(y, safetensors_at(y, i)->name, &m);
        ck_assert_uint_eq(n, m);
        for (uint64_t j = 0; j < n; j++) {
            difference += ((double)p[j] - q[j]) * ((double)p[j] - q[j]);
            norm += (double)q[j] * q[j];
        }
        free(p);
        free(q);
    }
    safetensors_close(&x);
    safetensors_close(&y);
    ck_assert_msg(norm > 0, "%s is all zero, which tests nothing", b);
    return sqrt(difference / norm);
}
