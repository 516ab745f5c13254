// Every method by gRPC and by REST: the same answers and the same errors. The table is complete
// against the descriptors, so a method that is added needs its rows.
#include <google/protobuf/descriptor.h>
#include <grpcpp/generic/generic_stub.h>

#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "absl/synchronization/notification.h"
#include "common/base/version.h"
#include "server/http/error_page.h"
#include "server/http/request_message.h"
#include "server/service/services.h"
#include "tests/unit/server/http_support.h"

namespace uniquanf::server {
namespace {

using google::protobuf::MethodDescriptor;
using nlohmann::json;

// One call, said twice. A '@' becomes 'g' for gRPC and 'r' for REST: what changes the state has an
// object of its own for each.
struct Row {
  const char* method;
  const char* request;  // JSON of the request's message
  const char* verb;
  const char* target;
  const char* body;
  int code;
};

constexpr char kSpec[] =
    R"({"spec":{"model_uri":"file:///models/t","calibration_uri":"file:///d/c.safetensors","bits":3},)"
    R"("labels":{"team":"<script>alert(1)</script>"}})";

// In this order: later rows use what earlier ones made.
const Row kRows[] = {
    {"CreateJob", R"({"job_id":"@1","job":SPEC,"unchecked":true})", "POST",
     "/v1/jobs?job_id=@1&unchecked=true", "SPEC", 200},
    {"CreateJob", R"({"job_id":"@2","job":SPEC,"validate_only":true,"unchecked":true})", "POST",
     "/v1/jobs?job_id=@2&validate_only=true&unchecked=true", "SPEC", 200},
    {"CreateJob",
     R"({"job_id":"@3","unchecked":true,"job":{"tenant":"acme","priority":2,"spec":{"model_uri":"file:///m","method":"RTN"}}})",
     "POST", "/v1/tenants/acme/jobs?job_id=@3&unchecked=true",
     R"({"priority":2,"spec":{"modelUri":"file:///m","method":"RTN"}})", 200},
    {"CreateJob", R"({"job_id":"@1","job":SPEC,"unchecked":true})", "POST",
     "/v1/jobs?job_id=@1&unchecked=true", "SPEC", 409},
    {"CreateJob", R"({"job_id":"@ <","job":{"spec":{"bits":99,"epochs":-1}}})", "POST",
     "/v1/jobs?job_id=%40%20%3C", R"({"spec":{"bits":99,"epochs":-1}})", 400},
    {"GetJob", R"({"name":"jobs/@1"})", "GET", "/v1/jobs/@1", "", 200},
    {"GetJob", R"({"name":"tenants/acme/jobs/@3"})", "GET", "/v1/tenants/acme/jobs/@3", "", 200},
    {"GetJob", R"({"name":"tenants/other/jobs/@3"})", "GET", "/v1/tenants/other/jobs/@3", "", 404},
    {"GetJob", R"({"name":"jobs/none"})", "GET", "/v1/jobs/none", "", 404},
    {"GetJob", R"({"name":"jobs/<i>ä"})", "GET", "/v1/jobs/%3Ci%3E%C3%A4", "", 400},
    {"ListJobs", R"({"filter":"tenant=\"acme\"","order_by":"name"})", "GET",
     "/v1/jobs?filter=tenant%3D%22acme%22&order_by=name", "", 200},
    {"ListJobs", R"({"page_size":1,"order_by":"name"})", "GET", "/v1/jobs?pageSize=1&orderBy=name",
     "", 200},
    {"ListJobs", R"({"filter":"<x>"})", "GET", "/v1/jobs?filter=%3Cx%3E", "", 400},
    {"ListJobs", R"({"page_size":-1})", "GET", "/v1/jobs?page_size=-1", "", 400},
    {"GetTask", R"({"name":"jobs/@1/tasks/prepare"})", "GET", "/v1/jobs/@1/tasks/prepare", "", 200},
    {"GetTask", R"({"name":"tenants/acme/jobs/@3/tasks/prepare"})", "GET",
     "/v1/tenants/acme/jobs/@3/tasks/prepare", "", 200},
    {"GetTask", R"({"name":"jobs/@1/tasks/none"})", "GET", "/v1/jobs/@1/tasks/none", "", 404},
    {"ListTasks", R"({"parent":"jobs/@1"})", "GET", "/v1/jobs/@1/tasks", "", 200},
    {"ListTasks", R"({"parent":"jobs/@1","page_token":"x"})", "GET",
     "/v1/jobs/@1/tasks?page_token=x", "", 400},
    {"ListTasks", R"({"parent":"tenants/acme/jobs/none"})", "GET",
     "/v1/tenants/acme/jobs/none/tasks", "", 404},
    {"RetryJob", R"({"name":"jobs/@1"})", "POST", "/v1/jobs/@1:retry", "", 400},
    {"ResumeJob", R"({"name":"jobs/@1"})", "POST", "/v1/jobs/@1:resume", "{}", 400},
    {"PauseJob", R"({"name":"jobs/@1"})", "POST", "/v1/jobs/@1:pause", "", 200},
    {"ResumeJob", R"({"name":"jobs/@1"})", "POST", "/v1/jobs/@1:resume", "{}", 200},
    {"PauseJob", R"({"name":"tenants/acme/jobs/@3"})", "POST", "/v1/tenants/acme/jobs/@3:pause", "",
     200},
    {"DeleteJob", R"({"name":"jobs/@1"})", "DELETE", "/v1/jobs/@1", "", 400},
    {"CancelJob", R"({"name":"jobs/@1"})", "POST", "/v1/jobs/@1:cancel", "", 200},
    {"PauseJob", R"({"name":"jobs/@1"})", "POST", "/v1/jobs/@1:pause", "", 400},
    {"WatchJob", R"({"name":"jobs/@1"})", "GET", "/v1/jobs/@1:watch", "", 200},
    {"WatchJob", R"({"name":"jobs/none"})", "GET", "/v1/jobs/none:watch", "", 404},
    {"WatchJob", R"({"name":"jobs/X"})", "GET", "/v1/jobs/X:watch", "", 400},
    {"RetryJob", R"({"name":"jobs/@1"})", "POST", "/v1/jobs/@1:retry", "", 200},
    {"CancelJob", R"({"name":"jobs/@1"})", "POST", "/v1/jobs/@1:cancel", "{ }", 200},
    {"CancelJob", R"({"name":"jobs/none"})", "POST", "/v1/jobs/none:cancel", "", 404},
    {"DeleteJob", R"({"name":"jobs/@1"})", "DELETE", "/v1/jobs/@1", "", 200},
    {"DeleteJob", R"({"name":"jobs/@1"})", "DELETE", "/v1/jobs/@1", "", 404},
    {"DeleteJob", R"({"name":"jobs/@1","allow_missing":true})", "DELETE",
     "/v1/jobs/@1?allow_missing=true", "", 200},
    {"GetJobMetrics", R"({"name":"tenants/acme/jobs/@3"})", "GET",
     "/v1/tenants/acme/jobs/@3/metrics", "", 200},
    {"GetJobMetrics", R"({"name":"jobs/none"})", "GET", "/v1/jobs/none/metrics", "", 404},
    {"EstimateJob", R"({"job":SPEC})", "POST", "/v1/jobs:estimate", R"({"job":SPEC})", 200},
    {"EstimateJob", R"({"job":{"spec":{"bits":99}}})", "POST", "/v1/jobs:estimate",
     R"({"job":{"spec":{"bits":99}}})", 400},
    {"WatchJobs", "{}", "GET", "/v1/jobs:watch", "", 200},
    {"WatchJobs", R"({"filter":"<x>"})", "GET", "/v1/jobs:watch?filter=%3Cx%3E", "", 400},
    {"ListWorkers", "{}", "GET", "/v1/workers", "", 200},
    {"ListWorkers", R"({"page_token":"<"})", "GET", "/v1/workers?page_token=%3C", "", 400},
    {"DrainWorker", R"({"name":"workers/team:w-@"})", "POST", "/v1/workers/team:w-@:drain", "",
     200},
    {"DrainWorker", R"({"name":"workers/none"})", "POST", "/v1/workers/none:drain", "{}", 404},
    {"UndrainWorker", R"({"name":"workers/team:w-@"})", "POST", "/v1/workers/team%3Aw-@:undrain",
     "", 200},
    {"UndrainWorker", R"({"name":"workers/<"})", "POST", "/v1/workers/%3C:undrain", "", 400},
    {"GetServerInfo", "{}", "GET", "/v1/server", "", 200},
    {"ConfirmWallClock", "{}", "POST", "/v1/server:confirmWallClock", "", 200},
};
// Whatever they are asked, they answer.
const char* const kWithoutErrors[] = {"GetServerInfo", "ConfirmWallClock"};

const MethodDescriptor* MethodOf(const std::string& name) {
  for (const auto* service : HttpDescriptors()) {
    if (const auto* method = service->FindMethodByName(name)) return method;
  }
  return nullptr;
}

// Streams that do not end: of these the first message is compared.
bool IsEndless(const Row& row) { return std::string(row.method) == "WatchJobs"; }

// What two calls cannot have alike.
void Normalize(json* value) {
  if (value->is_array()) {
    for (json& item : *value) Normalize(&item);
  }
  if (!value->is_object()) return;
  for (const char* key : {"uid", "version", "create_time", "update_time", "start_time", "end_time",
                          "last_seen_time", "next_page_token", "cursor"}) {
    if (value->contains(key)) (*value)[key] = "*";
  }
  for (auto& [key, item] : value->items()) Normalize(&item);
}

std::string ForSide(absl::string_view text, const char* side) {
  std::string result = absl::StrReplaceAll(text, {{"SPEC", kSpec}});
  return absl::StrReplaceAll(result, {{"%40", side}, {"@", side}});
}

class SameAnswersTest : public HttpTest {
 protected:
  // The code of HTTP, and the JSON of each message, or of the error.
  struct Answer {
    int code = 0;
    std::vector<json> messages;
  };

  Answer ByGrpc(const Row& row) {
    const MethodDescriptor& method = *MethodOf(row.method);
    auto* const factory = google::protobuf::MessageFactory::generated_factory();
    const std::unique_ptr<google::protobuf::Message> request(
        factory->GetPrototype(method.input_type())->New());
    const auto parsed =
        google::protobuf::util::JsonStringToMessage(ForSide(row.request, "g"), request.get());
    EXPECT_TRUE(parsed.ok()) << row.request << parsed.ToString();
    const grpc::Slice slice(request->SerializeAsString());
    grpc::ByteBuffer bytes(&slice, 1);
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    grpc::CompletionQueue queue;
    const auto stream = stub.PrepareCall(
        &context, absl::StrCat("/", method.service()->full_name(), "/", method.name()), &queue);
    const auto wait = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      queue.Next(&tag, &ok);
      return ok;
    };
    stream->StartCall(nullptr);
    wait();
    stream->WriteLast(bytes, {}, nullptr);
    wait();
    Answer answer;
    const std::unique_ptr<google::protobuf::Message> reply(
        factory->GetPrototype(method.output_type())->New());
    while (true) {
      grpc::ByteBuffer received;
      stream->Read(&received, nullptr);
      if (!wait()) break;
      grpc::Slice whole;
      EXPECT_TRUE(received.DumpToSingleSlice(&whole).ok());
      EXPECT_TRUE(reply->ParseFromArray(whole.begin(), static_cast<int>(whole.size())));
      answer.messages.push_back(json::parse(*MessageToJson(*reply)));
      if (IsEndless(row)) context.TryCancel();
    }
    grpc::Status status;
    stream->Finish(&status, nullptr);
    wait();
    if (IsEndless(row) && !answer.messages.empty()) status = grpc::Status::OK;
    answer.code = HttpCodeOf(status.error_code());
    if (!status.ok()) answer.messages = {json::parse(StatusJson(status))};
    queue.Shutdown();
    while (wait()) continue;
    return answer;
  }

  Answer ByRest(const Row& row) {
    httplib::Request request;
    request.method = row.verb;
    request.path = ForSide(row.target, "r");
    request.body = ForSide(row.body, "r");
    if (!request.body.empty()) request.headers.emplace("Content-Type", "application/json");
    httplib::Response head;
    std::string body;
    request.response_handler = [&](const httplib::Response& response) {
      head.status = response.status;
      head.headers = response.headers;
      return true;
    };
    request.content_receiver = [&](const char* data, size_t size, uint64_t, uint64_t) {
      body.append(data, size);
      return !IsEndless(row) || head.status != 200 || !absl::StrContains(body, "\ndata: ") ||
             !absl::EndsWith(body, "\n\n");
    };
    (void)Http()->send(request);
    Answer answer{head.status, {}};
    const std::string type = head.get_header_value("Content-Type");
    EXPECT_EQ(head.get_header_value("X-Content-Type-Options"), "nosniff");
    if (type == "application/json") {
      answer.messages.push_back(json::parse(body));
      return answer;
    }
    EXPECT_EQ(type, "text/event-stream") << row.target;
    bool ended = false;
    std::istringstream lines(body);
    for (std::string line; std::getline(lines, line);) {
      if (line == "event: end") ended = true;
      if (!absl::StartsWith(line, "data: ")) continue;
      if (ended) {
        EXPECT_EQ(line, "data: {}");
      } else {
        answer.messages.push_back(json::parse(line.substr(6)));
      }
    }
    EXPECT_EQ(ended, !IsEndless(row));
    return answer;
  }

  void Start() {
    StartServer({});
    channel_ = *MakeChannel(absl::StrCat("127.0.0.1:", server_->port()));
    for (const char* side : {"g", "r"}) {
      v1::SynchronizeRequest request;
      request.set_session_id(absl::StrCat("session-", side));
      request.set_worker(absl::StrCat("workers/team:w-", side));
      request.set_protocol_version(kProtocolVersion);
      request.set_sequence(1);
      request.mutable_capabilities()->set_device("cpu");
      request.mutable_capabilities()->set_num_slots(2);
      request.mutable_capabilities()->add_architectures("LlamaForCausalLM");
      v1::SynchronizeResponse response;
      grpc::ClientContext context;
      ASSERT_TRUE(v1::WorkerService::Stub(channel_).Synchronize(&context, request, &response).ok());
    }
  }

  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(SameAnswersTest, OfEveryMethodAndItsErrors) {
  Start();
  for (const Row& row : kRows) {
    SCOPED_TRACE(absl::StrCat(row.verb, " ", row.target));
    ASSERT_NE(MethodOf(row.method), nullptr) << row.method;
    Answer grpc = ByGrpc(row), rest = ByRest(row);
    if (grpc.code == 501) {  // a method of the protos that this server does not have yet
      EXPECT_EQ(rest.code, 501);
      continue;
    }
    EXPECT_EQ(grpc.code, row.code) << json(grpc.messages).dump();
    EXPECT_EQ(rest.code, row.code) << json(rest.messages).dump();
    // The names of the objects of either side.
    const std::string text =
        absl::StrReplaceAll(json(rest.messages).dump(), {{"jobs/r", "jobs/g"},
                                                         {"artifacts/r", "artifacts/g"},
                                                         {"team:w-r@r", "team:w-g@g"},
                                                         {"team:w-r", "team:w-g"},
                                                         {"session-r", "session-g"},
                                                         {"\\\"r1\\\"", "\\\"g1\\\""},
                                                         {"r <", "g <"}});
    json expected(grpc.messages), found = json::parse(text);
    Normalize(&expected);
    Normalize(&found);
    if (std::string(row.method) == "ListWorkers" || std::string(row.method) == "ListJobs" ||
        std::string(row.method) == "WatchJobs") {
      // Both sides' objects are in both lists.
      const std::string same = absl::StrReplaceAll(expected.dump(), {{"jobs/r", "jobs/g"},
                                                                     {"artifacts/r", "artifacts/g"},
                                                                     {"team:w-r@r", "team:w-g@g"},
                                                                     {"team:w-r", "team:w-g"},
                                                                     {"session-r", "session-g"}});
      expected = json::parse(same);
    }
    EXPECT_EQ(found, expected);
  }
}

TEST_F(SameAnswersTest, TheTableIsComplete) {
  std::set<std::string> answered, refused;
  for (const Row& row : kRows) (row.code == 200 ? answered : refused).insert(row.method);
  refused.insert(std::begin(kWithoutErrors), std::end(kWithoutErrors));
  for (const auto* service : HttpDescriptors()) {
    for (int i = 0; i < service->method_count(); ++i) {
      EXPECT_TRUE(answered.contains(service->method(i)->name())) << service->method(i)->name();
      EXPECT_TRUE(refused.contains(service->method(i)->name())) << service->method(i)->name();
    }
  }
}

TEST_F(SameAnswersTest, TheServerSaysWhatCanBeAskedFor) {
  Start();
  const json info = json::parse(Http()->Get("/v1/server")->body);
  const json& capabilities = info["capabilities"];
  EXPECT_EQ(capabilities["architectures"], json({"LlamaForCausalLM"}));
  EXPECT_EQ(capabilities["devices"][0]["device"], "cpu");
  EXPECT_EQ(capabilities["devices"][0]["num_workers"], 2);
  EXPECT_EQ(capabilities["devices"][0]["num_slots"], 4);
  EXPECT_EQ(capabilities["limits"]["max_http_streams"], 50);
  EXPECT_EQ(capabilities["limits"]["max_tasks_per_job"], 20000);
  std::map<std::string, json> settings;
  for (const json& setting : capabilities["settings"]) settings[setting["name"]] = setting;
  EXPECT_EQ(settings["bits"]["minimum"], 2);
  EXPECT_EQ(settings["bits"]["maximum"], 8);
  EXPECT_EQ(settings["group_size"]["default_value"], "0");
  EXPECT_EQ(settings["method"]["choices"][0]["name"], "UNIQUANF");
  // Each choice and default is what the API takes.
  for (const auto& [name, setting] : settings) {
    const auto* field = v1::QuantizationSpec::descriptor()->FindFieldByName(name);
    ASSERT_NE(field, nullptr) << name;
    EXPECT_EQ(field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_ENUM,
              setting["kind"] == "CHOICE")
        << name;
    for (const json& choice : setting.value("choices", json::array())) {
      EXPECT_NE(field->enum_type()->FindValueByName(choice["name"]), nullptr) << choice;
    }
    v1::QuantizationSpec spec;
    EXPECT_TRUE(
        google::protobuf::util::JsonStringToMessage(
            absl::StrCat("{\"", name, "\":", setting["default_value"].get<std::string>(), "}"),
            &spec)
            .ok())
        << name;
  }
}

}  // namespace
}  // namespace uniquanf::server
