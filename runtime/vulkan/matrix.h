/* runtime/vulkan/matrix.h - cooperative matrices: what Vulkan headers older than 1.3.255 lack of VK_KHR_cooperative_matrix, and the choice
 * of a shape. Numbers and layouts are the specification's. */
#ifndef RT_VULKAN_MATRIX_H
#define RT_VULKAN_MATRIX_H

#include "runtime/vulkan/vk.h"

#ifndef VK_KHR_cooperative_matrix
#define VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME "VK_KHR_cooperative_matrix"
#define VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR ((VkStructureType)1000506000)
#define VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR ((VkStructureType)1000506001)

typedef enum VkComponentTypeKHR { VK_COMPONENT_TYPE_FLOAT16_KHR = 0, VK_COMPONENT_TYPE_FLOAT32_KHR = 1 } VkComponentTypeKHR;
typedef enum VkScopeKHR { VK_SCOPE_SUBGROUP_KHR = 3 } VkScopeKHR;

typedef struct VkCooperativeMatrixPropertiesKHR {
    VkStructureType sType;
    void *pNext;
    uint32_t MSize, NSize, KSize;
    VkComponentTypeKHR AType, BType, CType, ResultType;
    VkBool32 saturatingAccumulation;
    VkScopeKHR scope;
} VkCooperativeMatrixPropertiesKHR;

typedef struct VkPhysicalDeviceCooperativeMatrixFeaturesKHR {
    VkStructureType sType;
    void *pNext;
    VkBool32 cooperativeMatrix, cooperativeMatrixRobustBufferAccess;
} VkPhysicalDeviceCooperativeMatrixFeaturesKHR;

typedef VkResult(VKAPI_PTR *PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)(VkPhysicalDevice, uint32_t *,
                                                                                    VkCooperativeMatrixPropertiesKHR *);
#endif

/* The shape that kernels are to use, f16 inputs and f32 sums in the scope of a subgroup: {M, N, K}; false when the device lists none that
 * they are written for. */
bool vk_matrix_shape(const struct vk_instance *instance, VkPhysicalDevice handle, uint32_t shape[3]);
/* The size of the subgroups that run such kernels, which differs from that of the rest on AMD and Intel: between `least` and
 * `most`, else the usual one. */
uint32_t vk_matrix_subgroup(const uint32_t shape[3], uint32_t usual, uint32_t least, uint32_t most);

#endif
