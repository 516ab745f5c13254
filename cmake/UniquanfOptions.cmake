# Build options and the compiler settings that every target shares.
option(UNIQUANF_BUILD_SERVICE "Build server, worker and client (needs gRPC, SQLite, ...)" ON)
option(UNIQUANF_BUILD_TESTS "Build the tests and benchmarks" ON)
set(UNIQUANF_CUDA "AUTO" CACHE STRING "Build the CUDA backend: ON, OFF or AUTO (when nvcc is found)")
option(UNIQUANF_WERROR "Warnings of the C++ compiler are errors, as in CI" OFF)
set(UNIQUANF_SANITIZER "" CACHE STRING "What -fsanitize takes: address,undefined or thread")
option(UNIQUANF_FUZZ "Build the libFuzzer program (needs clang)" OFF)

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)  # the OpenBLAS that was linked, not the one that the system's alternatives choose
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")

# Contraction into FMA would make results depend on the instruction set that a function was
# compiled for; artifacts promise the same bytes on every x86-64 machine with the same BLAS kernel.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>
                    $<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra>
                    $<$<COMPILE_LANGUAGE:CXX>:-Wno-unused-parameter>)
if(UNIQUANF_WERROR)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(UNIQUANF_SANITIZER)
  # -O1 halves the time to compile. Undefined behaviour ends the program, so that tests fail on it.
  add_compile_options(-fsanitize=${UNIQUANF_SANITIZER} -fno-sanitize-recover=undefined
                      -fno-omit-frame-pointer -O1)
  add_link_options(-fsanitize=${UNIQUANF_SANITIZER})
endif()

if(UNIQUANF_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "UNIQUANF_FUZZ=ON needs clang: configure with preset fuzz")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

find_program(UNIQUANF_CCACHE ccache)
if(UNIQUANF_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${UNIQUANF_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${UNIQUANF_CCACHE})
endif()
find_program(UNIQUANF_MOLD mold)
if(UNIQUANF_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

set(UNIQUANF_HAVE_CUDA OFF)
if(NOT UNIQUANF_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES "80-real;86-real;89-real;90-real;100-real;120" CACHE STRING "")
    endif()
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know nvcc's flag
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(UNIQUANF_HAVE_CUDA ON)
  elseif(UNIQUANF_CUDA STREQUAL "ON")
    message(FATAL_ERROR "UNIQUANF_CUDA=ON, but no nvcc was found. Install the CUDA Toolkit, put nvcc "
                        "on PATH, or configure with -DUNIQUANF_CUDA=OFF.")
  endif()
endif()
message(STATUS "CUDA backend: ${UNIQUANF_HAVE_CUDA}")
