# Packages: `cpack -G DEB` (its dependencies are found from the libraries that it is linked with), `cpack -G TGZ` and, for Windows,
# `cpack -G ZIP`. The archives are meant for a build with MOSLD_STATIC, which needs nothing beside the C library.
set(CPACK_PACKAGE_NAME mosld)
set(CPACK_PACKAGE_VENDOR mosld)
set(CPACK_PACKAGE_CONTACT "the maintainers of mosld <mosld@users.noreply.github.com>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR}/packages)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "libvulkan1, mesa-vulkan-drivers") # opened at run time; without them there is the host

# What its package has as a shared library alone goes beside the program.
if(MOSLD_STATIC AND NOT WIN32)
    set_target_properties(mosld_program PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/mosld")
    install(TARGETS mosld_program RUNTIME_DEPENDENCY_SET mosld_runtime DESTINATION ${CMAKE_INSTALL_BINDIR})
    install(RUNTIME_DEPENDENCY_SET mosld_runtime PRE_EXCLUDE_REGEXES "lib(c|m|dl|pthread|rt)\\.so" "ld-linux" DESTINATION lib/mosld)
endif()
include(CPack)
