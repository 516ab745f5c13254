# What is installed: the programs (component "programs"), and what others link against (component "development"):
#   find_package(uniquanf COMPONENTS artifact engine client)  gives  uniquanf::artifact, uniquanf::engine, uniquanf::client
# A component is a library and whatever it links to; its headers are those listed here and whatever they include, by the
# paths that they have in this tree (below include/uniquanf). Included last, when all targets are known.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(UNIQUANF_COMPONENTS artifact engine)
set(UNIQUANF_artifact_LIBRARIES uniquanf_artifact)
set(UNIQUANF_artifact_HEADERS
  common/artifact/artifact_config.h common/artifact/artifact_reader.h common/artifact/manifest.h
  common/base/status.h common/object_store/object_store.h common/safetensors/safetensors.h
  common/spec/quantization_spec.h)
set(UNIQUANF_engine_LIBRARIES uniquanf_task uniquanf_export uniquanf_packed uniquanf_text)
set(UNIQUANF_engine_HEADERS
  worker/backend/backend.h worker/export/export.h worker/model/checkpoint.h worker/model/language_model.h
  worker/model/model_config.h worker/packed/packed_linear.h worker/quant/quantizer.h worker/task/task_runner.h
  worker/text/text_tokens.h worker/text/tokenizer.h)
set(programs uniquanf-batch)
if(UNIQUANF_BUILD_SERVICE)
  list(APPEND UNIQUANF_COMPONENTS client)
  set(UNIQUANF_client_LIBRARIES uniquanf_client)
  set(UNIQUANF_client_HEADERS client/include/uniquanf/client.h client/include/uniquanf/types.h common/base/status.h)
  list(APPEND programs uniquanf-cli uniquanf-server uniquanf-worker)
  target_include_directories(uniquanf_client INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/client/include>
                             $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/uniquanf/client/include>)
endif()
install(TARGETS ${programs} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT programs)
install(DIRECTORY proto/uniquanf proto/google DESTINATION ${CMAKE_INSTALL_DATADIR}/uniquanf/proto COMPONENT development
        FILES_MATCHING PATTERN "*.proto")

# Our libraries that TARGET links to, itself first.
function(uniquanf_closure target out)
  set(found ${target})
  set(queue ${target})
  while(queue)
    list(POP_FRONT queue next)
    get_target_property(links ${next} INTERFACE_LINK_LIBRARIES)
    foreach(link IN LISTS links)
      if(link MATCHES "^uniquanf_" AND TARGET ${link} AND NOT link IN_LIST found)
        list(APPEND found ${link})
        list(APPEND queue ${link})
      endif()
    endforeach()
  endwhile()
  set(${out} ${found} PARENT_SCOPE)
endfunction()

# A sanitizer's libraries could only be linked by a program that has it too.
if(NOT UNIQUANF_SANITIZER)
  add_library(uniquanf_engine INTERFACE)
  target_link_libraries(uniquanf_engine INTERFACE ${UNIQUANF_engine_LIBRARIES})
  # What several components link to is a set of its own, "common", since a target belongs to one.
  set(all "")
  set(shared "")
  foreach(component IN LISTS UNIQUANF_COMPONENTS)
    uniquanf_closure(uniquanf_${component} ${component}_targets)
    foreach(target IN LISTS ${component}_targets)
      if(target IN_LIST all)
        list(APPEND shared ${target})
      endif()
    endforeach()
    list(APPEND all ${${component}_targets})
  endforeach()
  list(REMOVE_DUPLICATES all)
  set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/uniquanf)
  foreach(set IN ITEMS common ${UNIQUANF_COMPONENTS})
    set(targets ${${set}_targets})
    if(set STREQUAL "common")
      set(targets ${shared})
    else()
      list(REMOVE_ITEM targets ${shared})
    endif()
    if(NOT targets)
      continue()
    endif()
    list(REMOVE_DUPLICATES targets)
    foreach(target IN LISTS targets)
      string(REGEX REPLACE "^uniquanf_" "" name ${target})
      set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
      target_compile_features(${target} INTERFACE cxx_std_20)
    endforeach()
    install(TARGETS ${targets} EXPORT uniquanf-${set} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
    install(EXPORT uniquanf-${set} NAMESPACE uniquanf:: DESTINATION ${package_dir} COMPONENT development)
  endforeach()
  foreach(component IN LISTS UNIQUANF_COMPONENTS)
    list(APPEND headers ${UNIQUANF_${component}_HEADERS})
  endforeach()
  install(CODE "set(UNIQUANF_SOURCE_DIR \"${PROJECT_SOURCE_DIR}\")
    set(UNIQUANF_HEADERS \"${headers}\")
    set(UNIQUANF_INCLUDEDIR \"${CMAKE_INSTALL_INCLUDEDIR}/uniquanf\")
    include(\"${CMAKE_CURRENT_LIST_DIR}/InstallHeaders.cmake\")" COMPONENT development)
  configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/uniquanfConfig.cmake.in ${PROJECT_BINARY_DIR}/uniquanfConfig.cmake
                                INSTALL_DESTINATION ${package_dir})
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/uniquanfConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/uniquanfConfig.cmake ${PROJECT_BINARY_DIR}/uniquanfConfigVersion.cmake
          DESTINATION ${package_dir} COMPONENT development)
endif()
