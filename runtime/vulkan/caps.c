/* runtime/vulkan/caps.c - see caps.h. */
#include "runtime/vulkan/caps.h"

#include <stdlib.h>
#include <string.h>

#define ALL_CAPS 0xffffffffu

static const struct {
    const char *word;
    uint32_t bits;
} words[] = {
    {"fp16", RT_CAP_FP16_STORAGE | RT_CAP_FP16_ARITHMETIC | RT_CAP_COOPERATIVE_MATRIX},
    {"fp16-storage", RT_CAP_FP16_STORAGE},
    {"fp16-arithmetic", RT_CAP_FP16_ARITHMETIC},
    {"int8", RT_CAP_INT8_STORAGE},
    {"subgroup", RT_CAP_SUBGROUP | RT_CAP_SUBGROUP_SIZE | RT_CAP_COOPERATIVE_MATRIX},
    {"subgroup-size", RT_CAP_SUBGROUP_SIZE},
    {"integer-dot", RT_CAP_INTEGER_DOT},
    {"cooperative-matrix", RT_CAP_COOPERATIVE_MATRIX},
    {"push-descriptor", RT_CAP_PUSH_DESCRIPTOR},
    {"memory-budget", RT_CAP_MEMORY_BUDGET},
    {"buffer-address", RT_CAP_BUFFER_ADDRESS},
    {"timestamps", RT_CAP_TIMESTAMPS},
};
#define N_WORDS (sizeof words / sizeof *words)

static const struct rt_limits no_limits = {
    .max_range = UINT64_MAX, .max_buffer = UINT64_MAX, .max_allocation = UINT64_MAX, .memory = UINT64_MAX,
    .offset_align = 1, .max_storage_buffers = UINT32_MAX, .max_push = UINT32_MAX, .max_shared = UINT32_MAX,
    .max_invocations = UINT32_MAX, .max_size = {UINT32_MAX, UINT32_MAX, UINT32_MAX},
    .max_groups = {UINT32_MAX, UINT32_MAX, UINT32_MAX}, .subgroup_size = UINT32_MAX,
};

/* Table 64 ("Required Limits") of the specification. */
static const struct rt_limits floor_limits = {
    .max_range = 1u << 27, .max_buffer = 1u << 30, .max_allocation = 1u << 30, .memory = UINT64_MAX,
    .offset_align = 256, .max_storage_buffers = 4, .max_push = 128, .max_shared = 16384,
    .max_invocations = 128, .max_size = {128, 128, 64}, .max_groups = {65535, 65535, 65535}, .subgroup_size = 1,
};

/* ---- reading ---- */

static enum rt_status take_away(const char *word, struct caps_clamp *out, struct rt_error *err)
{
    if (strcmp(word, "int16") == 0) {
        out->int16 = false;
        return RT_OK;
    }
    if (strcmp(word, "joined") == 0) {
        out->joined = false;
        return RT_OK;
    }
    if (strcmp(word, "mapped") == 0) {
        out->mapped = false;
        return RT_OK;
    }
    if (strcmp(word, "unified") == 0) {
        out->unified = false;
        return RT_OK;
    }
    for (size_t i = 0; i < N_WORDS; i++)
        if (strcmp(word, words[i].word) == 0) {
            out->keep &= ~words[i].bits;
            return RT_OK;
        }
    return rt_fail(err, RT_USAGE, "MOSLD_CAPS: there is no capability '%s'; there are fp16, fp16-storage, fp16-arithmetic, int8, int16, "
                   "subgroup, subgroup-size, integer-dot, cooperative-matrix, push-descriptor, memory-budget, buffer-address, "
                   "timestamps, joined, mapped, unified", word);
}

static enum rt_status limit(const char *name, const char *text, struct caps_clamp *out, struct rt_error *err)
{
    struct rt_limits *l = &out->limits;
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end || *text == '-' || value == 0)
        return rt_fail(err, RT_USAGE, "MOSLD_CAPS: %s=%s: the value must be a whole number of at least 1", name, text);
    if (strcmp(name, "subgroup") == 0) {
        if (value > 128 || (value & (value - 1)))
            return rt_fail(err, RT_USAGE, "MOSLD_CAPS: subgroup=%s: sizes of subgroups are powers of two up to 128", text);
        out->subgroup = (uint32_t)value;
        return RT_OK;
    }
    uint32_t small = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
    if (strcmp(name, "shared") == 0)
        l->max_shared = small;
    else if (strcmp(name, "range") == 0)
        l->max_range = value;
    else if (strcmp(name, "push") == 0)
        l->max_push = small;
    else if (strcmp(name, "invocations") == 0)
        l->max_invocations = l->max_size[0] = l->max_size[1] = l->max_size[2] = small;
    else if (strcmp(name, "buffers") == 0)
        l->max_storage_buffers = small;
    else if (strcmp(name, "buffer") == 0)
        l->max_buffer = value;
    else if (strcmp(name, "allocation") == 0)
        l->max_allocation = value;
    else if (strcmp(name, "memory") == 0)
        l->memory = value;
    else
        return rt_fail(err, RT_USAGE, "MOSLD_CAPS: there is no limit '%s'; there are shared, range, push, invocations, buffers (bound by a "
                       "kernel), buffer, allocation and memory (bytes), and subgroup (forces a size)", name);
    return RT_OK;
}

static enum rt_status parse_word(char *word, struct caps_clamp *out, struct rt_error *err)
{
    if (strcmp(word, "minimal") == 0) {
        out->keep = 0;
        out->int16 = false;
        uint64_t memory = out->limits.memory;
        out->limits = floor_limits;
        out->limits.memory = memory;
        return RT_OK;
    }
    if (word[0] == '-')
        return take_away(word + 1, out, err);
    char *equals = strchr(word, '=');
    if (equals) {
        *equals = 0;
        return limit(word, equals + 1, out, err);
    }
    return rt_fail(err, RT_USAGE, "MOSLD_CAPS: '%s' is neither minimal, nor -CAPABILITY, nor LIMIT=VALUE", word);
}

enum rt_status caps_parse(const char *text, struct caps_clamp *out, struct rt_error *err)
{
    *out = (struct caps_clamp){.keep = ALL_CAPS, .int16 = true, .joined = true, .mapped = true, .unified = true, .limits = no_limits};
    if (!text || !*text)
        return RT_OK;
    char *copy = strdup(text), *rest = copy;
    if (!copy)
        return rt_fail(err, RT_NO_MEMORY, "no memory to read MOSLD_CAPS");
    enum rt_status st = RT_OK;
    for (char *word; st == RT_OK && (word = strsep(&rest, ",")) != NULL;)
        if (*word)
            st = parse_word(word, out, err);
    free(copy);
    if (st == RT_OK && out->subgroup && !(out->keep & RT_CAP_SUBGROUP))
        return rt_fail(err, RT_USAGE, "MOSLD_CAPS: subgroup=%u forces a size of subgroups, and the rest of it takes subgroups away", out->subgroup);
    return st;
}

/* ---- applying ---- */

static uint32_t min32(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint64_t min64(uint64_t a, uint64_t b) { return a < b ? a : b; }

void caps_apply(const struct caps_clamp *clamp, struct rt_device_info *info)
{
    const struct rt_limits *c = &clamp->limits;
    struct rt_limits *l = &info->limits;
    info->caps &= clamp->keep;
    l->max_range = min64(l->max_range, c->max_range);
    l->max_buffer = min64(l->max_buffer, c->max_buffer);
    l->max_allocation = min64(l->max_allocation, c->max_allocation);
    l->memory = min64(l->memory, c->memory);
    if (l->offset_align < c->offset_align)
        l->offset_align = c->offset_align;
    l->max_storage_buffers = min32(l->max_storage_buffers, c->max_storage_buffers);
    l->max_push = min32(l->max_push, c->max_push);
    l->max_shared = min32(l->max_shared, c->max_shared);
    l->max_invocations = min32(l->max_invocations, c->max_invocations);
    for (int i = 0; i < 3; i++) {
        l->max_size[i] = min32(l->max_size[i], c->max_size[i]);
        l->max_groups[i] = min32(l->max_groups[i], c->max_groups[i]);
    }
    l->subgroup_size = info->caps & RT_CAP_SUBGROUP ? min32(l->subgroup_size, c->subgroup_size) : 1;
}
