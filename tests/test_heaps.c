/* tests/test_heaps.c - which memory is taken, on the layouts that drivers list for devices that are not at hand.
 *
 * Sizes and flags are as far as posts of vulkaninfo's output and the ways of the drivers are known to us: none but llvmpipe's and SwiftShader's were read from a device here. (Posts: Radeon RX 580, Renoir, Phoenix under Windows, RTX 2070, Adreno, Raspberry Pi 5;
 * the others from how their drivers list them.) */
#include "runtime/vulkan/heaps.h"

#include <check.h>
#include <stdio.h>

#define MIB (1ull << 20)
#define GIB (1ull << 30)
enum { L = 1, V = 2, H = 4, C = 8, LAZY = 16, PROTECTED = 32, AMD = 0xc0 }; /* device-local, host-visible, -coherent, -cached, ... */

struct layout {
    const char *name;
    enum rt_class class_;
    uint32_t n_heaps, n_types;
    struct {
        uint64_t size, left; /* left 0: no account */
    } heap[4];
    struct {
        uint32_t heap, flags;
    } type[16];
    uint64_t host;
    /* what is expected */
    bool unified, maps;
    uint32_t device, staging; /* types; 99: any */
    uint64_t available;
};

static const struct layout layouts[] = {
    {"RX 580, RADV: 256 MiB window", RT_CLASS_DISCRETE, 3, 11, {{7936 * MIB, 7925 * MIB}, {3942 * MIB, 3933 * MIB}, {256 * MIB, 245 * MIB}},
     {{0, L}, {0, L}, {1, V | H}, {2, L | V | H}, {2, L | V | H}, {1, V | H | C}, {0, L | AMD}, {1, V | H | AMD}, {2, L | V | H | AMD}, {1, V | H | C | AMD}, {0, L | AMD}},
     8 * GIB, false, false, 0, 5, 7925 * MIB},
    {"RX 7900 XTX, RADV, resizable BAR", RT_CLASS_DISCRETE, 2, 8, {{24 * GIB, 23 * GIB}, {31 * GIB, 30 * GIB}},
     {{0, L}, {1, V | H}, {0, L | V | H}, {1, V | H | C}, {0, L | AMD}, {1, V | H | AMD}, {0, L | V | H | AMD}, {1, V | H | C | AMD}},
     64 * GIB, false, true, 2, 3, 23 * GIB},
    {"RX 7900 XTX, RADV, without", RT_CLASS_DISCRETE, 3, 4, {{24320 * MIB, 23 * GIB}, {31 * GIB, 30 * GIB}, {256 * MIB, 250 * MIB}},
     {{0, L}, {1, V | H}, {2, L | V | H}, {1, V | H | C}}, 64 * GIB, false, false, 0, 3, 23 * GIB},
    {"Renoir, RADV: two heaps of one memory", RT_CLASS_INTEGRATED, 2, 8, {{1431654400, 1026842624}, {2863312896, 2053685248}},
     {{1, L}, {0, V | H}, {1, L | V | H}, {0, V | H | C}, {1, L | AMD}, {0, V | H | AMD}, {1, L | V | H | AMD}, {0, V | H | C | AMD}},
     16 * GIB, true, true, 2, 3, 1026842624ull + 2053685248ull},
    {"Phoenix, Windows: a small carve-out", RT_CLASS_INTEGRATED, 3, 4, {{256 * MIB, 0}, {7 * GIB, 0}, {256 * MIB, 0}},
     {{0, L}, {1, V | H}, {2, L | V | H}, {1, V | H | C}}, 16 * GIB, true, true, 2, 3, 7 * GIB + 512 * MIB},
    {"Iris Xe, ANV", RT_CLASS_INTEGRATED, 1, 2, {{11900 * MIB, 10 * GIB}}, {{0, L | V | H | C}, {0, L | V | H}}, 16 * GIB, true, true, 0, 0, 10 * GIB},
    {"Meteor Lake, ANV: uncached and cached", RT_CLASS_INTEGRATED, 1, 3, {{23 * GIB, 0}}, {{0, L}, {0, L | V | H}, {0, L | V | H | C}},
     32 * GIB, true, true, 2, 2, 23 * GIB},
    {"RTX 3060, NVIDIA: 246 MiB window", RT_CLASS_DISCRETE, 3, 11, {{12 * GIB, 11 * GIB}, {23 * GIB, 23 * GIB}, {246 * MIB, 216 * MIB}},
     {{1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}, {0, L}, {0, L}, {1, V | H}, {1, V | H | C}, {2, L | V | H}}, 32 * GIB, false, false, 6, 9, 11 * GIB},
    {"RTX 3060, NVIDIA, resizable BAR", RT_CLASS_DISCRETE, 2, 5, {{12 * GIB, 11 * GIB}, {23 * GIB, 23 * GIB}},
     {{1, 0}, {0, L}, {1, V | H}, {1, V | H | C}, {0, L | V | H}}, 32 * GIB, false, true, 4, 3, 11 * GIB},
    {"a GPU that lists a 16 MiB heap first", RT_CLASS_DISCRETE, 3, 4, {{16 * MIB, 0}, {4 * GIB, 0}, {8 * GIB, 0}},
     {{0, L | V | H}, {1, L}, {2, V | H}, {2, V | H | C}}, 16 * GIB, false, false, 1, 3, 4 * GIB},
    {"Adreno, Qualcomm", RT_CLASS_INTEGRATED, 2, 6, {{3649 * MIB, 0}, {256 * MIB, 0}},
     {{0, L}, {0, L | V | C}, {0, L | V | H}, {0, L | V | H | C}, {1, L | PROTECTED}, {0, L | LAZY}}, 6 * GIB, true, true, 3, 3, 3649 * MIB},
    {"Adreno, cached without coherent", RT_CLASS_INTEGRATED, 1, 3, {{3649 * MIB, 0}}, {{0, L}, {0, L | V | C}, {0, L | V | H}}, 6 * GIB, true, true, 1, 1, 3649 * MIB},
    {"Mali-G78, Arm", RT_CLASS_INTEGRATED, 1, 4, {{11 * GIB, 0}}, {{0, L | V | H}, {0, L | V | C}, {0, L | V | H | C}, {0, L | LAZY}}, 12 * GIB, true, true, 2, 2, 11 * GIB},
    {"Raspberry Pi 5, V3DV: nothing cached", RT_CLASS_INTEGRATED, 1, 1, {{4 * GIB, 4 * GIB}}, {{0, L | V | H}}, 8 * GIB, true, true, 0, 0, 4 * GIB},
    {"Apple M1, MoltenVK", RT_CLASS_INTEGRATED, 1, 3, {{10922 * MIB, 0}}, {{0, L}, {0, L | V | H | C}, {0, L | LAZY}}, 16 * GIB, true, true, 1, 1, 10922 * MIB},
    {"AMD in a Mac, MoltenVK", RT_CLASS_DISCRETE, 2, 4, {{8 * GIB, 0}, {32 * GIB, 0}}, {{0, L}, {1, V | C}, {1, V | H | C}, {0, L | LAZY}}, 32 * GIB, false, false, 0, 2, 8 * GIB},
    {"a heap larger than the machine", RT_CLASS_INTEGRATED, 1, 1, {{135 * GIB, 0}}, {{0, L | V | H | C}}, 128 * GIB, true, true, 0, 0, 128 * GIB},
    {"llvmpipe", RT_CLASS_CPU, 1, 1, {{24 * GIB, 22 * GIB}}, {{0, L | V | H | C}}, 24 * GIB, true, true, 0, 0, 22 * GIB},
    {"no local memory that the host sees", RT_CLASS_INTEGRATED, 2, 2, {{2 * GIB, 0}, {4 * GIB, 0}}, {{0, L}, {1, V | H}}, 8 * GIB, false, false, 0, 1, 2 * GIB},
};
enum { N = sizeof layouts / sizeof *layouts };

static struct heap_view view_of(const struct layout *l, VkPhysicalDeviceMemoryProperties *m)
{
    *m = (VkPhysicalDeviceMemoryProperties){.memoryTypeCount = l->n_types, .memoryHeapCount = l->n_heaps};
    struct heap_view v = {.memory = m, .map = true, .host_memory = l->host};
    for (uint32_t i = 0; i < l->n_heaps; i++) {
        bool local = false;
        for (uint32_t t = 0; t < l->n_types; t++)
            local |= l->type[t].heap == i && (l->type[t].flags & L);
        m->memoryHeaps[i] = (VkMemoryHeap){l->heap[i].size, local ? VK_MEMORY_HEAP_DEVICE_LOCAL_BIT : 0};
        v.left[i] = l->heap[i].left;
    }
    for (uint32_t t = 0; t < l->n_types; t++)
        m->memoryTypes[t] = (VkMemoryType){l->type[t].flags, l->type[t].heap};
    v.unified = heap_unified(l->class_, m);
    return v;
}

START_TEST(every_layout_gives_what_it_should)
{
    const struct layout *l = &layouts[_i];
    VkPhysicalDeviceMemoryProperties m;
    struct heap_view v = view_of(l, &m);
    uint32_t types[VK_MAX_MEMORY_TYPES];
    ck_assert_msg(v.unified == l->unified, "%s: unified is %d", l->name, v.unified);
    ck_assert_uint_ge(heap_rank(&v, UINT32_MAX, HEAP_DEVICE, MIB, types), 1);
    ck_assert_msg(types[0] == l->device, "%s: buffers come from type %u", l->name, types[0]);
    ck_assert_msg(heap_maps(&v, types[0]) == l->maps, "%s: mapped is %d", l->name, !l->maps);
    ck_assert_uint_ge(heap_rank(&v, UINT32_MAX, HEAP_STAGING, MIB, types), 1);
    ck_assert_msg(types[0] == l->staging, "%s: staging comes from type %u", l->name, types[0]);
    ck_assert_msg(heap_available(&v) == l->available, "%s: %llu bytes are available", l->name, (unsigned long long)heap_available(&v));
    /* Without the permission to write in place nothing of a discrete GPU is mapped, and staging still is. */
    v.map = false;
    heap_rank(&v, UINT32_MAX, HEAP_DEVICE, MIB, types);
    ck_assert_msg(!heap_maps(&v, types[0]) && (m.memoryTypes[types[0]].propertyFlags & L), "%s, -mapped: type %u", l->name, types[0]);
}
END_TEST

/* No type is offered that could not be allocated from, and every other one comes in the end. */
START_TEST(what_cannot_serve_is_left_out_and_the_rest_is_tried)
{
    const struct layout *l = &layouts[_i];
    VkPhysicalDeviceMemoryProperties m;
    struct heap_view v = view_of(l, &m);
    uint32_t types[VK_MAX_MEMORY_TYPES], usable = 0, seen = 0;
    uint64_t size = l->heap[l->n_heaps - 1].size; /* windows come last: what is larger than one is not asked of it */
    for (uint32_t t = 0; t < l->n_types; t++)
        if (!(l->type[t].flags & (LAZY | PROTECTED | AMD)) && size <= l->heap[l->type[t].heap].size)
            usable |= 1u << t;
    unsigned n = heap_rank(&v, UINT32_MAX, HEAP_DEVICE, size, types);
    for (unsigned i = 0; i < n; i++)
        seen |= 1u << types[i];
    ck_assert_msg(seen == usable, "%s: types %x are tried, %x could serve", l->name, seen, usable);
    n = heap_rank(&v, 1u << types[0], HEAP_DEVICE, size, types); /* a buffer that only one type is good for */
    ck_assert_uint_eq(n, 1);
}
END_TEST

START_TEST(a_heap_without_room_comes_last)
{
    VkPhysicalDeviceMemoryProperties m;
    struct heap_view v = view_of(&layouts[0], &m); /* the RX 580 */
    uint32_t types[VK_MAX_MEMORY_TYPES];
    v.left[0] = 100 * MIB;
    heap_rank(&v, UINT32_MAX, HEAP_DEVICE, 200 * MIB, types);
    ck_assert_uint_eq(m.memoryTypes[types[0]].heapIndex, 2); /* the window has room and is device memory */
    unsigned n = heap_rank(&v, UINT32_MAX, HEAP_DEVICE, 300 * MIB, types);
    ck_assert_uint_eq(m.memoryTypes[types[0]].heapIndex, 1); /* the host's memory, seen across the bus */
    ck_assert_uint_eq(m.memoryTypes[types[n - 1]].heapIndex, 0); /* still tried, in case that the account is wrong */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("heaps");
    TCase *tc = tcase_create("layouts");
    tcase_add_loop_test(tc, every_layout_gives_what_it_should, 0, N);
    tcase_add_loop_test(tc, what_cannot_serve_is_left_out_and_the_rest_is_tried, 0, N);
    tcase_add_test(tc, a_heap_without_room_comes_last);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
