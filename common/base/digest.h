// SHA-256 (FIPS 180-4) through OpenSSL.
#ifndef UNIQUANF_COMMON_BASE_DIGEST_H_
#define UNIQUANF_COMMON_BASE_DIGEST_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace uniquanf {

// Incremental SHA-256. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Update(const void* data, size_t size_bytes);
  void Update(absl::string_view data) { Update(data.data(), data.size()); }
  // 64 lower-case hex digits. REQUIRES: called once, last.
  std::string FinishHex();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The SHA-256 of `data` as 64 lower-case hex digits.
std::string Sha256Hex(absl::string_view data);
// `text` has this form.
bool IsSha256Hex(absl::string_view text);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_DIGEST_H_
