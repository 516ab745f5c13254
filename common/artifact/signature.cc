#include "common/artifact/signature.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/artifact/manifest.h"
#include "common/base/json_util.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_SIGNATURE";
constexpr size_t kNameDigits = 16;
constexpr uint64_t kMaxSignatureBytes = 4096;
constexpr char kSuffix[] = ".sig";

std::string ManifestMessage(absl::string_view signed_by, absl::string_view manifest_sha256) {
  return absl::StrCat("uniquanf-manifest-v1\n", signed_by, "\n", manifest_sha256, "\n");
}

absl::Status Broken(absl::string_view object, absl::string_view problem) {
  return MakeError(absl::StatusCode::kDataLoss, kReason, absl::StrCat(object, ": ", problem));
}

}  // namespace

std::string SignatureKey(absl::string_view manifest_sha256) {
  return absl::StrCat(kManifestKey, ".", manifest_sha256.substr(0, kNameDigits), kSuffix);
}

bool IsSignatureKey(absl::string_view key) {
  return absl::ConsumePrefix(&key, kManifestKey) && absl::ConsumePrefix(&key, ".") &&
         absl::ConsumeSuffix(&key, kSuffix) && key.size() == kNameDigits &&
         std::all_of(key.begin(), key.end(), [](char c) {
           return absl::ascii_isxdigit(static_cast<unsigned char>(c)) && !absl::ascii_isupper(c);
         });
}

std::string SignManifest(const SigningKey& key, const std::string& signed_by,
                         const std::string& manifest_sha256) {
  OrderedJson json;
  json["version"] = 1;
  json["algorithm"] = "Ed25519";
  json["manifest_sha256"] = manifest_sha256;
  json["signed_by"] = signed_by;
  json["key"] = key.verifying_key().Base64();
  json["signature"] = absl::Base64Escape(key.Sign(ManifestMessage(signed_by, manifest_sha256)));
  return IndentedJson(json);
}

absl::StatusOr<ManifestSignature> CheckSignature(ObjectStore* artifact,
                                                 const std::string& manifest_sha256,
                                                 const std::vector<VerifyingKey>& trusted) {
  const std::string object = SignatureKey(manifest_sha256);
  const absl::StatusOr<std::string> text = artifact->Read(object, kMaxSignatureBytes);
  if (absl::IsNotFound(text.status())) {
    return FailedPrecondition("NOT_SIGNED", absl::StrCat("no worker has signed the artifact at ",
                                                         artifact->uri(), ": it has no ", object));
  }
  if (absl::IsOutOfRange(text.status())) return Broken(object, text.status().message());
  UQ_RETURN_IF_ERROR(text.status());
  const absl::StatusOr<nlohmann::json> json = ParseJson(*text, object, kReason, 2);
  if (!json.ok()) return Broken(object, "it is no JSON");
  JsonObjectReader reader(*json, "", kReason);
  int version = 0;
  std::string algorithm, digest, signed_by, key_text, signature_text, signature;
  reader.Read("version", JsonObjectReader::kRequired, &version);
  reader.Read("algorithm", JsonObjectReader::kRequired, &algorithm);
  reader.Read("manifest_sha256", JsonObjectReader::kRequired, &digest);
  reader.Read("signed_by", JsonObjectReader::kRequired, &signed_by);
  reader.Read("key", JsonObjectReader::kRequired, &key_text);
  reader.Read("signature", JsonObjectReader::kRequired, &signature_text);
  if (const absl::Status form = reader.Finish(); !form.ok()) return Broken(object, form.message());
  if (version != 1 || algorithm != "Ed25519") {
    return Broken(object, "it is not of version 1 and Ed25519, which this program knows");
  }
  if (digest != manifest_sha256) return Broken(object, "it is of another manifest");
  absl::StatusOr<VerifyingKey> key = VerifyingKey::FromBase64(key_text);
  if (!key.ok() || !absl::Base64Unescape(signature_text, &signature) ||
      !key->Verifies(ManifestMessage(signed_by, manifest_sha256), signature)) {
    return Broken(object, "its signature is not of its key over this manifest");
  }
  if (std::find(trusted.begin(), trusted.end(), *key) == trusted.end()) {
    return MakeError(absl::StatusCode::kPermissionDenied, "UNTRUSTED_SIGNATURE",
                     absl::StrCat(object, ": \"", absl::CHexEscape(signed_by.substr(0, 128)),
                                  "\" signed with the key ", key->Base64(),
                                  ", which is not among the trusted ones"));
  }
  return ManifestSignature{std::move(signed_by), *std::move(key)};
}

std::string ResultMessage(absl::string_view worker, absl::string_view lease_id,
                          absl::string_view result_sha256) {
  return absl::StrCat("uniquanf-result-v1\n", worker, "\n", lease_id, "\n", result_sha256, "\n");
}

}  // namespace uniquanf
