# cmake -DFOLDER=F -P embed.cmake: writes F/shaders.c, the table of runtime/vulkan/shaders.h, from F/NAME.spv of every name in
# F/names.txt (a CMake list, sorted). A script rather than a program, so that it needs no compiler for the machine that builds.
file(READ ${FOLDER}/names.txt names)
set(code "/* made by cmake/embed.cmake */\n#include \"runtime/vulkan/shaders.h\"\n\n")
set(table "")
set(all "")
set(count 0)
foreach(name IN LISTS names)
    file(READ ${FOLDER}/${name}.spv hex HEX)
    if(NOT hex MATCHES "^03022307") # the magic number, least significant byte first
        message(FATAL_ERROR "${FOLDER}/${name}.spv is not little-endian SPIR-V")
    endif()
    string(LENGTH "${hex}" length)
    math(EXPR words "${length} / 8")
    string(SHA256 all "${all}${name}${hex}")
    string(REGEX REPLACE "(..)(..)(..)(..)" "0x\\4\\3\\2\\1," hex "${hex}")
    string(APPEND code "static const uint32_t words_${count}[] = {${hex}};\n")
    string(APPEND table "    {\"${name}\", words_${count}, ${words}},\n")
    math(EXPR count "${count} + 1")
endforeach()
string(SUBSTRING "${all}" 0 16 all)
# C has no empty arrays; the last entry is not counted.
string(APPEND code "\nconst struct rt_shader rt_shaders[] = {\n${table}    {0},\n};\n"
    "const size_t rt_n_shaders = ${count};\nconst char rt_shaders_id[] = \"${all}\";\n")
file(WRITE ${FOLDER}/shaders.c "${code}")
