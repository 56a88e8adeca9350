# Toolchain: arm64 Linux from another Linux, with the libraries of an unpacked Debian in SYSROOT. tools/cross.sh uses it:
#
#     cmake -DCMAKE_TOOLCHAIN_FILE=cmake/arm64-linux.cmake -DSYSROOT=FOLDER ...
#
# Where qemu-user is installed, the tests run through it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(SYSROOT "" CACHE PATH "an unpacked Debian for arm64")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SYSROOT)
set(CMAKE_SYSROOT ${SYSROOT})
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER) # shader compilers run here
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(openblas ${SYSROOT}/usr/lib/aarch64-linux-gnu/openblas-pthread)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${SYSROOT}/usr/share/pkgconfig:${openblas}/pkgconfig)
# Debian leaves it to the installed system where its BLAS is found; here nothing has been installed.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-rpath-link,${openblas}:${SYSROOT}/usr/lib/aarch64-linux-gnu")
find_program(QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
if(QEMU_AARCH64)
    set(CMAKE_CROSSCOMPILING_EMULATOR ${QEMU_AARCH64} -L ${SYSROOT}
        -E LD_LIBRARY_PATH=/usr/lib/aarch64-linux-gnu/openblas-pthread:/usr/lib/aarch64-linux-gnu)
    set(TEST_ENVIRONMENT # paths of the emulated system
        VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.aarch64.json VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/lvp_icd.aarch64.json
        VK_LAYER_PATH=/usr/share/vulkan/explicit_layer.d)
endif()
