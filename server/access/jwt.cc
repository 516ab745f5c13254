#include "server/access/jwt.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/json_util.h"
#include "common/base/status.h"

namespace uniquanf::server {
namespace {

constexpr int kMaxTokenDepth = 8;
constexpr size_t kMaxKeys = 256;
constexpr size_t kMaxKeysOfToken = 8;  // tried for a token that names none
constexpr int kMinRsaBits = 2048, kMaxRsaBits = 8192;
constexpr size_t kEs256Half = 32, kEd25519Bytes = 32;

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using BigNumber = std::unique_ptr<BIGNUM, Deleter<BN_free>>;
using ParamBuilder = std::unique_ptr<OSSL_PARAM_BLD, Deleter<OSSL_PARAM_BLD_free>>;
using Params = std::unique_ptr<OSSL_PARAM, Deleter<OSSL_PARAM_free>>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Deleter<EVP_PKEY_CTX_free>>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, Deleter<EVP_MD_CTX_free>>;
using Signature = std::unique_ptr<ECDSA_SIG, Deleter<ECDSA_SIG_free>>;

absl::Status Refused(absl::string_view reason, absl::string_view why) {
  ERR_clear_error();
  return MakeError(absl::StatusCode::kUnauthenticated, reason, absl::StrCat("the token ", why));
}
absl::Status Malformed(absl::string_view why) { return Refused("INVALID_TOKEN", why); }

// RFC 7515, section 2: without padding, line breaks or other characters.
std::optional<std::string> Base64Url(absl::string_view text) {
  for (const char c : text) {
    if (!absl::ascii_isalnum(c) && c != '-' && c != '_') return std::nullopt;
  }
  std::string bytes;
  if (!absl::WebSafeBase64Unescape(text, &bytes)) return std::nullopt;
  return bytes;
}

std::string MemberOf(const nlohmann::json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

std::optional<TokenAlgorithm> AlgorithmFromName(absl::string_view name) {
  if (name == "RS256") return TokenAlgorithm::kRs256;
  if (name == "ES256") return TokenAlgorithm::kEs256;
  if (name == "EdDSA") return TokenAlgorithm::kEdDsa;
  return std::nullopt;
}

std::shared_ptr<EVP_PKEY> KeyFromParams(const char* type, OSSL_PARAM_BLD* builder) {
  const Params params(OSSL_PARAM_BLD_to_param(builder));
  const KeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
  EVP_PKEY* key = nullptr;
  if (params == nullptr || context == nullptr || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, params.get()) != 1) {
    return nullptr;
  }
  return {key, EVP_PKEY_free};
}

// Null: not a key that can be used.
std::shared_ptr<EVP_PKEY> RsaKey(const nlohmann::json& jwk) {
  const auto n = Base64Url(MemberOf(jwk, "n")), e = Base64Url(MemberOf(jwk, "e"));
  if (!n.has_value() || !e.has_value() || n->empty() || e->empty() ||
      n->size() * 8 > kMaxRsaBits + 8 || e->size() > 8) {
    return nullptr;
  }
  const auto number = [](const std::string& bytes) {
    return BigNumber(BN_bin2bn(reinterpret_cast<const unsigned char*>(bytes.data()),
                               static_cast<int>(bytes.size()), nullptr));
  };
  const BigNumber modulus = number(*n), exponent = number(*e);
  const ParamBuilder builder(OSSL_PARAM_BLD_new());
  if (BN_num_bits(modulus.get()) < kMinRsaBits || BN_num_bits(modulus.get()) > kMaxRsaBits ||
      !BN_is_odd(exponent.get()) || BN_is_one(exponent.get()) ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, modulus.get()) != 1 ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, exponent.get()) != 1) {
    return nullptr;
  }
  return KeyFromParams("RSA", builder.get());
}

std::shared_ptr<EVP_PKEY> EcKey(const nlohmann::json& jwk) {
  const auto x = Base64Url(MemberOf(jwk, "x")), y = Base64Url(MemberOf(jwk, "y"));
  if (MemberOf(jwk, "crv") != "P-256" || !x.has_value() || !y.has_value() ||
      x->size() != kEs256Half || y->size() != kEs256Half) {
    return nullptr;
  }
  const std::string point = absl::StrCat("\x04", *x, *y);
  const ParamBuilder builder(OSSL_PARAM_BLD_new());
  if (OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) != 1 ||
      OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(),
                                       point.size()) != 1) {
    return nullptr;
  }
  return KeyFromParams("EC", builder.get());  // refuses a point that is not on the curve
}

std::shared_ptr<EVP_PKEY> Ed25519Key(const nlohmann::json& jwk) {
  const auto x = Base64Url(MemberOf(jwk, "x"));
  if (MemberOf(jwk, "crv") != "Ed25519" || !x.has_value() || x->size() != kEd25519Bytes) {
    return nullptr;
  }
  return {EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr,
                                      reinterpret_cast<const unsigned char*>(x->data()), x->size()),
          EVP_PKEY_free};
}

// nullopt: a key of another kind or for another use.
std::optional<TokenKey> KeyFromJwk(const nlohmann::json& jwk) {
  if (!jwk.is_object()) return std::nullopt;
  const std::string type = MemberOf(jwk, "kty");
  if (jwk.contains("use") && MemberOf(jwk, "use") != "sig") return std::nullopt;
  TokenKey key;
  key.id = MemberOf(jwk, "kid");
  if (type == "RSA") {
    key.algorithm = TokenAlgorithm::kRs256;
    key.key = RsaKey(jwk);
  } else if (type == "EC") {
    key.algorithm = TokenAlgorithm::kEs256;
    key.key = EcKey(jwk);
  } else if (type == "OKP") {
    key.algorithm = TokenAlgorithm::kEdDsa;
    key.key = Ed25519Key(jwk);
  }
  ERR_clear_error();
  if (key.key == nullptr) return std::nullopt;
  if (jwk.contains("alg") && AlgorithmFromName(MemberOf(jwk, "alg")) != key.algorithm) {
    return std::nullopt;
  }
  return key;
}

// r and s, 32 bytes each (RFC 7518, section 3.4), as OpenSSL wants them.
std::optional<std::string> DerSignature(const std::string& raw) {
  if (raw.size() != 2 * kEs256Half) return std::nullopt;
  const Signature signature(ECDSA_SIG_new());
  const auto* bytes = reinterpret_cast<const unsigned char*>(raw.data());
  BIGNUM* const r = BN_bin2bn(bytes, kEs256Half, nullptr);
  BIGNUM* const s = BN_bin2bn(bytes + kEs256Half, kEs256Half, nullptr);
  ECDSA_SIG_set0(signature.get(), r, s);  // takes both
  unsigned char* der = nullptr;
  const int size = i2d_ECDSA_SIG(signature.get(), &der);
  if (size <= 0) return std::nullopt;
  std::string result(reinterpret_cast<const char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return result;
}

bool Verifies(const Token& token, EVP_PKEY* key) {
  std::string signature = token.signature;
  if (token.algorithm == TokenAlgorithm::kEs256) {
    std::optional<std::string> der = DerSignature(token.signature);
    if (!der.has_value()) return false;
    signature = *std::move(der);
  }
  const DigestContext context(EVP_MD_CTX_new());
  const EVP_MD* digest =
      token.algorithm == TokenAlgorithm::kEdDsa ? nullptr : EVP_sha256();  // RFC 8037: it hashes
  return EVP_DigestVerifyInit(context.get(), nullptr, digest, nullptr, key) == 1 &&
         EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(signature.data()),
                          signature.size(),
                          reinterpret_cast<const unsigned char*>(token.signed_text.data()),
                          token.signed_text.size()) == 1;
}

}  // namespace

absl::StatusOr<Token> ParseToken(absl::string_view text) {
  if (text.size() > kMaxTokenBytes) {
    return Malformed(absl::StrCat("is longer than ", kMaxTokenBytes, " bytes"));
  }
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '.');
  if (parts.size() != 3) return Malformed("is not a JWT of three parts");
  const auto header_text = Base64Url(parts[0]), claims_text = Base64Url(parts[1]),
             signature = Base64Url(parts[2]);
  if (!header_text.has_value() || !claims_text.has_value() || !signature.has_value()) {
    return Malformed("is not base64url");
  }
  const auto header = ParseJson(*header_text, "header", "INVALID_TOKEN", kMaxTokenDepth);
  if (!header.ok() || !header->is_object()) return Malformed("has a header that is no JSON object");
  auto claims = ParseJson(*claims_text, "claims", "INVALID_TOKEN", kMaxTokenDepth);
  if (!claims.ok() || !claims->is_object()) return Malformed("has claims that are no JSON object");
  Token token;
  const std::optional<TokenAlgorithm> algorithm = AlgorithmFromName(MemberOf(*header, "alg"));
  if (!algorithm.has_value()) {
    return Malformed("is not signed with RS256, ES256 or EdDSA; no other algorithm is accepted");
  }
  if (header->contains("crit")) return Malformed("has critical extensions, of which none is known");
  token.algorithm = *algorithm;
  token.key_id = MemberOf(*header, "kid");
  token.claims = *std::move(claims);
  token.signed_text = absl::StrCat(parts[0], ".", parts[1]);
  token.signature = *signature;
  return token;
}

absl::StatusOr<TokenKeys> ParseTokenKeys(absl::string_view text) {
  constexpr char kReason[] = "INVALID_KEYS";
  UQ_ASSIGN_OR_RETURN(const nlohmann::json root, ParseJson(text, "the JWK set", kReason, 16));
  if (!root.is_object() || !root.contains("keys") || !root["keys"].is_array()) {
    return InvalidInput(kReason, "not a JWK set: it has no array \"keys\"");
  }
  if (root["keys"].size() > kMaxKeys) {
    return InvalidInput(kReason, absl::StrCat("more than ", kMaxKeys, " keys"));
  }
  TokenKeys keys;
  for (const nlohmann::json& jwk : root["keys"]) {
    if (std::optional<TokenKey> key = KeyFromJwk(jwk)) keys.push_back(*std::move(key));
  }
  if (keys.empty()) {
    return InvalidInput(kReason,
                        "no key for RS256 (2048 to 8192 bits), ES256 or EdDSA (Ed25519) is in it");
  }
  return keys;
}

absl::Status VerifyToken(const Token& token, const TokenKeys& keys) {
  size_t num_tried = 0;
  for (const TokenKey& key : keys) {
    if (key.algorithm != token.algorithm) continue;
    if (!token.key_id.empty() && key.id != token.key_id) continue;
    if (++num_tried > kMaxKeysOfToken) break;
    if (Verifies(token, key.key.get())) return absl::OkStatus();
  }
  if (num_tried == 0) return Refused("UNKNOWN_KEY", "is signed with a key that its issuer has not");
  return Malformed("has a signature that does not fit");
}

}  // namespace uniquanf::server
