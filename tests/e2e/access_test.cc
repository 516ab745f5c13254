// A closed service of real processes (SECURITY T1, T9, T19): who proves nothing gets nothing, and a
// job runs between programs that do, with workers at a port of their own.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/artifact/signature.h"
#include "common/base/digest.h"
#include "common/base/signing_key.h"
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

// What the policy lends is what is opened: the text of a URI passes, the link behind it does not.
TEST_F(AccessTest, T3_AWorkerFollowsNoLinkOutOfItsTenantsPlace) {
  const std::string lent = dir_.File("research");
  std::filesystem::create_directories(lent);
  std::filesystem::create_directory_symlink(Spec("out").model_uri.substr(7), lent + "/model");
  std::filesystem::copy(Spec("out").calibration_uri.substr(7), lent + "/tokens.safetensors");
  nlohmann::json policy = nlohmann::json::parse(std::ifstream(policy_));
  policy["tenants"]["*"]["data"] = {{"read", {"file://" + lent}}, {"output", {"file://" + lent}}};
  std::ofstream(policy_) << policy;
  ASSERT_TRUE(cluster_.StartServer({.flags = ServerFlags()}));
  cluster_.StartWorker("w",
                       {.flags = CallerFlags(authority_.IssueFor("w", "spiffe://d/worker/w"))});
  ASSERT_TRUE(cluster_.WaitUntilReady("w"));
  QuantizationSpec spec = Spec("out");
  spec.model_uri = "file://" + lent + "/model";
  spec.calibration_uri = "file://" + lent + "/tokens.safetensors";
  spec.output_uri = "file://" + lent + "/out";
  const auto refused = cluster_.WaitForJob(Submit(spec), absl::Minutes(2));
  ASSERT_THAT(refused, IsOk());
  EXPECT_EQ(refused->state, JobState::kFailed);
  ASSERT_TRUE(refused->error.has_value());
  EXPECT_EQ(refused->error->reason, "DATA_NOT_ALLOWED");
  EXPECT_FALSE(std::filesystem::exists(lent + "/out"));
  // The same model, there.
  std::filesystem::remove(lent + "/model");
  std::filesystem::copy(Spec("out").model_uri.substr(7), lent + "/model");
  ExpectReferenceArtifact(Submit(spec), spec);
}

// R19: the artifact's bytes are as if nobody had signed, and who made it shows beside them.
std::string PublicPem(const SigningKey& key) {
  // The SubjectPublicKeyInfo of RFC 8410: a fixed beginning, then the key.
  std::string der = absl::HexStringToBytes("302a300506032b6570032100"), raw;
  EXPECT_TRUE(absl::Base64Unescape(key.verifying_key().Base64(), &raw));
  return absl::StrCat("-----BEGIN PUBLIC KEY-----\n", absl::Base64Escape(der + raw),
                      "\n-----END PUBLIC KEY-----\n");
}

TEST_F(AccessTest, AnArtifactIsSignedByItsWorkerAndVerified) {
  const SigningKey key = SigningKey::Generate(), other = SigningKey::Generate();
  const auto write_pem = [&](const std::string& name, const std::string& text) {
    const std::string path = dir_.File(name);
    std::ofstream(path) << text;
    std::filesystem::permissions(
        path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    return path;
  };
  nlohmann::json policy = nlohmann::json::parse(std::ifstream(policy_));
  policy["workers"]["w"]["signing_keys"] = {key.verifying_key().Base64()};
  std::ofstream(policy_) << policy;
  ASSERT_TRUE(cluster_.StartServer({.flags = ServerFlags()}));
  Flags flags = CallerFlags(authority_.IssueFor("w", "spiffe://d/worker/w"));
  flags.push_back("--signing-key=" + write_pem("key.pem", key.Pem()));
  cluster_.StartWorker("w", {.flags = flags});
  ASSERT_TRUE(cluster_.WaitUntilReady("w"));
  const QuantizationSpec spec = Spec("out");
  const auto job = cluster_.WaitForJob(Submit(spec), absl::Minutes(2));
  ASSERT_THAT(job, IsOk());
  ASSERT_EQ(job->state, JobState::kSucceeded);
  const std::string directory = spec.output_uri.substr(7);
  std::ifstream file(directory + "/manifest.json", std::ios::binary);
  const std::string manifest(std::istreambuf_iterator<char>(file), {});
  EXPECT_EQ(Sha256Hex(manifest), Sha256Hex(Reference().at("manifest.json")));
  EXPECT_TRUE(std::filesystem::exists(directory + "/" + SignatureKey(Sha256Hex(manifest))));
  const auto verify = [&](const SigningKey& trusted) {
    return cluster_.Run(
        "uniquanf-batch",
        {"verify", directory, "--trust=" + write_pem("trusted.pem", PublicPem(trusted))});
  };
  const CommandResult good = verify(key);
  EXPECT_EQ(good.status, (ExitStatus{0, 0})) << good.output;
  EXPECT_THAT(good.output, HasSubstr("signed by worker/w"));
  const CommandResult bad = verify(other);
  EXPECT_NE(bad.status, (ExitStatus{0, 0}));
  EXPECT_THAT(bad.output, HasSubstr("not among the trusted ones"));
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
