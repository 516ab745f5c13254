# Run by ctest (CMakeLists.txt beside it). The tree must be built.
cmake_minimum_required(VERSION 3.25)
set(work ${BUILD}/tests/install/work)
file(REMOVE_RECURSE ${work})

function(run out)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE code)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "${ARGN} ended with ${code}:\n${output}")
  endif()
  set(${out} "${output}" PARENT_SCOPE)
endfunction()

foreach(component IN ITEMS development programs)
  run(output ${CMAKE_COMMAND} --install ${BUILD} --prefix ${work}/prefix --component ${component})
endforeach()

set(programs uniquanf-batch)
if("client" IN_LIST COMPONENTS)
  list(APPEND programs uniquanf uniquanf-server uniquanf-worker)
endif()
foreach(program IN LISTS programs)
  run(output ${work}/prefix/bin/${program} --version)
  if(NOT output MATCHES "${VERSION}")
    message(FATAL_ERROR "${program} --version says \"${output}\", without ${VERSION}")
  endif()
endforeach()

# Each by itself: a component must bring whatever it needs.
set(artifact_says "ARTIFACT_NOT_FOUND")
set(engine_says "4 layers, 7 linear layers each")
set(client_says "SERVER_UNREACHABLE")
foreach(component IN LISTS COMPONENTS)
  run(output ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/consumer -B ${work}/${component} -G Ninja
      -DCMAKE_PREFIX_PATH=${work}/prefix -DCOMPONENT=${component} -DCMAKE_CXX_COMPILER=${CXX}
      -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} -DCMAKE_EXE_LINKER_FLAGS=${LINK})
  run(output ${CMAKE_COMMAND} --build ${work}/${component})
  run(output ${work}/${component}/use_${component} ${SOURCE}/examples/tiny)
  if(NOT output MATCHES "${${component}_says}")
    message(FATAL_ERROR "use_${component} printed \"${output}\", without \"${${component}_says}\"")
  endif()
endforeach()
file(REMOVE_RECURSE ${work})
