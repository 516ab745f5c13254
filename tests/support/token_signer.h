// Tokens for tests: a key made on the spot, its JWK, and what it signs.
//
// Thread safety: const methods. Errors: aborts the test.
#ifndef UNIQUANF_TESTS_SUPPORT_TOKEN_SIGNER_H_
#define UNIQUANF_TESTS_SUPPORT_TOKEN_SIGNER_H_

#include <openssl/evp.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace uniquanf {

class TokenSigner {
 public:
  // `algorithm`: RS256, ES256 or EdDSA.
  TokenSigner(const std::string& algorithm, const std::string& key_id);

  // The public key, as in a JWK set.
  nlohmann::json Jwk() const;
  // A token with these claims. `header` is merged over the header that fits.
  std::string Sign(const nlohmann::json& claims,
                   const nlohmann::json& header = nlohmann::json::object()) const;
  // Signed with HMAC-SHA256, by a secret that is the public key's PEM.
  std::string SignWithPublicKeyAsSecret(const nlohmann::json& claims) const;

 private:
  const std::string algorithm_, key_id_;
  const std::shared_ptr<EVP_PKEY> key_;
};

// A JWK set of these.
std::string TokenKeySet(const std::vector<const TokenSigner*>& signers);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_TOKEN_SIGNER_H_
