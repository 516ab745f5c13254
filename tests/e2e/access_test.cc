// A closed service of real processes (SECURITY T1, T9, T19): who proves nothing gets nothing, and a
// job runs between programs that do, with workers at a port of their own.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/e2e/service_test.h"
#include "tests/support/status_matchers.h"
#include "tests/support/tls_certificates.h"
#include "tests/support/token_signer.h"

namespace uniquanf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Flags = std::vector<std::string>;

class AccessTest : public ServiceTest {
 protected:
  AccessTest()
      : authority_(dir_.path(), "ours"),
        of_workers_(dir_.path(), "workers"),
        signer_("EdDSA", "k"),
        keys_(dir_.File("keys.json")),
        policy_(dir_.File("policy.json")) {
    std::ofstream(keys_) << TokenKeySet({&signer_});
    std::ofstream(policy_) << nlohmann::json{
        {"version", 1},
        {"certificates", {{"trust_domain", "d"}}},
        {"tokens", {{{"issuer", "i"}, {"audience", "a"}, {"keys", keys_}}}},
        {"bindings",
         {{{"principals", {"tenant/*/user/*"}}, {"role", "user"}},
          {{"principals", {"operator/*"}}, {"role", "operator"}},
          {{"principals", {"worker/*"}}, {"role", "worker"}}}},
        {"tenants", {{"*", {{"data", {{"read", {"file:///"}}, {"output", {"file:///"}}}}}}}}};
    server_ = authority_.Issue("server");
    ClientOptions client;
    client.tls_ca_file = authority_.certificate_file();
    client.tls_server_name = "localhost";
    client.token_file = TokenFile("alice", "research");
    cluster_.set_client_options(client);
  }

  std::string TokenFile(const std::string& name, const std::string& tenant) {
    const std::string path = dir_.File(name + ".token");
    std::ofstream(path) << signer_.Sign(
                               {{"iss", "i"},
                                {"aud", "a"},
                                {"sub", name},
                                {"tenant", tenant},
                                {"exp", absl::ToUnixSeconds(absl::Now() + absl::Hours(1))}})
                        << "\n";
    return path;
  }
  Flags ServerFlags() const {
    return {"--tls-cert=" + server_.certificate, "--tls-key=" + server_.key,
            "--tls-ca=" + authority_.certificate_file(), "--policy=" + policy_};
  }
  Flags CallerFlags(const TlsFiles& files) const {
    return {"--tls-ca=" + authority_.certificate_file(), "--tls-server-name=localhost",
            "--tls-cert=" + files.certificate, "--tls-key=" + files.key};
  }
  CommandResult List(Flags flags) {
    flags.insert(flags.begin(), {"list", "--timeout=3s", "--server=" + cluster_.address(0)});
    return cluster_.Run("uniquanf", flags);
  }

  TempDir dir_;
  TlsAuthority authority_, of_workers_;
  TokenSigner signer_;
  const std::string keys_, policy_;
  TlsFiles server_;
};

TEST_F(AccessTest, AJobRunsBetweenProgramsThatSayWhoTheyAre) {
  Flags flags = ServerFlags();
  flags.push_back("--worker-listen=127.0.0.1:0");
  flags.push_back("--worker-tls-ca=" + of_workers_.certificate_file());
  ASSERT_TRUE(cluster_.StartServer({.flags = flags}));
  // Where workers are served, and nobody else.
  const std::string log = cluster_.server()->Log();
  const size_t line = log.find("listening for workers");
  ASSERT_NE(line, std::string::npos) << log;
  int port = 0;
  const size_t at = log.find("port=", line) + 5;
  ASSERT_TRUE(
      absl::SimpleAtoi(log.substr(at, log.find_first_not_of("0123456789", at) - at), &port));
  const std::string for_workers = absl::StrCat("127.0.0.1:", port);
  const TlsFiles w1 = of_workers_.IssueFor("w1", "spiffe://d/worker/w1");
  cluster_.StartWorker("w1", {.flags = CallerFlags(w1), .server = for_workers});
  ASSERT_TRUE(cluster_.WaitUntilReady("w1"));
  QuantizationSpec spec = Spec("out");
  const std::string job = Submit(spec);
  ExpectReferenceArtifact(job, spec);
  EXPECT_EQ(cluster_.client().GetJob(job)->tenant, "research");

  // The other authority's certificates open the other port, and neither opens what is not its own.
  const TlsFiles ops = authority_.IssueFor("ops", "spiffe://d/operator/o");
  const CommandResult listed = List(CallerFlags(ops));
  EXPECT_EQ(listed.status, (ExitStatus{0, 0})) << listed.output;
  EXPECT_THAT(listed.output, HasSubstr("tenants/research/jobs/"));
  EXPECT_NE(List(CallerFlags(w1)).status, (ExitStatus{0, 0}));
  const TlsFiles impostor = authority_.IssueFor("w2", "spiffe://d/worker/w2");
  cluster_.StartWorker("w2", {.flags = CallerFlags(impostor)});  // at the port of users
  EXPECT_EQ(cluster_.worker("w2")->WaitForExit(absl::Seconds(20)), (ExitStatus{5, 0}));

  const Flags ca = {"--tls-ca=" + authority_.certificate_file(), "--tls-server-name=localhost"};
  const CommandResult nobody = List(ca);
  EXPECT_EQ(nobody.status, (ExitStatus{5, 0})) << nobody.output;
  EXPECT_THAT(nobody.output, AllOf(HasSubstr("NO_IDENTITY"), HasSubstr("--token-file")));
  const CommandResult other = List({ca[0], ca[1], "--token-file=" + TokenFile("m", "other")});
  EXPECT_EQ(other.status, (ExitStatus{0, 0})) << other.output;
  EXPECT_THAT(other.output, ::testing::Not(HasSubstr(job.substr(5))));
}

// T19: one of a version, or of an installation, that knows of no credentials.
TEST_F(AccessTest, T19_AWorkerWithoutCredentialsIsToldSoAndEndsWithFive) {
  ASSERT_TRUE(cluster_.StartServer({.flags = ServerFlags()}));
  cluster_.StartWorker(
      "w", {.flags = {"--tls-ca=" + authority_.certificate_file(), "--tls-server-name=localhost"}});
  EXPECT_EQ(cluster_.worker("w")->WaitForExit(absl::Seconds(20)), (ExitStatus{5, 0}));
  EXPECT_THAT(cluster_.worker("w")->Log(),
              AllOf(HasSubstr("NO_IDENTITY"), HasSubstr("--tls-cert")));
}

TEST_F(AccessTest, T9_NothingListensBeyondThisMachineWithoutBeingClosed) {
  const std::string data = "--data-dir=" + dir_.File("data");
  const auto start = [&](Flags flags) {
    flags.push_back(data);
    return cluster_.Run("uniquanf-server", flags, absl::Seconds(20));
  };
  const Flags tls = {"--tls-cert=" + server_.certificate, "--tls-key=" + server_.key};
  const Flags with_policy = {"--listen=0.0.0.0:0", "--policy=" + policy_};
  for (const Flags& flags :
       std::vector<Flags>{{"--listen=0.0.0.0:0"},
                          {"--listen=:0"},
                          {"--listen=[::]:0"},
                          {"--listen=0.0.0.0:0", tls[0], tls[1]},
                          with_policy,
                          {"--listen=127.0.0.1:0", "--worker-listen=0.0.0.0:0"}}) {
    const CommandResult result = start(flags);
    EXPECT_EQ(result.status, (ExitStatus{2, 0})) << flags[0] << ": " << result.output;
    EXPECT_THAT(result.output, HasSubstr("--insecure-allow-anonymous"));
    EXPECT_FALSE(std::filesystem::exists(dir_.File("data"))) << "nothing was begun";
  }
  const CommandResult no_policy = start({"--policy=" + dir_.File("none.json")});
  EXPECT_EQ(no_policy.status, (ExitStatus{2, 0})) << no_policy.output;
  EXPECT_THAT(no_policy.output, HasSubstr("none.json"));
  ASSERT_TRUE(cluster_.StartServer({}));  // on loopback it is as it was
  EXPECT_EQ(List({}).status, (ExitStatus{0, 0}));
}

TEST_F(AccessTest, CheckPolicyExplains) {
  const auto check = [&](const Flags& arguments) {
    Flags flags = {"--check-policy", policy_};
    flags.insert(flags.end(), arguments.begin(), arguments.end());
    return cluster_.Run("uniquanf-server", flags);
  };
  const CommandResult yes = check({"tenant/a/user/u", "CancelJob", "tenants/a/jobs/j"});
  EXPECT_EQ(yes.status, (ExitStatus{0, 0}));
  EXPECT_THAT(yes.output, HasSubstr("bindings[0]"));
  EXPECT_EQ(check({"tenant/a/user/u", "CancelJob", "tenants/b/jobs/j"}).status, (ExitStatus{1, 0}));
  EXPECT_EQ(check({"tenant/a/user/u", "Cancel", "tenants/b"}).status, (ExitStatus{2, 0}));
  EXPECT_EQ(check({}).status, (ExitStatus{2, 0}));
}

}  // namespace
}  // namespace uniquanf
