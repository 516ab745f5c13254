// The files of the page (server/page/dist), as they were when the program was built.
// Thread safety: constants.
#ifndef UNIQUANF_SERVER_HTTP_PAGE_FILES_H_
#define UNIQUANF_SERVER_HTTP_PAGE_FILES_H_

#include <string>
#include <string_view>
#include <vector>

namespace uniquanf::server {

struct PageFile {
  std::string_view path;  // "/index.html", "/assets/main.js"
  std::string_view content;
};

// Sorted by path; empty where server/page/dist holds nothing. Made by cmake/UniquanfEmbed.cmake.
const std::vector<PageFile>& PageFiles();

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_PAGE_FILES_H_
