# uniquanf_embed(NAME target FOLDER dir): a library with PageFiles() (server/http/page_files.h), the bytes of every file below
# `dir`, which need not be there. What is built is the folder at build time; a file that is added or changed is noticed.
set(UNIQUANF_EMBED_SCRIPT "${CMAKE_CURRENT_LIST_DIR}/embed_files.cmake")

function(uniquanf_embed)
  cmake_parse_arguments(ARG "" "NAME;FOLDER" "" ${ARGN})
  file(GLOB_RECURSE files CONFIGURE_DEPENDS "${ARG_FOLDER}/*")
  set(out "${CMAKE_CURRENT_BINARY_DIR}/${ARG_NAME}.cc")
  add_custom_command(
    OUTPUT "${out}"
    COMMAND ${CMAKE_COMMAND} "-DFOLDER=${ARG_FOLDER}" "-DOUT=${out}" -P "${UNIQUANF_EMBED_SCRIPT}"
    DEPENDS ${files} "${UNIQUANF_EMBED_SCRIPT}" VERBATIM)
  uniquanf_library(NAME ${ARG_NAME} SRCS "${out}")
endfunction()
