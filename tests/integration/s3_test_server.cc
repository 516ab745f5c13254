#include "tests/integration/s3_test_server.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace uniquanf {
namespace {

constexpr char kScript[] = UNIQUANF_SOURCE_DIR "/scripts/s3-server.sh";

std::string NewDirectory() {
  std::string path = "/tmp/uniquanf-s3-XXXXXX";
  return mkdtemp(path.data()) == nullptr ? std::string() : path;
}

}  // namespace

S3TestServer::S3TestServer() : directory_(NewDirectory()) {}

S3TestServer::~S3TestServer() {
  if (started_ && !RunScript("stop")) {
    std::fprintf(stderr, "cannot stop the S3 server in %s\n", directory_.c_str());
  }
  if (!directory_.empty() && std::system(absl::StrCat("rm -rf ", directory_).c_str()) != 0) {
    std::fprintf(stderr, "cannot remove %s\n", directory_.c_str());
  }
}

bool S3TestServer::RunScript(const std::string& command) {
  return std::system(absl::StrCat(kScript, " ", command, " ", directory_).c_str()) == 0;
}

int S3TestServer::Start() {
  for (const char* name :
       {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"}) {
    if (const char* value = getenv(name); value != nullptr) settings_[name] = value;
  }
  if (settings_.count("AWS_ENDPOINT_URL") == 0) return RunStart("start");
  SetPort();
  return 0;
}

int S3TestServer::StartDurable() { return RunStart("start-durable"); }
bool S3TestServer::Crash() { return RunScript("crash"); }
bool S3TestServer::Restart() { return RunScript("restart"); }

bool S3TestServer::NewUser(const std::string& name) {
  if (!started_) return false;
  return std::system(absl::StrCat(kScript, " user ", directory_, " ", name).c_str()) == 0;
}

int S3TestServer::RunStart(const std::string& command) {
  FILE* out = popen(absl::StrCat(kScript, " ", command, " ", directory_).c_str(), "r");
  if (out == nullptr) return 1;
  std::string text;
  char buffer[1024];
  while (size_t count = fread(buffer, 1, sizeof(buffer), out)) text.append(buffer, count);
  const int status = pclose(out);
  if (status != 0) return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  started_ = true;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::pair<std::string, std::string> setting =
        absl::StrSplit(line, absl::MaxSplits('=', 1));
    if (!setting.first.empty()) settings_[setting.first] = setting.second;
  }
  SetPort();
  return 0;
}

void S3TestServer::SetPort() {
  const std::string& endpoint = settings_["AWS_ENDPOINT_URL"];
  port_ = endpoint.substr(endpoint.rfind(':') + 1);
}

Environment S3TestServer::NewEnvironment(const std::map<std::string, std::string>& changes) const {
  std::map<std::string, std::string> settings = settings_;
  for (const auto& [name, value] : changes) settings[name] = value;
  return [settings](absl::string_view name) {
    const auto it = settings.find(std::string(name));
    return it == settings.end() ? std::string() : it->second;
  };
}

std::string S3TestServer::UseInThisProcess() const {
  const Environment environment = NewEnvironment();
  for (const char* name :
       {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"}) {
    setenv(name, environment(name).c_str(), 1);
  }
  return absl::StrCat("127.0.0.1:", port_);
}

bool PutTestObject(const Environment& environment, const std::string& bucket,
                   const std::string& key, absl::string_view data, absl::string_view acl) {
  const absl::StatusOr<S3Config> config = ParseS3Config(absl::StrCat("s3://", bucket), environment);
  if (!config.ok()) return false;
  auto transport = std::make_shared<HttpTransport>();
  S3Client client(*config, NewDefaultCredentials(environment, transport, SystemClock()), transport,
                  SystemClock());
  S3Request request;
  request.method = "PUT";
  request.key = key;
  request.body = data;
  request.headers = {{"x-amz-acl", std::string(acl)}};
  const absl::StatusOr<S3Response> response = client.Send(request);
  if (response.ok() && response->ok()) return true;
  std::fprintf(
      stderr, "cannot create s3://%s/%s: %s\n", bucket.c_str(), key.c_str(),
      (response.ok() ? client.ErrorOf(request, *response) : response.status()).ToString().c_str());
  return false;
}

std::string NewTestBucket(const Environment& environment, absl::string_view acl) {
  static std::atomic<int> num_buckets{0};
  const std::string bucket = absl::StrCat("test-", getpid(), "-", num_buckets.fetch_add(1));
  return PutTestObject(environment, bucket, "", "", acl) ? bucket : "";
}

}  // namespace uniquanf
