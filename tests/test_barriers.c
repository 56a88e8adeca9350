/* tests/test_barriers.c - the tracker that decides where barriers stand, and that the validation layer would see one missing. */
#include "runtime/vulkan/hazard.h"
#include "shaders/test_push.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* ---- the tracker alone ---- */

static struct hazard h;
static char a, b; /* two buffers: their addresses are all that counts */

static bool touch(enum hazard_stage stage, const void *buffer, uint64_t begin, uint64_t end, bool write)
{
    struct hazard_barrier ignored;
    return hazard_command(&h, stage, &(struct hazard_access){buffer, begin, end, write}, 1, &ignored);
}

static void fresh(void) { memset(&h, 0, sizeof h); }

START_TEST(conflicts)
{
    static const struct {
        bool first_write, second_write, want;
    } cases[] = {{false, false, false}, {true, false, true}, {false, true, true}, {true, true, true}};
    for (size_t i = 0; i < 4; i++) {
        fresh();
        ck_assert(!touch(HAZARD_COMPUTE, &a, 0, 256, cases[i].first_write));
        ck_assert_int_eq(touch(HAZARD_COMPUTE, &a, 128, 384, cases[i].second_write), cases[i].want);
    }
}
END_TEST

START_TEST(ranges_that_do_not_meet)
{
    fresh();
    ck_assert(!touch(HAZARD_COMPUTE, &a, 256, 512, true));
    ck_assert(!touch(HAZARD_COMPUTE, &a, 512, 768, true)); /* it begins where the other ends */
    ck_assert(!touch(HAZARD_COMPUTE, &a, 0, 256, false));
    ck_assert(!touch(HAZARD_COMPUTE, &b, 256, 512, true)); /* another buffer */
    ck_assert(!touch(HAZARD_COMPUTE, &a, 300, 300, true)); /* empty */
    ck_assert(touch(HAZARD_COMPUTE, &a, 767, 768, false)); /* the last byte of the second */
}
END_TEST

START_TEST(a_barrier_clears_everything)
{
    fresh();
    touch(HAZARD_COMPUTE, &a, 0, 256, true);
    touch(HAZARD_TRANSFER, &b, 0, 256, true);
    ck_assert(touch(HAZARD_COMPUTE, &a, 0, 256, false));
    ck_assert(!touch(HAZARD_COMPUTE, &b, 0, 256, false)); /* it was before the same barrier */
    ck_assert(touch(HAZARD_COMPUTE, &b, 0, 256, true));   /* but that read was after it */
}
END_TEST

START_TEST(the_barrier_names_its_stages)
{
    struct hazard_barrier out;
    fresh();
    touch(HAZARD_TRANSFER, &a, 0, 256, true);
    touch(HAZARD_COMPUTE, &b, 0, 256, false);
    ck_assert(hazard_command(&h, HAZARD_COMPUTE, &(struct hazard_access){&b, 0, 4, true}, 1, &out));
    ck_assert_uint_eq(out.src_stages, HAZARD_TRANSFER | HAZARD_COMPUTE);
    ck_assert_uint_eq(out.src_write_stages, HAZARD_TRANSFER);
    ck_assert(hazard_command(&h, HAZARD_TRANSFER, &(struct hazard_access){&b, 0, 4, false}, 1, &out));
    ck_assert_uint_eq(out.src_stages, HAZARD_COMPUTE);
    ck_assert_uint_eq(out.src_write_stages, HAZARD_COMPUTE);
    ck_assert(hazard_command(&h, HAZARD_TRANSFER, &(struct hazard_access){&b, 0, 4, true}, 1, &out)); /* WAR: nothing to make visible */
    ck_assert_uint_eq(out.src_write_stages, 0);
}
END_TEST

START_TEST(one_command_does_not_conflict_with_itself)
{
    struct hazard_barrier out;
    struct hazard_access both[] = {{&a, 0, 256, false}, {&a, 0, 256, true}};
    fresh();
    ck_assert(!hazard_command(&h, HAZARD_COMPUTE, both, 2, &out));
    ck_assert(hazard_command(&h, HAZARD_COMPUTE, both, 2, &out));
    ck_assert(hazard_command(&h, HAZARD_COMPUTE, both, 2, &out)); /* and the accesses of the second have been entered */
}
END_TEST

START_TEST(neighbours_are_merged_and_a_full_table_is_a_barrier)
{
    fresh();
    for (uint64_t i = 0; i < 4 * HAZARD_MAX; i++)
        ck_assert(!touch(HAZARD_COMPUTE, &a, 256 * i, 256 * i + 256, true));
    ck_assert_uint_eq(h.n, 1);
    fresh();
    for (uint64_t i = 0; i < HAZARD_MAX; i++)
        ck_assert(!touch(HAZARD_COMPUTE, &a, 512 * i, 512 * i + 256, true));
    ck_assert(touch(HAZARD_COMPUTE, &b, 0, 256, true));
    ck_assert_uint_eq(h.n, 1);
}
END_TEST

START_TEST(a_forgotten_buffer)
{
    fresh();
    touch(HAZARD_COMPUTE, &a, 0, 256, true);
    touch(HAZARD_COMPUTE, &b, 0, 256, true);
    hazard_forget(&h, &a);
    ck_assert(!touch(HAZARD_COMPUTE, &a, 0, 256, true));
    ck_assert(touch(HAZARD_COMPUTE, &b, 0, 256, true));
}
END_TEST

/* Against a plain model: one byte of state for each byte of memory, random commands. The tracker may ask for a barrier only where
 * the model needs one (merging keeps ranges exact), and must wherever it does. */
START_TEST(agrees_with_a_byte_for_byte_model)
{
    enum { BYTES = 64 };
    static unsigned char read_[2][BYTES], written[2][BYTES];
    uint64_t seed = 12345;
    fresh();
    for (int step = 0; step < 20000; step++) {
        struct hazard_access list[3];
        unsigned n = 1 + (unsigned)step % 3;
        bool needed = false;
        for (unsigned i = 0; i < n; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            uint64_t begin = seed >> 40 & 63, end = begin + (seed >> 50 & 7);
            list[i] = (struct hazard_access){seed >> 60 & 1 ? &a : &b, begin, end > BYTES ? BYTES : end, seed >> 61 & 1};
            for (uint64_t k = begin; k < list[i].end; k++) {
                int buffer = list[i].buffer == &a;
                needed = needed || written[buffer][k] || (list[i].write && read_[buffer][k]);
            }
        }
        struct hazard_barrier out;
        ck_assert_int_eq(hazard_command(&h, HAZARD_COMPUTE, list, n, &out), needed);
        if (needed)
            memset(read_, 0, sizeof read_), memset(written, 0, sizeof written);
        for (unsigned i = 0; i < n; i++)
            for (uint64_t k = list[i].begin; k < list[i].end; k++)
                (list[i].write ? written : read_)[list[i].buffer == &a][k] = 1;
    }
}
END_TEST

/* ---- on a device, under the validation layer ---- */

enum hazard_kind { RAW, WAW, WAR, ACROSS, N_KINDS };

/* Two commands that need a barrier between them; ACROSS: in two submissions. Two dispatches that write the same bytes are not
 * reported by the layer, on purpose (they may be atomics), so the first of WAW is a fill. */
static void run_hazard(struct rt_device *dev, enum hazard_kind kind)
{
    struct rt_arena *arenas[3];
    struct rt_span x = vk_test_span(dev, 4096, &arenas[0]), y = vk_test_span(dev, 4096, &arenas[1]);
    struct rt_span z = vk_test_span(dev, 4096, &arenas[2]);
    struct test_push push = {.n = 1024, .value = 1};
    const uint32_t groups[3] = {16, 1, 1};
    const struct rt_span first[] = {x, x, y};
    const struct rt_span second[N_KINDS][3] = {{y, y, z}, {z, z, y}, {z, z, x}, {y, y, z}};
    VK_OK(rt_finish(dev, err));
    if (kind == WAW)
        VK_OK(rt_fill(dev, y, 7, err));
    else
        VK_OK(rt_dispatch(dev, &vk_test_add, first, &push, groups, 1024, err));
    if (kind == ACROSS) { /* the cut at a segment, of a device that has nothing else to do */
        VK_OK(rt_segment(dev, "second", err));
        struct rt_statistics s;
        rt_get_statistics(dev, &s);
        ck_assert_uint_ge(s.submissions, 2);
    }
    VK_OK(rt_dispatch(dev, &vk_test_add, second[kind], &push, groups, 1024, err));
    VK_OK(rt_finish(dev, err));
    for (int i = 0; i < 3; i++)
        rt_arena_destroy(&arenas[i]);
}

static struct rt_device *open_for(enum hazard_kind kind)
{
    struct rt_device_params params = {.validate = true, .no_pipeline_cache = true, .submit_budget = kind == ACROSS ? 1e-9 : 0};
    return vk_test_open(NULL, &params);
}

START_TEST(with_barriers_the_layer_is_silent)
{
    struct rt_device *dev = open_for(_i);
    if (!dev)
        return;
    run_hazard(dev, _i);
    struct rt_statistics s;
    rt_get_statistics(dev, &s);
    ck_assert_uint_ge(s.barriers, 1);
    vk_test_close(dev);
}
END_TEST

START_TEST(a_planted_missing_barrier_is_reported)
{
    setenv("MOSLD_TEST_NO_BARRIERS", "1", 1);
    struct rt_device *dev = open_for(_i);
    if (!dev)
        return;
    /* Across submissions there is no hazard where the first has finished before the second is made, which a busy machine can bring about. */
    const char *last;
    for (int again = 0; again < 50 && rt_validation_messages(dev, &last) == 0; again++)
        run_hazard(dev, _i);
    static const char *const want[N_KINDS] = {"READ_AFTER_WRITE", "WRITE_AFTER_WRITE", "WRITE_AFTER_READ", "READ_AFTER_WRITE"};
    struct rt_statistics s;
    rt_get_statistics(dev, &s);
    ck_assert_uint_eq(s.barriers, 0);
    ck_assert_uint_ge(rt_validation_messages(dev, &last), 1);
    ck_assert_msg(strstr(last, want[_i]) || strstr(last, "SYNC-HAZARD"), "not about a hazard: %s", last);
    rt_device_close(&dev);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("barriers");
    TCase *tracker = tcase_create("tracker"), *device = tcase_create("device");
    tcase_add_test(tracker, conflicts);
    tcase_add_test(tracker, ranges_that_do_not_meet);
    tcase_add_test(tracker, a_barrier_clears_everything);
    tcase_add_test(tracker, the_barrier_names_its_stages);
    tcase_add_test(tracker, one_command_does_not_conflict_with_itself);
    tcase_add_test(tracker, neighbours_are_merged_and_a_full_table_is_a_barrier);
    tcase_add_test(tracker, a_forgotten_buffer);
    tcase_add_test(tracker, agrees_with_a_byte_for_byte_model);
    tcase_add_loop_test(device, with_barriers_the_layer_is_silent, 0, N_KINDS);
    tcase_add_loop_test(device, a_planted_missing_barrier_is_reported, 0, N_KINDS);
    tcase_set_timeout(device, 120);
    suite_add_tcase(suite, tracker);
    suite_add_tcase(suite, device);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
