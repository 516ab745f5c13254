#include "server/http/static_page.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/digest.h"

namespace uniquanf::server {
namespace {

struct TypeRow {
  const char* extension;
  const char* type;
};
constexpr TypeRow kTypes[] = {
    {"html", "text/html; charset=utf-8"},
    {"js", "text/javascript; charset=utf-8"},
    {"mjs", "text/javascript; charset=utf-8"},
    {"css", "text/css; charset=utf-8"},
    {"svg", "image/svg+xml"},
    {"png", "image/png"},
    {"ico", "image/x-icon"},
    {"json", "application/json"},
    {"webmanifest", "application/manifest+json"},
    {"woff2", "font/woff2"},
    {"txt", "text/plain; charset=utf-8"},
};

std::string TypeOf(const std::string& path) {
  for (const TypeRow& row : kTypes) {
    if (absl::EndsWith(path, absl::StrCat(".", row.extension))) return row.type;
  }
  return "application/octet-stream";
}

}  // namespace

StaticPage::StaticPage(const std::vector<PageFile>& files) {
  for (const PageFile& file : files) {
    Entry& entry = files_[std::string(file.path)];
    entry.content = file.content;
    entry.etag = absl::StrCat(
        "\"", Sha256Hex({file.content.data(), file.content.size()}).substr(0, 32), "\"");
    entry.type = TypeOf(std::string(file.path));
    entry.for_ever = absl::StartsWith(std::string(file.path), "/assets/");
  }
}

bool StaticPage::Serve(const std::string& path, const httplib::Request& request,
                       httplib::Response* response) const {
  auto it = files_.find(path);
  if (it == files_.end() && !absl::StrContains(path, ".")) it = files_.find("/index.html");
  if (it == files_.end()) return false;
  const Entry& entry = it->second;
  response->set_header("ETag", entry.etag);
  response->set_header("Cache-Control",
                       entry.for_ever ? "public, max-age=31536000, immutable" : "no-cache");
  for (const absl::string_view tag :
       absl::StrSplit(request.get_header_value("If-None-Match"), ',', absl::SkipWhitespace())) {
    if (absl::StripAsciiWhitespace(tag) == entry.etag) {
      response->status = 304;
      return true;
    }
  }
  response->status = 200;
  response->set_content(entry.content.data(), entry.content.size(), entry.type);
  return true;
}

void SetSecurityHeaders(httplib::Response* response) {
  response->set_header("Content-Security-Policy",
                       "default-src 'self'; base-uri 'none'; form-action 'none'; "
                       "frame-ancestors 'none'; object-src 'none'");
  response->set_header("X-Content-Type-Options", "nosniff");
  response->set_header("Referrer-Policy", "no-referrer");
  response->set_header("Cross-Origin-Opener-Policy", "same-origin");
  response->set_header("Cross-Origin-Resource-Policy", "same-origin");
}

}  // namespace uniquanf::server
