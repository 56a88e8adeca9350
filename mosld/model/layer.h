/* mosld/model/layer.h - a decoder layer's forward, as forward.c gives it to backward.c. */
#ifndef MOSLD_LAYER_H
#define MOSLD_LAYER_H

#include "mosld/model/pass.h"

/* Fills the shared set of buffers with layer l's activations again, from its h_in, u and l: all that layer_forward leaves in them. u and l
 * are kept, so neither masks nor the routers' statistics are touched. Uses pass->norm_out and pass->z. */
enum rt_status layer_recompute(struct mosld_pass *pass, uint32_t layer, struct rt_error *err);

#endif
