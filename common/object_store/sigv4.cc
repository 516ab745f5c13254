#include "common/object_store/sigv4.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/base/digest.h"

namespace uniquanf {
namespace {

std::string HmacSha256(absl::string_view key, absl::string_view data) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  UQ_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                reinterpret_cast<const unsigned char*>(data.data()), data.size(), digest,
                &size) != nullptr);
  return std::string(reinterpret_cast<const char*>(digest), size);
}

// Trims and folds runs of white space (also those of a folded header line) to one blank.
std::string CanonicalHeaderValue(absl::string_view value) {
  std::string folded(value);
  absl::RemoveExtraAsciiWhitespace(&folded);
  std::replace_if(
      folded.begin(), folded.end(), [](unsigned char c) { return absl::ascii_isspace(c); }, ' ');
  return folded;
}

bool HasHeader(const NameValues& headers, absl::string_view lower_name) {
  return std::any_of(headers.begin(), headers.end(), [lower_name](const auto& header) {
    return absl::AsciiStrToLower(header.first) == lower_name;
  });
}

}  // namespace

std::string UriEncode(absl::string_view text, bool keep_slash) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string encoded;
  encoded.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_isalnum(byte) || c == '-' || c == '.' || c == '_' || c == '~' ||
        (c == '/' && keep_slash)) {
      encoded.push_back(c);
    } else {
      encoded.push_back('%');
      encoded.push_back(kHex[byte >> 4]);
      encoded.push_back(kHex[byte & 15]);
    }
  }
  return encoded;
}

std::string CanonicalQuery(const NameValues& query) {
  NameValues encoded;
  encoded.reserve(query.size());
  for (const auto& [name, value] : query) {
    encoded.emplace_back(UriEncode(name, false), UriEncode(value, false));
  }
  // Pairs, not "name=value" strings: '=' sorts after '-' and '.', so joined strings would put
  // "Param-3=" before "Param=".
  std::sort(encoded.begin(), encoded.end());
  return absl::StrJoin(encoded, "&", absl::PairFormatter("="));
}

SigV4Signature SignV4(const AwsCredentials& credentials, absl::string_view region,
                      absl::string_view service, absl::Time now, SigV4Request* request) {
  UQ_CHECK(!credentials.anonymous());
  const std::string stamp = absl::FormatTime("%Y%m%dT%H%M%SZ", now, absl::UTCTimeZone());
  const std::string date = stamp.substr(0, 8);
  if (!HasHeader(request->headers, "x-amz-date")) {
    request->headers.emplace_back("x-amz-date", stamp);
  }
  if (!credentials.session_token.empty() && !HasHeader(request->headers, "x-amz-security-token")) {
    request->headers.emplace_back("x-amz-security-token", credentials.session_token);
  }

  std::map<std::string, std::string> headers;
  for (const auto& [name, value] : request->headers) {
    std::string canonical = CanonicalHeaderValue(value);
    auto [it, inserted] = headers.emplace(absl::AsciiStrToLower(name), canonical);
    if (!inserted) absl::StrAppend(&it->second, ",", canonical);
  }
  std::string header_lines;
  for (const auto& [name, value] : headers) absl::StrAppend(&header_lines, name, ":", value, "\n");
  const std::string signed_headers = absl::StrJoin(
      headers, ";",
      [](std::string* out, const auto& header) { absl::StrAppend(out, header.first); });

  SigV4Signature result;
  result.canonical_request = absl::StrCat(request->method, "\n", UriEncode(request->path, true),
                                          "\n", CanonicalQuery(request->query), "\n", header_lines,
                                          "\n", signed_headers, "\n", request->payload_sha256);
  const std::string scope = absl::StrCat(date, "/", region, "/", service, "/aws4_request");
  result.string_to_sign = absl::StrCat("AWS4-HMAC-SHA256\n", stamp, "\n", scope, "\n",
                                       Sha256Hex(result.canonical_request));
  std::string key = HmacSha256(absl::StrCat("AWS4", credentials.secret_access_key), date);
  key = HmacSha256(HmacSha256(HmacSha256(key, region), service), "aws4_request");
  const std::string signature = absl::BytesToHexString(HmacSha256(key, result.string_to_sign));
  result.authorization =
      absl::StrCat("AWS4-HMAC-SHA256 Credential=", credentials.access_key_id, "/", scope,
                   ", SignedHeaders=", signed_headers, ", Signature=", signature);
  return result;
}

}  // namespace uniquanf
