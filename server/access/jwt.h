// JSON Web Tokens (RFC 7519) in their compact, signed form (RFC 7515), and the keys that vouch for
// them (RFC 7517). RS256, ES256 (RFC 7518) and EdDSA with Ed25519 (RFC 8037) alone: "none" and
// everything with a shared secret is refused before a key is looked for, and a key is only used
// for the algorithm of its own type.
//
// Thread safety: values, immutable once made. Errors: kUnauthenticated (INVALID_TOKEN, UNKNOWN_KEY)
// for tokens, kInvalidArgument (INVALID_KEYS) for keys; neither quotes what a token holds.
#ifndef UNIQUANF_SERVER_ACCESS_JWT_H_
#define UNIQUANF_SERVER_ACCESS_JWT_H_

#include <openssl/evp.h>

#include <cstddef>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf::server {

enum class TokenAlgorithm { kRs256, kEs256, kEdDsa };

inline constexpr size_t kMaxTokenBytes = 8 << 10;

struct Token {
  TokenAlgorithm algorithm = TokenAlgorithm::kRs256;
  std::string key_id;  // may be empty
  nlohmann::json claims;
  std::string signed_text;
  std::string signature;
};

// Nothing of it may be believed before VerifyToken.
absl::StatusOr<Token> ParseToken(absl::string_view text);

struct TokenKey {
  std::string id;  // may be empty
  TokenAlgorithm algorithm = TokenAlgorithm::kRs256;
  std::shared_ptr<EVP_PKEY> key;
};
using TokenKeys = std::vector<TokenKey>;

// A JWK Set. Keys of other kinds and for other uses are left out; without one that fits it is an
// error.
absl::StatusOr<TokenKeys> ParseTokenKeys(absl::string_view text);

// OK when one of the keys that the token may mean made its signature. UNKNOWN_KEY: there is none of
// its id and algorithm.
absl::Status VerifyToken(const Token& token, const TokenKeys& keys);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_ACCESS_JWT_H_
