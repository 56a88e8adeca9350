/* tests/test_profile.c - --profile and --trace: that moments are given away as they should, that the figures of a run agree with each other, that a
 * trace is what its readers ask for, and that none of it changes a result. */
#include "mosld/profile/timeline.h"
#include "tests/support/program.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRAIN "train --model " STORIES " --task t=t.jsonl --overwrite-output-dir "

static void make(void)
{
    program_folder_make();
    write_text("t.jsonl", "{\"prompt\": \"Tom \", \"completion\": \"is glad.\"}\n{\"text\": \"Lily likes the big red ball.\"}\n");
}

static void done(int status) { ck_assert_msg(status == 0, "status %d: %s", status, program_err()); }

/* ---- the timeline, with times made up ---- */

START_TEST(every_moment_has_one_name)
{
    const struct rt_scope root = {.name = "step", .number = 1, .parent = RT_NO_SCOPE, .begin = 10, .end = 110};
    const struct rt_event events[] = {
        {.kind = RT_EVENT_MOVE, .begin = 12, .end = 15},                       /* 3 of moving */
        {.kind = RT_EVENT_BUILD, .begin = 14, .end = 20},                      /* 6 of building: the first of two at a time */
        {.kind = RT_EVENT_WORK, .begin = 35, .end = 45, .submission = 1},      /* overlap: 15 of work */
        {.kind = RT_EVENT_WORK, .begin = 40, .end = 50, .submission = 1},
        {.kind = RT_EVENT_TRANSFER, .begin = 48, .end = 54, .submission = 1},  /* 4 of transfer alone */
        {.kind = RT_EVENT_WORK, .begin = 60, .end = 70, .submission = 1},      /* 6 between, 10 of work */
        {.kind = RT_EVENT_SUBMISSION, .begin = 30, .end = 75, .submission = 1}, /* 5 and 5 of latency */
        {.kind = RT_EVENT_WAIT, .begin = 31, .end = 76},                       /* what the device does counts */
        {.kind = RT_EVENT_WORK, .begin = 105, .end = 112, .submission = 2},    /* reaches 2 beyond: the clocks disagree */
        {.kind = RT_EVENT_WORK, .begin = 5, .end = -1, .submission = 2},       /* was never timed */
        {.kind = RT_EVENT_SUBMISSION, .begin = 100, .end = 113, .submission = 2},
    };
    const struct rt_window w = {.scopes = &root, .events = events, .n_scopes = 1, .n_events = sizeof events / sizeof *events};
    struct mosld_profile_part part = {0};
    ck_assert(mosld_timeline_add(&part, &w));
    ck_assert_double_eq(part.time.work, 15 + 10 + 5);
    ck_assert_double_eq(part.time.transfer, 4);
    ck_assert_double_eq(part.time.between, 6);
    ck_assert_double_eq(part.time.latency, 5 + 5 + 5);
    ck_assert_double_eq(part.time.build, 6);
    ck_assert_double_eq(part.time.move, 2);
    ck_assert_double_eq(part.time.program, 2 + 10 + 25);
    ck_assert_double_eq(part.device_clock, 15 + 10 + 7 + 4);
    part.wall = 100;
    ck_assert_double_eq_tol(mosld_profile_accounted(&part), 1.02, 1e-12);
}
END_TEST

/* ---- the figures of a run ---- */

static double number(const cJSON *json, const char *key)
{
    const cJSON *item = cJSON_GetObjectItem(json, key);
    ck_assert_msg(cJSON_IsNumber(item), "%s is missing", key);
    return item->valuedouble;
}

static const cJSON *named(const cJSON *list, const char *key, const char *name)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
        if (strcmp(cJSON_GetObjectItem(item, key)->valuestring, name) == 0)
            return item;
    ck_abort_msg("no %s", name);
    return NULL;
}

static double sum_of(const cJSON *list, const char *key)
{
    const cJSON *item;
    double sum = 0;
    cJSON_ArrayForEach(item, list)
        sum += number(item, key);
    return sum;
}

static void near_to(double got, double want, const char *what) { ck_assert_msg(fabs(got - want) <= 1e-6 * fabs(want), "%s: %g for %g", what, got, want); }

static void check_profile(const cJSON *profile, const char *of, bool host, unsigned count, unsigned layers)
{
    const cJSON *p = named(cJSON_GetObjectItem(profile, "profiles"), "of", of), *item;
    const cJSON *time = cJSON_GetObjectItem(p, "time"), *ops = cJSON_GetObjectItem(p, "ops"), *kernels = cJSON_GetObjectItem(p, "kernels");
    double seconds = number(p, "seconds"), sum = 0;
    ck_assert_double_eq(number(p, "count"), count);
    cJSON_ArrayForEach(item, time)
        sum += item->valuedouble;
    near_to(sum, seconds, "the named times for the step");
    ck_assert_msg(fabs(number(p, "accounted") - 1) < 0.05, "%g of the step is accounted for", number(p, "accounted"));
    near_to(sum_of(kernels, "calls"), number(p, "kernel_count"), "calls of kernels");
    double transfers = 0, transfer_calls = 0;
    cJSON_ArrayForEach(item, ops)
        if (cJSON_GetObjectItem(item, "variant")) {
            transfers += number(item, "seconds");
            transfer_calls += number(item, "calls");
        }
    near_to(sum_of(kernels, "seconds") + transfers, sum_of(ops, "seconds"), "ops for their kernels");
    near_to(transfer_calls, number(p, "transfer_count"), "transfers");
    if (host) /* Kernels may overlap, and then their times add up to more. */
        near_to(number(time, "work"), sum_of(ops, "seconds"), "the host's ops");
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(p, "layers")), (int)layers);
    ck_assert(number(named(ops, "name", "matmul_nt"), "flops") > 0);
    ck_assert(number(named(ops, "name", "rmsnorm"), "bytes") > 0);
    ck_assert(number(profile, "peak_flops") > 0 && number(profile, "peak_bytes") > 0);
    const cJSON *memory = cJSON_GetObjectItem(profile, "memory"); /* also in bench, which has loaded its model before it begins to profile */
    ck_assert(number(memory, "activations") > 0 && number(memory, "weights") > 0);
}

static const struct {
    const char *caps, *mode;
} ways[] = {{NULL, "--profile"}, {"", "--profile"}, {"", "--profile=serial"}, {"-joined", "--profile"}, {"minimal", "--profile"}};

START_TEST(the_figures_of_a_step_agree)
{
    char device[32] = "host";
    bool host = !ways[_i].caps;
    if (!host) {
        setenv("MOSLD_CAPS", ways[_i].caps, 1);
        if (!vk_test_name(device, sizeof device))
            return;
    }
    cJSON *json = program_json(program(TRAIN "--out a --device %s --max-steps 4 --json %s", device, ways[_i].mode));
    const cJSON *profile = cJSON_GetObjectItem(json, "profile"), *steps, *start = cJSON_GetObjectItem(profile, "start");
    ck_assert_int_ge(cJSON_GetArraySize(cJSON_GetObjectItem(start, "phases")), 5);
    named(cJSON_GetObjectItem(start, "phases"), "name", "reading the data");
    double phases_of_start = sum_of(cJSON_GetObjectItem(start, "phases"), "seconds");
    ck_assert_msg(phases_of_start > 0.8 * number(start, "seconds") && phases_of_start <= 1.001 * number(start, "seconds"), "phases of %g s in a start of %g", phases_of_start,
                  number(start, "seconds"));
    ck_assert_ptr_nonnull(profile);
    check_profile(profile, "step", host, 3, 5);
    steps = named(cJSON_GetObjectItem(profile, "profiles"), "of", "step");
    named(cJSON_GetObjectItem(steps, "phases"), "name", "layer / backward");
    named(cJSON_GetObjectItem(steps, "phases"), "name", "optimizer");
    const cJSON *phases = cJSON_GetObjectItem(steps, "phases"), *modules = cJSON_GetObjectItem(steps, "modules");
    near_to(sum_of(modules, "calls"), sum_of(phases, "calls"), "kernels by module");
    near_to(sum_of(modules, "seconds"), sum_of(phases, "seconds"), "time by module");
    ck_assert_double_ge(number(named(modules, "name", "layer / forward / o_proj"), "calls"), 5);
    ck_assert_double_ge(number(named(modules, "name", "layer / backward / attention"), "calls"), 10); /* attention_bwd and rope */
    named(modules, "name", "output head / lm_head");
    ck_assert_double_eq(number(named(cJSON_GetObjectItem(steps, "ops"), "name", "adamw"), "calls"), 1);
    ck_assert_double_eq(number(named(cJSON_GetObjectItem(steps, "ops"), "name", "attention_bwd"), "calls"), 5);
    cJSON_Delete(json);
}
END_TEST

START_TEST(other_commands_have_it_too)
{
    cJSON *json = program_json(program("generate --model " STORIES " --device host --prompt Once --max-new-tokens 5 --json --profile"));
    check_profile(cJSON_GetObjectItem(json, "profile"), "token", true, 3, 5); /* five, of which the prompt gives the first, and one is left out */
    check_profile(cJSON_GetObjectItem(json, "profile"), "prompt", true, 1, 5);
    cJSON_Delete(json);
    json = program_json(program("eval --model " STORIES " --device host --task t=t.jsonl --json --profile"));
    check_profile(cJSON_GetObjectItem(json, "profile"), "batch", true, 1, 5);
    cJSON_Delete(json);
    json = program_json(program("bench --model " STORIES " --device host --what step --tokens 1x16 --methods lora --targets qv --rounds 1 --steps 3 --json --profile"));
    check_profile(cJSON_GetObjectItem(json, "profile"), "lora, q and v", true, 3, 5);
    cJSON_Delete(json);
    done(program("eval --model " STORIES " --device host --task t=t.jsonl --profile"));
    ck_assert_ptr_nonnull(strstr(program_err(), "profile of \"batch\""));
    ck_assert_ptr_null(strstr(program_out(), "profile"));
}
END_TEST

START_TEST(results_are_the_same_bits)
{
    char device[32] = "host";
    if (_i && !vk_test_name(device, sizeof device))
        return;
    done(program(TRAIN "--out a --device %s --max-steps 3", device));
    done(program(TRAIN "--out b --device %s --max-steps 3 --profile=serial --trace t.json --labels --capture 2", device));
    ck_assert(same_bytes("a/adapter_model.safetensors", "b/adapter_model.safetensors"));
}
END_TEST

/* ---- the trace ---- */

struct slice {
    double begin, end;
    int row, order;
};

static int outer_first(const void *a, const void *b)
{
    const struct slice *x = a, *y = b;
    if (x->row != y->row)
        return x->row - y->row;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end != y->end ? (x->end > y->end ? -1 : 1) : x->order - y->order;
}

/* Slices of one row must lie in each other or apart: readers draw a stack of them. Times are written to the nanosecond. */
static void check_nesting(struct slice *slices, size_t n)
{
    double ends[64];
    int depth = 0, row = -1;
    qsort(slices, n, sizeof *slices, outer_first);
    for (size_t i = 0; i < n; i++) {
        if (slices[i].row != row)
            depth = 0;
        row = slices[i].row;
        while (depth && ends[depth - 1] <= slices[i].begin + 0.002)
            depth--;
        ck_assert_msg(!depth || slices[i].end <= ends[depth - 1] + 0.002, "row %d: a slice from %.3f to %.3f us reaches out of one that ends at %.3f", row,
                      slices[i].begin, slices[i].end, ends[depth - 1]);
        ck_assert_int_lt(depth, 64);
        ends[depth++] = slices[i].end;
    }
}

/* The rules of Chrome's trace events for the phases that are used: X, C, M. */
static void check_event(const cJSON *e)
{
    const cJSON *phase = cJSON_GetObjectItem(e, "ph"), *args = cJSON_GetObjectItem(e, "args");
    ck_assert(cJSON_IsString(phase) && strlen(phase->valuestring) == 1 && strchr("XCM", phase->valuestring[0]));
    ck_assert(cJSON_IsString(cJSON_GetObjectItem(e, "name")) && *cJSON_GetObjectItem(e, "name")->valuestring);
    ck_assert(number(e, "pid") > 0 && number(e, "tid") >= 0);
    char p = phase->valuestring[0];
    if (p != 'M') /* Perfetto drops times below 0 */
        ck_assert(number(e, "ts") >= 0);
    if (p == 'X')
        ck_assert(number(e, "dur") >= 0);
    if (p == 'M')
        ck_assert(cJSON_IsString(cJSON_GetObjectItem(args, "name")) || cJSON_IsNumber(cJSON_GetObjectItem(args, "sort_index")));
    if (p == 'C') /* its one series is called by the unit */
        ck_assert(args && args->child && *args->child->string && cJSON_IsNumber(args->child) && !args->child->next);
}

START_TEST(a_trace_is_what_its_readers_ask_for)
{
    char device[32] = "host";
    if (_i && !vk_test_name(device, sizeof device))
        return;
    done(program(TRAIN "--out a --device %s --max-steps 3 --trace t.json", device));
    size_t size, n = 0;
    char *text = read_bytes("t.json", &size);
    cJSON *trace = cJSON_ParseWithOpts(text, NULL, true), *e;
    ck_assert(cJSON_IsArray(trace));
    struct slice *slices = calloc((size_t)cJSON_GetArraySize(trace), sizeof *slices);
    ck_assert_ptr_nonnull(slices);
    int kernels = 0, submissions = 0, steps = 0, losses = 0, memory = 0, device_layers = 0;
    cJSON_ArrayForEach(e, trace)
    {
        check_event(e);
        const char *name = cJSON_GetObjectItem(e, "name")->valuestring, *phase = cJSON_GetObjectItem(e, "ph")->valuestring;
        const cJSON *category = cJSON_GetObjectItem(e, "cat");
        int pid = (int)number(e, "pid");
        kernels += category && strcmp(category->valuestring, "kernel") == 0;
        submissions += category && strcmp(category->valuestring, "submission") == 0;
        steps += *phase == 'X' && pid == 1 && strncmp(name, "step ", 5) == 0;
        device_layers += *phase == 'X' && pid == 2 && strncmp(name, "layer ", 6) == 0;
        losses += *phase == 'C' && strcmp(name, "loss") == 0;
        memory += *phase == 'C' && strcmp(name, "activations") == 0;
        if (*phase == 'X') {
            double begin = number(e, "ts");
            slices[n] = (struct slice){begin, begin + number(e, "dur"), 100 * pid + (int)number(e, "tid"), (int)n};
            n++;
        }
    }
    ck_assert(_i ? submissions >= 3 : submissions == 0);
    ck_assert_int_eq(steps, 3);
    ck_assert_int_eq(losses, 3);
    ck_assert_int_ge(memory, 1);
    ck_assert(_i ? kernels > 300 && device_layers == 3 * 2 * 5 : kernels == 0 && device_layers == 0);
    check_nesting(slices, n);
    free(slices);
    free(text);
    cJSON_Delete(trace);
}
END_TEST

/* ---- what is refused ---- */

START_TEST(bad_options)
{
    static const char *const ranges[] = {"x", "", "3-", "-3", "5-3", "1-2-3", "1 2", "+1", "99999999999999999999"};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        program_failed_as(program(TRAIN "--out a --device host --max-steps 1 '--capture=%s'", ranges[i]), 2, "--capture", NULL);
    program_failed_as(program(TRAIN "--out a --device host --profile=fast"), 2, "--profile", "serial", NULL);
    program_failed_as(program(TRAIN "--out a --device host --max-steps 1 --trace nowhere/t.json"), 3, "nowhere/t.json", NULL);
    done(program(TRAIN "--out a --device host --max-steps 1 --capture 1")); /* the host has nobody to tell, and no fault in that */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("profile");
    TCase *tc = tcase_create("profile");
    tcase_add_checked_fixture(tc, make, program_folder_remove);
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, every_moment_has_one_name);
    tcase_add_loop_test(tc, the_figures_of_a_step_agree, 0, (int)(sizeof ways / sizeof *ways));
    tcase_add_test(tc, other_commands_have_it_too);
    tcase_add_loop_test(tc, results_are_the_same_bits, 0, 2);
    tcase_add_loop_test(tc, a_trace_is_what_its_readers_ask_for, 0, 2);
    tcase_add_test(tc, bad_options);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
