/* mosld/ops/attention_coop.c - see attention_coop.h. */
#include "mosld/ops/attention_coop.h"

#include "mosld/ops/attention_common.h"

/* A group a head and TILE queries, all columns of the output. */
static void grid(const void *push, uint32_t groups[3])
{
    const struct attention_push *p = push;
    groups[0] = op_groups(((uint64_t)p->T + TILE - 1) / TILE * p->heads, 1);
}

/* The bindings of op_attention_desc, in its order. The number is the shader's FORM. */
#define KERNEL(form)                                                                                                   \
    {                                                                                                                  \
        .kernel = {"attention_coop#" form,                                                                             \
                   sizeof(struct attention_push),                                                                      \
                   4,                                                                                                  \
                   {{"qkv", RT_READ}, {"seg", RT_READ}, {"o", RT_WRITE}, {"stats", RT_WRITE}}},                         \
        .map = {0, 1, 2, 3}, .grid = grid                                                                              \
    }
const struct op_kernel attention_coop_split[3] = {KERNEL("129"), KERNEL("193"), KERNEL("257")};
const struct op_kernel attention_coop_rounded[3] = {KERNEL("128"), KERNEL("192"), KERNEL("256")};

static bool head_within(const void *push, uint32_t least, uint32_t most)
{
    uint32_t d = ((const struct attention_push *)push)->head_dim;
    return d % 4 == 0 && d > least && d <= most;
}

bool attention_head_to_64(const void *push) { return head_within(push, 0, 64); }
bool attention_head_to_96(const void *push) { return head_within(push, 64, 96); }
bool attention_head_to_128(const void *push) { return head_within(push, 96, 128); }

/* The scores are TILE x TILE, a chunk of the output TILE x 32 or more: both have to fall into as many matrices as there are subgroups, or
 * a multiple of that. */
bool attention_has_matrices(const struct rt_device_info *info)
{
    const uint32_t *m = info->limits.matrix, subgroup = info->limits.matrix_subgroup;
    if (info->precision == RT_PRECISION_HIGHEST || !(info->caps & RT_CAP_COOPERATIVE_MATRIX) || subgroup < 8 || subgroup > 128 || 128 % subgroup)
        return false;
    if (m[0] == 0 || m[1] == 0 || m[2] == 0 || TILE % m[0] || TILE % m[1] || TILE % m[2])
        return false;
    return TILE / m[0] * (TILE / m[1]) % (128 / subgroup) == 0;
}

bool attention_has_matrices_medium(const struct rt_device_info *info)
{
    return info->precision == RT_PRECISION_MEDIUM && attention_has_matrices(info);
}

/* Matrices of eight rows, sixteen deep, are Intel's: 8x8x16 is listed with matrix units and without any, and both shapes spill there
 * (docs/kernels.md). Not taken unless it was measured. */
bool attention_suits_matrices(const struct rt_device_info *info) { return !(info->limits.matrix[0] == 8 && info->limits.matrix[2] == 16); }
