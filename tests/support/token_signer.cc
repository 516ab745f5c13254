#include "tests/support/token_signer.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace uniquanf {
namespace {

constexpr int kHalf = 32;  // of an ES256 signature, and of a point

std::shared_ptr<EVP_PKEY> NewKey(const std::string& algorithm) {
  EVP_PKEY* key = nullptr;
  if (algorithm == "RS256") key = EVP_RSA_gen(2048);
  if (algorithm == "ES256") key = EVP_EC_gen("P-256");
  if (algorithm == "EdDSA") key = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
  UQ_CHECK(key != nullptr);
  return {key, EVP_PKEY_free};
}

std::string Encode(const std::string& bytes) { return absl::WebSafeBase64Escape(bytes); }

std::string Number(EVP_PKEY* key, const char* name, int size) {
  BIGNUM* number = nullptr;
  UQ_CHECK(EVP_PKEY_get_bn_param(key, name, &number) == 1);
  std::string bytes(static_cast<size_t>(size == 0 ? BN_num_bytes(number) : size), '\0');
  BN_bn2binpad(number, reinterpret_cast<unsigned char*>(bytes.data()),
               static_cast<int>(bytes.size()));
  BN_free(number);
  return Encode(bytes);
}

std::string RawSignature(const std::string& der) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(der.data());
  ECDSA_SIG* const signature = d2i_ECDSA_SIG(nullptr, &bytes, static_cast<long>(der.size()));
  UQ_CHECK(signature != nullptr);
  std::string raw(2 * kHalf, '\0');
  auto* out = reinterpret_cast<unsigned char*>(raw.data());
  BN_bn2binpad(ECDSA_SIG_get0_r(signature), out, kHalf);
  BN_bn2binpad(ECDSA_SIG_get0_s(signature), out + kHalf, kHalf);
  ECDSA_SIG_free(signature);
  return raw;
}

}  // namespace

TokenSigner::TokenSigner(const std::string& algorithm, const std::string& key_id)
    : algorithm_(algorithm), key_id_(key_id), key_(NewKey(algorithm)) {}

nlohmann::json TokenSigner::Jwk() const {
  nlohmann::json jwk = {{"kid", key_id_}, {"use", "sig"}};
  if (algorithm_ == "RS256") {
    jwk["kty"] = "RSA";
    jwk["n"] = Number(key_.get(), OSSL_PKEY_PARAM_RSA_N, 0);
    jwk["e"] = Number(key_.get(), OSSL_PKEY_PARAM_RSA_E, 0);
  } else if (algorithm_ == "ES256") {
    jwk["kty"] = "EC";
    jwk["crv"] = "P-256";
    jwk["x"] = Number(key_.get(), OSSL_PKEY_PARAM_EC_PUB_X, kHalf);
    jwk["y"] = Number(key_.get(), OSSL_PKEY_PARAM_EC_PUB_Y, kHalf);
  } else {
    unsigned char bytes[kHalf];
    size_t size = sizeof(bytes);
    UQ_CHECK(EVP_PKEY_get_raw_public_key(key_.get(), bytes, &size) == 1);
    jwk["kty"] = "OKP";
    jwk["crv"] = "Ed25519";
    jwk["x"] = Encode(std::string(reinterpret_cast<const char*>(bytes), size));
  }
  return jwk;
}

std::string TokenSigner::Sign(const nlohmann::json& claims, const nlohmann::json& header) const {
  nlohmann::json full = {{"alg", algorithm_}, {"typ", "JWT"}, {"kid", key_id_}};
  full.update(header);
  const std::string text = absl::StrCat(Encode(full.dump()), ".", Encode(claims.dump()));
  EVP_MD_CTX* const context = EVP_MD_CTX_new();
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  size_t size = 0;
  UQ_CHECK(EVP_DigestSignInit(context, nullptr, algorithm_ == "EdDSA" ? nullptr : EVP_sha256(),
                              nullptr, key_.get()) == 1);
  UQ_CHECK(EVP_DigestSign(context, nullptr, &size, bytes, text.size()) == 1);
  std::string signature(size, '\0');
  UQ_CHECK(EVP_DigestSign(context, reinterpret_cast<unsigned char*>(signature.data()), &size, bytes,
                          text.size()) == 1);
  EVP_MD_CTX_free(context);
  signature.resize(size);
  if (algorithm_ == "ES256") signature = RawSignature(signature);
  return absl::StrCat(text, ".", Encode(signature));
}

std::string TokenSigner::SignWithPublicKeyAsSecret(const nlohmann::json& claims) const {
  BIO* const bio = BIO_new(BIO_s_mem());
  UQ_CHECK(PEM_write_bio_PUBKEY(bio, key_.get()) == 1);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  const std::string secret(data, static_cast<size_t>(size));
  BIO_free(bio);
  const nlohmann::json header = {{"alg", "HS256"}, {"typ", "JWT"}, {"kid", key_id_}};
  const std::string text = absl::StrCat(Encode(header.dump()), ".", Encode(claims.dump()));
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int digest_size = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest, &digest_size);
  return absl::StrCat(text, ".",
                      Encode(std::string(reinterpret_cast<const char*>(digest), digest_size)));
}

std::string TokenKeySet(const std::vector<const TokenSigner*>& signers) {
  nlohmann::json set = {{"keys", nlohmann::json::array()}};
  for (const TokenSigner* signer : signers) set["keys"].push_back(signer->Jwk());
  return set.dump();
}

}  // namespace uniquanf
