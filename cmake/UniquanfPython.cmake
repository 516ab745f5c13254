# UNIQUANF_PYTHON: an interpreter with protobuf and grpcio (Debian: python3-protobuf, python3-grpcio), from which the Python client
# and what tests it are made; not set where there is none, and those parts are left out then.
find_package(Python3 3.9 COMPONENTS Interpreter)
foreach(candidate IN ITEMS "${Python3_EXECUTABLE}" /usr/bin/python3)
  if(NOT UNIQUANF_PYTHON AND EXISTS "${candidate}")
    execute_process(COMMAND ${candidate} -c "import google.protobuf, grpc" RESULT_VARIABLE missing OUTPUT_QUIET ERROR_QUIET)
    if(missing EQUAL 0)
      set(UNIQUANF_PYTHON "${candidate}")
    endif()
  endif()
endforeach()
if(NOT UNIQUANF_PYTHON)
  message(STATUS "no Python with protobuf and grpcio: its client is left out (Debian: python3-protobuf python3-grpcio)")
endif()
