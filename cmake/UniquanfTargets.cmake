# One static library per folder, with explicit dependencies:
#   uniquanf_library(NAME name SRCS a.cc b.cc DEPS other_target ...)
# One test executable per uniquanf_test; gtest_discover_tests registers every TEST in it:
#   uniquanf_test(NAME name SRCS a_test.cc DEPS target ... [LABELS l] [TIMEOUT seconds])
include(GoogleTest)

function(uniquanf_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  set(include_dirs $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:include/uniquanf>)
  if(ARG_SRCS)
    add_library(${ARG_NAME} STATIC ${ARG_SRCS})
    target_include_directories(${ARG_NAME} PUBLIC ${include_dirs})
    target_link_libraries(${ARG_NAME} PUBLIC ${ARG_DEPS})
  else()
    add_library(${ARG_NAME} INTERFACE)
    target_include_directories(${ARG_NAME} INTERFACE ${include_dirs})
    target_link_libraries(${ARG_NAME} INTERFACE ${ARG_DEPS})
  endif()
endfunction()

function(uniquanf_test)
  cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(UNIQUANF_SANITIZER)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 10")
  endif()
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${ARG_NAME} PRIVATE UNIQUANF_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                                                 UNIQUANF_BINARY_DIR="${PROJECT_BINARY_DIR}")
  gtest_discover_tests(${ARG_NAME} DISCOVERY_TIMEOUT 60
                       PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

# A source with the bytes of a file, made when the file changes: its path in `variable` (EmbedFile.cmake says what HEADER declares).
function(uniquanf_embed_file variable)
  cmake_parse_arguments(ARG "" "FILE;HEADER;NAME" "" ${ARGN})
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${ARG_NAME}.cc)
  set(script ${PROJECT_SOURCE_DIR}/cmake/EmbedFile.cmake)
  add_custom_command(OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -DIN=${ARG_FILE} -DOUT=${out} -DHEADER=${ARG_HEADER} -DNAME=${ARG_NAME} -P ${script}
    DEPENDS ${ARG_FILE} ${script} VERBATIM)
  set(${variable} ${out} PARENT_SCOPE)
endfunction()
