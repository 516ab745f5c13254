// GET of the page's files: from memory, with entity tags, and with headers that let a browser load
// nothing from elsewhere.
//
// Thread safety: immutable once made. Lifetime: borrows the files.
#ifndef UNIQUANF_SERVER_HTTP_STATIC_PAGE_H_
#define UNIQUANF_SERVER_HTTP_STATIC_PAGE_H_

#include <httplib.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/page_files.h"

namespace uniquanf::server {

class StaticPage {
 public:
  explicit StaticPage(const std::vector<PageFile>& files);

  // Answers a GET or HEAD of `path`: the file, index.html for "/" and for paths without a dot
  // (which the page's own code reads), or false: there is no such file.
  bool Serve(const std::string& path, const httplib::Request& request,
             httplib::Response* response) const;

 private:
  struct Entry {
    std::string_view content;
    std::string etag;  // quoted
    std::string type;
    bool for_ever = false;  // its name holds a digest of it
  };
  std::map<std::string, Entry> files_;
};

// For every answer: what a browser may do with it.
void SetSecurityHeaders(httplib::Response* response);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_STATIC_PAGE_H_
