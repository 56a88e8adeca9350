/* tests/support/skip.h - "passed" means passed.
 *
 * A test program of which nothing failed, but something could not run here (no Vulkan device, a file that is not there), ends with
 * exit status 77, which CTest shows as skipped. A failure stays a failure. */
#ifndef TESTS_SKIP_H
#define TESTS_SKIP_H

#define TEST_SKIPPED_STATUS 77

/* Says "SKIPPED: ..." on standard error and makes that the program's end. From any test, in whatever process it runs. */
void test_skipped(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
