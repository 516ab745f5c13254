#include "common/object_store/s3_credential_sources.h"

#include <arpa/inet.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/read_file.h"
#include "common/base/status.h"
#include "common/object_store/s3_xml.h"

namespace uniquanf {
namespace {

using Profile = std::map<std::string, std::string>;

// Only the fact: what the parser or the file would say may quote the contents.
absl::Status Unusable(absl::string_view what) {
  return FailedPrecondition("INVALID_CREDENTIALS", what);
}

absl::Status NotConfigured() { return NotFound("NO_CREDENTIALS", "not configured"); }

absl::StatusOr<std::string> ReadFilled(const std::string& path) {
  absl::StatusOr<std::string> contents = ReadSmallFile(path);
  if (contents.ok() && !contents->empty()) return contents;
  return NotFound("FILE_NOT_FOUND", absl::StrCat(path, " cannot be read, or is empty"));
}

// INI: "[section]", "key = value", comments with '#' or ';'. Indented lines belong to nested
// settings ("s3 =") and are skipped.
std::map<std::string, Profile> ParseIni(absl::string_view text) {
  std::map<std::string, Profile> sections;
  Profile* section = nullptr;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (line.empty() || absl::ascii_isspace(static_cast<unsigned char>(line[0]))) continue;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#' || line[0] == ';') continue;
    if (line[0] == '[') {
      const size_t end = line.find(']');
      absl::string_view name = line.substr(1, end == line.npos ? line.npos : end - 1);
      section = &sections[std::string(absl::StripAsciiWhitespace(name))];
      continue;
    }
    const size_t equals = line.find('=');
    if (section == nullptr || equals == line.npos) continue;
    const std::string key =
        absl::AsciiStrToLower(absl::StripAsciiWhitespace(line.substr(0, equals)));
    (*section)[key] = std::string(absl::StripAsciiWhitespace(line.substr(equals + 1)));
  }
  return sections;
}

std::string Get(const Profile& profile, const std::string& key) {
  const auto it = profile.find(key);
  return it == profile.end() ? std::string() : it->second;
}

absl::StatusOr<absl::Time> ParseExpiry(absl::string_view text) {
  absl::Time expires;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, text, &expires, &error)) {
    return Unusable("the credentials' expiry is not an RFC 3339 time");
  }
  return expires;
}

// One request to a service that gives out credentials. `what` names it in messages.
absl::StatusOr<std::string> Ask(HttpTransport* transport, const HttpRequest& request,
                                absl::string_view what) {
  HttpResponse response;
  absl::Status status;
  for (int attempt = 0; attempt < 3; ++attempt) {
    status = transport->Perform(request, &response);
    if (status.ok() && response.status < 500) break;
  }
  if (!status.ok()) {
    return Unavailable("CREDENTIALS_UNAVAILABLE", absl::StrCat(what, ": ", status.message()));
  }
  if (response.status != 200) {
    // The body is not quoted: an error page may repeat the request, and with it a token.
    const std::string message = absl::StrCat(what, " answered HTTP ", response.status);
    return response.status >= 500 ? Unavailable("CREDENTIALS_UNAVAILABLE", message)
                                  : Unusable(message);
  }
  return std::move(response.body);
}

// The JSON document that instance metadata and containers share.
absl::StatusOr<AwsCredentials> ParseJsonCredentials(absl::string_view body,
                                                    absl::string_view what) {
  const nlohmann::json document =
      nlohmann::json::parse(body.begin(), body.end(), nullptr, /*allow_exceptions=*/false);
  const auto text = [&document](const char* name) {
    const auto it = document.is_object() ? document.find(name) : document.end();
    return it != document.end() && it->is_string() ? it->get_ref<const std::string&>()
                                                   : std::string();
  };
  AwsCredentials credentials;
  credentials.access_key_id = text("AccessKeyId");
  credentials.secret_access_key = text("SecretAccessKey");
  credentials.session_token = text("Token");
  if (credentials.access_key_id.empty() || credentials.secret_access_key.empty()) {
    return Unusable(absl::StrCat(what, " answered without AccessKeyId and SecretAccessKey"));
  }
  if (const std::string expires = text("Expiration"); !expires.empty()) {
    UQ_ASSIGN_OR_RETURN(credentials.expires, ParseExpiry(expires));
  }
  return credentials;
}

absl::StatusOr<AwsCredentials> AssumeRole(const Environment& environment, HttpTransport* transport,
                                          const std::string& role_arn,
                                          const std::string& token_file,
                                          const std::string& session_name,
                                          const std::string& profile_region) {
  UQ_ASSIGN_OR_RETURN(const std::string token_text, [&]() -> absl::StatusOr<std::string> {
    absl::StatusOr<std::string> contents = ReadFilled(token_file);
    if (!contents.ok()) return Unusable(contents.status().message());
    return contents;
  }());
  std::string endpoint = environment("AWS_ENDPOINT_URL_STS");
  if (endpoint.empty()) {
    std::string region = environment("AWS_REGION");
    if (region.empty()) region = environment("AWS_DEFAULT_REGION");
    if (region.empty()) region = profile_region;
    endpoint = region.empty() ? std::string("https://sts.amazonaws.com")
                              : absl::StrCat("https://sts.", region, ".amazonaws.com");
  }
  const std::string body = CanonicalQuery(
      {{"Action", "AssumeRoleWithWebIdentity"},
       {"Version", "2011-06-15"},
       {"RoleArn", role_arn},
       {"RoleSessionName", session_name.empty() ? std::string("uniquanf") : session_name},
       {"WebIdentityToken", std::string(absl::StripAsciiWhitespace(token_text))}});
  HttpRequest request;
  request.method = "POST";
  request.url = absl::StrCat(absl::StripSuffix(endpoint, "/"), "/");
  request.headers = {{"Content-Type", "application/x-www-form-urlencoded"},
                     {"Accept", "application/xml"}};
  request.body = body;
  request.max_body_bytes = 1 << 20;
  UQ_ASSIGN_OR_RETURN(const std::string answer,
                      Ask(transport, request, "STS AssumeRoleWithWebIdentity"));
  const absl::StatusOr<XmlElement> document = ParseXml(answer);
  const XmlElement* result =
      document.ok() ? document->Find("AssumeRoleWithWebIdentityResult") : nullptr;
  const XmlElement* found = result == nullptr ? nullptr : result->Find("Credentials");
  if (found == nullptr || found->Text("AccessKeyId").empty() ||
      found->Text("SecretAccessKey").empty()) {
    return Unusable("STS AssumeRoleWithWebIdentity answered without credentials");
  }
  AwsCredentials credentials;
  credentials.access_key_id = std::string(found->Text("AccessKeyId"));
  credentials.secret_access_key = std::string(found->Text("SecretAccessKey"));
  credentials.session_token = std::string(found->Text("SessionToken"));
  UQ_ASSIGN_OR_RETURN(credentials.expires, ParseExpiry(found->Text("Expiration")));
  return credentials;
}

// Whether `host` (of a plain-http URL) cannot leave this machine or its link. Numbers only where a
// prefix would do: "127.example.com" is anywhere.
bool IsLocalHost(absl::string_view host) {
  in_addr address;
  if (inet_pton(AF_INET, std::string(host).c_str(), &address) == 1) {
    const uint32_t value = ntohl(address.s_addr);
    return (value >> 24) == 127 || value == 0xA9FEAA02 ||
           value == 0xA9FEAA17;  // 169.254.170.2, .23
  }
  return host == "localhost" || host == "[::1]" || host == "[fd00:ec2::23]";
}

absl::string_view HostWithoutPort(absl::string_view url) {
  url = absl::StripPrefix(url, "http://");
  url = url.substr(0, url.find_first_of("/?#"));
  const size_t port = url.find(':', absl::StartsWith(url, "[") ? url.find(']') : 0);
  return url.substr(0, port);
}

}  // namespace

absl::StatusOr<Profile> ReadAwsProfile(const Environment& environment) {
  std::string name = environment("AWS_PROFILE");
  const bool named = !name.empty();
  if (!named) name = "default";
  const std::string home = environment("HOME");
  const auto path = [&](const char* variable, const char* file) {
    const std::string set = environment(variable);
    return set.empty() ? absl::StrCat(home, "/.aws/", file) : set;
  };
  Profile merged;
  bool found = false;
  const std::string section =
      name == "default" ? std::string("default") : absl::StrCat("profile ", name);
  const std::pair<std::string, std::string> places[] = {
      {path("AWS_CONFIG_FILE", "config"), section},
      {path("AWS_SHARED_CREDENTIALS_FILE", "credentials"), name}};
  for (const auto& [file, wanted] : places) {
    const absl::StatusOr<std::string> contents = ReadFilled(file);
    if (!contents.ok()) continue;
    const std::map<std::string, Profile> sections = ParseIni(*contents);
    const auto it = sections.find(wanted);
    if (it == sections.end()) continue;
    found = true;
    for (const auto& [key, value] : it->second) merged[key] = value;
  }
  if (named && !found) {
    return Unusable(absl::StrCat("AWS_PROFILE names the profile \"", name,
                                 "\", which is neither in ", places[0].first, " nor in ",
                                 places[1].first));
  }
  return merged;
}

absl::StatusOr<AwsCredentials> CredentialsFromEnvironment(const Environment& environment,
                                                          HttpTransport* /*transport*/) {
  AwsCredentials credentials;
  credentials.access_key_id = environment("AWS_ACCESS_KEY_ID");
  credentials.secret_access_key = environment("AWS_SECRET_ACCESS_KEY");
  credentials.session_token = environment("AWS_SESSION_TOKEN");
  if (credentials.access_key_id.empty() && credentials.secret_access_key.empty()) {
    return NotConfigured();
  }
  if (credentials.access_key_id.empty() || credentials.secret_access_key.empty()) {
    return Unusable(
        "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or neither");
  }
  return credentials;
}

absl::StatusOr<AwsCredentials> CredentialsFromWebIdentity(const Environment& environment,
                                                          HttpTransport* transport) {
  const std::string token_file = environment("AWS_WEB_IDENTITY_TOKEN_FILE");
  const std::string role_arn = environment("AWS_ROLE_ARN");
  if (token_file.empty()) return NotConfigured();
  if (role_arn.empty()) {
    return Unusable("AWS_WEB_IDENTITY_TOKEN_FILE is set without AWS_ROLE_ARN");
  }
  return AssumeRole(environment, transport, role_arn, token_file,
                    environment("AWS_ROLE_SESSION_NAME"), "");
}

absl::StatusOr<AwsCredentials> CredentialsFromProfile(const Environment& environment,
                                                      HttpTransport* transport) {
  UQ_ASSIGN_OR_RETURN(const Profile profile, ReadAwsProfile(environment));
  AwsCredentials credentials;
  credentials.access_key_id = Get(profile, "aws_access_key_id");
  credentials.secret_access_key = Get(profile, "aws_secret_access_key");
  credentials.session_token = Get(profile, "aws_session_token");
  if (!credentials.access_key_id.empty() && !credentials.secret_access_key.empty()) {
    return credentials;
  }
  if (!credentials.access_key_id.empty() || !credentials.secret_access_key.empty()) {
    return Unusable("the AWS profile has only one of aws_access_key_id and aws_secret_access_key");
  }
  if (!Get(profile, "web_identity_token_file").empty() && !Get(profile, "role_arn").empty()) {
    return AssumeRole(environment, transport, Get(profile, "role_arn"),
                      Get(profile, "web_identity_token_file"), Get(profile, "role_session_name"),
                      Get(profile, "region"));
  }
  for (const char* key : {"source_profile", "credential_process", "sso_session", "sso_start_url"}) {
    if (profile.count(key) > 0) {
      return Unusable(absl::StrCat("the AWS profile uses ", key,
                                   ", which is not supported; export keys into the environment "
                                   "(aws configure export-credentials)"));
    }
  }
  return NotConfigured();
}

absl::StatusOr<AwsCredentials> CredentialsFromContainer(const Environment& environment,
                                                        HttpTransport* transport) {
  const std::string relative = environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
  std::string url = environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
  if (!relative.empty()) url = absl::StrCat("http://169.254.170.2", relative);
  if (url.empty()) return NotConfigured();
  if (!absl::StartsWith(url, "https://") &&
      !(absl::StartsWith(url, "http://") && IsLocalHost(HostWithoutPort(url)))) {
    return Unusable(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or http to loopback or the container "
        "agent's link-local address");
  }
  HttpRequest request;
  request.url = url;
  request.connect_timeout = absl::Seconds(2);
  request.stall_timeout = absl::Seconds(5);
  request.max_body_bytes = 1 << 20;
  request.bypass_proxy = absl::StartsWith(url, "http://");
  std::string token = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
  if (const std::string file = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
      !file.empty()) {
    const absl::StatusOr<std::string> contents = ReadFilled(file);
    if (!contents.ok()) return Unusable(contents.status().message());
    token = std::string(absl::StripAsciiWhitespace(*contents));
  }
  if (absl::StrContains(token, "\n") || absl::StrContains(token, "\r")) {
    return Unusable("the container's authorization token has more than one line");
  }
  if (!token.empty()) request.headers.emplace_back("Authorization", token);
  constexpr absl::string_view kWhat = "the container's credentials endpoint";
  UQ_ASSIGN_OR_RETURN(const std::string body, Ask(transport, request, kWhat));
  return ParseJsonCredentials(body, kWhat);
}

absl::StatusOr<AwsCredentials> CredentialsFromInstanceMetadata(const Environment& environment,
                                                               HttpTransport* transport) {
  if (absl::EqualsIgnoreCase(environment("AWS_EC2_METADATA_DISABLED"), "true")) {
    return NotConfigured();
  }
  std::string base = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
  const bool configured = !base.empty();
  if (!configured) base = "http://169.254.169.254";
  base = std::string(absl::StripSuffix(base, "/"));
  constexpr absl::string_view kWhat = "instance metadata";

  HttpRequest request;
  request.method = "PUT";
  request.url = absl::StrCat(base, "/latest/api/token");
  request.headers = {{"X-aws-ec2-metadata-token-ttl-seconds", "21600"}};
  request.connect_timeout = absl::Seconds(1);
  request.stall_timeout = absl::Seconds(2);
  request.max_body_bytes = 1 << 20;
  request.bypass_proxy = true;
  // The first request also finds out whether this is an instance at all: elsewhere nothing
  // answers, and then the chain ends with its own explanation.
  HttpResponse response;
  const absl::Status first = transport->Perform(request, &response);
  if (!configured && (!first.ok() || response.status != 200)) return NotConfigured();
  std::string token = response.body;
  if (!first.ok() || response.status != 200) {
    UQ_ASSIGN_OR_RETURN(token, Ask(transport, request, kWhat));
  }

  request.method = "GET";
  request.headers = {{"X-aws-ec2-metadata-token", token}};
  const std::string roles = absl::StrCat(base, "/latest/meta-data/iam/security-credentials/");
  request.url = roles;
  UQ_ASSIGN_OR_RETURN(const std::string role_lines, Ask(transport, request, kWhat));
  const std::string role(absl::StripAsciiWhitespace(
      std::vector<absl::string_view>(absl::StrSplit(role_lines, '\n')).front()));
  if (role.empty()) return Unusable("this instance has no role attached");
  request.url = absl::StrCat(roles, UriEncode(role, false));
  UQ_ASSIGN_OR_RETURN(const std::string body, Ask(transport, request, kWhat));
  return ParseJsonCredentials(body, kWhat);
}

}  // namespace uniquanf
