/* mosld/tune/tuning_file.h - what was found out about a device and its driver: which variants are wrong there, and which are the
 * fastest.
 *
 * One JSON file in the cache folder for each device, driver, build and set of believed capabilities:
 *
 *     {"format": 1, "key": "...", "device": NAME, "driver": TEXT, "mosld_version": V,
 *      "wrong": [{"op": "matmul_nt", "variant": "lanes.f32", "why": "..."}],
 *      "fastest": {"matmul_nt": {"f32 many": "tile.f32"}},
 *      "checksum": HEX}
 *
 * A file that is damaged, or of another device or build, is ignored, and replaced by the next measurement. */
#ifndef MOSLD_TUNING_FILE_H
#define MOSLD_TUNING_FILE_H

#include "runtime/rt.h"

#include <cjson/cJSON.h>

/* Where the file of this device is, or would be; NULL: nowhere. The caller frees it. */
char *mosld_tuning_path(const struct rt_device *dev);

enum mosld_tuning_found { MOSLD_TUNING_NONE, MOSLD_TUNING_DAMAGED, MOSLD_TUNING_APPLIED };
/* Reads the device's file and puts what it says in force, unless MOSLD_TUNING=0. No failure: without a file the tables rule. */
enum mosld_tuning_found mosld_tuning_load(struct rt_device *dev);

/* Writes a file with these "wrong" (an array) and "fastest" (an object), which stay the caller's, in place of what was there. RT_FAILED: it
 * cannot be written. */
enum rt_status mosld_tuning_write(const struct rt_device *dev, const cJSON *wrong, const cJSON *fastest, struct rt_error *err);

#endif
