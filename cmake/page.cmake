# mosld_embed_page(TARGET FILE): the page of mosld serve as bytes of the program: serve_page and serve_page_size of tools/serve.h.
function(mosld_embed_page target file)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    file(READ ${file} hex HEX)
    string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/serve_page.c @ONLY CONTENT
        "/* made by cmake/page.cmake */\n#include <stddef.h>\nextern const char serve_page[];\nextern const size_t serve_page_size;\nconst char serve_page[] = {@bytes@0};\nconst size_t serve_page_size = sizeof serve_page - 1;\n")
    target_sources(${target} PRIVATE ${CMAKE_BINARY_DIR}/serve_page.c)
endfunction()
