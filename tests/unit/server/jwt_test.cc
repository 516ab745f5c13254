// Tokens and the keys that vouch for them (SECURITY R1 b, T7): what is believed, and every way not
// to be.
#include "server/access/jwt.h"

#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/support/status_matchers.h"
#include "tests/support/token_signer.h"

namespace uniquanf::server {
namespace {

using absl::StatusCode;
using nlohmann::json;

const json kClaims = {{"sub", "alice"}};

absl::Status Verify(const std::string& token, const std::string& keys) {
  const auto parsed = ParseToken(token);
  if (!parsed.ok()) return parsed.status();
  const auto set = ParseTokenKeys(keys);
  if (!set.ok()) return set.status();
  return VerifyToken(*parsed, *set);
}

TEST(JwtTest, EachOfTheThreeAlgorithmsIsBelieved) {
  const TokenSigner rs("RS256", "r"), es("ES256", "e"), ed("EdDSA", "d");
  const std::string keys = TokenKeySet({&rs, &es, &ed});
  for (const TokenSigner* signer : {&rs, &es, &ed}) {
    EXPECT_THAT(Verify(signer->Sign(kClaims), keys), IsOk());
    // One that does not say which key it is of.
    EXPECT_THAT(Verify(signer->Sign(kClaims, {{"kid", ""}}), keys), IsOk());
  }
  const auto token = ParseToken(es.Sign(kClaims));
  ASSERT_THAT(token, IsOk());
  EXPECT_EQ(token->claims["sub"], "alice");
}

TEST(JwtTest, NoneAndSharedSecretsAreRefusedBeforeAnyKeyIsLookedAt) {
  const TokenSigner rs("RS256", "k");
  const auto refused = FailsWith(StatusCode::kUnauthenticated, "INVALID_TOKEN");
  EXPECT_THAT(ParseToken(rs.SignWithPublicKeyAsSecret(kClaims)), refused);
  for (const char* algorithm : {"none", "None", "", "HS256", "RS512", "PS256", "rs256"}) {
    EXPECT_THAT(ParseToken(rs.Sign(kClaims, {{"alg", algorithm}})), refused) << algorithm;
  }
  const std::vector<std::string> parts = absl::StrSplit(rs.Sign(kClaims, {{"alg", "none"}}), '.');
  EXPECT_THAT(ParseToken(absl::StrCat(parts[0], ".", parts[1], ".")), refused);
}

TEST(JwtTest, AKeyServesItsOwnAlgorithmAlone) {
  const TokenSigner rs("RS256", "same"), es("ES256", "same");
  EXPECT_THAT(Verify(es.Sign(kClaims), TokenKeySet({&rs})),
              FailsWith(StatusCode::kUnauthenticated, "UNKNOWN_KEY"));
  EXPECT_THAT(Verify(es.Sign(kClaims), TokenKeySet({&rs, &es})), IsOk());
  // A header that claims another algorithm than the signature's.
  EXPECT_THAT(Verify(es.Sign(kClaims, {{"alg", "RS256"}}), TokenKeySet({&rs, &es})),
              FailsWith(StatusCode::kUnauthenticated, "INVALID_TOKEN"));
}

TEST(JwtTest, WhatWasChangedAfterSigningIsRefused) {
  for (const char* algorithm : {"RS256", "ES256", "EdDSA"}) {
    const TokenSigner signer(algorithm, "k");
    const std::string keys = TokenKeySet({&signer});
    const std::string token = signer.Sign(kClaims);
    std::vector<std::string> parts = absl::StrSplit(token, '.');
    parts[1] = absl::WebSafeBase64Escape(R"({"sub":"mallory"})");
    EXPECT_THAT(Verify(absl::StrCat(parts[0], ".", parts[1], ".", parts[2]), keys),
                FailsWith(StatusCode::kUnauthenticated, "INVALID_TOKEN"));
    // Each byte of the signature counts, and its length.
    std::string cut = token;
    cut.pop_back();
    EXPECT_FALSE(Verify(cut, keys).ok());
    EXPECT_FALSE(Verify(absl::StrCat(parts[0], ".", parts[1], "."), keys).ok());
    const TokenSigner other(algorithm, "k");
    EXPECT_THAT(Verify(other.Sign(kClaims), keys),
                FailsWith(StatusCode::kUnauthenticated, "INVALID_TOKEN"));
    const TokenSigner unknown(algorithm, "other");
    EXPECT_THAT(Verify(unknown.Sign(kClaims), keys),
                FailsWith(StatusCode::kUnauthenticated, "UNKNOWN_KEY"));
  }
}

TEST(JwtTest, ZeroesAreNoSignature) {
  // CVE-2022-21449: r = s = 0 satisfied a careless verifier.
  const TokenSigner es("ES256", "k");
  std::vector<std::string> parts = absl::StrSplit(es.Sign(kClaims), '.');
  const std::string zero = absl::WebSafeBase64Escape(std::string(64, '\0'));
  EXPECT_FALSE(Verify(absl::StrCat(parts[0], ".", parts[1], ".", zero), TokenKeySet({&es})).ok());
}

TEST(JwtTest, WhatIsNoTokenIsRefused) {
  const TokenSigner es("ES256", "k");
  const std::string good = es.Sign(kClaims);
  const std::vector<std::string> parts = absl::StrSplit(good, '.');
  const std::string cases[] = {
      "",
      "a",
      "..",
      absl::StrCat(parts[0], ".", parts[1]),
      absl::StrCat(good, ".", parts[2]),
      absl::StrCat(good, "="),
      absl::StrCat(" ", good),
      absl::StrCat(parts[0], ".", absl::WebSafeBase64Escape("[]"), ".", parts[2]),
      absl::StrCat(parts[0], ".", absl::WebSafeBase64Escape("{\"a\":1,\"a\":2}"), ".", parts[2]),
      absl::StrCat(absl::WebSafeBase64Escape("{\"alg\":[\"ES256\"]}"), ".", parts[1], ".",
                   parts[2]),
      es.Sign(kClaims, {{"crit", {"exp"}}}),
      es.Sign({{"sub", std::string(8 << 10, 'x')}}),  // 8 kB
  };
  for (const std::string& text : cases) {
    EXPECT_THAT(ParseToken(text), FailsWith(StatusCode::kUnauthenticated, "INVALID_TOKEN"))
        << text.substr(0, 60);
  }
}

TEST(JwtTest, KeysOfOtherKindsAreLeftOutAndASetWithoutAnyIsRefused) {
  const TokenSigner es("ES256", "k");
  json weak = {
      {"kty", "RSA"}, {"e", "AQAB"}, {"n", absl::WebSafeBase64Escape(std::string(128, 'n'))}};
  json off_curve = es.Jwk();
  off_curve["y"] = off_curve["x"];
  json for_encryption = es.Jwk();
  for_encryption["use"] = "enc";
  json other_algorithm = es.Jwk();
  other_algorithm["alg"] = "ES384";
  const json shared_secret = {{"kty", "oct"}, {"k", "c2VjcmV0"}};
  const json useless[] = {weak, off_curve, for_encryption, other_algorithm, shared_secret, 7};
  for (const json& key : useless) {
    EXPECT_THAT(ParseTokenKeys(json{{"keys", {key}}}.dump()),
                FailsWith(StatusCode::kInvalidArgument, "INVALID_KEYS"))
        << key.dump();
    const auto keys = ParseTokenKeys(json{{"keys", {key, es.Jwk()}}}.dump());
    ASSERT_THAT(keys, IsOk());
    EXPECT_EQ(keys->size(), 1u);
  }
  for (const char* text : {"", "{}", "[]", "{\"keys\":{}}", "{\"keys\":[]}"}) {
    EXPECT_THAT(ParseTokenKeys(text), FailsWith(StatusCode::kInvalidArgument, "INVALID_KEYS"));
  }
}

}  // namespace
}  // namespace uniquanf::server
