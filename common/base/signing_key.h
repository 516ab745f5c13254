// Signatures with Ed25519 (RFC 8032), through OpenSSL: of the same bytes by the same key they are
// the same bytes.
//
// Thread safety: keys are immutable; copies share them. Errors: kInvalidArgument (INVALID_KEY)
// names the file, never what is in it.
#ifndef UNIQUANF_COMMON_BASE_SIGNING_KEY_H_
#define UNIQUANF_COMMON_BASE_SIGNING_KEY_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

// A public key.
class VerifyingKey {
 public:
  // Base64 of its 32 bytes: how policies and signature files write it.
  static absl::StatusOr<VerifyingKey> FromBase64(absl::string_view text);
  // All public keys of a PEM file ("openssl pkey -pubout"). INVALID_KEY: none, or one of another
  // kind.
  static absl::StatusOr<std::vector<VerifyingKey>> FromPemFile(const std::string& path);

  std::string Base64() const;
  bool Verifies(absl::string_view message, absl::string_view signature) const;
  friend bool operator==(const VerifyingKey& a, const VerifyingKey& b) {
    return a.bytes_ == b.bytes_;
  }

 private:
  friend class SigningKey;
  explicit VerifyingKey(std::string bytes) : bytes_(std::move(bytes)) {}
  std::string bytes_;
};

class SigningKey {
 public:
  // A private key as PEM ("openssl genpkey -algorithm ed25519"), which its owner alone may read: a
  // file that others can read is refused.
  static absl::StatusOr<SigningKey> FromPemFile(const std::string& path);
  // A fresh one.
  static SigningKey Generate();

  std::string Sign(absl::string_view message) const;  // 64 bytes
  VerifyingKey verifying_key() const;
  std::string Pem() const;  // secret

 private:
  explicit SigningKey(std::shared_ptr<void> key) : key_(std::move(key)) {}
  std::shared_ptr<void> key_;  // EVP_PKEY
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_SIGNING_KEY_H_
