# Writes a C++ source that holds a file's bytes:
#   cmake -DIN=FILE -DOUT=SOURCE -DHEADER=path/of/header.h -DNAME=kSymbol -P EmbedFile.cmake
# HEADER declares `namespace uniquanf { absl::string_view NAME(); }`.
file(READ "${IN}" bytes HEX)
string(LENGTH "${bytes}" length)
math(EXPR length "${length} / 2")
string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE "${OUT}" "#include \"${HEADER}\"

namespace uniquanf {
namespace {
constexpr unsigned char kBytes[] = {
${bytes}
};
}  // namespace

absl::string_view ${NAME}() { return {reinterpret_cast<const char*>(kBytes), ${length}}; }

}  // namespace uniquanf
")
