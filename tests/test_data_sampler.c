/* tests/test_data_sampler.c - the order of the rows: every row once an epoch, weights, wrapping, seeking. */
#include "mosld/data/random.h"
#include "mosld/data/sampler.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct rt_error err;

static struct mosld_sampler *make(uint32_t n_tasks, const uint32_t *rows, const double *weights,
                                  enum mosld_sampling sampling, uint64_t seed)
{
    struct mosld_sampler *s = NULL;
    struct mosld_sampler_params params = {n_tasks, rows, weights, sampling, seed};
    ck_assert_int_eq(mosld_sampler_create(&params, &s, &err), RT_OK);
    return s;
}

/* How often each row of a task comes in places [from, to). */
static void count(struct mosld_sampler *s, uint32_t task, uint64_t from, uint64_t to, uint32_t *times, uint32_t rows)
{
    memset(times, 0, rows * sizeof *times);
    for (uint64_t i = from; i < to; i++) {
        struct mosld_row row = mosld_sampler_at(s, i);
        if (row.task != task)
            continue;
        ck_assert_uint_lt(row.row, rows);
        times[row.row]++;
    }
}

START_TEST(every_row_once_an_epoch)
{
    const uint32_t rows[] = {7, 0, 13};
    struct mosld_sampler *s = make(3, rows, NULL, _i ? MOSLD_SAMPLING_SEQUENTIAL : MOSLD_SAMPLING_RANDOM, 3);
    ck_assert_uint_eq(mosld_sampler_epoch_rows(s), 20);
    for (uint64_t epoch = 0; epoch < 5; epoch++) {
        for (uint32_t task = 0; task < 3; task++) {
            uint32_t times[13];
            count(s, task, epoch * 20, epoch * 20 + 20, times, rows[task]);
            for (uint32_t r = 0; r < rows[task]; r++)
                ck_assert_msg(times[r] == 1, "epoch %d, task %u, row %u: %u times", (int)epoch, task, r, times[r]);
        }
    }
    mosld_sampler_destroy(&s);
    ck_assert_ptr_null(s);
}
END_TEST

START_TEST(sequential_is_file_order_from_the_first_row)
{
    const uint32_t rows[] = {2, 3};
    struct mosld_sampler *s = make(2, rows, NULL, MOSLD_SAMPLING_SEQUENTIAL, 1);
    static const struct mosld_row want[] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}, {1, 2}};
    for (uint64_t i = 0; i < 10; i++) {
        struct mosld_row row = mosld_sampler_at(s, i);
        ck_assert_uint_eq(row.task, want[i % 5].task);
        ck_assert_uint_eq(row.row, want[i % 5].row);
    }
    mosld_sampler_destroy(&s);
}
END_TEST

START_TEST(weights_multiply_rows_and_the_state_carries_over)
{
    const uint32_t rows[] = {10, 8, 3};
    const double weights[] = {0.35, 2.5, 0.01};
    struct mosld_sampler *s = make(3, rows, weights, _i ? MOSLD_SAMPLING_SEQUENTIAL : MOSLD_SAMPLING_RANDOM, 11);
    const uint64_t epoch = 4 + 20 + 1; /* round(3.5), 2.5 x 8, at least one */
    ck_assert_uint_eq(mosld_sampler_epoch_rows(s), epoch);
    for (uint64_t n = 1; n <= 12; n++) {
        for (uint32_t task = 0; task < 3; task++) {
            uint32_t times[10], least = UINT32_MAX, most = 0;
            count(s, task, 0, n * epoch, times, rows[task]);
            for (uint32_t r = 0; r < rows[task]; r++) {
                least = times[r] < least ? times[r] : least;
                most = times[r] > most ? times[r] : most;
            }
            ck_assert_msg(most - least <= 1, "after %d epochs rows of task %u came %u to %u times", (int)n, task, least,
                          most);
        }
    }
    uint32_t times[10];
    for (uint32_t n = 0; n < 3; n++) { /* the quota holds in each epoch, not on average */
        count(s, 0, n * epoch, (n + 1) * epoch, times, 10);
        uint32_t sum = 0;
        for (uint32_t r = 0; r < 10; r++)
            sum += times[r];
        ck_assert_uint_eq(sum, 4);
    }
    mosld_sampler_destroy(&s);
}
END_TEST

START_TEST(any_place_can_be_asked_for_in_any_order)
{
    const uint32_t rows[] = {17, 5};
    const double weights[] = {1, 1.5};
    enum { N = 100 };
    struct mosld_row straight[N];
    struct mosld_sampler *s = make(2, rows, weights, MOSLD_SAMPLING_RANDOM, 99);
    for (uint64_t i = 0; i < N; i++)
        straight[i] = mosld_sampler_at(s, i);
    mosld_sampler_destroy(&s);
    s = make(2, rows, weights, MOSLD_SAMPLING_RANDOM, 99);
    for (uint64_t k = 0; k < N; k++) {
        uint64_t i = (k * 37 + 61) % N;
        struct mosld_row row = mosld_sampler_at(s, i);
        ck_assert_msg(row.task == straight[i].task && row.row == straight[i].row, "place %d differs", (int)i);
    }
    mosld_sampler_destroy(&s);
}
END_TEST

/* Same seed, same order; another seed or epoch, another order. With 40 rows a chance repetition is out of the question.
 */
START_TEST(seed_and_epoch_give_the_order)
{
    const uint32_t rows[] = {40};
    struct mosld_sampler *a = make(1, rows, NULL, MOSLD_SAMPLING_RANDOM, 1),
                         *b = make(1, rows, NULL, MOSLD_SAMPLING_RANDOM, 1),
                         *c = make(1, rows, NULL, MOSLD_SAMPLING_RANDOM, 2);
    uint32_t other_seed = 0, other_epoch = 0, in_place = 0;
    for (uint64_t i = 0; i < 40; i++) {
        uint32_t row = mosld_sampler_at(a, i).row;
        ck_assert_uint_eq(row, mosld_sampler_at(b, i).row);
        other_seed += row != mosld_sampler_at(c, i).row;
        in_place += row == i;
    }
    for (uint64_t i = 0; i < 40; i++)
        other_epoch += mosld_sampler_at(a, i).row != mosld_sampler_at(b, 40 + i).row;
    ck_assert_uint_gt(other_seed, 20);
    ck_assert_uint_gt(other_epoch, 20);
    ck_assert_uint_lt(in_place, 20);
    mosld_sampler_destroy(&a);
    mosld_sampler_destroy(&b);
    mosld_sampler_destroy(&c);
}
END_TEST

/* Tasks are shuffled together: both halves of an epoch hold rows of both. */
START_TEST(tasks_are_shuffled_together)
{
    const uint32_t rows[] = {100, 100};
    struct mosld_sampler *s = make(2, rows, NULL, MOSLD_SAMPLING_RANDOM, 5);
    uint32_t first = 0;
    for (uint64_t i = 0; i < 100; i++)
        first += mosld_sampler_at(s, i).task == 0;
    ck_assert_msg(first > 25 && first < 75, "%u of the first 100 rows are of the first task", first);
    mosld_sampler_destroy(&s);
}
END_TEST

/* The stream is part of every run's bits, so it must not change: splitmix64's own known values from state 0. */
START_TEST(the_generator_is_splitmix64)
{
    struct data_random r = {0};
    ck_assert_uint_eq(data_random_next(&r), 0xe220a8397b1dcdafu);
    ck_assert_uint_eq(data_random_next(&r), 0x6e789e6aa1b965f4u);
    ck_assert_uint_eq(data_random_next(&r), 0x06c45d188009454fu);
}
END_TEST

/* 60000 orders of 3: each of the six comes 10000 times, give or take five standard deviations (91). */
START_TEST(permutations_are_even)
{
    uint32_t times[27] = {0}, order[3], kinds = 0;
    for (uint64_t i = 0; i < 60000; i++) {
        struct data_random r = data_random_from(7, 1, i);
        data_random_permutation(&r, order, 3);
        ck_assert_uint_eq(order[0] + order[1] + order[2], 3);
        times[order[0] * 9 + order[1] * 3 + order[2]]++;
    }
    for (uint32_t i = 0; i < 27; i++) {
        kinds += times[i] > 0;
        ck_assert_msg(times[i] == 0 || abs((int)times[i] - 10000) < 457, "order %u came %u times", i, times[i]);
    }
    ck_assert_uint_eq(kinds, 6);
}
END_TEST

static const struct {
    uint32_t rows;
    double weight;
} bad[] = {{5, 0}, {5, -1}, {5, NAN}, {5, INFINITY}, {0, 1}, {2000000000, 2}};

START_TEST(nonsense_is_refused)
{
    struct mosld_sampler *s = NULL;
    struct mosld_sampler_params params = {1, &bad[_i].rows, &bad[_i].weight, MOSLD_SAMPLING_RANDOM, 1};
    ck_assert_int_eq(mosld_sampler_create(&params, &s, &err), RT_USAGE);
    ck_assert_ptr_null(s);
    ck_assert(err.text[0] != 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("data/sampler");
    TCase *tc = tcase_create("sampler");
    tcase_add_loop_test(tc, every_row_once_an_epoch, 0, 2);
    tcase_add_test(tc, sequential_is_file_order_from_the_first_row);
    tcase_add_loop_test(tc, weights_multiply_rows_and_the_state_carries_over, 0, 2);
    tcase_add_test(tc, any_place_can_be_asked_for_in_any_order);
    tcase_add_test(tc, seed_and_epoch_give_the_order);
    tcase_add_test(tc, tasks_are_shuffled_together);
    tcase_add_test(tc, the_generator_is_splitmix64);
    tcase_add_test(tc, permutations_are_even);
    tcase_add_loop_test(tc, nonsense_is_refused, 0, sizeof bad / sizeof *bad);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
