#include "common/object_store/data_access.h"

#include <unistd.h>

#include <algorithm>
#include <map>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "common/object_store/store_schemes.h"

namespace uniquanf {
namespace {

constexpr absl::string_view kPurposes[] = {"model", "calibration", "evaluation", "output"};
constexpr absl::string_view kFile = "file:", kEnvironment = "env:", kRole = "role:";
// Everything that may lead to credentials (s3_credentials.h): what a reference does not set is not
// there.
constexpr const char* kCredentialVariables[] = {"UNIQUANF_S3_ANONYMOUS",
                                                "AWS_ACCESS_KEY_ID",
                                                "AWS_SECRET_ACCESS_KEY",
                                                "AWS_SESSION_TOKEN",
                                                "AWS_WEB_IDENTITY_TOKEN_FILE",
                                                "AWS_ROLE_ARN",
                                                "AWS_ROLE_SESSION_NAME",
                                                "AWS_PROFILE",
                                                "AWS_SHARED_CREDENTIALS_FILE",
                                                "AWS_CONFIG_FILE",
                                                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                                                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                                "AWS_CONTAINER_AUTHORIZATION_TOKEN",
                                                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                                                "HOME"};

absl::Status Malformed(absl::string_view why) { return InvalidInput("INVALID_SPEC", why); }

absl::Status Unusable(absl::string_view reference, absl::string_view why) {
  return FailedPrecondition("INVALID_CREDENTIALS",
                            absl::StrCat("the tenant's credentials \"", reference, "\": ", why));
}

bool IsName(absl::string_view name, absl::string_view also) {
  return !name.empty() && name.size() <= 253 && name[0] != '.' &&
         absl::c_all_of(name, [also](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains(also, c);
         });
}

}  // namespace

std::string DataPurposeName(DataPurpose purpose) {
  return std::string(kPurposes[static_cast<size_t>(purpose)]);
}

absl::Status CheckDataUri(absl::string_view uri) {
  if (!IsCompleteStoreUri(uri)) return Malformed(absl::StrCat("is not ", StoreUriForms()));
  absl::string_view path = uri.substr(uri.find("://") + 3);
  absl::ConsumeSuffix(&path, "/");
  // file:///a: the path begins with a slash, which no empty segment goes before.
  absl::ConsumePrefix(&path, "/");
  if (path.empty()) return absl::OkStatus();
  for (const absl::string_view segment : absl::StrSplit(path, '/')) {
    if (segment.empty() || segment == "." || segment == "..") {
      return Malformed("has an empty segment, \".\" or \"..\"; say where it leads");
    }
  }
  const bool sound = std::all_of(uri.begin(), uri.end(), [](char c) {
    return c != '%' && c != '\\' && c != '?' && c != '#' && !absl::ascii_iscntrl(c);
  });
  if (!sound) return Malformed("has one of %, \\, ? and #, or a control character");
  return absl::OkStatus();
}

bool LiesBelow(absl::string_view uri, absl::string_view prefix) {
  absl::ConsumeSuffix(&uri, "/");
  absl::ConsumeSuffix(&prefix, "/");
  if (!absl::ConsumePrefix(&uri, prefix)) return false;
  return uri.empty() || uri[0] == '/' || absl::EndsWith(prefix, "/");  // "file:///"
}

absl::StatusOr<const DataGrant*> DataAccess::Find(DataPurpose purpose,
                                                  absl::string_view uri) const {
  UQ_RETURN_IF_ERROR(Annotate(CheckDataUri(uri), DataPurposeName(purpose)));
  const DataGrant* found = nullptr;
  for (const DataGrant& grant : grants_) {
    if (!absl::c_linear_search(grant.purposes, purpose) || !LiesBelow(uri, grant.uri_prefix)) {
      continue;
    }
    if (found == nullptr || grant.uri_prefix.size() > found->uri_prefix.size()) found = &grant;
  }
  if (found != nullptr) return found;
  return MakeError(absl::StatusCode::kPermissionDenied, "DATA_NOT_ALLOWED",
                   absl::StrCat("the server's policy does not let the job's tenant use ", uri,
                                " as ", DataPurposeName(purpose)));
}

absl::Status CheckCredentialsReference(absl::string_view reference) {
  absl::string_view name = reference;
  if (absl::ConsumePrefix(&name, kFile) && IsName(name, "._-")) return absl::OkStatus();
  name = reference;
  if (absl::ConsumePrefix(&name, kEnvironment) && IsName(name, "_")) return absl::OkStatus();
  name = reference;
  if (absl::ConsumePrefix(&name, kRole) && IsName(name, ":/+=,.@_-")) return absl::OkStatus();
  return InvalidInput("INVALID_CREDENTIALS",
                      "is none of file:NAME (below the workers' --credentials-dir), env:NAME and "
                      "role:ARN; secrets themselves do not belong here");
}

absl::StatusOr<Environment> EnvironmentFor(const std::string& reference,
                                           const std::string& credentials_dir,
                                           Environment process) {
  if (reference.empty()) return process;
  if (!CheckCredentialsReference(reference).ok()) return Unusable(reference, "has no form known");
  std::map<std::string, std::string, std::less<>> values;
  for (const char* variable : kCredentialVariables) values[variable] = "";
  values["AWS_EC2_METADATA_DISABLED"] = "true";
  const std::string name = reference.substr(reference.find(':') + 1);
  if (absl::StartsWith(reference, kFile)) {
    if (credentials_dir.empty()) {
      return Unusable(reference, "this program has no --credentials-dir to look for it in");
    }
    const std::string path = absl::StrCat(credentials_dir, "/", name);
    if (access(path.c_str(), R_OK) != 0) {
      return Unusable(reference,
                      "there is no such file below --credentials-dir, or it cannot be "
                      "read");
    }
    values["AWS_SHARED_CREDENTIALS_FILE"] = path;
    values["AWS_CONFIG_FILE"] = path;
  } else if (absl::StartsWith(reference, kEnvironment)) {
    const std::string key = process(absl::StrCat(name, "_ACCESS_KEY_ID"));
    const std::string secret = process(absl::StrCat(name, "_SECRET_ACCESS_KEY"));
    if (key.empty() || secret.empty()) {
      return Unusable(reference, absl::StrCat("the environment has no ", name, "_ACCESS_KEY_ID or ",
                                              name, "_SECRET_ACCESS_KEY"));
    }
    values["AWS_ACCESS_KEY_ID"] = key;
    values["AWS_SECRET_ACCESS_KEY"] = secret;
    values["AWS_SESSION_TOKEN"] = process(absl::StrCat(name, "_SESSION_TOKEN"));
  } else {
    values["AWS_WEB_IDENTITY_TOKEN_FILE"] = process("AWS_WEB_IDENTITY_TOKEN_FILE");
    if (values["AWS_WEB_IDENTITY_TOKEN_FILE"].empty()) {
      return Unusable(reference,
                      "this program has no web identity to assume it with "
                      "(AWS_WEB_IDENTITY_TOKEN_FILE)");
    }
    values["AWS_ROLE_ARN"] = name;
  }
  return Environment([values = std::move(values),
                      process = std::move(process)](absl::string_view variable) -> std::string {
    const auto it = values.find(variable);
    return it != values.end() ? it->second : process(variable);
  });
}

}  // namespace uniquanf
