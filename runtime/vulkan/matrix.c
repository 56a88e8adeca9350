/* runtime/vulkan/matrix.c - see matrix.h. */
#include "runtime/vulkan/matrix.h"

#include <stdlib.h>
#include <string.h>

/* Best first: AMD and NVIDIA; Intel since Xe2; Intel before; NVIDIA's open driver; Mesa's CPU driver. */
static const uint32_t shapes[][3] = {{16, 16, 16}, {8, 16, 16}, {8, 8, 16}, {16, 8, 16}, {8, 8, 8}};
#define N_SHAPES (sizeof shapes / sizeof *shapes)

static bool fits(const VkCooperativeMatrixPropertiesKHR *p)
{
    return p->AType == VK_COMPONENT_TYPE_FLOAT16_KHR && p->BType == VK_COMPONENT_TYPE_FLOAT16_KHR &&
           p->CType == VK_COMPONENT_TYPE_FLOAT32_KHR && p->ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
           p->scope == VK_SCOPE_SUBGROUP_KHR;
}

static bool choose(const VkCooperativeMatrixPropertiesKHR *list, uint32_t n, uint32_t shape[3])
{
    for (size_t s = 0; s < N_SHAPES; s++)
        for (uint32_t i = 0; i < n; i++)
            if (fits(&list[i]) && list[i].MSize == shapes[s][0] && list[i].NSize == shapes[s][1] && list[i].KSize == shapes[s][2]) {
                memcpy(shape, shapes[s], sizeof shapes[s]);
                return true;
            }
    return false;
}

bool vk_matrix_shape(const struct vk_instance *instance, VkPhysicalDevice handle, uint32_t shape[3])
{
    PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR get =
        (PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)vkGetInstanceProcAddr(
            instance->handle, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    uint32_t n = 0;
    if (!get || get(handle, &n, NULL) != VK_SUCCESS || n == 0)
        return false;
    VkCooperativeMatrixPropertiesKHR *list = calloc(n, sizeof *list);
    for (uint32_t i = 0; list && i < n; i++)
        list[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    VkResult r = list ? get(handle, &n, list) : VK_ERROR_OUT_OF_HOST_MEMORY;
    bool found = (r == VK_SUCCESS || r == VK_INCOMPLETE) && choose(list, n, shape);
    free(list);
    return found;
}

uint32_t vk_matrix_subgroup(const uint32_t shape[3], uint32_t usual, uint32_t least, uint32_t most)
{
    /* Intel's matrix units are as wide as N lanes; AMD's instruction is made for 32. */
    uint32_t wanted = shape[0] == 8 && shape[2] == 16 ? shape[1] : shape[0] == 16 ? 32 : usual;
    return wanted >= least && wanted <= most ? wanted : usual;
}
