/* mosld/bench/shapes.h - models for measuring that need no file: the shapes of well-known ones, and random weights in
 * them. */
#ifndef MOSLD_BENCH_SHAPES_H
#define MOSLD_BENCH_SHAPES_H

#include "mosld/model/model.h"

/* The config of a named model, as its own config.json has it (with max_positions as there). RT_USAGE lists the names.
 */
enum rt_status mosld_shapes_config(const char *name, struct mosld_config *out, struct rt_error *err);
/* The names, separated by commas, into `text`. */
const char *mosld_shapes_names(char *text, size_t size);

/* A model of the config with random weights of the type (matrices about normal with deviation 0.02, norms 1, biases 0),
 * loaded and ready, the same for the same config and type. It is destroyed like any model, also after an error.
 * RT_USAGE: the type's blocks do not fit the shapes. */
enum rt_status mosld_random_model(struct rt_device *dev, const struct mosld_config *config, enum op_wtype type,
                                  uint32_t positions, struct mosld_model **out, struct rt_error *err);

#endif
