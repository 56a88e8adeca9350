/* runtime/vulkan/heaps.c - see heaps.h. */
#include "runtime/vulkan/heaps.h"

#define LOCAL VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
#define VISIBLE VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT
/* Protected and lazily allocated memory is not for buffers; AMD's coherent types need a feature that nothing here enables, and are slow. */
#define USELESS (VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT | VK_MEMORY_PROPERTY_PROTECTED_BIT | VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD | \
                 VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD)

static VkMemoryPropertyFlags flags_of(const struct heap_view *v, uint32_t type) { return v->memory->memoryTypes[type].propertyFlags; }

static uint64_t size_of(const struct heap_view *v, uint32_t type)
{
    return v->memory->memoryHeaps[v->memory->memoryTypes[type].heapIndex].size;
}

static bool has_room(const struct heap_view *v, uint32_t type, uint64_t size)
{
    uint64_t left = v->left[v->memory->memoryTypes[type].heapIndex];
    return left == 0 || size <= left;
}

bool heap_unified(enum rt_class class_, const VkPhysicalDeviceMemoryProperties *memory)
{
    if (class_ != RT_CLASS_INTEGRATED && class_ != RT_CLASS_CPU)
        return false;
    for (uint32_t i = 0; i < memory->memoryTypeCount; i++)
        if ((memory->memoryTypes[i].propertyFlags & (LOCAL | VISIBLE)) == (LOCAL | VISIBLE))
            return true;
    return false;
}

static uint64_t largest_local_heap(const struct heap_view *v)
{
    uint64_t largest = 0;
    for (uint32_t t = 0; t < v->memory->memoryTypeCount; t++)
        if ((flags_of(v, t) & LOCAL) && !(flags_of(v, t) & USELESS) && size_of(v, t) > largest)
            largest = size_of(v, t);
    return largest;
}

bool heap_maps(const struct heap_view *v, uint32_t type)
{
    VkMemoryPropertyFlags f = flags_of(v, type);
    if (!v->map || !(f & VISIBLE))
        return false;
    return v->unified || ((f & LOCAL) && size_of(v, type) == largest_local_heap(v)); /* resizable BAR: the window is all of it */
}

/* Larger is better; negative: of no use. */
static int score(const struct heap_view *v, uint32_t type, enum heap_use use)
{
    VkMemoryPropertyFlags f = flags_of(v, type);
    if (f & USELESS)
        return -1;
    bool local = f & LOCAL, visible = f & VISIBLE, cached = f & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    bool coherent = f & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    if (use == HEAP_STAGING) /* the host reads it: cached counts most */
        return visible ? 4 * cached + 2 * coherent + !local : -1;
    /* Local above all. Then what can be written in place, and read without staging where the host's caches see it; where nothing is written in
     * place, what the host does not see: the window through which it sees the rest is small and wanted by others. */
    if (heap_maps(v, type))
        return 16 * local + 8 + (v->unified ? 2 * cached + coherent : 0);
    return 16 * local + 4 * !visible;
}

/* Among device-local types the size of the heap comes first, and decides too among types of one score. */
static bool ranked_before(const struct heap_view *v, uint32_t a, uint32_t b, enum heap_use use, uint64_t size)
{
    int sa = score(v, a, use), sb = score(v, b, use);
    bool ra = has_room(v, a, size), rb = has_room(v, b, size);
    if (ra != rb)
        return ra;
    if (use == HEAP_DEVICE && sa >= 16 && sb >= 16 && size_of(v, a) != size_of(v, b))
        return size_of(v, a) > size_of(v, b);
    return sa != sb ? sa > sb : size_of(v, a) > size_of(v, b);
}

unsigned heap_rank(const struct heap_view *v, uint32_t allowed, enum heap_use use, uint64_t size, uint32_t out[VK_MAX_MEMORY_TYPES])
{
    unsigned n = 0;
    for (uint32_t t = 0; t < v->memory->memoryTypeCount; t++) {
        if (!(allowed & 1u << t) || score(v, t, use) < 0 || size > size_of(v, t))
            continue;
        unsigned i = n++;
        for (; i > 0 && ranked_before(v, t, out[i - 1], use, size); i--)
            out[i] = out[i - 1];
        out[i] = t;
    }
    return n;
}

static uint64_t left_of(const struct heap_view *v, uint32_t heap)
{
    uint64_t size = v->memory->memoryHeaps[heap].size;
    return v->left[heap] && v->left[heap] < size ? v->left[heap] : size;
}

uint64_t heap_available(const struct heap_view *v)
{
    uint32_t types[VK_MAX_MEMORY_TYPES];
    unsigned n = heap_rank(v, UINT32_MAX, HEAP_DEVICE, 0, types);
    if (n == 0)
        return 0;
    if (!v->unified)
        return left_of(v, v->memory->memoryTypes[types[0]].heapIndex);
    uint64_t bytes = 0;
    uint32_t counted = 0;
    for (unsigned i = 0; i < n; i++) {
        uint32_t heap = v->memory->memoryTypes[types[i]].heapIndex;
        if (!(counted & 1u << heap) && __builtin_add_overflow(bytes, left_of(v, heap), &bytes))
            bytes = UINT64_MAX;
        counted |= 1u << heap;
    }
    return bytes < v->host_memory ? bytes : v->host_memory; /* such heaps are known to claim more than the machine has */
}
