// Who made an artifact (SECURITY R19): signatures of manifests and results, and their keys.
#include "common/artifact/signature.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/base/secret.h"
#include "common/object_store/local_store.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

// RFC 8032, 7.1, test 1: signs the empty message.
constexpr char kRfcPem[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
    "-----END PRIVATE KEY-----\n";
constexpr char kRfcPublic[] = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
constexpr char kRfcSignatureHead[] = "e5564300c360ac729086e2cc806e828a";

class SignatureTest : public ::testing::Test {
 protected:
  std::string KeyFile(const std::string& pem, mode_t mode = 0600) {
    const std::string path = dir_.File(absl::StrCat("key", ++num_keys_, ".pem"));
    std::ofstream(path) << pem;
    chmod(path.c_str(), mode);
    return path;
  }
  TempDir dir_;
  int num_keys_ = 0;
  const std::shared_ptr<ObjectStore> store_ = *OpenLocalStore(dir_.File("artifact"));
  const SigningKey key_ = SigningKey::Generate();
  const std::string sha256_ = Sha256Hex("manifest");
};

TEST_F(SignatureTest, KeysSignAsTheStandardSays) {
  const auto key = SigningKey::FromPemFile(KeyFile(kRfcPem));
  ASSERT_THAT(key, IsOk());
  EXPECT_EQ(key->verifying_key().Base64(), kRfcPublic);
  std::string hex;
  for (const char c : key->Sign("")) absl::StrAppend(&hex, absl::Hex(c & 0xff, absl::kZeroPad2));
  EXPECT_EQ(hex.substr(0, 32), kRfcSignatureHead);
  EXPECT_TRUE(key->verifying_key().Verifies("", key->Sign("")));
  EXPECT_FALSE(key->verifying_key().Verifies("x", key->Sign("")));
  EXPECT_FALSE(key->verifying_key().Verifies("", key->Sign("").substr(1)));
  EXPECT_FALSE(key->verifying_key().Verifies("", std::string(64, '\0')));
  EXPECT_FALSE(key_.verifying_key().Verifies("", key->Sign("")));
  // What is written is read.
  const auto again = SigningKey::FromPemFile(KeyFile(key->Pem()));
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->Sign("m"), key->Sign("m"));
}

TEST_F(SignatureTest, KeyFilesThatAreNoneAreRefusedByName) {
  const auto invalid = FailsWith(StatusCode::kInvalidArgument, "INVALID_KEY");
  EXPECT_THAT(SigningKey::FromPemFile(KeyFile("")).status(), invalid);
  EXPECT_THAT(SigningKey::FromPemFile(KeyFile("secret text")).status(), invalid);
  EXPECT_THAT(SigningKey::FromPemFile(KeyFile(kRfcPem, 0644)).status(),
              FailsWith(StatusCode::kInvalidArgument, "INVALID_KEY", HasSubstr("chmod")));
  EXPECT_THAT(SigningKey::FromPemFile(KeyFile(kRfcPem, 0440)), IsOk()) << "as pods mount Secrets";
  EXPECT_FALSE(SigningKey::FromPemFile(dir_.File("missing")).ok());
  EXPECT_THAT(VerifyingKey::FromPemFile(KeyFile(kRfcPem)).status(), invalid);
  EXPECT_THAT(VerifyingKey::FromBase64("AAAA").status(), invalid);
  EXPECT_THAT(VerifyingKey::FromBase64("no base64!").status(), invalid);
  EXPECT_EQ(VerifyingKey::FromBase64(kRfcPublic)->Base64(), kRfcPublic);
}

TEST_F(SignatureTest, AManifestsSignatureIsOfItsWorkerAndItsDigest) {
  const auto check = [&](const std::string& sha256, std::vector<VerifyingKey> trusted) {
    return CheckSignature(store_.get(), sha256, trusted);
  };
  const std::vector<VerifyingKey> trusted = {SigningKey::Generate().verifying_key(),
                                             key_.verifying_key()};
  EXPECT_THAT(check(sha256_, trusted).status(),
              FailsWith(StatusCode::kFailedPrecondition, "NOT_SIGNED"));
  const std::string text = SignManifest(key_, "worker/w", sha256_);
  EXPECT_EQ(text, SignManifest(key_, "worker/w", sha256_)) << "the same bytes each time";
  ASSERT_THAT(store_->Write(SignatureKey(sha256_), text), IsOk());
  const auto good = check(sha256_, trusted);
  ASSERT_THAT(good, IsOk());
  EXPECT_EQ(good->signed_by, "worker/w");
  EXPECT_THAT(check(sha256_, {trusted[0]}).status(),
              FailsWith(StatusCode::kPermissionDenied, "UNTRUSTED_SIGNATURE"));
  EXPECT_FALSE(check(sha256_, {}).ok());
  const auto broken = FailsWith(StatusCode::kDataLoss, "INVALID_SIGNATURE");
  const std::string other = Sha256Hex("other");
  for (const std::string& bad :
       {std::string("{}"), std::string("no JSON"), std::string(5000, ' '),
        absl::StrReplaceAll(text, {{"worker/w", "worker/x"}}),
        absl::StrReplaceAll(text, {{sha256_, other}}),
        absl::StrReplaceAll(text, {{"Ed25519", "none"}}), SignManifest(key_, "worker/w", other)}) {
    ASSERT_THAT(store_->Write(SignatureKey(sha256_), bad), IsOk());
    EXPECT_THAT(check(sha256_, trusted).status(), broken) << bad.substr(0, 200);
  }
}

TEST_F(SignatureTest, ItsFileIsNamedByTheManifest) {
  EXPECT_EQ(SignatureKey(sha256_), "manifest.json." + sha256_.substr(0, 16) + ".sig");
  EXPECT_TRUE(IsSignatureKey(SignatureKey(sha256_)));
  for (const char* other :
       {"manifest.json", "manifest.json.sig", "manifest.json.0123.sig", "a.sig",
        "manifest.json.0123456789ABCDEF.sig", "manifest.json.0123456789abcdef"}) {
    EXPECT_FALSE(IsSignatureKey(other)) << other;
  }
}

TEST(SecretTest, IsComparedWholeAndRandom) {
  EXPECT_TRUE(SameSecret("abc", "abc"));
  EXPECT_FALSE(SameSecret("abc", "abd"));
  EXPECT_FALSE(SameSecret("abc", "ab"));
  EXPECT_TRUE(SameSecret("", ""));
  EXPECT_EQ(RandomBytes(16).size(), 16u);
  EXPECT_NE(RandomBytes(16), RandomBytes(16));
  // RFC 4231, test case 2.
  std::string hex;
  for (const char c : HmacSha256("Jefe", "what do ya want for nothing?")) {
    absl::StrAppend(&hex, absl::Hex(c & 0xff, absl::kZeroPad2));
  }
  EXPECT_EQ(hex.substr(0, 32), "5bdcc146bf60754e6a042426089575c7");
}

}  // namespace
}  // namespace uniquanf
