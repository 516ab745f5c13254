// The HTTP address: streams of events and their bounds, requests that nobody should send, who may
// call, and what a browser is told.
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "common/base/version.h"
#include "server/http/openapi.h"
#include "server/http/percent_encoding.h"
#include "server/http/request_message.h"
#include "server/http/route_table.h"
#include "server/http/static_page.h"
#include "server/service/services.h"
#include "tests/support/socket_util.h"
#include "tests/support/tls_certificates.h"
#include "tests/support/token_signer.h"
#include "tests/unit/server/http_support.h"

namespace uniquanf::server {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::string ReasonOf(const std::string& body) {
  const json page = json::parse(body, nullptr, false);
  if (!page.is_object() || !page.contains("details")) return "no details: " + body;
  return page["details"][0].value("reason", "");
}

TEST(PathTemplateTest, TakesWhatGoogleApiHttpWrites) {
  const auto job = PathTemplate::Parse("/v1/{name=tenants/*/jobs/*}:cancel");
  ASSERT_THAT(job, IsOk());
  const auto match = job->Match("/v1/tenants/a/jobs/b%20c:cancel");
  ASSERT_TRUE(match.has_value());
  EXPECT_EQ(match->at("name"), "tenants/a/jobs/b c");
  for (const char* other : {"/v1/tenants/a/jobs/b", "/v1/tenants/a/jobs/:cancel",
                            "/v1/tenants/a/jobs/b:cancel/x", "/v1/tenants/a/b/jobs/c:cancel",
                            "/v1/tenants/a%2Fb/jobs/c:cancel", "/v1/tenants//jobs/c:cancel",
                            "/v1/tenants/a/jobs/c%:cancel", "/v1/tenants/a/jobs/%00:cancel",
                            "/v1/tenants/a/jobs/%ff:cancel", "v1/tenants/a/jobs/b:cancel", ""}) {
    EXPECT_FALSE(job->Match(other).has_value()) << other;
  }
  const auto rest = PathTemplate::Parse("/v1/{name=files/**}");
  ASSERT_THAT(rest, IsOk());
  EXPECT_EQ(rest->Match("/v1/files/a/b")->at("name"), "files/a/b");
  // A worker's name may hold a colon: the last one begins the verb.
  EXPECT_EQ(
      PathTemplate::Parse("/v1/{name=workers/*}:drain")->Match("/v1/workers/a:b:drain")->at("name"),
      "workers/a:b");
  for (const char* wrong : {"", "v1", "/v1/{name", "/v1/{=x}", "/v1//x", "/v1/**/x", "/v1/x:"}) {
    EXPECT_THAT(PathTemplate::Parse(wrong),
                FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_HTTP_RULE"))
        << wrong;
  }
}

TEST(StaticPageTest, FilesAreServedWithTagsAndTheirTypes) {
  const std::vector<PageFile> files = {{"/assets/x-1.js", "let a;"}, {"/index.html", "<p>"}};
  const StaticPage page(files);
  httplib::Request request;
  httplib::Response response;
  ASSERT_TRUE(page.Serve("/jobs/x", request, &response));
  EXPECT_EQ(response.body, "<p>");
  EXPECT_EQ(response.get_header_value("Cache-Control"), "no-cache");
  EXPECT_EQ(response.get_header_value("Content-Type"), "text/html; charset=utf-8");
  request.set_header("If-None-Match", "W/\"x\", " + response.get_header_value("ETag"));
  httplib::Response again;
  ASSERT_TRUE(page.Serve("/", request, &again));
  EXPECT_EQ(again.status, 304);
  EXPECT_EQ(again.body, "");
  httplib::Response script;
  ASSERT_TRUE(page.Serve("/assets/x-1.js", {}, &script));
  EXPECT_THAT(script.get_header_value("Cache-Control"), HasSubstr("immutable"));
  EXPECT_FALSE(page.Serve("/assets/none.js", {}, &script));
}

TEST(OpenApiTest, TheCommittedDocumentIsTheProtos) {
  const auto routes = RouteTable::Make(HttpDescriptors());
  ASSERT_THAT(routes, IsOk());
  const std::string document = OpenApiDocument(*routes, kSoftwareVersion);
  std::ifstream file(UNIQUANF_SOURCE_DIR "/docs/openapi.json");
  const std::string committed((std::istreambuf_iterator<char>(file)), {});
  const std::string made = ::testing::TempDir() + "/openapi.json";
  std::ofstream(made) << document;
  EXPECT_TRUE(committed == document)
      << "docs/openapi.json is not what the protos say; take " << made;
}

class HttpCallsTest : public HttpTest {
 protected:
  void SetUp() override {
    ServerProcessOptions options;
    options.http_max_streams = 2;
    StartServer(std::move(options));
    address_ = absl::StrCat("127.0.0.1:", server_->http_port());
    ASSERT_EQ(Post("/v1/jobs?job_id=j&unchecked=true", json{{"spec", SpecJson()}}.dump()).first,
              200);
  }
  std::pair<int, std::string> Post(const std::string& path, const std::string& body) {
    const httplib::Result result = Http()->Post(path, body, "application/json");
    if (!result) return {0, ""};
    return {result->status, result->body};
  }
  std::string Raw(const std::string& head, const std::string& body = "") {
    return Exchange(address_, head + "\r\n\r\n" + body, 15);
  }

  // A client that went away is noticed within a second.
  void WaitForNoStream() {
    while (server_->num_http_streams() > 0) absl::SleepFor(absl::Milliseconds(5));
  }

  // Reads events until `enough` says so or the stream ends.
  static std::string Events(httplib::Client* client, const std::string& path,
                            const httplib::Headers& headers,
                            const std::function<bool(const std::string&)>& enough) {
    std::string all;
    client->Get(path, headers, [&](const char* data, size_t size) {
      all.append(data, size);
      return !enough(all);
    });
    return all;
  }

  std::string address_;
};

TEST_F(HttpCallsTest, AStreamIsTakenUpWhereItWas) {
  const auto first = Http();
  const std::string events =
      Events(first.get(), "/v1/jobs/j:watch", {},
             [](const std::string& all) { return absl::StrContains(all, "\ndata: "); });
  const size_t at = events.find("id: ");
  ASSERT_NE(at, std::string::npos) << events;
  const std::string id = events.substr(at + 4, events.find('\n', at) - at - 4);
  ASSERT_EQ(Post("/v1/jobs/j:pause", "").first, 200);
  WaitForNoStream();
  const auto second = Http();
  const std::string more =
      Events(second.get(), "/v1/jobs/j:watch", {{"Last-Event-ID", id}},
             [](const std::string& all) { return absl::StrContains(all, "PAUSED"); });
  EXPECT_THAT(more, HasSubstr("\"state\":\"PAUSED\""));
  EXPECT_EQ(more.find("\"state\":\"QUEUED\""), std::string::npos);
  ASSERT_EQ(Post("/v1/jobs/j:cancel", "").first, 200);
  WaitForNoStream();
  const auto third = Http();
  const std::string last =
      Events(third.get(), "/v1/jobs/j:watch", {}, [](const std::string&) { return false; });
  EXPECT_THAT(last, HasSubstr("CANCELLED"));
  EXPECT_THAT(last, HasSubstr("event: end\ndata: {}\n\n"));
  // Nothing follows what a browser has seen: it stops asking.
  const size_t end = last.find("id: ");
  const auto done =
      Http()->Get("/v1/jobs/j:watch",
                  {{"Last-Event-ID", last.substr(end + 4, last.find('\n', end) - end - 4)}});
  EXPECT_EQ(done->status, 204);
  EXPECT_EQ(Http()->Get("/v1/jobs/j:watch", {{"Last-Event-ID", "x"}})->status, 400);
}

TEST_F(HttpCallsTest, StreamsAreBoundedAndTheServerStaysHealthy) {
  std::vector<std::unique_ptr<httplib::Client>> clients;
  std::vector<std::thread> threads;
  std::atomic<int> open{0};
  std::atomic<bool> stop{false};
  for (int i = 0; i < 2; ++i) {
    clients.push_back(Http());
    threads.emplace_back([&, client = clients.back().get()] {
      bool counted = false;
      Events(client, "/v1/jobs/j:watch", {}, [&](const std::string& all) {
        if (!counted && absl::StrContains(all, "\ndata: ")) {
          counted = true;
          ++open;
        }
        return stop.load();
      });
    });
  }
  while (open < 2) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(server_->num_http_streams(), 2);
  const httplib::Result third = Http()->Get("/v1/jobs/j:watch");
  EXPECT_EQ(third->status, 503);
  EXPECT_EQ(third->get_header_value("Retry-After"), "10");
  EXPECT_EQ(ReasonOf(third->body), "TOO_MANY_STREAMS");
  EXPECT_EQ(Http()->Get("/v1/jobs/j")->status, 200);  // who polls instead is served
  for (const auto& client : clients) client->stop();
  for (std::thread& thread : threads) thread.join();
  // Whoever goes away makes room.
  WaitForNoStream();
  // A server that ends says so.
  std::thread ending;
  const auto client = Http();
  const std::string events =
      Events(client.get(), "/v1/jobs/j:watch", {}, [&](const std::string& all) {
        if (!ending.joinable() && absl::StrContains(all, "\ndata: ")) {
          ending = std::thread([this] { server_->Shutdown(); });
        }
        return false;
      });
  ending.join();
  EXPECT_THAT(events, HasSubstr("event: end\ndata: {\"code\":14"));
  EXPECT_THAT(events, HasSubstr("SHUTTING_DOWN"));
}

TEST_F(HttpCallsTest, WrongRequestsAreRefusedWithWhatIsWrong) {
  struct Wrong {
    std::string head, body;
    int code;
    const char* reason;
  };
  const std::string host = "\r\nHost: localhost";
  const std::string as_json = host + "\r\nContent-Type: application/json";
  const auto post = [&](const std::string& body) {
    return Wrong{"POST /v1/jobs HTTP/1.1" + as_json +
                     "\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()),
                 body, 400, "INVALID_REQUEST"};
  };
  const std::string close = "\r\nConnection: close";
  const std::vector<Wrong> wrongs = {
      {"GET /v1/jobs/%zz HTTP/1.1" + host + close, "", 400, "INVALID_REQUEST"},
      {"GET /v1/jobs/%ff HTTP/1.1" + host + close, "", 400, "INVALID_REQUEST"},
      {"GET /v1/jobs?filter=%0 HTTP/1.1" + host + close, "", 400, "INVALID_REQUEST"},
      {"GET /v1/jobs?nope=1 HTTP/1.1" + host + close, "", 400, "INVALID_REQUEST"},
      {"GET /v1/jobs?page_size=1&pageSize=2 HTTP/1.1" + host + close, "", 400, "INVALID_REQUEST"},
      {"GET /v1/jobs/a/../b HTTP/1.1" + host + close, "", 404, "NO_SUCH_PATH"},
      {"GET /v1/nothing HTTP/1.1" + host + close, "", 404, "NO_SUCH_PATH"},
      {"GET /../etc/passwd.txt HTTP/1.1" + host + close, "", 404, "NO_SUCH_PATH"},
      {"PUT /v1/jobs HTTP/1.1" + host + close, "", 405, "METHOD_NOT_ALLOWED"},
      {"OPTIONS /v1/jobs HTTP/1.1" + host + close, "", 405, "METHOD_NOT_ALLOWED"},
      {"POST / HTTP/1.1" + host + close, "", 405, "METHOD_NOT_ALLOWED"},
      {"POST /v1/jobs HTTP/1.1" + host + "\r\nTransfer-Encoding: chunked", "", 411,
       "LENGTH_REQUIRED"},
      {"POST /v1/jobs HTTP/1.1" + host + "\r\nContent-Length: 1\r\nContent-Length: 2", "", 400,
       "INVALID_REQUEST"},
      {"POST /v1/jobs HTTP/1.1" + host + "\r\nContent-Length: -1", "", 400, "INVALID_REQUEST"},
      {"POST /v1/jobs HTTP/1.1" + host + "\r\nContent-Length: 1048577", "", 413,
       "REQUEST_TOO_LARGE"},
      {"POST /v1/jobs HTTP/1.1" + host + close + "\r\nContent-Length: 2", "{}", 415,
       "UNSUPPORTED_MEDIA_TYPE"},
      {"GET /v1/jobs HTTP/1.1" + as_json + close + "\r\nContent-Length: 2", "{}", 400,
       "INVALID_REQUEST"},
      {"GET /v1/jobs HTTP/1.1" + host + close + "\r\nAuthorization: Bearer \x80", "", 401,
       "INVALID_TOKEN"},
      {"GET /v1/jobs HTTP/1.1\r\nHost: evil.example" + close, "", 421, "UNKNOWN_HOST"},
      {"GET /v1/jobs HTTP/1.1" + host + host + close, "", 421, "UNKNOWN_HOST"},
      {"POST /v1/jobs/j:cancel HTTP/1.1" + host + close + "\r\nOrigin: http://evil.example", "",
       403, "CROSS_ORIGIN"},
      {"POST /v1/jobs/j:cancel HTTP/1.1" + host + close + "\r\nOrigin: null", "", 403,
       "CROSS_ORIGIN"},
      {"POST /v1/jobs/j:cancel HTTP/1.1" + host + close + "\r\nSec-Fetch-Site: cross-site", "", 403,
       "CROSS_ORIGIN"},
      post("{"),
      post("[]"),
      post("{'spec':{}}"),
      post(R"({"spec":{},"spec":{}})"),
      post(R"({"spec":{"bits":"many"}})"),
      post(R"({"spec":{"bitz":1,"overrides":[{"nope":1}]},"<b>":2})"),
      post(std::string(100, '[')),
      post("{\"labels\":{\"a\":\"\xff\"}}"),
  };
  for (const Wrong& wrong : wrongs) {
    const std::string answer = Raw(wrong.head, wrong.body);
    EXPECT_TRUE(absl::StartsWith(answer, absl::StrCat("HTTP/1.1 ", wrong.code, " ")))
        << wrong.head << wrong.body << "\n"
        << answer;
    const size_t body = answer.find("\r\n\r\n");
    ASSERT_NE(body, std::string::npos) << wrong.head;
    EXPECT_EQ(ReasonOf(answer.substr(body + 4)), wrong.reason) << wrong.head << wrong.body;
    EXPECT_THAT(answer, HasSubstr("application/json")) << wrong.head;
  }
  // All that is unknown is named, at once, and only in JSON.
  const auto [code, text] =
      Post("/v1/jobs", R"({"spec":{"bitz":1,"overrides":[{"nope":1}]},"<b>":2})");
  const json violations = json::parse(text)["details"][1]["field_violations"];
  EXPECT_EQ(violations.size(), 3u);
  EXPECT_THAT(text, HasSubstr("job.spec.bitz"));
  EXPECT_THAT(text, HasSubstr("job.spec.overrides[0].nope"));
  // Heads that are too large get an answer or none, and cost nothing.
  for (const std::string& head :
       {"GET /" + std::string(40000, 'x') + " HTTP/1.1" + host,
        "GET / HTTP/1.1" + host + "\r\nX: " + std::string(40000, 'x'),
        std::string("GET / HTTP/1.1\r\n") + std::string(40000, '\n'), std::string(40000, 'x')}) {
    const std::string answer = Raw(head);
    EXPECT_TRUE(answer.empty() || absl::StartsWith(answer, "HTTP/1.1 4")) << answer.substr(0, 300);
  }
  EXPECT_EQ(Http()->Get("/v1/jobs/j")->status, 200);
}

TEST_F(HttpCallsTest, SilentAndHalfRequestsKeepNobodyOut) {
  std::vector<int> silent;
  for (int i = 0; i < 300; ++i) {
    const int fd = ConnectTo(address_);
    if (fd < 0) continue;
    silent.push_back(fd);
    const std::string half = i % 3 == 0   ? ""
                             : i % 3 == 1 ? "GET /v1/jo"
                                          : "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n"
                                            "Content-Length: 100\r\n\r\n{";
    (void)send(fd, half.data(), half.size(), MSG_NOSIGNAL);
  }
  const absl::Time before = absl::Now();
  const httplib::Result result = Http()->Get("/v1/jobs/j");
  ASSERT_TRUE(result);
  EXPECT_EQ(result->status, 200);
  EXPECT_LT(absl::Now() - before, absl::Seconds(5));
  for (const int fd : silent) close(fd);
}

TEST_F(HttpCallsTest, ConnectionsAreUsedAgain) {
  const auto client = Http();
  client->set_keep_alive(true);
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(client->Get("/v1/jobs/j")->status, 200);
    ASSERT_EQ(client->Post("/v1/jobs/j:pause")->status, i == 0 ? 200 : 200);
  }
  EXPECT_LE(server_->http_connections().num_accepted, 3);
  // HEAD has no body, and says how long it would be.
  const httplib::Result head = client->Head("/openapi.json");
  EXPECT_EQ(head->status, 200);
  EXPECT_GT(head->get_header_value<uint64_t>("Content-Length"), 1000u);
}

TEST_F(HttpCallsTest, ABrowserIsToldToLoadNothingFromElsewhere) {
  for (const char* path : {"/openapi.json", "/v1/jobs", "/v1/none", "/"}) {
    const httplib::Result result = Http()->Get(path);
    EXPECT_THAT(result->get_header_value("Content-Security-Policy"),
                HasSubstr("default-src 'self'"))
        << path;
    EXPECT_EQ(result->get_header_value("X-Content-Type-Options"), "nosniff") << path;
    EXPECT_FALSE(result->has_header("Access-Control-Allow-Origin")) << path;
  }
}

// Through TLS, with identities by certificate and by token.
class HttpAccessTest : public HttpTest {
 protected:
  HttpAccessTest() : authority_(dir_.path(), "ours"), signer_("ES256", "k") {}
  void SetUp() override {
    std::ofstream(dir_.File("keys.json")) << TokenKeySet({&signer_});
    WritePolicy("user");
    AccessOptions access;
    access.policy_file = dir_.File("policy.json");
    access.period = absl::Milliseconds(20);
    access_ = *AccessControl::Start(std::move(access), &SystemClock());
    audit_ = *AuditLog::Open(dir_.File("audit.log"), nullptr);
    ServerProcessOptions options;
    const TlsFiles files = authority_.Issue("server");
    options.tls = {files.certificate, files.key, authority_.certificate_file(),
                   /*client_certificate_optional=*/true};
    options.access = access_.get();
    options.audit = audit_.get();
    StartServer(std::move(options));
    while (Https()->Get("/v1/jobs/none", Bearer("alice"))->status == 503) {
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
  void TearDown() override { server_.reset(); }
  void WritePolicy(const std::string& role) {
    const json data = {{"read", {"file:///models", "file:///data"}}};
    std::ofstream(dir_.File("policy.new")) << json{
        {"version", 1},
        {"certificates", {{"trust_domain", "d"}}},
        {"tokens", {{{"issuer", "i"}, {"audience", "a"}, {"keys", dir_.File("keys.json")}}}},
        {"bindings",
         {{{"principals", {role == "none" ? "operator/nobody" : "tenant/a/user/*"}},
           {"role", role == "none" ? "operator" : role}},
          {{"principals", {"tenant/m/user/*"}}, {"role", "user"}},
          {{"principals", {"operator/o"}}, {"role", "operator"}}}},
        {"tenants", {{"*", {{"data", data}}}}}};
    std::rename(dir_.File("policy.new").c_str(), dir_.File("policy.json").c_str());
  }
  std::unique_ptr<httplib::Client> Https(const TlsFiles& files = {}) {
    const std::string url = absl::StrCat("https://localhost:", server_->http_port());
    auto client = files.key.empty()
                      ? std::make_unique<httplib::Client>(url)
                      : std::make_unique<httplib::Client>(url, files.certificate, files.key);
    client->set_ca_cert_path(authority_.certificate_file());
    client->set_read_timeout(20);
    return client;
  }
  httplib::Headers Bearer(const std::string& name, const std::string& tenant = "a",
                          absl::Duration life = absl::Hours(1)) {
    return {{"Authorization",
             "Bearer " + signer_.Sign({{"iss", "i"},
                                       {"aud", "a"},
                                       {"sub", name},
                                       {"tenant", tenant},
                                       {"exp", absl::ToUnixSeconds(absl::Now() + life)}})}};
  }
  void Create(const std::string& id) {
    const httplib::Result made =
        Https()->Post("/v1/jobs?unchecked=true&job_id=" + id, Bearer("alice"),
                      json{{"spec", SpecJson()}}.dump(), "application/json");
    ASSERT_TRUE(made) << httplib::to_string(made.error());
    ASSERT_EQ(made->status, 200) << made->body;
  }

  const TlsAuthority authority_;
  const TokenSigner signer_;
  std::unique_ptr<AccessControl> access_;
  std::unique_ptr<AuditLog> audit_;
};

TEST_F(HttpAccessTest, WhoCallsIsAskedAsOnGrpc) {
  Create("j");
  EXPECT_EQ(Https()->Get("/v1/jobs/j", Bearer("alice"))->status, 200);
  const httplib::Result nobody = Https()->Get("/v1/jobs/j");
  EXPECT_EQ(nobody->status, 401);
  EXPECT_EQ(ReasonOf(nobody->body), "NO_IDENTITY");
  EXPECT_EQ(nobody->get_header_value("WWW-Authenticate"), "Bearer");
  // Foreign is as absent.
  const httplib::Result foreign = Https()->Get("/v1/jobs/j", Bearer("mallory", "m"));
  const httplib::Result absent = Https()->Get("/v1/jobs/x", Bearer("mallory", "m"));
  EXPECT_EQ(foreign->status, 404);
  EXPECT_EQ(absl::StrReplaceAll(foreign->body, {{"jobs/j", "jobs/x"}}), absent->body);
  EXPECT_EQ(Https()->Get("/v1/jobs/j:watch", Bearer("mallory", "m"))->status, 404);
  EXPECT_EQ(Https()->Get("/v1/workers", Bearer("alice"))->status, 403);
  // By certificate.
  const TlsFiles operator_files = authority_.IssueFor("o", "spiffe://d/operator/o");
  EXPECT_EQ(Https(operator_files)->Get("/v1/workers")->status, 200);
  EXPECT_EQ(Https(operator_files)->Get("/v1/tenants/a/jobs/j")->status, 200);
  const TlsFiles alice = authority_.IssueFor("alice", "spiffe://d/tenant/a/user/alice");
  EXPECT_EQ(Https(alice)->Post("/v1/jobs/j:cancel")->status, 200);
  // Strangers do not come so far.
  const TlsAuthority other(dir_.path(), "other");
  EXPECT_FALSE(Https(other.IssueFor("x", "spiffe://d/operator/o"))->Get("/v1/workers"));
  EXPECT_FALSE(Http()->Get("/v1/jobs"));
  // And leave the same trace.
  audit_->Flush();
  std::ifstream file(dir_.File("audit.log"));
  std::vector<json> lines;
  for (std::string text; std::getline(file, text);) lines.push_back(json::parse(text));
  bool found = false;
  for (const json& line : lines) {
    if (line.value("method", "") == "Start") continue;  // the server's own
    EXPECT_THAT(line.value("peer", ""), HasSubstr("ipv4:127.0.0.1:")) << line;
    if (line.value("method", "") != "JobService/CancelJob") continue;
    found = true;
    EXPECT_EQ(line.value("principal", ""), "tenant/a/user/alice");
    EXPECT_EQ(line.value("authenticator", ""), "mtls");
    EXPECT_EQ(line.value("tenant", ""), "a");
  }
  EXPECT_TRUE(found);
}

TEST_F(HttpAccessTest, NobodyCanSayThatHisCallIsRelayed) {
  Create("j");
  ChannelOptions options;
  options.tls.ca_file = authority_.certificate_file();
  const auto channel = *MakeChannel(absl::StrCat("localhost:", server_->port()), options);
  for (const std::string& id : {std::string("relayed-1"), std::string(), std::string(30, 'a')}) {
    grpc::ClientContext context;
    context.AddMetadata(RelayedCallers::kMetadataKey, id);
    v1::GetJobRequest request;
    request.set_name("jobs/j");
    v1::Job job;
    EXPECT_EQ(v1::JobService::Stub(channel).GetJob(&context, request, &job).error_code(),
              grpc::StatusCode::UNAUTHENTICATED);
  }
  httplib::Headers headers = {{RelayedCallers::kMetadataKey, "relayed-1"}};
  EXPECT_EQ(Https()->Get("/v1/jobs/j", headers)->status, 401);
}

TEST_F(HttpAccessTest, AStreamEndsWithTheRightAndWithTheToken) {
  Create("j");
  bool changed = false;
  std::string all;
  const auto client = Https();
  client->Get("/v1/jobs/j:watch", Bearer("alice"), [&](const char* data, size_t size) {
    all.append(data, size);
    if (!changed && absl::StrContains(all, "\ndata: ")) {
      changed = true;
      WritePolicy("none");
    }
    return true;
  });
  EXPECT_TRUE(changed);
  EXPECT_THAT(all, HasSubstr("event: end\ndata: {\"code\":5")) << all;
}

}  // namespace
}  // namespace uniquanf::server
