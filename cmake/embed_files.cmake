# cmake -DFOLDER=DIR -DOUT=FILE.cc -P embed_files.cmake: writes PageFiles() (server/http/page_files.h) with the files below DIR. A string
# literal has a limit that a page may pass, so the bytes are an array.
file(GLOB_RECURSE files RELATIVE "${FOLDER}" "${FOLDER}/*")
list(SORT files)
set(arrays "")
set(rows "")
set(index 0)
foreach(file IN LISTS files)
  file(READ "${FOLDER}/${file}" hex HEX)
  string(LENGTH "${hex}" digits)
  if(digits EQUAL 0)
    set(hex "00")
  endif()
  math(EXPR size "${digits} / 2")
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
  string(APPEND arrays "const unsigned char kFile${index}[] = {\n${hex}};\n")
  string(APPEND rows "    {\"/${file}\", {reinterpret_cast<const char*>(kFile${index}), ${size}}},\n")
  math(EXPR index "${index} + 1")
endforeach()
file(WRITE "${OUT}" "#include \"server/http/page_files.h\"

namespace uniquanf::server {
namespace {
${arrays}}  // namespace

const std::vector<PageFile>& PageFiles() {
  static const std::vector<PageFile> files = {
${rows}  };
  return files;
}

}  // namespace uniquanf::server
")
