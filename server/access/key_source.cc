#include "server/access/key_source.h"

#include <curl/curl.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/read_file.h"
#include "common/base/status.h"

namespace uniquanf::server {
namespace {

constexpr size_t kMaxKeysBytes = 1 << 20;
constexpr long kFetchTimeoutMs = 10'000;
constexpr absl::Duration kFilePeriod = absl::Seconds(10), kUrlPeriod = absl::Minutes(10);
constexpr absl::Duration kRetryPeriod = absl::Seconds(10), kUnknownKeyPeriod = absl::Minutes(1);

bool IsUrl(absl::string_view location) { return absl::StrContains(location, "://"); }

size_t Append(char* data, size_t size, size_t count, void* user_data) {
  auto* text = static_cast<std::string*>(user_data);
  if (text->size() + size * count > kMaxKeysBytes) return 0;  // ends the transfer
  text->append(data, size * count);
  return size * count;
}

absl::Status NotThere(absl::string_view location, absl::string_view why) {
  return Unavailable("TOKEN_KEYS_UNAVAILABLE",
                     absl::StrCat("the keys at \"", location, "\" cannot be read: ", why));
}

}  // namespace

absl::StatusOr<std::string> FetchTokenKeys(const std::string& location) {
  if (!IsUrl(location)) {
    absl::StatusOr<std::string> text = ReadSmallFile(location, kMaxKeysBytes);
    if (!text.ok()) return NotThere(location, text.status().message());
    return text;
  }
  CURL* const curl = curl_easy_init();
  if (curl == nullptr) return NotThere(location, "no memory for a request");
  std::string text;
  char error[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(curl, CURLOPT_URL, location.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https");
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, kFetchTimeoutMs);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, Append);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &text);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
  const CURLcode code = curl_easy_perform(curl);
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_cleanup(curl);
  if (code != CURLE_OK) return NotThere(location, *error ? error : curl_easy_strerror(code));
  if (status != 200) return NotThere(location, absl::StrCat("it answers ", status));
  return text;
}

KeySource::KeySource(std::string location)
    : location_(std::move(location)),
      period_(IsUrl(location_) ? kUrlPeriod : kFilePeriod),
      last_(NotThere(location_, "they have not been read yet")) {}

absl::Status KeySource::Verify(const Token& token, absl::Duration now) {
  std::shared_ptr<const TokenKeys> keys;
  {
    absl::MutexLock lock(&mutex_);
    keys = keys_;
  }
  if (keys == nullptr) {
    return Unavailable("TOKEN_KEYS_UNAVAILABLE",
                       "the keys of the token's issuer could not be read yet; call again");
  }
  const absl::Status verified = VerifyToken(token, *keys);
  if (ErrorReason(verified) != "UNKNOWN_KEY") return verified;
  absl::MutexLock lock(&mutex_);
  if (!asked_) {
    if (keys_ == keys && now - asked_at_ < kUnknownKeyPeriod) return verified;
    asked_ = true;
    asked_at_ = now;
    due_ = std::min(due_, now);
  }
  return Unavailable("TOKEN_KEYS_UNAVAILABLE",
                     "the token is signed with a key that is not known yet; the keys of its issuer "
                     "are being read; call again");
}

absl::Duration KeySource::due() const {
  absl::MutexLock lock(&mutex_);
  return due_;
}

absl::Status KeySource::last() const {
  absl::MutexLock lock(&mutex_);
  return last_;
}

absl::Status KeySource::Fetch(const KeyFetcher& fetch, absl::Duration now) {
  absl::StatusOr<TokenKeys> keys = absl::UnknownError("");
  absl::StatusOr<std::string> text = fetch(location_);
  keys = text.ok() ? ParseTokenKeys(*text) : absl::StatusOr<TokenKeys>(text.status());
  absl::MutexLock lock(&mutex_);
  asked_ = false;
  last_ = Annotate(keys.status(), location_);
  due_ = now + (keys.ok() ? period_ : std::min(period_, kRetryPeriod));
  if (keys.ok()) keys_ = std::make_shared<const TokenKeys>(*std::move(keys));
  return last_;
}

}  // namespace uniquanf::server
