/* tests/support/by_hand.h - what a model says about a sequence, from `mosld logits` and plain arithmetic in double: the
 * truth that losses, scores and generated tokens are compared with. Also tensors of a safetensors file by name. */
#ifndef TESTS_BY_HAND_H
#define TESTS_BY_HAND_H

#include <stdint.h>

/* Logits of every position, [n, *vocab], the caller's to free(). `adapter` may be NULL; `model` and `adapter` are
 * paths. */
float *logits_of(const char *model, const char *adapter, const int *ids, int n, int *vocab);

/* Negative log-likelihood of ids[first .. n) behind what stands before each, summed. first >= 1. */
double loss_of(const char *model, const char *adapter, const int *ids, int n, int first);

/* The numbers of a tensor as f32, the caller's to free(). A missing one aborts the test. */
float *tensor_of(const char *path, const char *name, uint64_t *n);
/* Over all tensors of two files with the same names: the norm of the difference over the norm of `b`. */
double files_differ(const char *a, const char *b);

#endif
