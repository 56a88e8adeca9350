# Toolchain: Windows x64 by mingw-w64 from Linux, with the libraries in the folder LIBRARIES. tools/cross.sh makes them and uses it:
#
#     cmake -DCMAKE_TOOLCHAIN_FILE=cmake/windows-x64.cmake -DLIBRARIES=FOLDER ...
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc-posix) # with POSIX threads
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
set(LIBRARIES "" CACHE PATH "where the libraries are installed")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES LIBRARIES)
set(CMAKE_FIND_ROOT_PATH ${LIBRARIES} /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER) # shader compilers run here
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} ${LIBRARIES}/lib/pkgconfig)
set(CMAKE_EXE_LINKER_FLAGS_INIT "-static") # nothing but what Windows has itself is needed beside mosld.exe
find_program(WINE NAMES wine64 wine)
if(WINE)
    set(CMAKE_CROSSCOMPILING_EMULATOR ${WINE})
endif()
