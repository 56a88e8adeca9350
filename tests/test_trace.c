/* tests/test_trace.c - scopes, and what a trace records of them, on Vulkan with and without timestamps and on the host. */
#include "runtime/trace.h"
#include "mosld/ops/swiglu.h"
#include "shaders/test_push.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 1000 };

/* Device times come onto the program's clock with an error; it is small against what is compared. */
#define SLACK 2e-3

/* ---- windows are kept as they come ---- */

struct kept {
    struct rt_window w;
    struct rt_scope *scopes;
    struct rt_event *events;
};

struct keeping {
    struct kept kept[16];
    unsigned n;
};

static void *copy(const void *from, size_t n, size_t size)
{
    void *to = calloc(n + 1, size);
    ck_assert_ptr_nonnull(to);
    if (n)
        memcpy(to, from, n * size);
    return to;
}

static void keep(void *user, const struct rt_window *w)
{
    struct keeping *k = user;
    ck_assert_uint_lt(k->n, 16);
    struct kept *to = &k->kept[k->n++];
    to->w = *w;
    to->w.scopes = to->scopes = copy(w->scopes, w->n_scopes, sizeof *w->scopes);
    to->w.events = to->events = copy(w->events, w->n_events, sizeof *w->events);
}

static void forget(struct keeping *k)
{
    for (unsigned i = 0; i < k->n; i++) {
        free(k->kept[i].scopes);
        free(k->kept[i].events);
    }
    *k = (struct keeping){0};
}

static const struct rt_window *with_root(const struct keeping *k, const char *name, int64_t number)
{
    for (unsigned i = 0; i < k->n; i++) {
        const struct rt_window *w = &k->kept[i].w;
        if (w->root != RT_NO_SCOPE && strcmp(w->scopes[w->root].name, name) == 0 && w->scopes[w->root].number == number)
            return w;
    }
    ck_abort_msg("no window of %s %d", name, (int)number);
    return NULL;
}

static unsigned count(const struct rt_window *w, enum rt_event_kind kind)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < w->n_events; i++)
        n += w->events[i].kind == kind;
    return n;
}

/* "step 1/layer 0" of the scope that an event stands in. */
static const char *path(const struct rt_window *w, uint32_t scope)
{
    static char text[256];
    const struct rt_scope *up[RT_MAX_SCOPES];
    unsigned n = 0;
    text[0] = 0;
    for (; scope != RT_NO_SCOPE; scope = w->scopes[scope].parent)
        up[n++] = &w->scopes[scope];
    while (n--) {
        size_t len = strlen(text);
        snprintf(text + len, sizeof text - len, up[n]->number < 0 ? "%s%s" : "%s%s %lld", len ? "/" : "", up[n]->name, (long long)up[n]->number);
    }
    return text;
}

/* ---- Vulkan ---- */

static void double_it(struct rt_device *dev, struct rt_span x)
{
    struct test_push push = {.n = N, .value = 1};
    VK_OK(rt_dispatch(dev, &vk_test_double, &x, &push, (const uint32_t[]){4, 1, 1}, N, err));
}

/* A step of two layers with `calls` kernels each, an op among them. */
static void one_step(struct rt_device *dev, struct rt_span x, int64_t number, unsigned calls)
{
    unsigned root = rt_scope_begin(dev, "step", number);
    for (int layer = 0; layer < 2; layer++) {
        unsigned scope = rt_scope_begin(dev, "layer", layer);
        for (unsigned i = 0; i < calls; i++) {
            unsigned op = rt_scope_begin(dev, "double", -1);
            rt_scope_work(dev, "plain", N, 8 * N);
            double_it(dev, x);
            rt_scope_end(dev, op);
        }
        rt_scope_end(dev, scope);
    }
    float first;
    VK_OK(rt_download(dev, x, 0, &first, sizeof first, err));
    rt_scope_end(dev, root);
}

static void check_step(const struct rt_window *w, unsigned calls, bool serial)
{
    const struct rt_scope *root = &w->scopes[w->root];
    double before = root->begin - SLACK, sum = 0;
    unsigned in_layer[2] = {0, 0};
    ck_assert_uint_eq(w->dropped, 0);
    ck_assert_uint_eq(w->n_scopes, 1 + 2 + 2 * calls);
    ck_assert_uint_eq(count(w, RT_EVENT_WORK), 2 * calls);
    ck_assert_uint_ge(count(w, RT_EVENT_SUBMISSION), 1);
    ck_assert_uint_eq(count(w, RT_EVENT_MOVE), 1);
    ck_assert(w->process_seconds > 0 && w->thread_seconds >= 0);
    for (uint32_t i = 0; i < w->n_events; i++) {
        const struct rt_event *e = &w->events[i];
        ck_assert_msg(e->end >= e->begin, "event %u, %s: from %g to %g", i, e->name, e->begin, e->end);
        ck_assert_msg(e->begin >= root->begin - SLACK && e->end <= root->end + SLACK, "event %u, %s: %g to %g is not in %g to %g", i, e->name,
                      e->begin, e->end, root->begin, root->end);
        if (e->kind != RT_EVENT_WORK)
            continue;
        const struct rt_scope *op = &w->scopes[e->scope];
        ck_assert_str_eq(e->name, "test_double");
        ck_assert_str_eq(op->variant, "plain");
        ck_assert(op->flops == N && op->bytes == 8 * N && e->groups[0] == 4);
        in_layer[w->scopes[op->parent].number]++;
        if (serial) /* each writes what the next one reads, so this holds by the barriers too */
            ck_assert_msg(e->begin >= before - 1e-9, "event %u begins %g before the one before it ended", i, before - e->begin);
        before = e->end;
        sum += e->end - e->begin;
    }
    ck_assert_uint_eq(in_layer[0], calls);
    ck_assert_uint_eq(in_layer[1], calls);
    ck_assert_msg(sum > 0 && sum <= root->end - root->begin + SLACK, "kernels of %g s in a step of %g", sum, root->end - root->begin);
}

static const struct {
    const char *caps;
    bool serial;
    unsigned calls;
} ways[] = {{"", false, 40}, {"", true, 40}, {"minimal", false, 40}, {"-joined", false, 40}, {"-joined", true, 40}, {"-timestamps", false, 20}, {"-mapped", false, 1300}};

START_TEST(every_kernel_of_a_step_has_its_time)
{
    struct rt_device *dev = vk_test_open(ways[_i].caps, NULL);
    if (!dev)
        return;
    struct keeping k = {0};
    struct rt_arena *arena;
    VK_OK(rt_trace_start(dev, &(struct rt_trace_params){.serial = ways[_i].serial, .window = keep, .user = &k}, err));
    ck_assert_int_eq(rt_trace_start(dev, &(struct rt_trace_params){0}, NULL), RT_USAGE);
    struct rt_span x = vk_test_span(dev, N * sizeof(float), &arena);
    const struct rt_trace_memory *memory;
    ck_assert_uint_eq(rt_trace_memory(dev, &memory), 1);
    ck_assert_uint_ge(memory[0].bytes, N * sizeof(float));
    VK_OK(rt_fill(dev, x, 0, err));
    for (int s = 1; s <= 2; s++)
        one_step(dev, x, s, ways[_i].calls);
    check_step(with_root(&k, "step", 2), ways[_i].calls, ways[_i].serial);
    const struct rt_window *first = with_root(&k, "step", 1); /* it has the work before it too */
    ck_assert_uint_eq(count(first, RT_EVENT_WORK), 2 * ways[_i].calls);
    rt_arena_destroy(&arena);
    ck_assert_uint_eq(memory[0].bytes, 0);
    ck_assert_uint_ge(memory[0].peak, N * sizeof(float));
    rt_trace_stop(dev);
    rt_trace_stop(dev); /* nothing the second time */
    vk_test_close(dev);
    forget(&k);
}
END_TEST

START_TEST(paths_and_scopes_that_a_failure_left_open)
{
    struct rt_device *dev = vk_test_open("", NULL);
    if (!dev)
        return;
    struct keeping k = {0};
    struct rt_arena *arena;
    struct rt_span x = vk_test_span(dev, N * sizeof(float), &arena);
    VK_OK(rt_fill(dev, x, 0, err));
    VK_OK(rt_trace_start(dev, &(struct rt_trace_params){.window = keep, .user = &k}, err));
    unsigned root = rt_scope_begin(dev, "token", 7), layer = rt_scope_begin(dev, "layer", 3);
    rt_scope_begin(dev, "forward", -1);
    double_it(dev, x);
    rt_scope_begin(dev, "left open", -1);
    rt_scope_end(dev, layer);
    double_it(dev, x);
    for (int i = 0; i < 2 * RT_MAX_SCOPES; i++) /* deeper than there is room: the rest is not seen, and nothing breaks */
        rt_scope_begin(dev, "deep", -1);
    double_it(dev, x);
    rt_scope_end(dev, root);
    rt_trace_stop(dev);
    const struct rt_window *w = with_root(&k, "token", 7);
    const char *const want[] = {"token 7/layer 3/forward", "token 7"};
    unsigned n = 0;
    for (uint32_t i = 0; i < w->n_events; i++)
        if (w->events[i].kind == RT_EVENT_WORK && n++ < 2)
            ck_assert_str_eq(path(w, w->events[i].scope), want[n - 1]);
    ck_assert_uint_eq(n, 3);
    for (uint32_t i = 0; i < w->n_scopes; i++)
        ck_assert(w->scopes[i].end >= w->scopes[i].begin);
    rt_arena_destroy(&arena);
    vk_test_close(dev);
    forget(&k);
}
END_TEST

START_TEST(labels_and_captures_keep_the_layer_silent)
{
    /* Labels are on with the validation layer. Scopes stay open over many submissions here, and are opened anew in each. */
    struct rt_device *dev = vk_test_open("", &(struct rt_device_params){.validate = true, .no_pipeline_cache = true, .submit_budget = 1e-9});
    if (!dev)
        return;
    struct rt_arena *arena;
    const char *by;
    struct rt_span x = vk_test_span(dev, N * sizeof(float), &arena);
    VK_OK(rt_fill(dev, x, 0, err));
    ck_assert(rt_scope_seen(dev));
    rt_capture_scopes(dev, "step", 2, 3);
    for (int s = 1; s <= 4; s++) {
        one_step(dev, x, s, 5);
        ck_assert_uint_eq(rt_captures(dev, &by), s < 2 ? 0 : s < 3 ? 1 : 2);
    }
    ck_assert_str_eq(by, "labels");
    rt_arena_destroy(&arena);
    vk_test_close(dev);
}
END_TEST

/* ---- the host ---- */

START_TEST(ops_of_the_host_are_events)
{
    struct rt_device *dev;
    struct keeping k = {0};
    struct rt_arena *arena;
    struct rt_span gu, y;
    enum { T = 16, F = 64 };
    VK_OK(rt_device_open(&(struct rt_device_params){.name = "host", .threads = 2}, &dev, err));
    ck_assert_uint_eq(rt_scope_begin(dev, "nobody looks", -1), RT_MAX_SCOPES);
    VK_OK(rt_trace_start(dev, &(struct rt_trace_params){.window = keep, .user = &k}, err));
    VK_OK(rt_arena_create(dev, "test", &arena, err));
    VK_OK(rt_arena_add(arena, 8 * T * F, "gate and up", &gu, err));
    VK_OK(rt_arena_add(arena, 4 * T * F, "y", &y, err));
    VK_OK(rt_arena_commit(arena, err));
    unsigned root = rt_scope_begin(dev, "step", 1);
    for (int i = 0; i < 3; i++)
        VK_OK(op_swiglu(dev, gu, y, T, F, err));
    rt_trace_counter(dev, "loss", "nats", 1.5);
    rt_scope_end(dev, root);
    const struct rt_window *w = with_root(&k, "step", 1);
    ck_assert_uint_eq(count(w, RT_EVENT_WORK), 3);
    ck_assert_uint_eq(w->n_counters, 2); /* the arena's size, the loss */
    for (uint32_t i = 0; i < w->n_events; i++) {
        const struct rt_event *e = &w->events[i];
        ck_assert(e->kind == RT_EVENT_WORK && e->end >= e->begin && e->submission == 0);
        ck_assert_str_eq(path(w, e->scope), "step 1/swiglu");
        ck_assert(w->scopes[e->scope].bytes == 12.0 * T * F);
    }
    rt_arena_destroy(&arena);
    rt_device_close(&dev); /* ends the trace */
    forget(&k);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("trace");
    TCase *t = tcase_create("trace");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, every_kernel_of_a_step_has_its_time, 0, (int)(sizeof ways / sizeof *ways));
    tcase_add_test(t, paths_and_scopes_that_a_failure_left_open);
    tcase_add_test(t, labels_and_captures_keep_the_layer_silent);
    tcase_add_test(t, ops_of_the_host_are_events);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
