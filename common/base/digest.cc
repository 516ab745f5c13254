#include "common/base/digest.h"

#include <openssl/evp.h>

#include <string>
#include <utility>

#include "common/base/check.h"

namespace uniquanf {

struct Sha256::Impl {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(context); }
};

// OpenSSL's digest calls fail only without memory or without a SHA-256 provider: a broken
// installation, not an input.
Sha256::Sha256() : impl_(std::make_unique<Impl>()) {
  UQ_CHECK(impl_->context != nullptr);
  UQ_CHECK(EVP_DigestInit_ex(impl_->context, EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Update(const void* data, size_t size_bytes) {
  UQ_CHECK(EVP_DigestUpdate(impl_->context, data, size_bytes) == 1);
}

std::string Sha256::FinishHex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  UQ_CHECK(EVP_DigestFinal_ex(impl_->context, digest, &size) == 1 && size == 32);
  static constexpr char kHex[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(64);
  for (unsigned int i = 0; i < size; ++i) {
    hex += kHex[digest[i] >> 4];
    hex += kHex[digest[i] & 15];
  }
  return hex;
}

std::string Sha256Hex(absl::string_view data) {
  Sha256 sha;
  sha.Update(data);
  return sha.FinishHex();
}

bool IsSha256Hex(absl::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == absl::string_view::npos;
}

}  // namespace uniquanf
