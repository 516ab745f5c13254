// What the server reads: requests of clients and workers, the filter language, names, stored
// records; and what a client reads of a server's error.
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cli/yaml.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/rpc/status_proto.h"
#include "server/access/access_policy.h"
#include "server/access/jwt.h"
#include "server/service/converters.h"
#include "server/service/job_listing.h"
#include "server/service/resource_names.h"
#include "server/store/record_codec.h"
#include "tests/fuzz/fuzz_target.h"

namespace uniquanf::server {
namespace {

constexpr char kPolicySeed[] = R"({"version": 1,
  "certificates": {"trust_domain": "d", "names": {"ci": "tenant/a/user/ci"}, "gateways": ["g"]},
  "tokens": [{"issuer": "i", "audience": "a", "keys": "/k", "kind": "user", "roles": {"r": "viewer"}}],
  "bindings": [{"principals": ["tenant/*/user/*"], "role": "user", "tenants": ["@own", "b"]},
               {"principals": ["operator/*"], "role": "operator"},
               {"principals": ["worker/w?"], "role": "worker"}],
  "tenants": {"*": {"max_priority": 3, "data": {"read": ["s3://b/k"], "credentials": "file:x"}}},
  "workers": {"w": {"devices": ["cpu"], "labels": {"zone": "a"}, "max_slots": 1,
    "signing_keys": ["11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]}}})";
// The example keys of RFC 7517, appendix A.1, and of RFC 8037, appendix A.2.
constexpr char kKeysSeed[] = R"({"keys": [
  {"kty": "EC", "crv": "P-256", "use": "sig", "kid": "1",
   "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
  {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "alg": "EdDSA"}]})";

std::shared_ptr<const Job> SampleJob(uint64_t seq) {
  auto job = std::make_shared<Job>();
  job->seq = seq;
  job->id = "job-" + std::to_string(seq);
  job->tenant = "team-a";
  job->labels = {{"team", "a"}};
  job->create_time = absl::FromUnixSeconds(1700000000 + static_cast<int64_t>(seq));
  return job;
}

bool RunFilter(absl::string_view bytes) {
  const absl::StatusOr<JobFilter> filter = JobFilter::Parse(bytes);
  if (!filter.ok()) {
    CheckRefusal(filter.status());
    return false;
  }
  (void)filter->Matches(*SampleJob(1));
  return true;
}

// "ORDER\nPAGE_TOKEN".
bool RunListing(absl::string_view bytes) {
  const size_t line = bytes.find('\n');
  const absl::string_view order = bytes.substr(0, line);
  const absl::string_view token = line == bytes.npos ? "" : bytes.substr(line + 1);
  const auto page = ListPage({SampleJob(1), SampleJob(2), SampleJob(3)}, "", order, 2, token);
  if (!page.ok()) {
    CheckRefusal(page.status());
    return false;
  }
  UQ_CHECK(page->jobs.size() <= 2);
  if (!page->next_page_token.empty()) {
    UQ_CHECK(ListPage({SampleJob(3)}, "", order, 2, page->next_page_token).ok());
  }
  return true;
}

bool RunNames(absl::string_view bytes) {
  const auto job = ParseJobName("name", bytes);
  const auto task = ParseTaskName("name", bytes);
  const auto worker = ParseWorkerName("name", bytes);
  if (job.ok()) UQ_CHECK(JobName(job->id, job->tenant) == bytes);
  if (task.ok()) UQ_CHECK(TaskNameOf(JobName(task->job, task->tenant), task->task) == bytes);
  if (worker.ok()) UQ_CHECK(WorkerName(*worker) == bytes);
  for (const absl::Status& status : {job.status(), task.status(), worker.status()}) {
    if (!status.ok()) CheckRefusal(status);
  }
  return job.ok() || task.ok() || worker.ok();
}

// A policy, asked about callers of every kind.
bool RunPolicy(absl::string_view bytes) {
  const absl::StatusOr<AccessPolicy> policy = AccessPolicy::Parse(bytes);
  if (!policy.ok()) {
    CheckRefusal(policy.status());
    return false;
  }
  for (const char* name : {"tenant/a/user/u", "user/u", "operator/o", "worker/w"}) {
    const Principal principal = policy->Resolve(*IdentityFromName(name));
    // A worker's right is a worker's alone.
    const bool works = !ScopeOf(principal, Verb::kWork, Resource::kWorker).empty();
    UQ_CHECK(!works || principal.name == "worker/w");
    (void)policy->RulesOf("a");
  }
  return true;
}

// "NAME\nNAME...": those with a slash are URIs, the last one is the common name.
bool RunCertificateNames(absl::string_view bytes) {
  static const AccessPolicy& policy = *new AccessPolicy(*AccessPolicy::Parse(kPolicySeed));
  PeerNames names;
  for (const absl::string_view name : absl::StrSplit(bytes, '\n')) {
    (absl::StrContains(name, '/') ? names.uris : names.dns_names).emplace_back(name);
    names.common_name = std::string(name);
  }
  const absl::StatusOr<Identity> identity = policy.FromCertificate(names);
  if (!identity.ok()) {
    UQ_CHECK(absl::IsUnauthenticated(identity.status()) && !ErrorReason(identity.status()).empty());
    return false;
  }
  const absl::StatusOr<Identity> again = IdentityFromName(identity->name);
  UQ_CHECK(again.ok() && again->name == identity->name && again->tenants == identity->tenants);
  UQ_CHECK(policy.Resolve(*identity).name == identity->name);
  return true;
}

// "PREFIX\nURI": what is below a prefix has its segments.
bool RunDataUri(absl::string_view bytes) {
  const size_t line = bytes.find('\n');
  const absl::string_view prefix = bytes.substr(0, line);
  const std::string uri(line == bytes.npos ? "" : bytes.substr(line + 1));
  if (!CheckDataUri(prefix).ok()) return false;
  const DataRules rules = {"s3://own/tenants/t", {"s3://own"}};
  const absl::Status allowed =
      CheckDataAllowed(rules, {std::string(prefix)}, DataPurpose::kModel, "t", "model_uri", uri);
  if (!allowed.ok()) {
    UQ_CHECK(absl::IsPermissionDenied(allowed) || absl::IsInvalidArgument(allowed));
    return false;
  }
  UQ_CHECK(!absl::StrContains(uri, "/../") && !absl::EndsWith(uri, "/..") &&
           !absl::StrContains(uri, '%'));
  UQ_CHECK(absl::StartsWith(uri, "s3://own/tenants/t") ||
           (absl::StartsWith(uri, absl::StripSuffix(prefix, "/")) &&
            !absl::StartsWith(uri, "s3://own/")));
  return true;
}

// A token before it is verified, and its claims as if it had been.
bool RunToken(absl::string_view bytes) {
  static const AccessPolicy& policy = *new AccessPolicy(*AccessPolicy::Parse(kPolicySeed));
  const absl::StatusOr<Token> token = ParseToken(bytes);
  if (!token.ok()) {
    UQ_CHECK(ErrorReason(token.status()) == "INVALID_TOKEN");
    return false;
  }
  UQ_CHECK(!VerifyToken(*token, *ParseTokenKeys(kKeysSeed)).ok());
  const absl::StatusOr<Identity> identity =
      policy.FromClaims(policy.issuers()[0], token->claims, absl::FromUnixSeconds(1000));
  if (identity.ok()) UQ_CHECK(IdentityFromName(identity->name).ok());
  return true;
}

bool RunTokenKeys(absl::string_view bytes) {
  const absl::StatusOr<TokenKeys> keys = ParseTokenKeys(bytes);
  if (!keys.ok()) {
    CheckRefusal(keys.status());
    return false;
  }
  for (const TokenKey& key : *keys) UQ_CHECK(key.key != nullptr);
  Token token;
  token.algorithm = TokenAlgorithm::kEs256;
  token.signature = std::string(64, '\1');
  UQ_CHECK(!VerifyToken(token, *keys).ok());
  return true;
}

template <typename Message>
bool ParseMessage(absl::string_view bytes, Message* message) {
  return message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

// The wire's bytes; those that are no message do not reach us.
bool RunCreateJob(absl::string_view bytes) {
  v1::CreateJobRequest request;
  if (!ParseMessage(bytes, &request)) return false;
  const ObjectLayout layout{"file:///objects"};
  const auto event = CreateJobFromProto(request, "fallback", "uid", layout);
  if (!event.ok()) {
    CheckRefusal(event.status());
    return false;
  }
  UQ_CHECK(CheckStoredJob(event->job).ok());
  v1::Job shown;
  JobToProto(JobView{std::make_shared<const Job>(event->job), {}}, NameForm::kShort, &shown);
  UQ_CHECK(shown.spec().IsInitialized() && !shown.SerializeAsString().empty());
  // What the store keeps reads back the same.
  const absl::StatusOr<Job> again = DecodeJob(EncodeJob(event->job));
  UQ_CHECK(again.ok() && EncodeJob(*again) == EncodeJob(event->job));
  return true;
}

bool RunSynchronize(absl::string_view bytes) {
  v1::SynchronizeRequest request;
  if (!ParseMessage(bytes, &request)) return false;
  const auto event = SynchronizeFromProto(request);
  if (!event.ok()) {
    CheckRefusal(event.status());
    return false;
  }
  UQ_CHECK(event->sequence >= 0 && event->num_free_slots >= 0);
  UQ_CHECK(event->leases.size() == static_cast<size_t>(request.leases_size()));
  return true;
}

template <typename Record>
bool Stored(absl::StatusOr<Record> (*decode)(absl::string_view, bool*),
            std::string (*encode)(const Record&), absl::string_view bytes) {
  const absl::StatusOr<Record> record = decode(bytes, nullptr);
  if (!record.ok()) {
    CheckRefusal(record.status());
    return false;
  }
  const std::string written = encode(*record);
  const absl::StatusOr<Record> again = decode(written, nullptr);
  UQ_CHECK(again.ok() && encode(*again) == written);
  return true;
}
bool RunStoredJob(absl::string_view bytes) { return Stored<Job>(DecodeJob, EncodeJob, bytes); }
bool RunStoredTask(absl::string_view bytes) { return Stored<Task>(DecodeTask, EncodeTask, bytes); }

// What a server says of an error, in the trailer's bytes.
bool RunErrorDetails(absl::string_view bytes) {
  const absl::Status status =
      FromGrpcStatus(grpc::Status(grpc::StatusCode::ABORTED, "m", std::string(bytes)));
  UQ_CHECK(absl::IsAborted(status));
  return !ErrorReason(status).empty();
}

std::string CreateJobSeed() {
  v1::CreateJobRequest request;
  request.set_job_id("a");
  request.set_request_id("r");
  v1::Job* job = request.mutable_job();
  job->mutable_spec()->set_model_uri("file:///m");
  job->mutable_spec()->set_calibration_uri("file:///c.safetensors");
  job->mutable_spec()->set_bits(3);
  (*job->mutable_labels())["team"] = "a";
  job->set_device("cpu");
  job->mutable_time_to_live()->set_seconds(60);
  return request.SerializeAsString();
}

std::string SynchronizeSeed() {
  v1::SynchronizeRequest request;
  request.set_protocol_version(kProtocolVersion);
  request.set_worker("workers/w");
  request.set_session_id("s");
  request.set_sequence(3);
  request.mutable_capabilities()->set_device("cpu");
  request.mutable_capabilities()->set_num_slots(1);
  request.set_num_free_slots(1);
  for (int kind = 0; kind < 4; ++kind) {
    v1::LeaseReport* report = request.add_leases();
    report->set_lease_id("l");
    report->set_lease_token(std::string(16, 't'));
    report->set_attempt(1);
    report->set_task("jobs/a/tasks/prepare");
    if (kind == 0) report->mutable_running()->set_phase("p");
    if (kind == 1) report->mutable_succeeded()->mutable_report()->add_layers()->set_layer(1);
    if (kind == 2) report->mutable_failed()->add_missing_sha256(std::string(64, 'a'));
    if (kind == 3) report->set_released(true);
  }
  request.add_cached()->set_job("jobs/a");
  return request.SerializeAsString();
}

std::string StoredJobSeed() {
  Job job = *SampleJob(7);
  job.error.emplace();
  job.error->message = "m";
  job.time_to_live = absl::Seconds(5);
  return EncodeJob(job);
}

std::string StoredTaskSeed() {
  Task task;
  task.id = "layer-0001";
  task.kind = TaskKind::kLayer;
  task.layer = 1;
  task.state = TaskState::kSucceeded;
  return EncodeTask(task);
}

// What it reads it writes, and reads again.
bool RunYaml(absl::string_view bytes) {
  const auto document = cli::ParseYaml(bytes);
  if (!document.ok()) {
    CheckRefusal(document.status());
    return false;
  }
  (void)cli::ParseYaml(cli::ToYaml(nlohmann::ordered_json::parse(
      document->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace))));
  return true;
}

std::string ErrorSeed() {
  return ToGrpcStatus(InvalidInput("SOME_REASON", "text")).error_details();
}

}  // namespace
}  // namespace uniquanf::server

namespace uniquanf {

std::vector<FuzzTarget> ServiceTargets() {
  google::protobuf::SetLogHandler(nullptr);  // it says of every damaged message that it is
  using namespace server;  // NOLINT(google-build-using-namespace): a table of its functions
  return {
      {"Filter",
       RunFilter,
       {"state = RUNNING AND tenant != \"x\"", "labels.team = a AND priority >= -5",
        "create_time < 2026-01-01T00:00:00Z", ""},
       {"AND", "labels.", "\"", "\\", ">=", "!=", "SUCCEEDED", "device", "1e9"}},
      {"Listing", RunListing, {"create_time desc", "priority desc", ""}, {" desc", ",", "\n"}},
      {"Names",
       RunNames,
       {"jobs/a-b", "jobs/a/tasks/layer-0001", "workers/w.1:x_y", "tenants/t/jobs/a/tasks/b"},
       {"jobs/", "/tasks/", "workers/", "tenants/", "..", "%2F"}},
      {"Policy",
       RunPolicy,
       {kPolicySeed},
       {"\"version\": 1", "\"*\"", "@own", "worker/*", "tenant/", "null", "[]"}},
      {"CertificateNames",
       RunCertificateNames,
       {"spiffe://d/tenant/a/user/u", "spiffe://d/worker/w\nx", "ci", "spiffe://d/operator/o\nci"},
       {"spiffe://", "spiffe://d/", "tenant/", "/user/", "operator/", "worker/", "..", "%2e", "\n",
        "g"}},
      {"DataUri",
       RunDataUri,
       {"file:///srv/a\nfile:///srv/a/b", "s3://b/p\ns3://b/p", "s3://b\ns3://own/tenants/t/x"},
       {"..", "/../", "/./", "//", "%2e%2e", "file://", "s3://own", "\n", "/"}},
      {"Token",
       RunToken,
       // {"alg":"ES256"} . {"sub":"u","tenant":"a","exp":1000} . 64 bytes
       {absl::StrCat(absl::WebSafeBase64Escape("{\"alg\":\"ES256\"}"), ".",
                     absl::WebSafeBase64Escape("{\"sub\":\"u\",\"tenant\":\"a\",\"exp\":1000}"),
                     ".", absl::WebSafeBase64Escape(std::string(64, 's')))},
       {".", "=", "eyJ", "..", "-_"},
       // Most changes fall into the signature, which is looked at later.
       /*max_accepted=*/0.95},
      {"TokenKeys",
       RunTokenKeys,
       {kKeysSeed},
       {"\"kty\"", "\"RSA\"", "\"n\": \"AQAB\"", "\"e\": \"AQAB\"", "\"oct\"", "\"use\": \"enc\""}},
      {"CreateJob",
       RunCreateJob,
       {CreateJobSeed()},
       {"file:///", "s3://b/k", "\x0a\x00", "\xff\xff\xff\xff\x0f"}},
      {"Synchronize",
       RunSynchronize,
       {SynchronizeSeed()},
       {"workers/", "jobs/a", "\xff\xff\xff\xff\x0f"}},
      {"StoredJob",
       RunStoredJob,
       {StoredJobSeed()},
       {"\x0a\x02", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"}},
      {"StoredTask",
       RunStoredTask,
       {StoredTaskSeed()},
       {"\x0a\x02", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"}},
      {"Yaml",
       RunYaml,
       {"# a job\njob_id: one\nlabels: {team: a}\nspec:\n  bits: 3\n  overrides:\n    - {pattern: "
        "\"*\"}\n",
        "[1, 2.5, null, true, 'x']", "a: &a [1]\nb: *a\n", "{\"a\": {\"b\": [\"c\"]}}"},
       {": ", "- ", "&a", "*a", "!!", "---\n", "|\n", "<<: ", "\t", "\"", "\x00", "? "}},
      {"ErrorDetails",
       RunErrorDetails,
       {ErrorSeed()},
       {"uniquanf", "type.googleapis.com/google.rpc.ErrorInfo"}},
  };
}

}  // namespace uniquanf
