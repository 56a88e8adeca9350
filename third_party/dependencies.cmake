# Finds what mosld is built on (why each: README.md beside this file) and gathers it in one target, mosld::deps.
find_package(PkgConfig REQUIRED)
if(MOSLD_STATIC)
    set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
endif()
find_package(Threads REQUIRED)
add_library(mosld_deps INTERFACE)
add_library(mosld::deps ALIAS mosld_deps)

function(mosld_need what package)
    message(FATAL_ERROR "${what} is missing. On Debian and Ubuntu: apt-get install ${package}")
endfunction()

# cJSON, PCRE2 and utf8proc ship pkg-config files everywhere.
foreach(dep libcjson libpcre2-8 libutf8proc)
    pkg_check_modules(${dep} QUIET IMPORTED_TARGET ${dep})
    if(NOT ${dep}_FOUND)
        mosld_need(${dep} "libcjson-dev libpcre2-dev libutf8proc-dev")
    endif()
    target_link_libraries(mosld_deps INTERFACE PkgConfig::${dep})
endforeach()
# Debian's cJSON names its folder, not the parent, so that #include <cjson/cJSON.h> needs nothing more.

find_path(VULKAN_HEADERS vulkan/vulkan.h)
if(NOT VULKAN_HEADERS)
    mosld_need("vulkan/vulkan.h" libvulkan-dev)
endif()
# volk as its source: every version of the package ships volk.c beside volk.h, not every one a library.
find_path(VOLK_HEADERS volk.h PATH_SUFFIXES volk)
find_file(VOLK_SOURCE volk.c HINTS ${VOLK_HEADERS} PATH_SUFFIXES volk include/volk include)
if(NOT VOLK_HEADERS OR NOT VOLK_SOURCE)
    mosld_need("volk" libvulkan-volk-dev)
endif()
add_library(mosld_volk OBJECT ${VOLK_SOURCE})
target_compile_definitions(mosld_volk PUBLIC VK_NO_PROTOTYPES)
target_include_directories(mosld_volk PUBLIC ${VOLK_HEADERS} ${VULKAN_HEADERS})
target_compile_options(mosld_volk PRIVATE -w)
set_target_properties(mosld_volk PROPERTIES POSITION_INDEPENDENT_CODE ON)

# Any BLAS with the C interface; OpenBLAS is preferred and kept to one thread a call.
pkg_check_modules(OPENBLAS QUIET IMPORTED_TARGET openblas)
if(OPENBLAS_FOUND)
    target_link_libraries(mosld_deps INTERFACE PkgConfig::OPENBLAS)
    target_compile_definitions(mosld_deps INTERFACE HAVE_OPENBLAS_SET_NUM_THREADS)
else()
    pkg_check_modules(BLAS QUIET IMPORTED_TARGET blis)
    if(NOT BLAS_FOUND)
        mosld_need("a BLAS with cblas.h" libopenblas-dev)
    endif()
    target_link_libraries(mosld_deps INTERFACE PkgConfig::BLAS)
endif()

target_link_libraries(mosld_deps INTERFACE Threads::Threads m ${CMAKE_DL_LIBS})
